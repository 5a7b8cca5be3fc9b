//! The quantizer with the GPU kernels of `ttq-cubecl`, for weights that they support.

use burn::prelude::*;

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
    ttq_cubecl::threshold(latent, threshold, axis(config, channel_axis))
}

/// Computes the ternary weight, in the shape of the latent weight.
pub(crate) fn ternarize<B: Backend, const D: usize>(
    config: &QuantizerConfig,
    latent: Tensor<B, D>,
    scales: Tensor<B, 2>,
    channel_axis: usize,
) -> Tensor<B, D> {
    let threshold = rule(config, &latent, channel_axis);
    ttq_cubecl::ternarize(latent, scales, threshold, axis(config, channel_axis))
}

/// Computes the gradients in closed form.
pub(crate) fn gradients<B: Backend, const D: usize>(
    config: &QuantizerConfig,
    grad: Tensor<B, D>,
    latent: Tensor<B, D>,
    scales: Tensor<B, 2>,
    channel_axis: usize,
) -> TernaryGradients<B, D> {
    let threshold = rule(config, &latent, channel_axis);
    let gradients = ttq_cubecl::GradientOptions {
        scaled_latent: config.latent_gradient == LatentGradient::Scaled,
        exact_sign: config.negative_scale_gradient == NegativeScaleGradient::Exact,
    };
    let (latent, scales) =
        ttq_cubecl::gradients(grad, latent, scales, threshold, axis(config, channel_axis), gradients);
    TernaryGradients { latent, scales }
}

/// Converts the threshold rule to that of the kernels. For a target share of zeros it computes the thresholds.
fn rule<B: Backend, const D: usize>(
    config: &QuantizerConfig,
    latent: &Tensor<B, D>,
    channel_axis: usize,
) -> ttq_cubecl::ThresholdRule<B> {
    match config.threshold {
        Threshold::MaxFraction(t) => ttq_cubecl::ThresholdRule::MaxFraction(t),
        Threshold::MeanFraction(f) => ttq_cubecl::ThresholdRule::MeanFraction(f),
        Threshold::Sparsity(share) => {
            let groups = config.granularity.groups(&latent.dims(), channel_axis);
            ttq_cubecl::ThresholdRule::Given(match zero_count(share, latent.shape().num_elements() / groups) {
                0 => Tensor::zeros([groups, 1], (&latent.device(), latent.dtype())),
                zeros => ttq_cubecl::kth_smallest_magnitude(latent.clone(), zeros, axis(config, channel_axis)),
            })
        }
    }
}

/// Returns the axis of the groups; `None` if the whole weight is one group.
fn axis(config: &QuantizerConfig, channel_axis: usize) -> Option<usize> {
    (config.granularity == Granularity::Channel).then_some(channel_axis)
}
