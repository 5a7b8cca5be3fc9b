//! Winograd's minimal filtering for kernels of 3 by 3 with stride 1: F(2, 3) along rows, F(4, 3) along columns.
//!
//! A *tile* is 2 by 4 outputs, which 4 by 6 inputs determine. Each input tile is transformed to 4 by 6 *points*, and so
//! are the weights; per point, an output is a sum over the input channels only. These are 24 products for 8 outputs and
//! one channel, a third of the definition's 72. The sums are transformed back to outputs. With `B`, `G` and `A` the
//! matrices of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), along each axis:
//!
//! ```text
//! y = A^T (G w G^T ⊙ B^T x B) A      dw = G^T (B^T x B ⊙ A dy A^T) G
//! ```

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use super::correlate::{COLUMNS, Correlate, Lanes, Run};
use super::images::Images;
use super::partial_sums::{PartialSums, Share};
use super::simd::{Kernel, Level, Vector};
use super::weight_gradient::{TERMS, WeightGradient};
use super::window::{Blocks, Window};
use super::{SharedOutput, splits, with_scratch};

/// Number of rows and columns of outputs in a tile.
const TILE: [usize; 2] = [2, 4];
/// Number of points of a tile.
const POINTS: usize = 24;
/// Approximate number of floats in the points of a task's tiles, half of a second-level cache.
const FLOATS: usize = 1 << 16;
/// Smallest number of tiles in a task, so that the weights are read from a slow cache seldom enough.
const TILES: usize = 32;

/// A convolution with a kernel of 3 by 3 and stride 1, or the gradient of its input.
pub(super) struct Winograd<'a> {
    pub(super) level: Level,
    pub(super) batch: usize,
    pub(super) x: Images<'a>,
    pub(super) channels: usize,
    pub(super) outputs: usize,
    /// Height and width of the output.
    pub(super) size: [usize; 2],
    /// The row and column of the first tap's input at the first output.
    pub(super) shift: [isize; 2],
}

/// Sizes that the functions share.
struct Plan<'a> {
    /// Number of rows and columns of tiles.
    tiles: [usize; 2],
    blocks: Blocks,
    window: Window<'a>,
    /// Largest number of tiles in a task.
    most: usize,
    /// Distances between the points of inputs and of outputs: odd numbers of cache lines, so that the points of a tile are in
    /// different sets of the cache.
    distances: [usize; 2],
    lanes: usize,
    /// Distances between tiles of the points of inputs and of outputs.
    pitches: [usize; 2],
}

impl Winograd<'_> {
    /// Whether tiles take fewer products than the definition, and rounding errors are averaged over enough channels.
    pub(super) fn is_faster(channels: usize, outputs: usize, size: [usize; 2]) -> bool {
        let tiles = size[0].div_ceil(TILE[0]) * size[1].div_ceil(TILE[1]);
        channels.min(outputs) >= 8 && 2 * tiles * POINTS <= size[0] * size[1] * 9
    }

    fn plan(&self) -> Plan<'_> {
        let tiles = [0, 1].map(|axis| self.size[axis].div_ceil(TILE[axis]));
        let lanes = self.level.run(Lanes);
        let pitches = [self.channels, self.outputs].map(|channels| channels.next_multiple_of(lanes));
        let blocks = Blocks::new(self.batch, tiles, (FLOATS / (POINTS * (pitches[0] + pitches[1]))).max(TILES));
        let bounds = [0, 1].map(|axis| (self.shift[axis], self.shift[axis] + TILE[axis] as isize + 1));
        let window = Window::new(self.x, bounds, TILE, tiles, &blocks, pitches[0]);
        let most = blocks.images * blocks.rows * tiles[1];
        let distances = pitches.map(|pitch| (most * pitch).next_multiple_of(32) + 16);
        Plan { tiles, blocks, window, most, distances, lanes, pitches }
    }

    /// Computes all outputs. `weights` are packed as `[blocks of COLUMNS vectors, 9 taps, channels, COLUMNS vectors]`.
    pub(super) fn correlate(&self, weights: &[f32], bias: &[f32], y: &mut [MaybeUninit<f32>]) {
        let plan = self.plan();
        let Plan { blocks: tasks, window, .. } = &plan;
        let width = COLUMNS * plan.lanes;
        let blocks = self.outputs.div_ceil(width);
        let points = self.level.run(TransformWeights { weights, row: self.channels * width });
        let runs = [vec![Run { offset: 0, len: self.channels }]];
        let from: Vec<isize> = (0..plan.most).map(|tile| (tile * plan.pitches[0]) as isize).collect();
        let to: Vec<usize> = (0..plan.most).map(|tile| tile * plan.pitches[1]).collect();
        let splits = splits(tasks.len(), blocks);
        let y = SharedOutput::new(y);
        let floats = [window.scratch, POINTS * plan.distances[0], POINTS * plan.distances[1]];
        let zeros = vec![0.0; blocks * width];
        (0..tasks.len() * splits).into_par_iter().for_each(|task| {
            let (block, split) = (tasks.get(task / splits), task % splits);
            let own = split * blocks / splits..(split + 1) * blocks / splits;
            with_scratch(floats.iter().sum(), |scratch| {
                let (copy, scratch) = scratch.split_at_mut(floats[0]);
                let (inputs, sums) = scratch.split_at_mut(floats[1]);
                let size = [block[0].len(), block[1].len(), plan.tiles[1]];
                let n = size.iter().product();
                let x = window.read(&block, copy);
                self.level.run(TransformInputs {
                    x,
                    pitches: window.pitches,
                    steps: window.steps(),
                    size,
                    pitch: plan.pitches[0],
                    distance: plan.distances[0],
                    points: inputs,
                });
                for point in 0..POINTS {
                    self.level.run(Correlate {
                        passes: &runs,
                        weights: &points[point * blocks * self.channels * width..],
                        terms: self.channels,
                        blocks: own.clone(),
                        bias: &zeros,
                        outputs: plan.pitches[1],
                        x: inputs[point * plan.distances[0]..].as_ptr(),
                        from: &from[..n],
                        y: sums[point * plan.distances[1]..].as_mut_ptr(),
                        to: &to[..n],
                    });
                }
                self.level.run(TransformOutputs {
                    points: sums,
                    pitch: plan.pitches[1],
                    distance: plan.distances[1],
                    block: &block,
                    tiles: plan.tiles[1],
                    size: self.size,
                    outputs: self.outputs,
                    channels: own.start * width..self.outputs.min(own.end * width),
                    bias,
                    y,
                });
            });
        });
    }

    /// Computes the gradient of the weights, `[9 taps, blocks of COLUMNS vectors, rows, COLUMNS vectors]`, and the number
    /// of rows: the input channels and some padding.
    pub(super) fn weight_gradient(&self, dy: Images) -> (Vec<f32>, usize) {
        let plan = self.plan();
        let Plan { blocks, window, .. } = &plan;
        let width = COLUMNS * plan.lanes;
        let bounds = [0, 1].map(|axis| (0, TILE[axis] as isize - 1));
        let dy_window = Window::new(dy, bounds, TILE, plan.tiles, blocks, plan.pitches[1]);
        let mut terms: Vec<isize> = (0..self.channels as isize).collect();
        // Terms beyond the last are the last one; their sums are not used.
        terms.resize(terms.len().next_multiple_of(TERMS), terms[terms.len() - 1]);
        let floats = [window.scratch, dy_window.scratch, POINTS * plan.distances[0], POINTS * plan.distances[1]];
        let row = terms.len() * self.outputs.next_multiple_of(width);
        let columns = self.outputs.div_ceil(width);
        let sums = PartialSums::new(POINTS * row, blocks.len());
        let add = |share: Share| {
            for index in share.blocks.clone() {
                let block = blocks.get(index);
                let size = [block[0].len(), block[1].len(), plan.tiles[1]];
                let n: usize = size.iter().product();
                with_scratch(floats.iter().sum(), |scratch| {
                    let (copy, scratch) = scratch.split_at_mut(floats[0]);
                    let (dy_copy, scratch) = scratch.split_at_mut(floats[1]);
                    let (inputs, gradients) = scratch.split_at_mut(floats[2]);
                    self.level.run(TransformInputs {
                        x: window.read(&block, copy),
                        pitches: window.pitches,
                        steps: window.steps(),
                        size,
                        pitch: plan.pitches[0],
                        distance: plan.distances[0],
                        points: inputs,
                    });
                    self.level.run(TransformGradients {
                        dy: dy_window.read(&block, dy_copy),
                        pitches: dy_window.pitches,
                        steps: dy_window.steps(),
                        size,
                        channels: share.columns.start * width..plan.pitches[1].min(share.columns.end * width),
                        pitch: plan.pitches[1],
                        distance: plan.distances[1],
                        points: gradients,
                    });
                    for point in 0..POINTS {
                        self.level.run(WeightGradient {
                            size: [1, 1, n],
                            terms: &terms,
                            x: inputs[point * plan.distances[0]..].as_ptr(),
                            x_steps: [0, 0, plan.pitches[0] as isize],
                            dy: gradients[point * plan.distances[1]..].as_ptr(),
                            dy_steps: [0, 0, plan.pitches[1] as isize],
                            channels: plan.pitches[1],
                            columns: share.columns.clone(),
                            // SAFETY: the sums of each point have `row` floats.
                            sums: unsafe { share.sums.add(point * row) },
                            is_first: index == share.blocks.start,
                        });
                    }
                });
            }
        };
        // SAFETY: the first block of a part writes all sums.
        let mut sums = unsafe { sums.total(columns, add) };
        (self.level.run(TransformSums { sums: sums.floats(), row }), terms.len())
    }
}

/// Adds two vectors.
#[inline(always)]
unsafe fn add<V: Vector>(a: V, b: V) -> V {
    // SAFETY: the caller guarantees the instruction set. The same holds below.
    unsafe { a.add_product(b, V::splat(1.0)) }
}

/// Subtracts two vectors.
#[inline(always)]
unsafe fn sub<V: Vector>(a: V, b: V) -> V {
    // SAFETY: see `add`.
    unsafe { a.add_product(b, V::splat(-1.0)) }
}

/// Multiplies a vector by a number.
#[inline(always)]
unsafe fn scale<V: Vector>(a: V, factor: f32) -> V {
    // SAFETY: see `add`.
    unsafe { V::splat(0.0).add_product(a, V::splat(factor)) }
}

/// `a + factor * b`
#[inline(always)]
unsafe fn multiply_add<V: Vector>(a: V, factor: f32, b: V) -> V {
    // SAFETY: see `add`.
    unsafe { a.add_product(b, V::splat(factor)) }
}

/// `B^T x` of F(2, 3).
#[inline(always)]
unsafe fn input_rows<V: Vector>([a, b, c, d]: [V; 4]) -> [V; 4] {
    // SAFETY: see `add`.
    unsafe { [sub(a, c), add(b, c), sub(c, b), sub(b, d)] }
}

/// `B^T x` of F(4, 3).
#[inline(always)]
unsafe fn input_columns<V: Vector>([a, b, c, d, e, f]: [V; 6]) -> [V; 6] {
    // SAFETY: see `add`.
    unsafe {
        let (even, odd) = (multiply_add(e, -4.0, c), multiply_add(d, -4.0, b));
        let (far_even, far_odd) = (sub(e, c), sub(d, b));
        [
            multiply_add(multiply_add(e, -5.0, c), 4.0, a),
            add(even, odd),
            sub(even, odd),
            multiply_add(far_even, 2.0, far_odd),
            multiply_add(far_even, -2.0, far_odd),
            multiply_add(multiply_add(f, -5.0, d), 4.0, b),
        ]
    }
}

/// `A^T m` of F(2, 3).
#[inline(always)]
unsafe fn output_rows<V: Vector>([a, b, c, d]: [V; 4]) -> [V; 2] {
    // SAFETY: see `add`.
    unsafe { [add(a, add(b, c)), sub(sub(b, c), d)] }
}

/// `A^T m` of F(4, 3).
#[inline(always)]
unsafe fn output_columns<V: Vector>([a, b, c, d, e, f]: [V; 6]) -> [V; 4] {
    // SAFETY: see `add`.
    unsafe {
        let (sum, difference) = (add(b, c), sub(b, c));
        let (far_sum, far_difference) = (add(d, e), sub(d, e));
        [
            add(a, add(sum, far_sum)),
            multiply_add(difference, 2.0, far_difference),
            multiply_add(sum, 4.0, far_sum),
            add(multiply_add(difference, 8.0, far_difference), f),
        ]
    }
}

/// `A dy` of F(2, 3).
#[inline(always)]
unsafe fn gradient_rows<V: Vector>([a, b]: [V; 2]) -> [V; 4] {
    // SAFETY: see `add`.
    unsafe { [a, add(a, b), sub(a, b), scale(b, -1.0)] }
}

/// `A dy` of F(4, 3).
#[inline(always)]
unsafe fn gradient_columns<V: Vector>([a, b, c, d]: [V; 4]) -> [V; 6] {
    // SAFETY: see `add`.
    unsafe {
        let (even, odd) = (add(a, c), add(b, d));
        let (far_even, far_odd) = (multiply_add(a, 4.0, c), multiply_add(b, 4.0, d));
        [
            a,
            add(even, odd),
            sub(even, odd),
            multiply_add(far_even, 2.0, far_odd),
            multiply_add(far_even, -2.0, far_odd),
            d,
        ]
    }
}

/// `G w` of F(2, 3).
#[inline(always)]
unsafe fn weight_rows<V: Vector>([a, b, c]: [V; 3]) -> [V; 4] {
    // SAFETY: see `add`.
    unsafe {
        let (even, odd) = (scale(add(a, c), 0.5), scale(b, 0.5));
        [a, add(even, odd), sub(even, odd), c]
    }
}

/// `G w` of F(4, 3).
#[inline(always)]
unsafe fn weight_columns<V: Vector>([a, b, c]: [V; 3]) -> [V; 6] {
    // SAFETY: see `add`.
    unsafe {
        let (even, odd) = (scale(add(a, c), -1.0 / 6.0), scale(b, -1.0 / 6.0));
        let (far_even, far_odd) = (multiply_add(scale(a, 1.0 / 24.0), 1.0 / 6.0, c), scale(b, 1.0 / 12.0));
        [scale(a, 0.25), add(even, odd), sub(even, odd), add(far_even, far_odd), sub(far_even, far_odd), c]
    }
}

/// `G^T s` of F(2, 3).
#[inline(always)]
unsafe fn sum_rows<V: Vector>([a, b, c, d]: [V; 4]) -> [V; 3] {
    // SAFETY: see `add`.
    unsafe {
        let half = scale(add(b, c), 0.5);
        [add(a, half), scale(sub(b, c), 0.5), add(half, d)]
    }
}

/// `G^T s` of F(4, 3).
#[inline(always)]
unsafe fn sum_columns<V: Vector>([a, b, c, d, e, f]: [V; 6]) -> [V; 3] {
    // SAFETY: see `add`.
    unsafe {
        let (sum, difference) = (scale(add(b, c), -1.0 / 6.0), scale(sub(b, c), -1.0 / 6.0));
        let (far_sum, far_difference) = (add(d, e), sub(d, e));
        [
            multiply_add(multiply_add(sum, 0.25, a), 1.0 / 24.0, far_sum),
            multiply_add(difference, 1.0 / 12.0, far_difference),
            add(multiply_add(sum, 1.0 / 6.0, far_sum), f),
        ]
    }
}

/// Returns a row of a matrix that is stored by columns.
#[inline(always)]
fn select<V: Vector, const ROWS: usize, const COLUMNS: usize>(
    columns: &[[V; ROWS]; COLUMNS],
    index: usize,
) -> [V; COLUMNS] {
    let mut row = [columns[0][index]; COLUMNS];
    for (to, column) in row.iter_mut().zip(columns) {
        *to = column[index];
    }
    row
}

/// Transforms tiles of inputs to points, `[24 points, tiles, pitch]`.
struct TransformInputs<'a> {
    x: *const f32,
    /// Distances between images, rows and columns of pixels.
    pitches: [isize; 3],
    /// Distances between images, rows and columns of tiles.
    steps: [isize; 3],
    /// Number of images, rows and columns of tiles.
    size: [usize; 3],
    pitch: usize,
    distance: usize,
    points: &'a mut [f32],
}

/// Calls `work` with the index and the offset of each tile.
#[inline(always)]
fn for_each_tile(size: [usize; 3], steps: [isize; 3], mut work: impl FnMut(usize, isize)) {
    let mut index = 0;
    for image in 0..size[0] as isize {
        for row in 0..size[1] as isize {
            for column in 0..size[2] as isize {
                work(index, image * steps[0] + row * steps[1] + column * steps[2]);
                index += 1;
            }
        }
    }
}

impl Kernel for TransformInputs<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { x, pitches: [_, down, right], steps, size, pitch, distance, points } = self;
        assert!(points.len() >= POINTS * distance && distance >= size.iter().product::<usize>() * pitch);
        for_each_tile(size, steps, |tile, offset| {
            for channel in (0..pitch).step_by(V::LANES) {
                // SAFETY: the window holds 4 by 6 pixels of `pitch` floats for each tile.
                unsafe {
                    let x = x.offset(offset).add(channel);
                    let to = points.as_mut_ptr().add(tile * pitch + channel);
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

/// Transforms tiles of the output's gradient to points, `[24 points, tiles, pitch]`.
struct TransformGradients<'a> {
    dy: *const f32,
    /// Distances between images, rows and columns of pixels.
    pitches: [isize; 3],
    /// Distances between images, rows and columns of tiles.
    steps: [isize; 3],
    /// Number of images, rows and columns of tiles.
    size: [usize; 3],
    channels: Range<usize>,
    pitch: usize,
    distance: usize,
    points: &'a mut [f32],
}

impl Kernel for TransformGradients<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { dy, pitches: [_, down, right], steps, size, channels, pitch, distance, points } = self;
        assert!(points.len() >= POINTS * distance && distance >= size.iter().product::<usize>() * pitch);
        for_each_tile(size, steps, |tile, offset| {
            for channel in channels.clone().step_by(V::LANES) {
                // SAFETY: the window holds 2 by 4 pixels of `pitch` floats for each tile.
                unsafe {
                    let dy = dy.offset(offset).add(channel);
                    let to = points.as_mut_ptr().add(tile * pitch + channel);
                    let mut columns = [[V::splat(0.0); 4]; 4];
                    for (j, column) in columns.iter_mut().enumerate() {
                        let pixel = |i: usize| V::load(dy.offset(i as isize * down + j as isize * right));
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
struct TransformOutputs<'a> {
    points: &'a [f32],
    pitch: usize,
    distance: usize,
    /// Images and rows of tiles.
    block: &'a [Range<usize>; 2],
    /// Number of columns of tiles.
    tiles: usize,
    /// Height and width of the output.
    size: [usize; 2],
    outputs: usize,
    channels: Range<usize>,
    /// One value for each channel, and for those up to the next multiple of a vector.
    bias: &'a [f32],
    y: SharedOutput,
}

impl Kernel for TransformOutputs<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { points, pitch, distance, block: [images, rows], tiles, size: [h, w], outputs, channels, bias, y } =
            self;
        assert!(distance >= images.len() * rows.len() * tiles * pitch);
        assert!(points.len() >= POINTS * distance && bias.len() >= channels.end.next_multiple_of(V::LANES));
        let mut from = points.as_ptr();
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
                                    super::correlate::store(add(value, bias), to, channels.end - channel);
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

/// Transforms packed weights, `[blocks, 9 taps, row]`, to points, `[24 points, blocks, row]`.
struct TransformWeights<'a> {
    weights: &'a [f32],
    row: usize,
}

impl Kernel for TransformWeights<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<V: Vector>(self) -> Vec<f32> {
        let Self { weights, row: len } = self;
        let blocks = weights.len() / (9 * len);
        let mut points = vec![0.0; POINTS * blocks * len];
        for block in 0..blocks {
            for at in (0..len).step_by(V::LANES) {
                // SAFETY: rows are multiples of a vector, and `len` floats of each tap and point are in the memory.
                unsafe {
                    let from = weights.as_ptr().add(block * 9 * len + at);
                    let to = points.as_mut_ptr().add(block * len + at);
                    let mut columns = [[V::splat(0.0); 4]; 3];
                    for (j, column) in columns.iter_mut().enumerate() {
                        let tap = |i: usize| V::load(from.add((i * 3 + j) * len));
                        *column = weight_rows([tap(0), tap(1), tap(2)]);
                    }
                    for i in 0..4 {
                        let points: [V; 6] = weight_columns(select(&columns, i));
                        for (j, point) in points.into_iter().enumerate() {
                            point.store(to.add((i * 6 + j) * blocks * len));
                        }
                    }
                }
            }
        }
        points
    }
}

/// Transforms sums of points, `[24 points, len]`, to the gradient of the weights, `[9 taps, len]`.
struct TransformSums<'a> {
    sums: &'a [f32],
    row: usize,
}

impl Kernel for TransformSums<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<V: Vector>(self) -> Vec<f32> {
        let Self { sums, row: len } = self;
        assert_eq!(sums.len(), POINTS * len);
        let mut taps = vec![0.0; 9 * len];
        for at in (0..len).step_by(V::LANES) {
            // SAFETY: the len is a multiple of a vector, and `len` floats of each point and tap are in the memory.
            unsafe {
                let (from, to) = (sums.as_ptr().add(at), taps.as_mut_ptr().add(at));
                let mut columns = [[V::splat(0.0); 3]; 6];
                for (j, column) in columns.iter_mut().enumerate() {
                    let point = |i: usize| V::load(from.add((i * 6 + j) * len));
                    *column = sum_rows([point(0), point(1), point(2), point(3)]);
                }
                for i in 0..3 {
                    let taps: [V; 3] = sum_columns(select(&columns, i));
                    for (j, tap) in taps.into_iter().enumerate() {
                        tap.store(to.add((i * 3 + j) * len));
                    }
                }
            }
        }
        taps
    }
}
