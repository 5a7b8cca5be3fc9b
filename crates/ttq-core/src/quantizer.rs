//! The quantizer: threshold, codes, scales, the forward function and its gradients.

use std::marker::PhantomData;

use burn::config::Config;
use burn::prelude::*;
use serde::{Deserialize, Serialize};

#[cfg(feature = "cubecl")]
use crate::device;
use crate::scales::CodeMasks;
use crate::{ConfigError, Granularity, InitialScales, ScaleRule, Threshold};

/// Gradient of the loss with respect to the latent weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LatentGradient {
    /// `∂L/∂w = g · W_p` where the code is +1, `g` where it is 0, `g · W_n` where it is -1: the scaled straight-through
    /// estimator of TTQ.
    #[default]
    Scaled,
    /// `∂L/∂w = g`: the plain straight-through estimator of TWN and BitNet b1.58.
    Identity,
}

/// Sign of the gradient of W_n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NegativeScaleGradient {
    /// `∂L/∂W_n = -Σ g` over the weights with code -1: the derivative of `-W_n`. The authors' own code computes this.
    #[default]
    Exact,
    /// `∂L/∂W_n = +Σ g`, as printed in the paper and computed by its PyTorch port. **Wrong**: the chain rule for a
    /// value `-W_n` requires the minus. If batch normalization follows the layer and the scales start equal, both
    /// updates are identical and W_p = W_n throughout training. Use it only to reproduce the port and to measure the
    /// effect of the error.
    Published,
}

/// Configuration of a [`TernaryQuantizer`].
///
/// The fields are independent: every threshold works with every scale rule, both granularities and both latent
/// gradients. The default is [`QuantizerConfig::ttq`].
///
/// The configuration implements Burn's [`Config`]: `save`, `load` and `load_binary` use JSON. A missing field takes its
/// default, and an unknown field is an error.
///
/// ```
/// use ttq_core::{Granularity, QuantizerConfig, Threshold};
///
/// let config = QuantizerConfig::new()
///     .with_threshold(Threshold::MeanFraction(0.7))
///     .with_granularity(Granularity::Channel);
/// assert_eq!(config, QuantizerConfig {
///     threshold: Threshold::MeanFraction(0.7),
///     granularity: Granularity::Channel,
///     ..QuantizerConfig::ttq()
/// });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuantizerConfig {
    /// Rule for the threshold Δ below which a weight becomes zero. Default: `MaxFraction(0.05)`.
    pub threshold: Threshold,
    /// Rule for the scales W_p and W_n. Default: [`ScaleRule::Learned`].
    pub scales: ScaleRule,
    /// Initial values of learned scales. Default: [`InitialScales::LeastSquares`].
    pub initial_scales: InitialScales,
    /// Which weights share a threshold and a pair of scales. Default: [`Granularity::Tensor`].
    pub granularity: Granularity,
    /// Straight-through estimator of the latent weights. Default: [`LatentGradient::Scaled`].
    pub latent_gradient: LatentGradient,
    /// Sign of the gradient of W_n. Default: [`NegativeScaleGradient::Exact`].
    pub negative_scale_gradient: NegativeScaleGradient,
}

impl Config for QuantizerConfig {}

impl QuantizerConfig {
    /// Creates a configuration with the default of every field: [`QuantizerConfig::ttq`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns trained ternary quantization: Δ = 0.05 · max|w|, a learned pair of scales (arXiv 1612.01064).
    #[must_use]
    pub fn ttq() -> Self {
        Self::default()
    }

    /// Returns ternary weight networks: Δ = 0.7 · mean|w|, one shared mean as the scale (arXiv 1605.04711).
    #[must_use]
    pub fn twn() -> Self {
        Self {
            threshold: Threshold::MeanFraction(0.7),
            scales: ScaleRule::SharedMean,
            latent_gradient: LatentGradient::Identity,
            ..Self::default()
        }
    }

    /// Returns BitNet b1.58's absmean: Δ = 0.5 · mean|w|, the mean of all magnitudes as the scale (arXiv 2402.17764).
    #[must_use]
    pub fn absmean() -> Self {
        Self { threshold: Threshold::MeanFraction(0.5), scales: ScaleRule::OverallMean, ..Self::twn() }
    }

    /// Sets the rule for the threshold Δ.
    #[must_use]
    pub fn with_threshold(mut self, threshold: Threshold) -> Self {
        self.threshold = threshold;
        self
    }

    /// Sets the rule for the scales W_p and W_n.
    #[must_use]
    pub fn with_scales(mut self, scales: ScaleRule) -> Self {
        self.scales = scales;
        self
    }

    /// Sets the initial values of learned scales.
    #[must_use]
    pub fn with_initial_scales(mut self, initial_scales: InitialScales) -> Self {
        self.initial_scales = initial_scales;
        self
    }

    /// Sets which weights share a threshold and a pair of scales.
    #[must_use]
    pub fn with_granularity(mut self, granularity: Granularity) -> Self {
        self.granularity = granularity;
        self
    }

    /// Sets the straight-through estimator of the latent weights.
    #[must_use]
    pub fn with_latent_gradient(mut self, latent_gradient: LatentGradient) -> Self {
        self.latent_gradient = latent_gradient;
        self
    }

    /// Sets the sign of the gradient of W_n.
    #[must_use]
    pub fn with_negative_scale_gradient(mut self, negative_scale_gradient: NegativeScaleGradient) -> Self {
        self.negative_scale_gradient = negative_scale_gradient;
        self
    }

    /// Creates the quantizer.
    ///
    /// # Errors
    /// Returns [`ConfigError`] if the threshold is out of range.
    pub fn init<B: Backend>(self) -> Result<TernaryQuantizer<B>, ConfigError> {
        self.threshold.check()?;
        Ok(TernaryQuantizer { config: self, backend: PhantomData })
    }
}

/// Gradients of a loss with respect to a latent weight and its scales.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TernaryGradients<B: Backend, const D: usize> {
    /// Gradient with respect to the latent weight, in its shape.
    pub latent: Tensor<B, D>,
    /// Gradients with respect to W_p and W_n, `[groups, 2]`.
    pub scales: Tensor<B, 2>,
}

/// Computes ternary weights from latent weights.
///
/// With the threshold Δ of a group ([`Threshold`]) and its scales W_p and W_n ([`ScaleRule`]), the forward function is:
///
/// ```text
/// q_i = +W_p   if w_i >  Δ        (I_p, code +1)
///        0     if |w_i| <= Δ      (I_0, code  0)
///       -W_n   if w_i < -Δ        (I_n, code -1)
/// ```
///
/// The backward function, with g = ∂L/∂q and Δ held constant, is:
///
/// ```text
/// ∂L/∂w_i =  g_i · (W_p on I_p, 1 on I_0, W_n on I_n)        LatentGradient::Scaled
/// ∂L/∂W_p =  Σ g_i over I_p
/// ∂L/∂W_n = -Σ g_i over I_n                                  NegativeScaleGradient::Exact
/// ```
///
/// Source: Zhu, Han, Mao, Dally, "Trained Ternary Quantization", ICLR 2017, section 3.
///
/// # Shapes
/// - latent weight: any rank `D`.
/// - `channel_axis`: the dimension of the output channels, 0 for convolutions (`[out, in / groups, kh, kw]`), 1 for
///   `Linear` (`[in, out]`). Only [`Granularity::Channel`] uses its value.
/// - scales: `[groups, 2]`, W_p then W_n. The number of groups is 1 or the number of output channels
///   ([`Granularity::groups`]).
///
/// # Panics
/// With [`Granularity::Channel`], the methods that take a weight panic if `channel_axis >= D`.
#[derive(Debug, Clone)]
pub struct TernaryQuantizer<B: Backend> {
    config: QuantizerConfig,
    backend: PhantomData<B>,
}

impl<B: Backend> TernaryQuantizer<B> {
    /// Returns the configuration of the quantizer.
    pub fn config(&self) -> &QuantizerConfig {
        &self.config
    }

    /// Returns the same quantizer for another backend.
    pub fn on<B2: Backend>(&self) -> TernaryQuantizer<B2> {
        TernaryQuantizer { config: self.config, backend: PhantomData }
    }

    /// Computes the threshold Δ of each group, `[groups, 1]`, without a gradient.
    pub fn threshold<const D: usize>(&self, latent: Tensor<B, D>, channel_axis: usize) -> Tensor<B, 2> {
        let latent = latent.detach();
        #[cfg(feature = "cubecl")]
        if device::supports(&latent) {
            return device::threshold(&self.config, latent, channel_axis);
        }
        self.config.threshold.of_groups(self.to_groups(latent, channel_axis).abs())
    }

    /// Computes the codes -1, 0 and +1, in the shape of the latent weight.
    pub fn codes<const D: usize>(&self, latent: Tensor<B, D>, channel_axis: usize) -> Tensor<B, D, Int> {
        self.float_codes(latent, channel_axis).int()
    }

    /// Computes the initial values of learned scales, `[groups, 2]`, by [`QuantizerConfig::initial_scales`] (the port's
    /// `initial_scales`).
    pub fn initial_scales<const D: usize>(&self, latent: Tensor<B, D>, channel_axis: usize) -> Tensor<B, 2> {
        let latent = latent.detach();
        let masks = self.code_masks(latent.clone(), channel_axis);
        self.config.initial_scales.of_groups(self.to_groups(latent, channel_axis), masks)
    }

    /// Computes the scales from the latent weight by [`QuantizerConfig::scales`], `[groups, 2]`, without a gradient.
    ///
    /// For [`ScaleRule::Learned`] this is the least-squares fit to the latent weight.
    pub fn measured_scales<const D: usize>(&self, latent: Tensor<B, D>, channel_axis: usize) -> Tensor<B, 2> {
        let latent = latent.detach();
        let masks = self.code_masks(latent.clone(), channel_axis);
        self.config.scales.of_groups(self.to_groups(latent, channel_axis), masks)
    }

    /// Computes the ternary weight, differentiable in the latent weight and in both scales (the port's `quantize`).
    ///
    /// On a backend without autodiff this is the forward function alone.
    ///
    /// # Shapes
    /// - latent, output: any shape of rank `D`
    /// - scales: `[groups, 2]`
    ///
    /// # Panics
    /// Panics if `scales` is not of shape `[groups, 2]`.
    pub fn ternarize<const D: usize>(
        &self,
        latent: Tensor<B, D>,
        scales: Tensor<B, 2>,
        channel_axis: usize,
    ) -> Tensor<B, D> {
        let dims = latent.dims();
        self.check_scales("ternarize", &dims, &scales, channel_axis);
        #[cfg(feature = "cubecl")]
        if device::supports(&latent) {
            return device::ternarize(&self.config, latent, scales, channel_axis);
        }
        let masks = self.code_masks(latent.clone().detach(), channel_axis);
        let (w_pos, w_neg) = columns(scales.clone());
        let w_neg = match self.config.negative_scale_gradient {
            NegativeScaleGradient::Exact => w_neg,
            // The same value with the opposite sign of the gradient.
            NegativeScaleGradient::Published => w_neg.clone().detach().mul_scalar(2.0) - w_neg,
        };
        let value = masks.clone().scaled(w_pos, w_neg);
        if !B::ad_enabled(&value.device()) {
            return self.ungroup(value, dims, channel_axis);
        }
        // `through - through` is exactly zero, so the three values stay exact; its gradient is the slope.
        let through = self.to_groups(latent, channel_axis) * self.slope(masks, scales.detach());
        self.ungroup(value + (through.clone() - through.detach()), dims, channel_axis)
    }

    /// Computes the gradients in closed form from the gradient `g = ∂L/∂q` of the ternary weight (the port's
    /// `get_grads`).
    ///
    /// The result equals that of autodiff through [`TernaryQuantizer::ternarize`], without a graph.
    ///
    /// # Shapes
    /// - grad, latent: the same shape of rank `D`
    /// - scales: `[groups, 2]`
    ///
    /// # Panics
    /// Panics if `scales` is not of shape `[groups, 2]`.
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
        if device::supports(&latent) {
            return device::gradients(&self.config, grad, latent, scales, channel_axis);
        }
        let grad = self.to_groups(grad, channel_axis);
        let masks = self.code_masks(latent, channel_axis);
        let positive = (grad.clone() * masks.positive.clone()).sum_dim(1);
        let negative = (grad.clone() * masks.negative.clone()).sum_dim(1);
        let negative = match self.config.negative_scale_gradient {
            NegativeScaleGradient::Exact => negative.neg(),
            NegativeScaleGradient::Published => negative,
        };
        TernaryGradients {
            latent: self.ungroup(grad * self.slope(masks, scales), dims, channel_axis),
            scales: Tensor::cat(vec![positive, negative], 1),
        }
    }

    /// Computes the codes as floats, in the shape of the latent weight.
    pub(crate) fn float_codes<const D: usize>(&self, latent: Tensor<B, D>, channel_axis: usize) -> Tensor<B, D> {
        let dims = latent.dims();
        let codes = self.code_masks(latent.detach(), channel_axis).codes();
        self.ungroup(codes, dims, channel_axis)
    }

    fn code_masks<const D: usize>(&self, latent: Tensor<B, D>, channel_axis: usize) -> CodeMasks<B> {
        let threshold = self.threshold(latent.clone(), channel_axis);
        CodeMasks::new(self.to_groups(latent, channel_axis), threshold)
    }

    /// Computes `∂q/∂w` of the straight-through estimator, `[groups, n]`.
    fn slope(&self, masks: CodeMasks<B>, scales: Tensor<B, 2>) -> Tensor<B, 2> {
        match self.config.latent_gradient {
            LatentGradient::Scaled => {
                // 1 + a (W_p - 1) + b (W_n - 1) would round, so the 1 is added only where the code is 0.
                let zero = masks.positive.clone().add(masks.negative.clone()).neg().add_scalar(1.0);
                let (w_pos, w_neg) = columns(scales);
                zero + masks.scaled(w_pos, w_neg.neg())
            }
            LatentGradient::Identity => masks.positive.ones_like(),
        }
    }

    fn to_groups<const D: usize>(&self, weight: Tensor<B, D>, channel_axis: usize) -> Tensor<B, 2> {
        self.config.granularity.to_groups(weight, channel_axis)
    }

    fn ungroup<const D: usize>(&self, groups: Tensor<B, 2>, dims: [usize; D], channel_axis: usize) -> Tensor<B, D> {
        self.config.granularity.ungroup(groups, dims, channel_axis)
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

/// Returns W_p and W_n, each `[groups, 1]`.
fn columns<B: Backend>(scales: Tensor<B, 2>) -> (Tensor<B, 2>, Tensor<B, 2>) {
    (scales.clone().narrow(1, 0, 1), scales.narrow(1, 1, 1))
}
