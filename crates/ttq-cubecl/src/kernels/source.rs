//! Addressing of a product's activations, which are the rows of a matrix or the windows of a convolution.
//!
//! For a matrix, element `k` of row `m` is the matrix element `[m, k]`. For a convolution, row `m` is the window of
//! output pixel `(oy, ox)` of image `b`, and element `k` is the pixel under tap `(ky, kx)` in input channel `c`, or
//! zero beyond the border:
//!
//! ```text
//! m = (b · out_height + oy) · out_width + ox
//! k = (c · kh + ky) · kw + kx
//! ```

use cubecl::prelude::*;
use cubecl::std::FastDivmod;
use cubecl::std::tensor::layout::linear::LinearView;

use super::activations::OFFSET;

/// Properties of a product for which kernels are compiled separately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ProductKind {
    /// Whether rows are the windows of a convolution.
    pub(crate) windows: bool,
    /// Whether activations are int8.
    pub(crate) int8: bool,
    /// Whether each output has its own scales.
    pub(crate) per_output: bool,
}

/// Sliding window of a two-dimensional convolution. All pairs are vertical, horizontal; lengths are in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Distance between neighbouring windows.
    pub stride: [usize; 2],
    /// Distance between neighbouring taps of the kernel.
    pub dilation: [usize; 2],
    /// Number of zeros above and to the left of the input. The zeros below and to the right follow from the output
    /// size.
    pub padding: [usize; 2],
    /// Height and width of the output, `floor((input + zeros on both sides - dilation (kernel - 1) - 1) / stride) + 1`.
    pub output: [usize; 2],
    /// Number of groups that input and output channels are divided into.
    pub groups: usize,
}

/// Geometry of a product, on the device. For a matrix only `row` is used.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub(crate) struct Geometry {
    /// Number of elements of a row of the matrix, or of an image.
    row: u32,
    /// Number of input channels of a group.
    channels: u32,
    height: u32,
    width: u32,
    stride_y: u32,
    stride_x: u32,
    dilation_y: u32,
    dilation_x: u32,
    padding_y: u32,
    padding_x: u32,
    out_width: FastDivmod<u32>,
    pub(crate) out_pixels: FastDivmod<u32>,
    taps: FastDivmod<u32>,
    taps_x: FastDivmod<u32>,
    /// Number of output pixels.
    pub(crate) pixels: u32,
}

impl<R: Runtime> GeometryLaunch<R> {
    /// Geometry of a matrix with `row` columns.
    pub(crate) fn matrix(row: usize) -> Self {
        Self::new(row as u32, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1)
    }

    /// Geometry of a convolution of images `[channels, height, width]`.
    pub(crate) fn windows(window: &Window, image: [usize; 3]) -> Self {
        let n = |number: usize| number as u32;
        let [channels, height, width] = image;
        let ([stride_y, stride_x], [dilation_y, dilation_x]) = (window.stride.map(n), window.dilation.map(n));
        let ([padding_y, padding_x], [taps_y, taps_x]) = (window.padding.map(n), window.kernel.map(n));
        let [out_height, out_width] = window.output.map(n);
        Self::new(
            n(channels * height * width),
            n(channels / window.groups),
            n(height),
            n(width),
            stride_y,
            stride_x,
            dilation_y,
            dilation_x,
            padding_y,
            padding_x,
            out_width,
            out_height * out_width,
            taps_y * taps_x,
            taps_x,
            out_height * out_width,
        )
    }
}

/// A row of the product.
#[derive(CubeType, Clone, Copy)]
pub(crate) struct Row {
    /// Index of the row of the matrix, or of the image.
    pub(crate) index: u32,
    /// Row and column of the window's first pixel, in coordinates of the padded image.
    y: u32,
    x: u32,
}

#[cube]
impl Geometry {
    /// Returns row `m` of the product.
    pub(crate) fn row(&self, m: u32, #[comptime] kind: ProductKind) -> Row {
        if comptime!(kind.windows) {
            let (index, pixel) = self.out_pixels.div_mod(m);
            let (y, x) = self.out_width.div_mod(pixel);
            Row { index, y: y * self.stride_y, x: x * self.stride_x }
        } else {
            Row { index: m, y: 0u32, x: 0u32 }
        }
    }

    /// Reads element `k` of a row for the outputs of a group of channels, as a float, or as an integer for int8
    /// activations. `X` is the type of the activations or of their words.
    pub(crate) fn read<X: Numeric, E: Numeric>(
        &self,
        x: &LinearView<X>,
        row: Row,
        k: u32,
        group: u32,
        #[comptime] kind: ProductKind,
    ) -> E {
        let mut offset = k;
        let mut inside = true;
        if comptime!(kind.windows) {
            let (channel, tap) = self.taps.div_mod(k);
            let (ky, kx) = self.taps_x.div_mod(tap);
            // Coordinates above or to the left of the image wrap to large numbers, which are outside as well.
            let y = row.y + ky * self.dilation_y - self.padding_y;
            let x = row.x + kx * self.dilation_x - self.padding_x;
            inside = y < self.height && x < self.width;
            offset = ((group * self.channels + channel) * self.height + y) * self.width + x;
        }
        let mut value = E::from_int(0);
        if inside {
            if comptime!(kind.int8) {
                let words = self.row.div_ceil(4u32);
                let word = u32::cast_from(x[(row.index * words + offset / 4) as usize]);
                value = E::cast_from(i32::cast_from((word >> (8 * (offset % 4))) & 255) - OFFSET);
            } else {
                value = E::cast_from(x[(row.index * self.row + offset) as usize]);
            }
        }
        value
    }
}
