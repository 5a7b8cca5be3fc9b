//! Transforms of tiles of pixels to points, and of points to outputs.

use std::ops::Range;

use super::matrices::{
    gradient_columns, gradient_rows, input_columns, input_rows, output_columns, output_rows, select,
};
use super::{POINTS, TILE};
use crate::kernels::SharedOutput;
use crate::kernels::convolution::correlate::store;
use crate::kernels::simd::{Kernel, Vector};

/// The tiles of a block, in images with zeros beyond the border.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    /// The first pixel of the first tile.
    pub(super) x: *const f32,
    /// Distances between images, rows and columns of pixels.
    pub(super) pitches: [isize; 3],
    /// Distances between images, rows and columns of tiles.
    pub(super) steps: [isize; 3],
    /// Number of images, rows and columns of tiles.
    pub(super) size: [usize; 3],
}

impl Tiles {
    /// Calls `work` with the index and the first pixel of each tile.
    #[inline(always)]
    fn for_each(&self, mut work: impl FnMut(usize, *const f32)) {
        let mut index = 0;
        for image in 0..self.size[0] as isize {
            for row in 0..self.size[1] as isize {
                for column in 0..self.size[2] as isize {
                    let [images, rows, columns] = self.steps;
                    work(index, self.x.wrapping_offset(image * images + row * rows + column * columns));
                    index += 1;
                }
            }
        }
    }

    /// Number of tiles.
    pub(super) fn len(&self) -> usize {
        self.size.iter().product()
    }
}

/// Points of tiles: `[24 points, tiles, pitch]`.
pub(super) struct Points<'a> {
    pub(super) floats: &'a mut [f32],
    /// Distance between points.
    pub(super) distance: usize,
    /// Distance between tiles.
    pub(super) pitch: usize,
}

/// Transforms tiles of 4 by 6 inputs to points.
pub(super) struct TransformInputs<'a> {
    pub(super) tiles: Tiles,
    pub(super) points: Points<'a>,
}

impl Kernel for TransformInputs<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Points { floats, distance, pitch } = self.points;
        assert!(floats.len() >= POINTS * distance && distance >= self.tiles.len() * pitch);
        let [_, down, right] = self.tiles.pitches;
        self.tiles.for_each(|tile, x| {
            for channel in (0..pitch).step_by(V::LANES) {
                // SAFETY: pixels and points have `pitch` channels.
                unsafe {
                    let (x, to) = (x.add(channel), floats.as_mut_ptr().add(tile * pitch + channel));
                    let mut columns = [[V::splat(0.0); 4]; 6];
                    for (j, column) in columns.iter_mut().enumerate() {
                        let pixel = |i: usize| V::load(x.offset(i as isize * down + j as isize * right));
                        *column = input_rows([pixel(0), pixel(1), pixel(2), pixel(3)]);
                    }
                    for i in 0..4 {
                        let points: [V; 6] = input_columns(select(&columns, i));
                        for (j, point) in points.into_iter().enumerate() {
                            point.store(to.add((i * 6 + j) * distance));
                        }
                    }
                }
            }
        });
    }
}

/// Transforms tiles of 2 by 4 gradients of outputs to points.
pub(super) struct TransformGradients<'a> {
    pub(super) tiles: Tiles,
    pub(super) points: Points<'a>,
    pub(super) channels: Range<usize>,
}

impl Kernel for TransformGradients<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Points { floats, distance, pitch } = self.points;
        assert!(floats.len() >= POINTS * distance && distance >= self.tiles.len() * pitch);
        assert!(pitch >= self.channels.end);
        let [_, down, right] = self.tiles.pitches;
        self.tiles.for_each(|tile, x| {
            for channel in self.channels.clone().step_by(V::LANES) {
                // SAFETY: pixels and points have `pitch` channels.
                unsafe {
                    let (x, to) = (x.add(channel), floats.as_mut_ptr().add(tile * pitch + channel));
                    let mut columns = [[V::splat(0.0); 4]; 4];
                    for (j, column) in columns.iter_mut().enumerate() {
                        let pixel = |i: usize| V::load(x.offset(i as isize * down + j as isize * right));
                        *column = gradient_rows([pixel(0), pixel(1)]);
                    }
                    for i in 0..4 {
                        let points: [V; 6] = gradient_columns(select(&columns, i));
                        for (j, point) in points.into_iter().enumerate() {
                            point.store(to.add((i * 6 + j) * distance));
                        }
                    }
                }
            }
        });
    }
}

/// Transforms points, `[24 points, tiles, pitch]`, to outputs.
pub(super) struct TransformOutputs<'a> {
    pub(super) points: Points<'a>,
    /// Images and rows of tiles.
    pub(super) block: &'a [Range<usize>; 2],
    /// Number of columns of tiles.
    pub(super) tiles: usize,
    /// Height and width of the output.
    pub(super) size: [usize; 2],
    pub(super) outputs: usize,
    pub(super) channels: Range<usize>,
    /// One value for each channel, and for those up to the next multiple of a vector.
    pub(super) bias: &'a [f32],
    pub(super) y: SharedOutput,
}

impl Kernel for TransformOutputs<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { points, block: [images, rows], tiles, size: [h, w], outputs, channels, bias, y } = self;
        let Points { floats, distance, pitch } = points;
        assert!(distance >= images.len() * rows.len() * tiles * pitch);
        assert!(floats.len() >= POINTS * distance && bias.len() >= channels.end.next_multiple_of(V::LANES));
        let mut from = floats.as_ptr();
        for image in images.clone() {
            for row in rows.clone() {
                for column in 0..tiles {
                    let first = [row * TILE[0], column * TILE[1]];
                    for channel in channels.clone().step_by(V::LANES) {
                        // SAFETY: the points have `pitch` floats for each tile, and no other task writes this block's
                        // outputs.
                        unsafe {
                            let from = from.add(channel);
                            let bias = V::load(bias.as_ptr().add(channel));
                            let mut columns = [[V::splat(0.0); 2]; 6];
                            for (j, column) in columns.iter_mut().enumerate() {
                                let point = |i: usize| V::load(from.add((i * 6 + j) * distance));
                                *column = output_rows([point(0), point(1), point(2), point(3)]);
                            }
                            for i in 0..TILE[0].min(h - first[0]) {
                                let values = output_columns(select(&columns, i));
                                let start = ((image * h + first[0] + i) * w + first[1]) * outputs + channel;
                                let n = TILE[1].min(w - first[1]);
                                for (j, value) in values.into_iter().enumerate().take(n) {
                                    let to = y.pointer().add(start + j * outputs);
                                    store(value.add(bias), to, channels.end - channel);
                                }
                            }
                        }
                    }
                    from = from.wrapping_add(pitch);
                }
            }
        }
    }
}
