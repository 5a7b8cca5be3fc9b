//! Where things lie: outputs, the padded window of a strip of output rows, and the elements under the kernel.

use crate::kernels::KernelError;

/// How the kernel moves over the input, as `[vertical, horizontal]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConvolutionOptions {
    /// From one output to the next.
    pub stride: [usize; 2],
    /// Zeros on either side.
    pub padding: [usize; 2],
    /// From one weight to the next.
    pub dilation: [usize; 2],
    /// Input and output channels are divided into as many groups.
    pub groups: usize,
}

impl Default for ConvolutionOptions {
    /// Stride and dilation 1, no padding, one group.
    fn default() -> Self {
        Self { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1 }
    }
}

/// The sizes of a convolution for an input of a certain size.
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
            let (padding, kernel) = (options.padding[i], options.dilation[i] * (kernel[i] - 1) + 1);
            let Some(free) = (input[i] + 2 * padding).checked_sub(kernel) else {
                return Err(KernelError::InputTooSmall { input: input[i], padding, kernel });
            };
            output[i] = free / options.stride[i] + 1;
        }
        Ok(Self { options, kernel, input, output })
    }
}

/// The layout of the padded input of some output rows: planes of rows, and a row in as many parts as the horizontal stride has
/// steps, part `p` holding the columns `p, p + stride, …`. Elements that neighbouring outputs take for the same weight are then
/// neighbours, whatever the stride. An element is a float of one channel, or four bytes of four channels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) geometry: Geometry,
    /// Output rows, less in the last strip.
    pub(crate) strip: usize,
    /// Elements of a part of a row.
    part: usize,
    /// Rows of a plane.
    rows: usize,
}

impl Window {
    pub(crate) fn new(geometry: Geometry, strip: usize) -> Self {
        let Geometry { options, kernel, input, .. } = geometry;
        let rows = (strip - 1) * options.stride[0] + options.dilation[0] * (kernel[0] - 1) + 1;
        Self { geometry, strip, part: (input[1] + 2 * options.padding[1]).div_ceil(options.stride[1]), rows }
    }

    fn row(&self) -> usize {
        self.part * self.geometry.options.stride[1]
    }

    pub(crate) fn plane(&self) -> usize {
        self.rows * self.row()
    }

    /// The first element of an output pixel of the strip.
    #[inline(always)]
    pub(crate) fn pixel(&self, row: usize, column: usize) -> usize {
        row * self.geometry.options.stride[0] * self.row() + column
    }

    /// From there to the element of the same plane under a weight.
    pub(crate) fn offset(&self, [y, x]: [usize; 2]) -> usize {
        let ConvolutionOptions { stride, dilation, .. } = self.geometry.options;
        let x = x * dilation[1];
        y * dilation[0] * self.row() + x % stride[1] * self.part + x / stride[1]
    }

    /// Fills a plane for the output rows from `first` on. `zero` is the element of padding, `element(i)` the one with the index `i`
    /// in an image of the input.
    #[inline(always)]
    pub(crate) fn fill<T: Copy>(&self, first: usize, plane: &mut [T], zero: T, element: impl Fn(usize) -> T + Copy) {
        let Geometry { options: ConvolutionOptions { stride, padding, .. }, input: [height, width], .. } =
            self.geometry;
        for phase in 0..stride[1] {
            // What of a part is inside the image, and the column of its first element.
            let start = padding[1].saturating_sub(phase).div_ceil(stride[1]).min(self.part);
            let end = (padding[1] + width).saturating_sub(phase).div_ceil(stride[1]).clamp(start, self.part);
            let column = (start * stride[1] + phase).wrapping_sub(padding[1]);
            for (row, to) in plane.chunks_exact_mut(self.row()).enumerate() {
                let to = &mut to[phase * self.part..][..self.part];
                let row = (first * stride[0] + row).wrapping_sub(padding[0]);
                if row >= height || start == end {
                    to.fill(zero);
                    continue;
                }
                to[..start].fill(zero);
                to[end..].fill(zero);
                fill_part(&mut to[start..end], row * width + column, stride[1], element);
            }
        }
    }
}

/// Elements a stride apart; where the compiler knows the stride it makes vectors of them.
#[inline(always)]
fn fill_part<T>(to: &mut [T], first: usize, stride: usize, element: impl Fn(usize) -> T) {
    match stride {
        1 => to.iter_mut().enumerate().for_each(|(i, to)| *to = element(first + i)),
        2 => to.iter_mut().enumerate().for_each(|(i, to)| *to = element(first + 2 * i)),
        stride => to.iter_mut().enumerate().for_each(|(i, to)| *to = element(first + stride * i)),
    }
}
