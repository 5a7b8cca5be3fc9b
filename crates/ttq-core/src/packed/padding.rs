//! How many zeros lie around the images of a convolution.

use burn::nn::PaddingConfig2d;
use burn::nn::conv::Conv2dConfig;

/// Zeros around images of this height and width: `[[top, bottom], [left, right]]`.
pub(super) fn around(config: &Conv2dConfig, size: [usize; 2]) -> [[usize; 2]; 2] {
    let Conv2dConfig { kernel_size, stride, .. } = *config;
    match config.padding {
        PaddingConfig2d::Valid => [[0; 2]; 2],
        PaddingConfig2d::Explicit(top, left, bottom, right) => [[top, bottom], [left, right]],
        // As Burn's layer does it, which leaves the dilation out.
        PaddingConfig2d::Same => [0, 1].map(|axis| {
            let spanned = size[axis].div_ceil(stride[axis]).saturating_sub(1) * stride[axis] + kernel_size[axis];
            let padding = spanned.saturating_sub(size[axis]);
            [padding / 2, padding - padding / 2]
        }),
    }
}
