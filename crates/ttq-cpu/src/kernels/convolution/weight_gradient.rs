//! Gradient of a convolution's weights, on channels-last memory.
//!
//! A register tile holds some terms (tap and input channel) times some vectors of output channels. It is summed over
//! the positions of a block: each adds one broadcast input per term times the vectors of the output's gradient.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::correlate::{COLUMNS, Lanes};
use super::images::Images;
use super::partial_sums::{PartialSums, Share};
use super::window::{Blocks, Window};
use super::winograd::Winograd;
use crate::kernels::simd::{Kernel, Level, Vector};
use crate::kernels::{Geometry, with_scratch};

/// Approximate number of positions in a block.
const POSITIONS: usize = 128;
/// Terms in a register tile.
pub(super) const TERMS: usize = 8;

/// Computes the gradient of the weights, `[channels_out, channels_in, kh, kw]`, from the input and the output's gradient
/// `dy`. Writes every element of `dw`.
pub(crate) fn weight_gradient(level: Level, geometry: &Geometry, x: Images, dy: Images, dw: &mut [MaybeUninit<f32>]) {
    let Geometry { batch, channels_in, channels_out, kernel, .. } = *geometry;
    let size = dy.size;
    let lanes = level.run(Lanes);
    let width = COLUMNS * lanes;
    let columns = channels_out.div_ceil(width);
    let is_dense = kernel == [3, 3] && geometry.stride == [1, 1] && geometry.dilation == [1, 1];
    if is_dense && Winograd::is_faster(channels_in, channels_out, size) {
        let shift = geometry.padding.map(|padding| -(padding as isize));
        let winograd = Winograd { level, batch, x, channels: channels_in, outputs: channels_out, size, shift };
        let (sums, rows) = winograd.weight_gradient(dy);
        return unpack(geometry, width, &sums, |column, c, tap| (tap * columns + column) * rows + c, dw);
    }
    let blocks = Blocks::new(batch, size, POSITIONS);
    let bounds = [0, 1].map(|axis| (geometry.shift(axis, 0), geometry.shift(axis, kernel[axis] - 1)));
    let window = Window::new(level, x, bounds, geometry.stride, size, &blocks, channels_in);
    let taps = (0..kernel[0]).flat_map(|i| (0..kernel[1]).map(move |j| [geometry.shift(0, i), geometry.shift(1, j)]));
    let shifts = taps.map(|shift| window.shift(shift));
    let mut terms: Vec<isize> = shifts.flat_map(|shift| shift..shift + channels_in as isize).collect();
    // Terms beyond the last are the last one; their sums are not used.
    terms.resize(terms.len().next_multiple_of(TERMS), terms[terms.len() - 1]);
    // Whole vectors are read, so a number of channels that is not a multiple of a vector's takes a copy.
    let pitch = channels_out.next_multiple_of(lanes);
    let dy_window = Window::new(level, dy, [(0, 0); 2], [1, 1], size, &blocks, pitch);
    let sums = PartialSums::new(columns * terms.len() * width, blocks.len());
    let add = |share: Share| {
        for index in share.blocks.clone() {
            let block = blocks.get(index);
            with_scratch(window.scratch + dy_window.scratch, |scratch| {
                let (x_scratch, dy_scratch) = scratch.split_at_mut(window.scratch);
                level.run(WeightGradient {
                    size: [block[0].len(), block[1].len(), size[1]],
                    terms: &terms,
                    x: window.read(&block, x_scratch),
                    x_steps: window.steps(),
                    dy: dy_window.read(&block, dy_scratch),
                    dy_steps: dy_window.steps(),
                    channels: pitch,
                    columns: share.columns.clone(),
                    sums: share.sums,
                    is_first: index == share.blocks.start,
                });
            });
        }
    };
    // SAFETY: the first block of a part writes all sums.
    let mut sums = unsafe { sums.total(columns, add) };
    let terms = terms.len();
    unpack(geometry, width, sums.floats(), |column, c, tap| column * terms + tap * channels_in + c, dw);
}

/// Writes the gradient from sums in rows of `width` outputs. `row` is the row of a block of outputs, an input channel and
/// a tap.
fn unpack(
    geometry: &Geometry,
    width: usize,
    sums: &[f32],
    row: impl Fn(usize, usize, usize) -> usize,
    dw: &mut [MaybeUninit<f32>],
) {
    let taps = geometry.taps();
    for (o, dw) in dw.chunks_exact_mut(geometry.channels_in * taps).enumerate() {
        for (c, dw) in dw.chunks_exact_mut(taps).enumerate() {
            for (tap, dw) in dw.iter_mut().enumerate() {
                dw.write(sums[row(o / width, c, tap) * width + o % width]);
            }
        }
    }
}

/// Adds the products of a block to the sums, `[blocks of COLUMNS vectors, terms, COLUMNS vectors]`.
pub(super) struct WeightGradient<'a> {
    /// Number of images, rows and columns of positions.
    pub(super) size: [usize; 3],
    /// Offset of each term from a position's input.
    pub(super) terms: &'a [isize],
    pub(super) x: *const f32,
    /// Distances between images, rows and columns.
    pub(super) x_steps: [isize; 3],
    pub(super) dy: *const f32,
    pub(super) dy_steps: [isize; 3],
    /// Number of output channels, a multiple of a vector.
    pub(super) channels: usize,
    /// Blocks of output channels to compute.
    pub(super) columns: Range<usize>,
    /// Receives or adds the sums.
    pub(super) sums: *mut f32,
    pub(super) is_first: bool,
}

impl Kernel for WeightGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let width = COLUMNS * V::LANES;
        for first in self.columns.clone().map(|column| column * width) {
            for tile in (0..self.terms.len()).step_by(TERMS) {
                // SAFETY: the positions of the block and the terms are within the window; see `weight_gradient`.
                unsafe {
                    if self.channels - first > V::LANES {
                        self.tile::<V, 2>(first, tile);
                    } else {
                        self.tile::<V, 1>(first, tile);
                    }
                }
            }
        }
    }
}

impl WeightGradient<'_> {
    /// Computes or continues the sums of `TERMS` terms from `tile` on and at most `N` vectors of output channels from
    /// `first` on.
    ///
    /// # Safety
    /// The inputs of the terms and the gradients of the output channels must be readable at each position, and the sums
    /// writable, and initialized unless `is_first`.
    #[inline(always)]
    unsafe fn tile<V: Vector, const N: usize>(&self, first: usize, tile: usize) {
        let width = COLUMNS * V::LANES;
        let [images, rows, columns] = self.size;
        let offset = |steps: [isize; 3], image: usize, row: usize| image as isize * steps[0] + row as isize * steps[1];
        let terms = &self.terms[tile..tile + TERMS];
        // SAFETY: the caller guarantees that the memory is valid.
        unsafe {
            let inputs: [*const f32; TERMS] = core::array::from_fn(|k| self.x.offset(terms[k]));
            let to = self.sums.add(first * self.terms.len() + tile * width);
            let mut sums = [[V::splat(0.0); N]; TERMS];
            if !self.is_first {
                for (k, sums) in sums.iter_mut().enumerate() {
                    for (n, sum) in sums.iter_mut().enumerate() {
                        *sum = V::load(to.add(k * width + n * V::LANES));
                    }
                }
            }
            for image in 0..images {
                for row in 0..rows {
                    let mut at = offset(self.x_steps, image, row);
                    let mut dy = self.dy.offset(offset(self.dy_steps, image, row)).add(first);
                    for _ in 0..columns {
                        let mut gradients = [V::splat(0.0); N];
                        for (n, gradient) in gradients.iter_mut().enumerate() {
                            *gradient = V::load(dy.add(n * V::LANES));
                        }
                        for (x, sums) in inputs.iter().zip(&mut sums) {
                            let x = V::splat(*x.offset(at));
                            for (sum, gradient) in sums.iter_mut().zip(gradients) {
                                *sum = sum.add_product(x, gradient);
                            }
                        }
                        at += self.x_steps[2];
                        dy = dy.offset(self.dy_steps[2]);
                    }
                }
            }
            for (k, sums) in sums.iter().enumerate() {
                for (n, sum) in sums.iter().enumerate() {
                    sum.store(to.add(k * width + n * V::LANES));
                }
                for n in N..COLUMNS {
                    // Channels beyond the last.
                    V::splat(0.0).store(to.add(k * width + n * V::LANES));
                }
            }
        }
    }
}
