//! The quantizer by the kernels of `ttq-cubecl`, for weights that these take.

use burn::prelude::*;

use crate::threshold::zeros;
use crate::{
    Granularity, LatentGradient, NegativeScaleGradient, QuantizerConfig, TernaryGradients, Threshold as ThresholdRule,
};
pub(crate) use ttq_cubecl::takes;
use ttq_cubecl::{Gradients, Threshold};

/// The threshold of each group, `[groups, 1]`.
pub(crate) fn threshold<B: Backend, const D: usize>(
    config: &QuantizerConfig,
    latent: Tensor<B, D>,
    channel_axis: usize,
) -> Tensor<B, 2> {
    let threshold = rule(config, &latent, channel_axis);
    ttq_cubecl::threshold(latent, threshold, axis(config, channel_axis))
}

/// The ternary weight, in the shape of the latent one.
pub(crate) fn ternarize<B: Backend, const D: usize>(
    config: &QuantizerConfig,
    latent: Tensor<B, D>,
    scales: Tensor<B, 2>,
    channel_axis: usize,
) -> Tensor<B, D> {
    let threshold = rule(config, &latent, channel_axis);
    ttq_cubecl::ternarize(latent, scales, threshold, axis(config, channel_axis))
}

/// The gradients in closed form.
pub(crate) fn gradients<B: Backend, const D: usize>(
    config: &QuantizerConfig,
    grad: Tensor<B, D>,
    latent: Tensor<B, D>,
    scales: Tensor<B, 2>,
    channel_axis: usize,
) -> TernaryGradients<B, D> {
    let threshold = rule(config, &latent, channel_axis);
    let gradients = Gradients {
        scaled_latent: config.latent_gradient == LatentGradient::Scaled,
        exact_sign: config.negative_scale_gradient == NegativeScaleGradient::Exact,
    };
    let (latent, scales) =
        ttq_cubecl::gradients(grad, latent, scales, threshold, axis(config, channel_axis), gradients);
    TernaryGradients { latent, scales }
}

/// The rule of the threshold; the order of magnitudes is found first.
fn rule<B: Backend, const D: usize>(
    config: &QuantizerConfig,
    latent: &Tensor<B, D>,
    channel_axis: usize,
) -> Threshold<B> {
    match config.threshold {
        ThresholdRule::MaxFraction(t) => Threshold::MaxFraction(t),
        ThresholdRule::MeanFraction(f) => Threshold::MeanFraction(f),
        ThresholdRule::Sparsity(share) => {
            let groups = if config.granularity == Granularity::Channel { latent.dims()[channel_axis] } else { 1 };
            Threshold::Given(match zeros(share, latent.shape().num_elements() / groups) {
                0 => Tensor::zeros([groups, 1], (&latent.device(), latent.dtype())),
                zeros => ttq_cubecl::smallest(latent.clone(), zeros, axis(config, channel_axis)),
            })
        }
    }
}

fn axis(config: &QuantizerConfig, channel_axis: usize) -> Option<usize> {
    (config.granularity == Granularity::Channel).then_some(channel_axis)
}
