//! The convolution that the networks of the PyTorch port share.

use burn::nn::conv::Conv2dConfig;
use burn::nn::{Initializer, PaddingConfig2d};

/// Where its weights start, and those of the port's linear layer: He's uniform distribution by the number of inputs.
pub(super) const HE_UNIFORM: Initializer =
    Initializer::KaimingUniform { gain: std::f64::consts::SQRT_2, fan_out_only: false };

/// A convolution without bias whose output is as high and wide as its input; `kernel` is odd. Weight
/// `[channels[1], channels[0], kernel, kernel]`.
pub(super) fn convolution(channels: [usize; 2], kernel: usize) -> Conv2dConfig {
    let padding = kernel / 2;
    Conv2dConfig::new(channels, [kernel, kernel])
        .with_padding(PaddingConfig2d::Explicit(padding, padding, padding, padding))
        .with_bias(false)
        .with_initializer(HE_UNIFORM)
}
