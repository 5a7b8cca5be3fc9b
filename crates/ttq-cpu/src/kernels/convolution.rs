//! Convolution and its gradient by the input, on channels-last memory, for any stride, padding and dilation.
//!
//! Both are *correlations*: an output's channels at a position are the sums of the inputs at the position plus some
//! shifts, times weights. A register tile holds some positions times some vectors of output channels; a term is one
//! vector of weights times one broadcast input of each position. In channels-last memory, the channels of adjacent taps
//! are adjacent, so a row of the kernel is one *run* of terms.
//!
//! With a stride, the gradient of the input is computed phase by phase: the inputs whose row and column have the same
//! remainder by the stride are read by the same taps, so each phase is a correlation of the output's gradient with
//! these.

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use super::images::Images;
use super::simd::{Kernel, Level, MAX_LANES, MAX_POSITIONS, Vector};
use super::{Geometry, SharedOutput, with_scratch};

/// Approximate number of positions in a task.
const POSITIONS: usize = 256;
/// Vectors of output channels in a register tile.
pub(super) const COLUMNS: usize = 2;
/// Largest number of terms that are summed at a time, so that their weights stay in the first-level cache.
const TERMS: usize = 256;

/// The taps and positions of a part of the outputs along one axis.
struct Axis {
    /// Index and shift of each tap, by increasing shift.
    taps: Vec<(usize, isize)>,
    /// The first output and the distance between outputs.
    start: usize,
    step: usize,
    /// Number of outputs.
    size: usize,
}

/// Every output at some rows and columns as a sum over the same taps.
type Part = [Axis; 2];

/// A correlation: the outputs `y` of each part are sums of inputs `x` times weights.
struct Correlation<'a> {
    level: Level,
    batch: usize,
    x: Images<'a>,
    weight: &'a [f32],
    /// Distances between the weights of output channels, input channels and taps.
    weight_strides: [usize; 2],
    kernel: [usize; 2],
    channels: usize,
    outputs: usize,
    bias: Option<&'a [f32]>,
    /// Distance in the input between adjacent positions of a part.
    step: [usize; 2],
    parts: Vec<Part>,
    /// Height and width of the output.
    size: [usize; 2],
}

/// Computes a convolution: `y[n, i, o] = bias[o] + Σ_{c, tap} weight[o, c, tap] * x[n, input of tap at i, c]`.
///
/// `weight` is `[channels_out, channels_in, kh, kw]`, `bias` `[channels_out]` and `y` `[batch, output height, output
/// width, channels_out]`, all contiguous. Writes every element of `y`.
pub(crate) fn forward(
    level: Level,
    geometry: &Geometry,
    output: [usize; 2],
    x: Images,
    weight: &[f32],
    bias: Option<&[f32]>,
    y: &mut [MaybeUninit<f32>],
) {
    let axis = |axis: usize| Axis {
        taps: (0..geometry.kernel[axis]).map(|tap| (tap, geometry.shift(axis, tap))).collect(),
        start: 0,
        step: 1,
        size: output[axis],
    };
    let taps = geometry.taps();
    let correlation = Correlation {
        level,
        batch: geometry.batch,
        x,
        weight,
        weight_strides: [geometry.channels_in * taps, taps],
        kernel: geometry.kernel,
        channels: geometry.channels_in,
        outputs: geometry.channels_out,
        bias,
        step: geometry.stride,
        parts: vec![[axis(0), axis(1)]],
        size: output,
    };
    correlation.run(y);
}

/// Computes the gradient of the input, `[batch, height, width, channels_in]`, from the output's gradient `dy`. Writes
/// every element of `dx`.
pub(crate) fn input_gradient(
    level: Level,
    geometry: &Geometry,
    dy: Images,
    weight: &[f32],
    dx: &mut [MaybeUninit<f32>],
) {
    let axis = |axis: usize, phase: usize| {
        let stride = geometry.stride[axis];
        let shift = |tap: usize| phase as isize - geometry.shift(axis, tap);
        let own = (0..geometry.kernel[axis]).rev().filter(|tap| shift(*tap).rem_euclid(stride as isize) == 0);
        Axis {
            taps: own.map(|tap| (tap, shift(tap) / stride as isize)).collect(),
            start: phase,
            step: stride,
            size: geometry.input[axis].saturating_sub(phase).div_ceil(stride),
        }
    };
    let phases = (0..geometry.stride[0]).flat_map(|i| (0..geometry.stride[1]).map(move |j| [i, j]));
    let taps = geometry.taps();
    let correlation = Correlation {
        level,
        batch: geometry.batch,
        x: dy,
        weight,
        weight_strides: [taps, geometry.channels_in * taps],
        kernel: geometry.kernel,
        channels: geometry.channels_out,
        outputs: geometry.channels_in,
        bias: None,
        step: [1, 1],
        parts: phases.map(|[i, j]| [axis(0, i), axis(1, j)]).collect(),
        size: geometry.input,
    };
    correlation.run(dx);
}

/// Partition of the positions of a batch: a block has several images, or several rows of one image.
pub(super) struct Blocks {
    batch: usize,
    /// Number of rows of an image.
    height: usize,
    /// Largest number of images and of rows in a block.
    pub(super) images: usize,
    pub(super) rows: usize,
    /// Number of blocks in an image, or in some images.
    splits: usize,
}

impl Blocks {
    /// Creates blocks of about `target` positions of images of `size` positions.
    pub(super) fn new(batch: usize, size: [usize; 2], target: usize) -> Self {
        let images = (target / (size[0] * size[1])).clamp(1, batch);
        let rows = if images > 1 { size[0] } else { (target / size[1]).clamp(1, size[0]) };
        let splits = size[0].div_ceil(rows);
        Self { batch, height: size[0], images, rows: size[0].div_ceil(splits), splits }
    }

    pub(super) fn len(&self) -> usize {
        self.batch.div_ceil(self.images) * self.splits
    }

    /// Images and rows of a block.
    pub(super) fn get(&self, index: usize) -> [Range<usize>; 2] {
        let (image, row) = (index / self.splits * self.images, index % self.splits * self.rows);
        let end = |start: usize, n: usize, all: usize| start.min(all)..(start + n).min(all);
        [end(image, self.images, self.batch), end(row, self.rows, self.height)]
    }
}

/// The pixels that a block of positions reads: in the images themselves where no tap reads beyond their border, else in
/// a copy with zeros beyond the border.
pub(super) struct Window<'a> {
    x: Images<'a>,
    /// The lowest shift of a tap by rows and columns.
    lowest: [isize; 2],
    /// Distance between adjacent positions.
    step: [usize; 2],
    /// Number of rows and columns of an image that a block reads.
    extents: [usize; 2],
    is_copy: bool,
    /// Distances between images, rows and columns.
    pitches: [isize; 3],
    /// Size of the copy.
    pub(super) scratch: usize,
}

impl<'a> Window<'a> {
    /// `bounds` are the lowest and highest shift of a tap along each axis, `size` the number of positions.
    pub(super) fn new(
        x: Images<'a>,
        bounds: [(isize, isize); 2],
        step: [usize; 2],
        size: [usize; 2],
        blocks: &Blocks,
    ) -> Self {
        let extent = |axis: usize, n: usize| (n - 1) * step[axis] + 1 + (bounds[axis].1 - bounds[axis].0) as usize;
        let extents = [extent(0, blocks.rows), extent(1, size[1])];
        let is_inside =
            |axis: usize| bounds[axis].0 >= 0 && extent(axis, size[axis]) + bounds[axis].0 as usize <= x.size[axis];
        let is_copy = !(x.has_adjacent_channels() && is_inside(0) && is_inside(1));
        let row = extents[1] * x.channels;
        let scratch = if is_copy { blocks.images * extents[0] * row } else { 0 };
        let pitches =
            if is_copy { [extents[0] * row, row, x.channels].map(|pitch| pitch as isize) } else { x.pitches() };
        Self { x, lowest: bounds.map(|bounds| bounds.0), step, extents, is_copy, pitches, scratch }
    }

    /// Returns the address of the lowest pixel of a block's first position. `scratch` may receive a copy.
    pub(super) fn read(&self, [images, rows]: &[Range<usize>; 2], scratch: &mut [f32]) -> *const f32 {
        let origin = [(rows.start * self.step[0]) as isize + self.lowest[0], self.lowest[1]];
        if self.is_copy {
            self.x.copy_window(images.clone(), origin, self.extents, self.x.channels, scratch);
            scratch.as_ptr()
        } else {
            self.x.pixel(images.start, origin[0] as usize, origin[1] as usize)
        }
    }

    /// Offset of a position.
    pub(super) fn position(&self, [image, row, column]: [usize; 3]) -> isize {
        image as isize * self.pitches[0]
            + (row * self.step[0]) as isize * self.pitches[1]
            + (column * self.step[1]) as isize * self.pitches[2]
    }

    /// Offset of a shift.
    pub(super) fn shift(&self, [row, column]: [isize; 2]) -> isize {
        (row - self.lowest[0]) * self.pitches[1] + (column - self.lowest[1]) * self.pitches[2]
    }
}

/// Terms that are adjacent in the input and in the packed weights.
struct Run {
    offset: isize,
    len: usize,
}

/// A part, prepared for the tasks.
struct Prepared {
    /// Groups of runs that are summed at a time.
    passes: Vec<Vec<Run>>,
    /// `[blocks of COLUMNS vectors, terms, COLUMNS vectors]`, padded with zeros.
    weights: Vec<f32>,
    terms: usize,
    /// Offsets in the window and in the output of each position of a task.
    from: Vec<isize>,
    to: Vec<usize>,
}

impl Correlation<'_> {
    fn run(&self, y: &mut [MaybeUninit<f32>]) {
        assert_eq!(y.len(), self.batch * self.size[0] * self.size[1] * self.outputs);
        let bounds = [0, 1].map(|axis| self.bounds(axis));
        let size = [0, 1].map(|axis| self.parts.iter().map(|part| part[axis].size).max().unwrap_or(0));
        let tasks = Blocks::new(self.batch, size, POSITIONS);
        let window = Window::new(self.x, bounds, self.step, size, &tasks);
        let width = COLUMNS * self.level.run(Lanes);
        let prepared: Vec<Prepared> =
            self.parts.iter().map(|part| self.prepare(part, &window, &tasks, width)).collect();
        let blocks = self.outputs.div_ceil(width);
        let mut bias = vec![0.0; blocks * width];
        if let Some(values) = self.bias {
            bias[..self.outputs].copy_from_slice(values);
        }
        // If there are few tasks, they are split by output channels.
        let splits = if tasks.len() < 8 { blocks.min(8 / tasks.len()) } else { 1 };
        let y = SharedOutput::new(y);
        (0..tasks.len() * splits).into_par_iter().for_each(|task| {
            let (block, split) = (tasks.get(task / splits), task % splits);
            let own = split * blocks / splits..(split + 1) * blocks / splits;
            with_scratch(window.scratch, |scratch| {
                let x = window.read(&block, scratch);
                for (part, prepared) in self.parts.iter().zip(&prepared) {
                    let rows = block[1].start..block[1].end.min(part[0].size);
                    let n = block[0].len() * rows.len() * part[1].size;
                    if n == 0 {
                        continue;
                    }
                    let row = block[0].start * self.size[0] + part[0].start + rows.start * part[0].step;
                    self.level.run(Correlate {
                        prepared,
                        x,
                        from: &prepared.from[..n],
                        to: &prepared.to[..n],
                        y,
                        start: (row * self.size[1] + part[1].start) * self.outputs,
                        outputs: self.outputs,
                        blocks: own.clone(),
                        bias: &bias,
                    });
                }
            });
        });
    }

    /// The lowest and the highest shift of a tap along an axis.
    fn bounds(&self, axis: usize) -> (isize, isize) {
        let shifts = || self.parts.iter().flat_map(|part| part[axis].taps.iter().map(|(_, shift)| *shift));
        (shifts().min().unwrap_or(0), shifts().max().unwrap_or(0))
    }

    fn prepare(&self, part: &Part, window: &Window, tasks: &Blocks, width: usize) -> Prepared {
        let taps = part[0].taps.iter().flat_map(|i| part[1].taps.iter().map(move |j| [i, j]));
        let (taps, shifts): (Vec<usize>, Vec<isize>) =
            taps.map(|[i, j]| (i.0 * self.kernel[1] + j.0, window.shift([i.1, j.1]))).unzip();
        let rows = tasks.rows.min(part[0].size);
        let positions = || {
            (0..tasks.images).flat_map(move |n| (0..rows).flat_map(move |r| (0..part[1].size).map(move |c| [n, r, c])))
        };
        let to = |[n, r, c]: [usize; 3]| {
            ((n * self.size[0] + r * part[0].step) * self.size[1] + c * part[1].step) * self.outputs
        };
        Prepared {
            passes: passes(&shifts, self.channels),
            weights: self.pack_weights(&taps, width),
            terms: taps.len() * self.channels,
            from: positions().map(|position| window.position(position)).collect(),
            to: positions().map(to).collect(),
        }
    }

    /// Packs the weights of some taps as `[blocks of width, taps, channels, width]`, padded with zeros.
    fn pack_weights(&self, taps: &[usize], width: usize) -> Vec<f32> {
        let mut packed = vec![0.0; self.outputs.next_multiple_of(width) * taps.len() * self.channels];
        let [output_stride, channel_stride] = self.weight_strides;
        let mut rows = packed.chunks_exact_mut(width);
        for first in (0..self.outputs).step_by(width) {
            let outputs = width.min(self.outputs - first);
            for tap in taps {
                for (channel, row) in (0..self.channels).zip(&mut rows) {
                    let from = &self.weight[first * output_stride + channel * channel_stride + tap..];
                    for (to, from) in row[..outputs].iter_mut().zip(from.iter().step_by(output_stride)) {
                        *to = *from;
                    }
                }
            }
        }
        packed
    }
}

/// Splits the terms, `[taps, channels]`, into passes of at most `TERMS` terms, and these into runs.
fn passes(shifts: &[isize], channels: usize) -> Vec<Vec<Run>> {
    let mut passes: Vec<Vec<Run>> = vec![Vec::new()];
    let mut free = TERMS;
    for shift in shifts {
        let (mut offset, end) = (*shift, shift + channels as isize);
        while offset < end {
            if free == 0 {
                passes.push(Vec::new());
                free = TERMS;
            }
            let len = free.min((end - offset) as usize);
            match passes.last_mut().and_then(|pass| pass.last_mut()) {
                Some(run) if run.offset + run.len as isize == offset => run.len += len,
                _ => passes.last_mut().into_iter().for_each(|pass| pass.push(Run { offset, len })),
            }
            offset += len as isize;
            free -= len;
        }
    }
    passes
}

impl Geometry {
    /// Offset of the input that a tap reads from the first one of its output, along one axis.
    pub(super) fn shift(&self, axis: usize, tap: usize) -> isize {
        (tap * self.dilation[axis]) as isize - self.padding[axis] as isize
    }
}

/// Returns the number of lanes.
pub(super) struct Lanes;

impl Kernel for Lanes {
    type Output = usize;

    #[inline(always)]
    fn run<V: Vector>(self) -> usize {
        V::LANES
    }
}

/// Computes the outputs of a part at the positions of a task.
struct Correlate<'a> {
    prepared: &'a Prepared,
    x: *const f32,
    from: &'a [isize],
    to: &'a [usize],
    y: SharedOutput,
    start: usize,
    outputs: usize,
    /// Blocks of `COLUMNS` vectors of output channels.
    blocks: Range<usize>,
    bias: &'a [f32],
}

impl Kernel for Correlate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let width = COLUMNS * V::LANES;
        for block in self.blocks.clone() {
            let first = block * width;
            let channels = width.min(self.outputs - first);
            let bias = &self.bias[first..first + width];
            let mut weights = &self.prepared.weights[block * self.prepared.terms * width..];
            for (index, runs) in self.prepared.passes.iter().enumerate() {
                // SAFETY: the tables of positions and runs stay within the window and the output; see `prepare`.
                unsafe {
                    if channels > V::LANES {
                        self.pass::<V, 2>(runs, weights, bias, first, channels, index == 0);
                    } else {
                        self.pass::<V, 1>(runs, weights, bias, first, channels, index == 0);
                    }
                }
                weights = &weights[runs.iter().map(|run| run.len).sum::<usize>() * width..];
            }
        }
    }
}

impl Correlate<'_> {
    #[inline(always)]
    unsafe fn pass<V: Vector, const N: usize>(
        &self,
        runs: &[Run],
        weights: &[f32],
        bias: &[f32],
        first: usize,
        channels: usize,
        is_first: bool,
    ) {
        let last = self.from.len() - 1;
        let is_full = channels == N * V::LANES;
        for tile in (0..=last).step_by(V::POSITIONS) {
            // Positions beyond the last are the last one.
            let position = |k: usize| (tile + k).min(last);
            unsafe {
                let mut x = [self.x; MAX_POSITIONS];
                let mut y = [core::ptr::null_mut::<f32>(); MAX_POSITIONS];
                for k in 0..V::POSITIONS {
                    x[k] = self.x.offset(self.from[position(k)]);
                    y[k] = self.y.at(self.start + self.to[position(k)] + first);
                }
                let mut sums = [[V::splat(0.0); N]; MAX_POSITIONS];
                if is_first {
                    for sums in sums.iter_mut().take(V::POSITIONS) {
                        for (n, sum) in sums.iter_mut().enumerate() {
                            *sum = V::load(bias.as_ptr().add(n * V::LANES));
                        }
                    }
                } else {
                    for (y, sums) in y.iter().zip(&mut sums).take(V::POSITIONS) {
                        for (n, sum) in sums.iter_mut().enumerate() {
                            *sum = load(y.add(n * V::LANES), channels - n * V::LANES);
                        }
                    }
                }
                let mut weights = weights.as_ptr();
                for run in runs {
                    let mut x = x;
                    for x in x.iter_mut().take(V::POSITIONS) {
                        *x = x.offset(run.offset);
                    }
                    for term in 0..run.len {
                        let mut row = [V::splat(0.0); N];
                        for (n, weight) in row.iter_mut().enumerate() {
                            *weight = V::load(weights.add(n * V::LANES));
                        }
                        weights = weights.add(COLUMNS * V::LANES);
                        for (x, sums) in x.iter().zip(&mut sums).take(V::POSITIONS) {
                            let x = V::splat(*x.add(term));
                            for (sum, weight) in sums.iter_mut().zip(row) {
                                *sum = sum.add_product(x, weight);
                            }
                        }
                    }
                }
                for (y, sums) in y.iter().zip(&sums).take(V::POSITIONS) {
                    for (n, sum) in sums.iter().enumerate() {
                        if is_full {
                            sum.store(y.add(n * V::LANES));
                        } else {
                            store(*sum, y.add(n * V::LANES), channels - n * V::LANES);
                        }
                    }
                }
            }
        }
    }
}

/// Loads the first `n` lanes of a vector, or all.
///
/// # Safety
/// The memory must be valid for reads of so many floats.
#[inline(always)]
unsafe fn load<V: Vector>(from: *const f32, n: usize) -> V {
    // SAFETY: the caller guarantees that the memory is valid.
    unsafe {
        if n >= V::LANES {
            return V::load(from);
        }
        let mut lanes = [0.0; MAX_LANES];
        core::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), n);
        V::load(lanes.as_ptr())
    }
}

/// Stores the first `n` lanes of a vector, or all.
///
/// # Safety
/// The memory must be valid for writes of so many floats.
#[inline(always)]
unsafe fn store<V: Vector>(vector: V, to: *mut f32, n: usize) {
    // SAFETY: the caller guarantees that the memory is valid.
    unsafe {
        if n >= V::LANES {
            return vector.store(to);
        }
        let mut lanes = [0.0; MAX_LANES];
        vector.store(lanes.as_mut_ptr());
        core::ptr::copy_nonoverlapping(lanes.as_ptr(), to, n);
    }
}
