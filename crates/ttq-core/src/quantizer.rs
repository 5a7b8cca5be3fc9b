//! The quantizer: threshold, codes, scales, the forward function and its gradients.

use std::marker::PhantomData;

use burn::prelude::*;
use serde::{Deserialize, Serialize};

#[cfg(feature = "cubecl")]
use crate::device;
use crate::scales::Sides;
use crate::{ConfigError, Granularity, InitialScales, ScaleRule, Threshold};

/// Gradient of the latent weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LatentGradient {
    /// `∂L/∂w = g · (W_p | 1 | W_n)` on the positive side, in the zero zone, on the negative side: the scaled
    /// straight-through estimator of TTQ.
    #[default]
    Scaled,
    /// `∂L/∂w = g`: the plain straight-through estimator of TWN and BitNet b1.58.
    Identity,
}

/// Sign of the gradient of W_n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NegativeScaleGradient {
    /// `∂L/∂W_n = -Σ g` over the negative side: the derivative of `-W_n`, and what the authors' own code computes.
    #[default]
    Exact,
    /// `∂L/∂W_n = +Σ g`, as printed in the paper and computed by its PyTorch port. **Wrong**: the chain
    /// rule for a value `-W_n` needs the minus. Behind batch normalization, from equal scales, both updates become
    /// identical and W_p = W_n forever. Here only to reproduce the port and to measure what the error costs.
    Published,
}

/// Configuration of a [`TernaryQuantizer`]. The axes are independent of each other: every threshold works with every
/// scale rule, both granularities and both latent gradients. The default is [`QuantizerConfig::ttq`].
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuantizerConfig {
    /// Where the zero ends.
    pub threshold: Threshold,
    /// How the scales come about.
    pub scales: ScaleRule,
    /// Where learned scales start.
    pub initial_scales: InitialScales,
    /// Which weights share a threshold and a pair of scales.
    pub granularity: Granularity,
    /// The straight-through estimator of the latent weights.
    pub latent_gradient: LatentGradient,
    /// The sign of the gradient of W_n.
    pub negative_scale_gradient: NegativeScaleGradient,
}

impl QuantizerConfig {
    /// Trained ternary quantization: Δ = 0.05 · max|w|, a learned pair of scales (arXiv 1612.01064).
    pub fn ttq() -> Self {
        Self::default()
    }

    /// Ternary weight networks: Δ = 0.7 · mean|w|, one shared mean as the scale (arXiv 1605.04711).
    pub fn twn() -> Self {
        Self {
            threshold: Threshold::MeanFraction(0.7),
            scales: ScaleRule::SharedMean,
            latent_gradient: LatentGradient::Identity,
            ..Self::default()
        }
    }

    /// BitNet b1.58's absmean: Δ = 0.5 · mean|w|, the mean of all magnitudes as the scale (arXiv 2402.17764).
    pub fn absmean() -> Self {
        Self { threshold: Threshold::MeanFraction(0.5), scales: ScaleRule::OverallMean, ..Self::twn() }
    }

    /// The quantizer.
    ///
    /// # Errors
    /// [`ConfigError`] where the threshold is out of range.
    pub fn init<B: Backend>(self) -> Result<TernaryQuantizer<B>, ConfigError> {
        self.threshold.check()?;
        Ok(TernaryQuantizer { config: self, backend: PhantomData })
    }
}

/// Gradients of a loss with respect to what a ternary weight was made of.
#[derive(Debug, Clone)]
pub struct TernaryGradients<B: Backend, const D: usize> {
    /// With respect to the latent weight; its shape.
    pub latent: Tensor<B, D>,
    /// With respect to W_p and W_n, `[groups, 2]`.
    pub scales: Tensor<B, 2>,
}

/// Makes ternary weights out of latent ones.
///
/// With the threshold Δ of a group ([`Threshold`]) and its scales W_p, W_n ([`ScaleRule`]), forward:
///
/// ```text
/// q_i = +W_p   where w_i >  Δ        (I_p, code +1)
///        0     where |w_i| <= Δ      (I_0, code  0)
///       -W_n   where w_i < -Δ        (I_n, code -1)
/// ```
///
/// and backward, with g = ∂L/∂q and Δ held constant:
///
/// ```text
/// ∂L/∂w_i =  g_i · (W_p on I_p, 1 on I_0, W_n on I_n)        LatentGradient::Scaled
/// ∂L/∂W_p =  Σ g_i over I_p
/// ∂L/∂W_n = -Σ g_i over I_n                                  NegativeScaleGradient::Exact
/// ```
///
/// Weights have any rank `D`; `channel_axis` is the dimension of the output channels: 0 for convolutions
/// (`[out, in / groups, kh, kw]`), 1 for `Linear` (`[in, out]`). It matters with [`Granularity::Channel`] only.
/// Scales are `[groups, 2]`, W_p then W_n; the number of groups is 1 or the number of output channels.
///
/// Source: Zhu, Han, Mao, Dally, "Trained Ternary Quantization", ICLR 2017, section 3.
#[derive(Debug, Clone)]
pub struct TernaryQuantizer<B: Backend> {
    config: QuantizerConfig,
    backend: PhantomData<B>,
}

impl<B: Backend> TernaryQuantizer<B> {
    /// The configuration it was made from.
    pub fn config(&self) -> &QuantizerConfig {
        &self.config
    }

    /// The same quantizer for another backend.
    pub fn on<B2: Backend>(&self) -> TernaryQuantizer<B2> {
        TernaryQuantizer { config: self.config, backend: PhantomData }
    }

    /// The threshold Δ of each group, `[groups, 1]`.
    pub fn threshold<const D: usize>(&self, latent: Tensor<B, D>, channel_axis: usize) -> Tensor<B, 2> {
        let latent = latent.detach();
        #[cfg(feature = "cubecl")]
        if device::takes(&latent) {
            return device::threshold(&self.config, latent, channel_axis);
        }
        self.config.threshold.of_groups(self.split(latent, channel_axis).abs())
    }

    /// The codes -1, 0 and +1, in the shape of the latent weight.
    pub fn codes<const D: usize>(&self, latent: Tensor<B, D>, channel_axis: usize) -> Tensor<B, D, Int> {
        self.float_codes(latent, channel_axis).int()
    }

    /// The scales that learned ones start from, `[groups, 2]` (the port's `initial_scales`).
    pub fn initial_scales<const D: usize>(&self, latent: Tensor<B, D>, channel_axis: usize) -> Tensor<B, 2> {
        let latent = latent.detach();
        let sides = self.sides(latent.clone(), channel_axis);
        self.config.initial_scales.of_groups(self.split(latent, channel_axis), sides)
    }

    /// The scales that the rule computes from the latent weight, `[groups, 2]`. For learned scales: the least-squares
    /// fit.
    pub fn measured_scales<const D: usize>(&self, latent: Tensor<B, D>, channel_axis: usize) -> Tensor<B, 2> {
        let latent = latent.detach();
        let sides = self.sides(latent.clone(), channel_axis);
        self.config.scales.of_groups(self.split(latent, channel_axis), sides)
    }

    /// The ternary weight, differentiable in the latent weight and in both scales (the port's `quantize`).
    ///
    /// On a backend without autodiff this is the forward function alone.
    ///
    /// # Panics
    /// Where `scales` is not `[groups, 2]`.
    pub fn ternarize<const D: usize>(
        &self,
        latent: Tensor<B, D>,
        scales: Tensor<B, 2>,
        channel_axis: usize,
    ) -> Tensor<B, D> {
        let dims = latent.dims();
        self.check_scales("ternarize", &dims, &scales, channel_axis);
        #[cfg(feature = "cubecl")]
        if device::takes(&latent) {
            return device::ternarize(&self.config, latent, scales, channel_axis);
        }
        let sides = self.sides(latent.clone().detach(), channel_axis);
        let (w_pos, w_neg) = columns(scales.clone());
        let w_neg = match self.config.negative_scale_gradient {
            NegativeScaleGradient::Exact => w_neg,
            // The same value with the gradient's sign turned around.
            NegativeScaleGradient::Published => w_neg.clone().detach().mul_scalar(2.0) - w_neg,
        };
        let value = sides.clone().scaled(w_pos, w_neg);
        if !B::ad_enabled(&value.device()) {
            return self.join(value, dims, channel_axis);
        }
        // `through - through` is exactly zero, so the three values stay exact; its gradient is the slope.
        let through = self.split(latent, channel_axis) * self.slope(sides, scales.detach());
        self.join(value + (through.clone() - through.detach()), dims, channel_axis)
    }

    /// The gradients in closed form, from the gradient `g = ∂L/∂q` of the ternary weight (the port's `get_grads`).
    ///
    /// What [`TernaryQuantizer::ternarize`] gives through autodiff, without a graph.
    ///
    /// # Panics
    /// Where `scales` is not `[groups, 2]`.
    pub fn gradients<const D: usize>(
        &self,
        grad: Tensor<B, D>,
        latent: Tensor<B, D>,
        scales: Tensor<B, 2>,
        channel_axis: usize,
    ) -> TernaryGradients<B, D> {
        let dims = latent.dims();
        self.check_scales("gradients", &dims, &scales, channel_axis);
        #[cfg(feature = "cubecl")]
        if device::takes(&latent) {
            return device::gradients(&self.config, grad, latent, scales, channel_axis);
        }
        let grad = self.split(grad, channel_axis);
        let sides = self.sides(latent, channel_axis);
        let positive = (grad.clone() * sides.positive.clone()).sum_dim(1);
        let negative = (grad.clone() * sides.negative.clone()).sum_dim(1);
        let negative = match self.config.negative_scale_gradient {
            NegativeScaleGradient::Exact => negative.neg(),
            NegativeScaleGradient::Published => negative,
        };
        TernaryGradients {
            latent: self.join(grad * self.slope(sides, scales), dims, channel_axis),
            scales: Tensor::cat(vec![positive, negative], 1),
        }
    }

    /// The codes as floats, in the shape of the latent weight.
    pub(crate) fn float_codes<const D: usize>(&self, latent: Tensor<B, D>, channel_axis: usize) -> Tensor<B, D> {
        let dims = latent.dims();
        let codes = self.sides(latent.detach(), channel_axis).codes();
        self.join(codes, dims, channel_axis)
    }

    fn sides<const D: usize>(&self, latent: Tensor<B, D>, channel_axis: usize) -> Sides<B> {
        let threshold = self.threshold(latent.clone(), channel_axis);
        Sides::new(self.split(latent, channel_axis), threshold)
    }

    /// `∂q/∂w` of the straight-through estimator, `[groups, n]`.
    fn slope(&self, sides: Sides<B>, scales: Tensor<B, 2>) -> Tensor<B, 2> {
        match self.config.latent_gradient {
            LatentGradient::Scaled => {
                // 1 + a (W_p - 1) + b (W_n - 1) would round; the zero zone's 1 is added where neither side is.
                let zero = sides.positive.clone().add(sides.negative.clone()).neg().add_scalar(1.0);
                let (w_pos, w_neg) = columns(scales);
                zero + sides.scaled(w_pos, w_neg.neg())
            }
            LatentGradient::Identity => sides.positive.ones_like(),
        }
    }

    fn split<const D: usize>(&self, weight: Tensor<B, D>, channel_axis: usize) -> Tensor<B, 2> {
        self.config.granularity.split(weight, channel_axis)
    }

    fn join<const D: usize>(&self, groups: Tensor<B, 2>, dims: [usize; D], channel_axis: usize) -> Tensor<B, D> {
        self.config.granularity.join(groups, dims, channel_axis)
    }

    fn check_scales(&self, op: &str, dims: &[usize], scales: &Tensor<B, 2>, channel_axis: usize) {
        let expected = [self.config.granularity.groups(dims, channel_axis), 2];
        let found = scales.dims();
        assert!(
            found == expected,
            "{op}: the scales of a weight {dims:?} must have shape {expected:?}, found {found:?}"
        );
    }
}

/// W_p and W_n, each `[groups, 1]`.
fn columns<B: Backend>(scales: Tensor<B, 2>) -> (Tensor<B, 2>, Tensor<B, 2>) {
    (scales.clone().narrow(1, 0, 1), scales.narrow(1, 1, 1))
}
