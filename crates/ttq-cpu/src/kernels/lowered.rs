//! Convolution of any stride as a matrix product ("lowering", im2col): the patches of a few rows of output at a time become a
//! matrix that fits the cache.

use std::mem::MaybeUninit;

use gemm::Parallelism;
use rayon::prelude::*;

use super::{Geometry, Shared, copy, with_scratch};

/// Floats of a matrix of patches.
const PATCHES: usize = 48 * 1024;

impl Geometry {
    /// Length of a patch.
    fn patch(&self) -> usize {
        self.channels_in * self.taps()
    }

    /// Columns of the output whose input column `ox * stride + j * dilation - padding` exists.
    fn columns(&self, j: usize, width: usize) -> std::ops::Range<usize> {
        let (stride, shift, padding) = (self.stride[1], j * self.dilation[1], self.padding[1]);
        let first = padding.saturating_sub(shift).div_ceil(stride).min(width);
        let end = (self.input[1] + padding).saturating_sub(shift).div_ceil(stride).min(width);
        first..end.max(first)
    }

    /// The input's row under row `oy` of the output and row `i` of the kernel.
    fn row(&self, oy: usize, i: usize) -> Option<usize> {
        let row = (oy * self.stride[0] + i * self.dilation[0]).checked_sub(self.padding[0])?;
        (row < self.input[0]).then_some(row)
    }

    /// Calls `work` with the number of each row of the patches' matrix, the rows of output in `rows`, and the row of input that
    /// belongs to both, if there is one.
    fn each_patch_row(&self, rows: std::ops::Range<usize>, mut work: impl FnMut(usize, usize, Option<usize>, usize)) {
        let [kh, kw] = self.kernel;
        for c in 0..self.channels_in {
            for i in 0..kh {
                for j in 0..kw {
                    for oy in rows.clone() {
                        let from = self.row(oy, i).map(|row| (c * self.input[0] + row) * self.input[1]);
                        work((c * kh + i) * kw + j, oy - rows.start, from, j);
                    }
                }
            }
        }
    }
}

/// The patches of some rows of one image's output, `[patch, rows * width]`.
fn patches(geometry: &Geometry, image: &[f32], rows: std::ops::Range<usize>, width: usize, matrix: &mut [f32]) {
    let columns = rows.len() * width;
    let stride = geometry.stride[1];
    geometry.each_patch_row(rows, |patch, row, from, j| {
        let to = &mut matrix[patch * columns + row * width..][..width];
        let here = geometry.columns(j, width);
        let Some(from) = from.filter(|_| !here.is_empty()) else { return to.fill(0.0) };
        to[..here.start].fill(0.0);
        to[here.end..].fill(0.0);
        let first = from + here.start * stride + j * geometry.dilation[1] - geometry.padding[1];
        let to = &mut to[here];
        if stride == 1 {
            to.copy_from_slice(&image[first..first + to.len()]);
        } else {
            to.iter_mut().zip(image[first..].iter().step_by(stride)).for_each(|(to, from)| *to = *from);
        }
    });
}

/// Adds each element of the patches to where it came from.
fn scatter(geometry: &Geometry, matrix: &[f32], [height, width]: [usize; 2], image: &mut [f32]) {
    let columns = height * width;
    let stride = geometry.stride[1];
    geometry.each_patch_row(0..height, |patch, row, to, j| {
        let here = geometry.columns(j, width);
        let Some(to) = to.filter(|_| !here.is_empty()) else { return };
        let first = to + here.start * stride + j * geometry.dilation[1] - geometry.padding[1];
        let from = &matrix[patch * columns + row * width..][here];
        image[first..].iter_mut().step_by(stride).zip(from).for_each(|(to, from)| *to += *from);
    });
}

/// A matrix in memory: where it starts, and how far it is from a row to the next and from a column to the next.
#[derive(Clone, Copy)]
struct Matrix<P> {
    start: P,
    row: usize,
    column: usize,
}

/// `c = a * b`, or `c += a * b`, of sizes `[m, k]` and `[k, n]`.
///
/// # Safety
/// All elements of the three must be there, and those of `c` written by nobody else meanwhile.
unsafe fn multiply(
    [m, n, k]: [usize; 3],
    c: Matrix<*mut f32>,
    add: bool,
    a: Matrix<*const f32>,
    b: Matrix<*const f32>,
) {
    let alpha = if add { 1.0 } else { 0.0 };
    // SAFETY: the memory is there, says the caller.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.start,
            c.column as isize,
            c.row as isize,
            add,
            a.start,
            a.column as isize,
            a.row as isize,
            b.start,
            b.column as isize,
            b.row as isize,
            alpha,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// Rows of output whose patches fit [`PATCHES`].
fn tile(geometry: &Geometry, [height, width]: [usize; 2]) -> usize {
    (PATCHES / (geometry.patch() * width)).clamp(1, height)
}

/// `y[n, o, ..] = bias[o] + weight[o, ..] * patches(x[n, ..])`
pub(crate) fn forward(
    geometry: &Geometry,
    output: [usize; 2],
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    y: &mut [MaybeUninit<f32>],
) {
    let ([height, width], patch, outputs) = (output, geometry.patch(), geometry.channels_out);
    let image = x.len() / geometry.batch;
    let tile = tile(geometry, output);
    y.par_chunks_mut(outputs * height * width).zip(x.par_chunks(image)).for_each(|(y, x)| {
        with_scratch(patch * tile * width, |matrix| {
            for first in (0..height).step_by(tile) {
                let rows = first..height.min(first + tile);
                let columns = rows.len() * width;
                patches(geometry, x, rows, width, matrix);
                let result = Matrix { start: y[first * width..].as_mut_ptr().cast(), row: height * width, column: 1 };
                let weight = Matrix { start: weight.as_ptr(), row: patch, column: 1 };
                let patches = Matrix { start: matrix.as_ptr(), row: columns, column: 1 };
                // SAFETY: these columns of the image's output are this task's; the weight is `[outputs, patch]`.
                unsafe { multiply([outputs, columns, patch], result, false, weight, patches) };
            }
        });
        if let Some(bias) = bias {
            for (y, bias) in y.chunks_exact_mut(height * width).zip(bias) {
                for y in y {
                    // SAFETY: the product has written it.
                    y.write(unsafe { y.assume_init() } + bias);
                }
            }
        }
    });
}

/// The gradient of the input: `weight^T * dy[n, ..]` are the gradients of the patches.
pub(crate) fn input_gradient(
    geometry: &Geometry,
    output: [usize; 2],
    dy: &[f32],
    weight: &[f32],
    dx: &mut [MaybeUninit<f32>],
) {
    let (places, patch, outputs) = (output[0] * output[1], geometry.patch(), geometry.channels_out);
    let image = dx.len() / geometry.batch;
    let dx = Shared::new(dx);
    dy.par_chunks(outputs * places).enumerate().for_each(|(index, dy)| {
        with_scratch(patch * places + image, |scratch| {
            let (matrix, sums) = scratch.split_at_mut(patch * places);
            let result = Matrix { start: matrix.as_mut_ptr(), row: places, column: 1 };
            let transposed = Matrix { start: weight.as_ptr(), row: 1, column: patch };
            let dy = Matrix { start: dy.as_ptr(), row: places, column: 1 };
            // SAFETY: the scratch memory is `[patch, places]`, the weight `[outputs, patch]`, `dy` `[outputs, places]`.
            unsafe { multiply([patch, places, outputs], result, false, transposed, dy) };
            sums.fill(0.0);
            scatter(geometry, matrix, output, sums);
            // SAFETY: the image is this task's alone.
            copy(unsafe { dx.slice(index * image, image) }, sums);
        });
    });
}

/// The gradient of the weights: `sum over n of dy[n, ..] * patches(x[n, ..])^T`.
pub(crate) fn weight_gradient(
    geometry: &Geometry,
    output: [usize; 2],
    x: &[f32],
    dy: &[f32],
    dw: &mut [MaybeUninit<f32>],
) {
    let ([height, width], patch, outputs) = (output, geometry.patch(), geometry.channels_out);
    let (image, places) = (x.len() / geometry.batch, height * width);
    let tile = tile(geometry, output);
    // A fixed number of partial sums: the result does not depend on the number of threads.
    let parts = geometry.batch.min(8);
    let partial = |part: usize| {
        let mut sums = vec![0.0; geometry.weights()];
        let own = part * geometry.batch / parts..(part + 1) * geometry.batch / parts;
        with_scratch(patch * tile * width, |matrix| {
            for n in own {
                let (x, dy) = (&x[n * image..][..image], &dy[n * outputs * places..][..outputs * places]);
                for first in (0..height).step_by(tile) {
                    let rows = first..height.min(first + tile);
                    let columns = rows.len() * width;
                    patches(geometry, x, rows, width, matrix);
                    let result = Matrix { start: sums.as_mut_ptr(), row: patch, column: 1 };
                    let dy = Matrix { start: dy[first * width..].as_ptr(), row: places, column: 1 };
                    let transposed = Matrix { start: matrix.as_ptr(), row: 1, column: columns };
                    // SAFETY: the sums are `[outputs, patch]`, the others the columns of this tile.
                    unsafe { multiply([outputs, patch, columns], result, true, dy, transposed) };
                }
            }
        });
        sums
    };
    let mut partials: Vec<Vec<f32>> = (0..parts).into_par_iter().map(partial).collect();
    let (sums, others) = partials.split_at_mut(1);
    for other in others {
        sums[0].iter_mut().zip(other).for_each(|(sum, other)| *sum += *other);
    }
    copy(dw, &sums[0]);
}
