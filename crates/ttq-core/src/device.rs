//! The quantizer with the GPU kernels of `ttq-cubecl`, for weights that they support.

use burn::prelude::*;
use ttq_cubecl::{GradientOptions, GroupAxes, Slope, ThresholdRule};

use crate::threshold::zero_count;
use crate::{Granularity, LatentGradient, NegativeScaleGradient, QuantizerConfig, TernaryGradients, Threshold};
pub(crate) use ttq_cubecl::supports;

/// Computes the threshold of each group, `[groups, 1]`.
pub(crate) fn threshold<B: Backend, const D: usize>(
    config: &QuantizerConfig,
    latent: Tensor<B, D>,
    channel_axis: usize,
) -> Tensor<B, 2> {
    let threshold = rule(config, &latent, channel_axis);
    ttq_cubecl::threshold(latent, threshold, axis(config.threshold_granularity, channel_axis))
}

/// Computes the ternary weight, in the shape of the latent weight.
pub(crate) fn ternarize<B: Backend, const D: usize>(
    config: &QuantizerConfig,
    latent: Tensor<B, D>,
    scales: Tensor<B, 2>,
    channel_axis: usize,
) -> Tensor<B, D> {
    let threshold = rule(config, &latent, channel_axis);
    ttq_cubecl::ternarize(latent, scales, threshold, axes(config, channel_axis))
}

/// Computes the gradients in closed form.
pub(crate) fn gradients<B: Backend, const D: usize>(
    config: &QuantizerConfig,
    grad: Tensor<B, D>,
    ternary: Tensor<B, D>,
    scales: Tensor<B, 2>,
    channel_axis: usize,
) -> TernaryGradients<B, D> {
    let options = GradientOptions {
        slope: match config.latent_gradient {
            LatentGradient::Relative => Slope::Relative,
            LatentGradient::Scaled => Slope::Scaled,
            LatentGradient::Identity => Slope::Identity,
        },
        exact_sign: config.negative_scale_gradient == NegativeScaleGradient::Exact,
    };
    let axis = axis(config.scale_granularity, channel_axis);
    let (latent, scales) = ttq_cubecl::gradients(grad, ternary, scales, axis, options);
    TernaryGradients { latent, scales }
}

/// Converts the threshold rule to that of the kernels. For a target share of zeros it computes the thresholds.
fn rule<B: Backend, const D: usize>(
    config: &QuantizerConfig,
    latent: &Tensor<B, D>,
    channel_axis: usize,
) -> ThresholdRule<B> {
    match config.threshold {
        Threshold::MaxFraction(t) => ThresholdRule::MaxFraction(t),
        Threshold::MeanFraction(f) => ThresholdRule::MeanFraction(f),
        Threshold::Sparsity(share) => {
            let axis = axis(config.threshold_granularity, channel_axis);
            let groups = config.threshold_granularity.groups(&latent.dims(), channel_axis);
            // 0, or NaN if a weight is not finite, which the order of magnitudes does not tell.
            let finite = ttq_cubecl::threshold(latent.clone(), ThresholdRule::MeanFraction(0.0), axis);
            ThresholdRule::Given(match zero_count(share, latent.shape().num_elements() / groups) {
                0 => finite,
                zeros => finite + ttq_cubecl::kth_smallest_magnitude(latent.clone(), zeros, axis),
            })
        }
    }
}

fn axes(config: &QuantizerConfig, channel_axis: usize) -> GroupAxes {
    GroupAxes {
        threshold: axis(config.threshold_granularity, channel_axis),
        scales: axis(config.scale_granularity, channel_axis),
    }
}

/// Returns the axis of the groups; `None` if the whole weight is one group.
fn axis(granularity: Granularity, channel_axis: usize) -> Option<usize> {
    (granularity == Granularity::Channel).then_some(channel_axis)
}
