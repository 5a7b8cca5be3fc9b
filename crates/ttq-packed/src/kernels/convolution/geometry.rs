//! Sizes and index arithmetic of convolutions: outputs, padded windows, and the elements under the kernel.

use serde::{Deserialize, Serialize};

use crate::kernels::KernelError;

/// Stride, padding, dilation and groups of a convolution. Pairs are `[vertical, horizontal]`, in elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvolutionOptions {
    /// Distance between the inputs of neighbouring outputs, at least 1.
    pub stride: [usize; 2],
    /// Number of zeros added at the sides of the input: `[[top, bottom], [left, right]]`.
    pub padding: [[usize; 2]; 2],
    /// Distance between the inputs of neighbouring kernel weights, at least 1.
    pub dilation: [usize; 2],
    /// Number of groups into which input and output channels are divided, at least 1.
    pub groups: usize,
}

impl Default for ConvolutionOptions {
    /// Returns stride 1, no padding, dilation 1 and one group.
    fn default() -> Self {
        Self { stride: [1, 1], padding: [[0; 2]; 2], dilation: [1, 1], groups: 1 }
    }
}

impl ConvolutionOptions {
    /// Returns an error if stride, dilation or number of groups is zero.
    pub(super) fn check(&self) -> Result<(), KernelError> {
        let positive = [
            ("the number of groups", self.groups),
            ("the vertical stride", self.stride[0]),
            ("the horizontal stride", self.stride[1]),
            ("the vertical dilation", self.dilation[0]),
            ("the horizontal dilation", self.dilation[1]),
        ];
        positive.into_iter().try_for_each(|(what, value)| KernelError::check_positive(what, value))
    }
}

/// The sizes of a convolution for one input size, as `[height, width]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    pub(crate) options: ConvolutionOptions,
    pub(crate) kernel: [usize; 2],
    pub(crate) input: [usize; 2],
    pub(crate) output: [usize; 2],
}

impl Geometry {
    pub(crate) fn new(options: ConvolutionOptions, kernel: [usize; 2], input: [usize; 2]) -> Result<Self, KernelError> {
        let mut output = [0; 2];
        for i in 0..2 {
            KernelError::check_positive(["the height of the input", "the width of the input"][i], input[i])?;
            let [before, after] = options.padding[i];
            // A size that is not representable is larger than any input.
            let kernel = options.dilation[i].saturating_mul(kernel[i] - 1).saturating_add(1);
            let padding = before.saturating_add(after);
            let Some(padded) = input[i].checked_add(padding).filter(|padded| *padded <= u32::MAX as usize) else {
                return Err(KernelError::Dimension { what: "the padding", value: padding, expected: "below 2^32" });
            };
            let Some(free) = padded.checked_sub(kernel) else {
                return Err(KernelError::InputTooSmall { input: input[i], padding, kernel });
            };
            output[i] = free / options.stride[i] + 1;
        }
        Ok(Self { options, kernel, input, output })
    }
}

/// The layout of the padded input of a strip of output rows.
///
/// A window consists of planes of rows. A row is divided into one phase per step of the horizontal stride; phase `p`
/// holds the columns `p, p + stride, …`. For the same weight, the elements of neighbouring outputs are thus contiguous
/// with every stride. An element is a float of one channel, or a word with the bytes of four channels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) geometry: Geometry,
    /// Number of output rows. The last strip may have fewer.
    pub(crate) strip: usize,
    /// Number of elements of a phase of a row.
    phase_len: usize,
    /// Number of rows of a plane.
    rows: usize,
}

impl Window {
    pub(crate) fn new(geometry: Geometry, strip: usize) -> Self {
        let Geometry { options, kernel, input, .. } = geometry;
        let rows = (strip - 1) * options.stride[0] + options.dilation[0] * (kernel[0] - 1) + 1;
        let [left, right] = options.padding[1];
        let phase_len = (input[1] + left + right).div_ceil(options.stride[1]);
        Self { geometry, strip, phase_len, rows }
    }

    /// Returns the number of elements of a row.
    fn row(&self) -> usize {
        self.phase_len * self.geometry.options.stride[1]
    }

    /// Returns the number of elements of a plane.
    pub(crate) fn plane(&self) -> usize {
        self.rows * self.row()
    }

    /// Returns the index of the first element of an output pixel of the strip.
    #[inline(always)]
    pub(crate) fn pixel(&self, row: usize, column: usize) -> usize {
        row * self.geometry.options.stride[0] * self.row() + column
    }

    /// Returns the offset from [`pixel`](Self::pixel) to the element under the weight `[y, x]` in the same plane.
    pub(crate) fn offset(&self, [y, x]: [usize; 2]) -> usize {
        let ConvolutionOptions { stride, dilation, .. } = self.geometry.options;
        let x = x * dilation[1];
        y * dilation[0] * self.row() + x % stride[1] * self.phase_len + x / stride[1]
    }

    /// Fills a plane for the output rows that start at `first`.
    ///
    /// `zero` is the padding element, and `element(i)` the element with the index `i` in one channel of the input.
    #[inline(always)]
    pub(crate) fn fill<T: Copy>(&self, first: usize, plane: &mut [T], zero: T, element: impl Fn(usize) -> T + Copy) {
        let Geometry { options: ConvolutionOptions { stride, padding, .. }, input: [height, width], .. } =
            self.geometry;
        let [[top, _], [left, _]] = padding;
        for phase in 0..stride[1] {
            // Range of the phase inside of the image, and the image column of its first element.
            let start = left.saturating_sub(phase).div_ceil(stride[1]).min(self.phase_len);
            let end = (left + width).saturating_sub(phase).div_ceil(stride[1]).clamp(start, self.phase_len);
            let column = (start * stride[1] + phase).wrapping_sub(left);
            for (row, to) in plane.chunks_exact_mut(self.row()).enumerate() {
                let to = &mut to[phase * self.phase_len..][..self.phase_len];
                let row = (first * stride[0] + row).wrapping_sub(top);
                if row >= height || start == end {
                    to.fill(zero);
                    continue;
                }
                to[..start].fill(zero);
                to[end..].fill(zero);
                fill_phase(&mut to[start..end], row * width + column, stride[1], element);
            }
        }
    }
}

/// Copies elements at multiples of a stride. The compiler vectorizes the cases with a constant stride.
#[inline(always)]
fn fill_phase<T>(to: &mut [T], first: usize, stride: usize, element: impl Fn(usize) -> T) {
    match stride {
        1 => to.iter_mut().enumerate().for_each(|(i, to)| *to = element(first + i)),
        2 => to.iter_mut().enumerate().for_each(|(i, to)| *to = element(first + 2 * i)),
        stride => to.iter_mut().enumerate().for_each(|(i, to)| *to = element(first + stride * i)),
    }
}
