//! Padding and output size of a convolution.

use burn::nn::PaddingConfig2d;
use burn::nn::conv::Conv2dConfig;

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
                let Some(last) = size.div_ceil(stride).checked_sub(1) else { return [0; 2] };
                let padding = (last * stride + self.kernel[axis]).saturating_sub(size);
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
            let padded = size[axis] + padding[axis][0] + padding[axis][1];
            let span = self.dilation[axis] * (self.kernel[axis] - 1) + 1;
            let Some(free) = padded.checked_sub(span) else {
                let [kernel_size, dilation] = [self.kernel, self.dilation];
                panic!(
                    "convolution: the {} of the input is {} ({padded} with padding), but the kernel {kernel_size:?} with \
                     dilation {dilation:?} spans {span}: use a larger input or more padding",
                    ["height", "width"][axis],
                    size[axis],
                )
            };
            free / self.stride[axis] + 1
        })
    }
}
