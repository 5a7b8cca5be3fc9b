//! Padding and output size of a convolution.

use burn::nn::PaddingConfig2d;
use burn::nn::conv::Conv2dConfig;
use burn::tensor::ops::conv::calculate_conv_output_size;

/// The part of a convolution's configuration that determines its output size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry<'a> {
    /// `[height, width]`
    pub(super) kernel: [usize; 2],
    /// `[height, width]`
    pub(super) stride: [usize; 2],
    /// `[height, width]`
    pub(super) dilation: [usize; 2],
    pub(super) padding: &'a PaddingConfig2d,
}

impl<'a> Geometry<'a> {
    pub(super) fn of(config: &'a Conv2dConfig) -> Self {
        let Conv2dConfig { kernel_size, stride, dilation, padding, .. } = config;
        Self { kernel: *kernel_size, stride: *stride, dilation: *dilation, padding }
    }

    /// Returns the number of padded zeros for images of size `[height, width]`: `[[top, bottom], [left, right]]`.
    pub(super) fn padding_of(self, size: [usize; 2]) -> [[usize; 2]; 2] {
        match *self.padding {
            PaddingConfig2d::Valid => [[0; 2]; 2],
            PaddingConfig2d::Explicit(top, left, bottom, right) => [[top, bottom], [left, right]],
            // As in Burn's layer, the dilation does not enter.
            PaddingConfig2d::Same => [0, 1].map(|axis| {
                let (size, stride) = (size[axis], self.stride[axis]);
                let spanned = size.div_ceil(stride).saturating_sub(1) * stride + self.kernel[axis];
                let padding = spanned.saturating_sub(size);
                [padding / 2, padding - padding / 2]
            }),
        }
    }

    /// Returns the output size `[height, width]` for images of size `[height, width]`.
    ///
    /// # Panics
    /// Panics if the kernel does not fit into the padded image.
    pub(super) fn output_size(self, size: [usize; 2]) -> [usize; 2] {
        let padding = self.padding_of(size);
        [0, 1].map(|axis| {
            let (kernel, dilation) = (self.kernel[axis], self.dilation[axis]);
            // Burn's function pads both sides by the same number.
            let padded = size[axis] + padding[axis][0] + padding[axis][1];
            let span = dilation * (kernel - 1) + 1;
            assert!(padded >= span, "a convolution kernel of {span} pixels does not fit into {padded} padded pixels");
            calculate_conv_output_size(kernel, self.stride[axis], 0, dilation, padded)
        })
    }
}
