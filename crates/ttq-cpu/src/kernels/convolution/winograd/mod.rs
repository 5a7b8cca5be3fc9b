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

mod matrices;
mod tiles;
mod weights;

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use self::tiles::{Points, Tiles, TransformGradients, TransformInputs, TransformOutputs};
use self::weights::{TransformSums, TransformWeights};
use super::correlate::{COLUMNS, Correlate, Lanes, Run};
use super::images::Images;
use super::partial_sums::{PartialSums, Share};
use super::weight_gradient::{TERMS, WeightGradient};
use super::window::{Blocks, Window};
use crate::kernels::simd::Level;
use crate::kernels::{SharedOutput, splits, with_scratch};

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
    inputs: Window<'a>,
    /// Largest number of tiles in a task.
    most: usize,
    /// Distances between the points of inputs and of outputs: odd numbers of cache lines, so that the points of a tile are in
    /// different sets of the cache.
    distances: [usize; 2],
    lanes: usize,
    /// Distances between tiles of the points of inputs and of outputs.
    pitches: [usize; 2],
}

impl Plan<'_> {
    /// The tiles of a block. `scratch` may receive a copy.
    fn tiles(&self, window: &Window, block: &[Range<usize>; 2], scratch: &mut [f32]) -> Tiles {
        let size = [block[0].len(), block[1].len(), self.tiles[1]];
        Tiles { x: window.read(block, scratch), pitches: window.pitches, steps: window.steps(), size }
    }

    /// Points of inputs (0) or outputs (1).
    fn points<'a>(&self, index: usize, floats: &'a mut [f32]) -> Points<'a> {
        Points { floats, distance: self.distances[index], pitch: self.pitches[index] }
    }
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
        let inputs = Window::new(self.level, self.x, bounds, TILE, tiles, &blocks, pitches[0]);
        let most = blocks.images * blocks.rows * tiles[1];
        let distances = pitches.map(|pitch| (most * pitch).next_multiple_of(32) + 16);
        Plan { tiles, blocks, inputs, most, distances, lanes, pitches }
    }

    /// Computes all outputs. `weights` are packed as `[blocks of COLUMNS vectors, 9 taps, channels, COLUMNS vectors]`.
    pub(super) fn correlate(&self, weights: &[f32], bias: &[f32], y: &mut [MaybeUninit<f32>]) {
        let plan = self.plan();
        let tasks = &plan.blocks;
        let width = COLUMNS * plan.lanes;
        let blocks = self.outputs.div_ceil(width);
        let points = self.level.run(TransformWeights { weights, row: self.channels * width });
        let runs = [vec![Run { offset: 0, len: self.channels }]];
        let from: Vec<isize> = (0..plan.most).map(|tile| (tile * plan.pitches[0]) as isize).collect();
        let to: Vec<usize> = (0..plan.most).map(|tile| tile * plan.pitches[1]).collect();
        let splits = splits(tasks.len(), blocks);
        let y = SharedOutput::new(y);
        let floats = [plan.inputs.scratch, POINTS * plan.distances[0], POINTS * plan.distances[1]];
        let zeros = vec![0.0; blocks * width];
        (0..tasks.len() * splits).into_par_iter().for_each(|task| {
            let (block, split) = (tasks.get(task / splits), task % splits);
            let own = split * blocks / splits..(split + 1) * blocks / splits;
            with_scratch(floats.iter().sum(), |scratch| {
                let (copy, scratch) = scratch.split_at_mut(floats[0]);
                let (inputs, sums) = scratch.split_at_mut(floats[1]);
                let tiles = plan.tiles(&plan.inputs, &block, copy);
                let n = tiles.len();
                self.level.run(TransformInputs { tiles, points: plan.points(0, inputs) });
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
                    points: plan.points(1, sums),
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
        let blocks = &plan.blocks;
        let width = COLUMNS * plan.lanes;
        let bounds = TILE.map(|n| (0, n as isize - 1));
        let gradients = Window::new(self.level, dy, bounds, TILE, plan.tiles, blocks, plan.pitches[1]);
        let mut terms: Vec<isize> = (0..self.channels as isize).collect();
        // Terms beyond the last are the last one; their sums are not used.
        terms.resize(terms.len().next_multiple_of(TERMS), terms[terms.len() - 1]);
        let floats = [plan.inputs.scratch, gradients.scratch, POINTS * plan.distances[0], POINTS * plan.distances[1]];
        let row = terms.len() * self.outputs.next_multiple_of(width);
        let columns = self.outputs.div_ceil(width);
        let sums = PartialSums::new(POINTS * row, blocks.len());
        let add = |share: Share| {
            for index in share.blocks.clone() {
                let block = blocks.get(index);
                with_scratch(floats.iter().sum(), |scratch| {
                    let (copy, scratch) = scratch.split_at_mut(floats[0]);
                    let (dy_copy, scratch) = scratch.split_at_mut(floats[1]);
                    let (x, dy) = scratch.split_at_mut(floats[2]);
                    let tiles = plan.tiles(&plan.inputs, &block, copy);
                    let n = tiles.len();
                    self.level.run(TransformInputs { tiles, points: plan.points(0, x) });
                    self.level.run(TransformGradients {
                        tiles: plan.tiles(&gradients, &block, dy_copy),
                        points: plan.points(1, dy),
                        channels: share.columns.start * width..plan.pitches[1].min(share.columns.end * width),
                    });
                    for point in 0..POINTS {
                        self.level.run(WeightGradient {
                            size: [1, 1, n],
                            terms: &terms,
                            x: x[point * plan.distances[0]..].as_ptr(),
                            x_steps: [0, 0, plan.pitches[0] as isize],
                            dy: dy[point * plan.distances[1]..].as_ptr(),
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
