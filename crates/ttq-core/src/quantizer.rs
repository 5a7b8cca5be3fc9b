//! The quantizer: threshold, codes, scales, the forward function and its gradients.

use std::marker::PhantomData;

use burn::prelude::*;

#[cfg(feature = "cubecl")]
use crate::device;
use crate::granularity::{regroup, widen};
use crate::scales::{CodeMasks, where_positive};
use crate::{Granularity, LatentGradient, NegativeScaleGradient, QuantizerConfig};

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
/// With the threshold Δ of a group ([`Threshold`](crate::Threshold)) and the scales W_p and W_n of a group
/// ([`ScaleRule`](crate::ScaleRule)), the forward function is:
///
/// ```text
/// q_i = +W_p   if w_i >  Δ        (I_p, code +1)
///        0     if |w_i| <= Δ      (I_0, code  0)
///       -W_n   if w_i < -Δ        (I_n, code -1)
/// ```
///
/// The backward function, with g = ∂L/∂q and with Δ and s = (W_p + W_n) / 2 held constant, is:
///
/// ```text
/// ∂L/∂w_i =  g_i · (W_p/s on I_p, 1 on I_0, W_n/s on I_n)    LatentGradient::Relative
/// ∂L/∂W_p =  Σ g_i over I_p
/// ∂L/∂W_n = -Σ g_i over I_n                                  NegativeScaleGradient::Exact
/// ```
///
/// Source: Zhu, Han, Mao, Dally, "Trained Ternary Quantization", ICLR 2017, section 3, where the first line is
/// [`LatentGradient::Scaled`]. All methods take and return the scales W, whatever parameters they are trained as
/// ([`ScaleParameter`](crate::ScaleParameter)).
///
/// # Types
/// Results have the type of the latent weight: float32, float64, float16 or bfloat16. With 16 bits, sums, counts and
/// products are computed in float32. Scales may have another type than the latent weight, which their gradient keeps.
///
/// # Weights that are not finite
/// NaN is not hidden: if a latent weight is NaN or infinite, the threshold, all ternary weights and the measured scales
/// of its group are NaN.
///
/// # Shapes
/// - latent weight: any rank `D`.
/// - `channel_axis`: the dimension of the output channels, 0 for convolutions (`[out, in / groups, kh, kw]`), 1 for
///   `Linear` (`[in, out]`). Only [`Granularity::Channel`] uses its value.
/// - threshold: `[groups, 1]`, with the groups of [`QuantizerConfig::threshold_granularity`]
/// - scales: `[groups, 2]`, W_p then W_n, with the groups of [`QuantizerConfig::scale_granularity`]
///
/// The number of groups is 1 or the number of output channels ([`Granularity::groups`]).
///
/// # Panics
/// With [`Granularity::Channel`], the methods that take a weight panic if `channel_axis >= D`.
#[derive(Debug, Clone)]
pub struct TernaryQuantizer<B: Backend> {
    pub(crate) config: QuantizerConfig,
    pub(crate) backend: PhantomData<B>,
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
        let latent = constant(latent);
        #[cfg(feature = "cubecl")]
        if device::supports(&latent) {
            return device::threshold(&self.config, latent, channel_axis);
        }
        let dtype = latent.dtype();
        let groups = self.config.threshold_granularity.to_groups(latent, channel_axis);
        self.config.threshold.of_groups(groups.abs()).cast(dtype)
    }

    /// Computes the codes -1, 0 and +1, in the shape of the latent weight.
    ///
    /// The codes of a group whose threshold is NaN have no meaning.
    pub fn codes<const D: usize>(&self, latent: Tensor<B, D>, channel_axis: usize) -> Tensor<B, D, Int> {
        let dims = latent.dims();
        let (_, masks) = self.grouped(constant(latent), channel_axis);
        self.ungroup(masks.positive - masks.negative, dims, channel_axis).int()
    }

    /// Computes the initial values of learned scales, `[groups, 2]`, by [`QuantizerConfig::initial_scales`] (the port's
    /// `initial_scales`).
    pub fn initial_scales<const D: usize>(&self, latent: Tensor<B, D>, channel_axis: usize) -> Tensor<B, 2> {
        let dtype = latent.dtype();
        let (latent, masks) = self.grouped(constant(latent), channel_axis);
        self.config.initial_scales.of_groups(latent, masks).cast(dtype)
    }

    /// Computes the scales from the latent weight by [`QuantizerConfig::scales`], `[groups, 2]`, without a gradient.
    ///
    /// For [`ScaleRule::Learned`](crate::ScaleRule::Learned) this is the least-squares fit to the latent weight.
    pub fn measured_scales<const D: usize>(&self, latent: Tensor<B, D>, channel_axis: usize) -> Tensor<B, 2> {
        let dtype = latent.dtype();
        let (latent, masks) = self.grouped(constant(latent), channel_axis);
        self.config.scales.of_groups(latent, masks).cast(dtype)
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
        let dtype = latent.dtype();
        let (latent, masks) = self.grouped(latent, channel_axis);
        let scales = scales.cast(latent.dtype());
        let (w_pos, w_neg) = columns(scales.clone());
        let w_neg = match self.config.negative_scale_gradient {
            NegativeScaleGradient::Exact => w_neg,
            // The same value with the opposite sign of the gradient.
            NegativeScaleGradient::Published => w_neg.clone().detach().mul_scalar(2.0) - w_neg,
        };
        let value = masks.clone().scaled(w_pos, w_neg);
        if !B::ad_enabled(&value.device()) {
            return self.ungroup(value, dims, channel_axis).cast(dtype);
        }
        // `through - through` is exactly zero, so the three values stay exact; its gradient is the slope.
        let through = self.times_slope(latent, masks, constant(scales));
        self.ungroup(value + (through.clone() - through.detach()), dims, channel_axis).cast(dtype)
    }

    /// Computes the gradients in closed form from the gradient `g = ∂L/∂q` of the ternary weight (the port's
    /// `get_grads`).
    ///
    /// The result equals that of autodiff through [`TernaryQuantizer::ternarize`], without a graph. It depends on the
    /// latent weight through its codes alone, which are the signs of the ternary weight `q`: the threshold is not computed
    /// again.
    ///
    /// # Shapes
    /// - grad, ternary: the same shape of rank `D`; the ternary weight is the one that [`TernaryQuantizer::ternarize`]
    ///   made with these scales
    /// - scales: `[groups, 2]`, above 0
    ///
    /// # Panics
    /// Panics if `scales` is not of shape `[groups, 2]`.
    pub fn gradients<const D: usize>(
        &self,
        grad: Tensor<B, D>,
        ternary: Tensor<B, D>,
        scales: Tensor<B, 2>,
        channel_axis: usize,
    ) -> TernaryGradients<B, D> {
        let dims = ternary.dims();
        self.check_scales("gradients", &dims, &scales, channel_axis);
        #[cfg(feature = "cubecl")]
        if device::supports(&ternary) {
            return device::gradients(&self.config, grad, ternary, scales, channel_axis);
        }
        let dtypes = [ternary.dtype(), scales.dtype()];
        let granularity = self.config.scale_granularity;
        let ternary = granularity.to_groups(ternary, channel_axis);
        let grad = granularity.to_groups(grad, channel_axis).cast(ternary.dtype());
        // 0, or NaN where the group is invalid. (Not `q - q`, which compilers of shaders replace by 0.)
        let invalid = ternary.clone().mul_scalar(0.0);
        let positive = where_positive(ternary.clone(), grad.clone()) + invalid.clone();
        let negative = where_positive(ternary.neg(), grad.clone()) + invalid;
        let of_w_neg = negative.clone().sum_dim(1);
        let of_w_neg = match self.config.negative_scale_gradient {
            NegativeScaleGradient::Exact => of_w_neg.neg(),
            NegativeScaleGradient::Published => of_w_neg,
        };
        let of_scales = Tensor::cat(vec![positive.clone().sum_dim(1), of_w_neg], 1);
        let of_latent = match self.slopes(scales.cast(grad.dtype())) {
            Some((slope_pos, slope_neg)) => {
                let zero = grad - positive.clone() - negative.clone();
                positive * slope_pos + negative * slope_neg + zero
            }
            None => grad,
        };
        TernaryGradients {
            latent: granularity.ungroup(of_latent, dims, channel_axis).cast(dtypes[0]),
            scales: of_scales.cast(dtypes[1]),
        }
    }

    /// Computes the codes as floats of at least 32 bits, in the shape of the latent weight. They are NaN where the
    /// threshold is.
    pub(crate) fn float_codes<const D: usize>(&self, latent: Tensor<B, D>, channel_axis: usize) -> Tensor<B, D> {
        let dims = latent.dims();
        let (_, masks) = self.grouped(constant(latent), channel_axis);
        self.ungroup(masks.codes(), dims, channel_axis)
    }

    /// Returns the latent weight in group layout, one row for each pair of scales, and its codes in the same layout.
    fn grouped<const D: usize>(&self, latent: Tensor<B, D>, channel_axis: usize) -> (Tensor<B, 2>, CodeMasks<B>) {
        let threshold = widen(self.threshold(latent.clone(), channel_axis));
        let scale_groups = self.config.scale_granularity.groups(&latent.dims(), channel_axis);
        let latent = self.to_groups(latent, channel_axis);
        let by_threshold = regroup(constant(latent.clone()), threshold.dims()[0]);
        let masks = CodeMasks::new(by_threshold, threshold).regroup(scale_groups);
        (latent, masks)
    }

    /// Multiplies `x`, `[groups, n]`, by the slope `∂q/∂w` of the straight-through estimator.
    fn times_slope(&self, x: Tensor<B, 2>, masks: CodeMasks<B>, scales: Tensor<B, 2>) -> Tensor<B, 2> {
        let Some((slope_pos, slope_neg)) = self.slopes(scales) else { return x };
        // 1 + a (W_p - 1) + b (W_n - 1) would round, so the 1 is added only where the code is 0.
        let zero = masks.positive.clone().add(masks.negative.clone()).neg().add_scalar(1.0);
        x * (zero + masks.scaled(slope_pos, slope_neg.neg()))
    }

    /// Returns the slopes where the code is +1 and where it is -1, `[groups, 1]` each; `None` if they are 1.
    fn slopes(&self, scales: Tensor<B, 2>) -> Option<(Tensor<B, 2>, Tensor<B, 2>)> {
        let (w_pos, w_neg) = columns(scales);
        match self.config.latent_gradient {
            LatentGradient::Relative => {
                let mean = (w_pos.clone() + w_neg.clone()).mul_scalar(0.5);
                Some((w_pos / mean.clone(), w_neg / mean))
            }
            LatentGradient::Scaled => Some((w_pos, w_neg)),
            LatentGradient::Identity => None,
        }
    }

    /// Converts a weight to group layout, one row for each pair of scales.
    ///
    /// The order of the elements is that of the finer granularity, so that the rows can be divided into the groups of
    /// thresholds.
    fn to_groups<const D: usize>(&self, weight: Tensor<B, D>, channel_axis: usize) -> Tensor<B, 2> {
        let groups = self.config.scale_granularity.groups(&weight.dims(), channel_axis);
        regroup(self.finer_granularity().to_groups(weight, channel_axis), groups)
    }

    /// The inverse of `to_groups`, but for the type.
    fn ungroup<const D: usize>(&self, groups: Tensor<B, 2>, dims: [usize; D], channel_axis: usize) -> Tensor<B, D> {
        self.finer_granularity().ungroup(groups, dims, channel_axis)
    }

    fn finer_granularity(&self) -> Granularity {
        self.config.scale_granularity.finer(self.config.threshold_granularity)
    }

    fn check_scales(&self, op: &str, dims: &[usize], scales: &Tensor<B, 2>, channel_axis: usize) {
        let expected = [self.config.scale_granularity.groups(dims, channel_axis), 2];
        let found = scales.dims();
        assert!(
            found == expected,
            "{op}: the scales of a weight {dims:?} must have shape {expected:?}, found {found:?}"
        );
    }
}

/// Removes a tensor from the autodiff graph. (Burn's `detach` returns a new leaf for a leaf with a gradient.)
fn constant<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Tensor<B, D> {
    tensor.detach().set_require_grad(false)
}

/// Returns W_p and W_n, each `[groups, 1]`.
fn columns<B: Backend>(scales: Tensor<B, 2>) -> (Tensor<B, 2>, Tensor<B, 2>) {
    (scales.clone().narrow(1, 0, 1), scales.narrow(1, 1, 1))
}
