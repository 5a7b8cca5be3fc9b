//! Where a product finds its activations: the rows of a matrix, or the windows of a convolution.
//!
//! Element `k` of row `m` is, in a matrix, element `k` of its row `m`; in a convolution it is the pixel under tap `(ky, kx)` of input
//! channel `c`, with `k = (c · kh + ky) · kw + kx`, where the kernel lies on output pixel `(oy, ox)` of image `b`, with
//! `m = (b · out_height + oy) · out_width + ox`; and zero beyond the border.

use cubecl::prelude::*;
use cubecl::std::FastDivmod;
use cubecl::std::tensor::layout::linear::LinearView;

use super::activations::OFFSET;

/// What a product computes with, known when a kernel is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    /// Are rows the windows of a convolution?
    pub(crate) windows: bool,
    /// Are activations in int8?
    pub(crate) int8: bool,
    /// Does each output have scales of its own?
    pub(crate) per_output: bool,
}

/// A convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Steps of the kernel.
    pub stride: [usize; 2],
    /// Distances between its taps.
    pub dilation: [usize; 2],
    /// Zeros above and to the left.
    pub padding: [usize; 2],
    /// Height and width of the output, which says how many zeros are below and to the right.
    pub output: [usize; 2],
    /// Groups of channels.
    pub groups: usize,
}

/// The geometry of a product, on the device. Of a matrix only `row` counts, and the rest is 1.
#[derive(CubeLaunch, CubeType, Clone, Copy)]
pub(crate) struct Geometry {
    /// Elements of a row of the matrix, or of an image.
    row: u32,
    /// Channels of a group.
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
    /// Rows of this many elements.
    pub(crate) fn matrix(row: usize) -> Self {
        Self::new(row as u32, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1)
    }

    /// The windows of images of this shape, `[channels, height, width]`.
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

/// The part of a place that depends on the row alone.
#[derive(CubeType, Clone, Copy)]
pub(crate) struct Row {
    /// Row of the matrix, or image.
    pub(crate) index: u32,
    /// The first row and column of pixels under the kernel, moved by the padding.
    y: u32,
    x: u32,
}

#[cube]
impl Geometry {
    /// Where row `m` is.
    pub(crate) fn row(&self, m: u32, #[comptime] kind: Kind) -> Row {
        if comptime!(kind.windows) {
            let (index, pixel) = self.out_pixels.div_mod(m);
            let (y, x) = self.out_width.div_mod(pixel);
            Row { index, y: y * self.stride_y, x: x * self.stride_x }
        } else {
            Row { index: m, y: 0u32, x: 0u32 }
        }
    }

    /// Element `k` of a row for outputs of this group of channels, as a float or as an integer in int8. `X` is the type of the
    /// activations, or of the words they are packed in.
    pub(crate) fn read<X: Numeric, E: Numeric>(
        &self,
        x: &LinearView<X>,
        row: Row,
        k: u32,
        group: u32,
        #[comptime] kind: Kind,
    ) -> E {
        let mut offset = k;
        let mut inside = true;
        if comptime!(kind.windows) {
            let (channel, tap) = self.taps.div_mod(k);
            let (ky, kx) = self.taps_x.div_mod(tap);
            // What lies above or to the left becomes a very large number.
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
