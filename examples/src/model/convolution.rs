//! The convolution of the networks of the PyTorch port.

use burn::nn::conv::Conv2dConfig;
use burn::nn::{Initializer, PaddingConfig2d};

/// Initializer of convolutions and of the linear layer: He's uniform distribution by the number of inputs.
pub(super) const HE_UNIFORM: Initializer =
    Initializer::KaimingUniform { gain: std::f64::consts::SQRT_2, fan_out_only: false };

/// Returns the configuration of a convolution without bias and with a weight `[channels[1], channels[0], kernel,
/// kernel]`. `kernel` is odd, and the output has the height and width of the input.
pub(super) fn convolution(channels: [usize; 2], kernel: usize) -> Conv2dConfig {
    let padding = kernel / 2;
    Conv2dConfig::new(channels, [kernel, kernel])
        .with_padding(PaddingConfig2d::Explicit(padding, padding, padding, padding))
        .with_bias(false)
        .with_initializer(HE_UNIFORM)
}
