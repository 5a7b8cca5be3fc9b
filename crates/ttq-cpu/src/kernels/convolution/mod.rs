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

mod correlate;
mod images;
#[cfg(test)]
pub(super) mod naive;
mod partial_sums;
#[cfg(test)]
mod tests;
mod weight_gradient;
mod window;
mod winograd;

use std::mem::MaybeUninit;

use rayon::prelude::*;

use self::correlate::{COLUMNS, Correlate, Lanes, Run, passes};
pub(crate) use self::images::Images;
pub(crate) use self::weight_gradient::weight_gradient;
use self::window::{Blocks, Window};
use self::winograd::Winograd;
use super::simd::Level;
use super::{Geometry, SharedOutput, splits, with_scratch};

/// Approximate number of positions in a task.
const POSITIONS: usize = 256;

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
        let width = COLUMNS * self.level.run(Lanes);
        let blocks = self.outputs.div_ceil(width);
        let mut bias = vec![0.0; blocks * width];
        if let Some(values) = self.bias {
            bias[..self.outputs].copy_from_slice(values);
        }
        if let Some(shift) = self.winograd() {
            let Self { level, batch, x, channels, outputs, size, .. } = *self;
            let taps = self.taps(&self.parts[0]);
            let winograd = Winograd { level, batch, x, channels, outputs, size, shift };
            return winograd.correlate(&self.pack_weights(&taps, width), &bias, y);
        }
        let bounds = [0, 1].map(|axis| self.bounds(axis));
        let size = [0, 1].map(|axis| self.parts.iter().map(|part| part[axis].size).max().unwrap_or(0));
        let tasks = Blocks::new(self.batch, size, POSITIONS);
        let window = Window::new(self.level, self.x, bounds, self.step, size, &tasks, self.channels);
        let prepared: Vec<Prepared> =
            self.parts.iter().map(|part| self.prepare(part, &window, &tasks, width)).collect();
        let splits = splits(tasks.len(), blocks);
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
                    let start = (row * self.size[1] + part[1].start) * self.outputs;
                    self.level.run(Correlate {
                        passes: &prepared.passes,
                        weights: &prepared.weights,
                        terms: prepared.terms,
                        blocks: own.clone(),
                        bias: &bias,
                        outputs: self.outputs,
                        x,
                        from: &prepared.from[..n],
                        // SAFETY: the first output of the block is in the memory.
                        y: unsafe { y.pointer().add(start) },
                        to: &prepared.to[..n],
                    });
                }
            });
        });
    }

    /// Returns the shifts of the first tap if Winograd's algorithm applies.
    fn winograd(&self) -> Option<[isize; 2]> {
        let [part] = self.parts.as_slice() else { return None };
        let is_dense = |axis: &Axis| axis.taps.len() == 3 && axis.taps[2].1 - axis.taps[0].1 == 2;
        let applies = self.step == [1, 1] && is_dense(&part[0]) && is_dense(&part[1]);
        (applies && Winograd::is_faster(self.channels, self.outputs, self.size))
            .then(|| [part[0].taps[0].1, part[1].taps[0].1])
    }

    /// Indices of the taps of a part.
    fn taps(&self, part: &Part) -> Vec<usize> {
        part[0].taps.iter().flat_map(|i| part[1].taps.iter().map(move |j| i.0 * self.kernel[1] + j.0)).collect()
    }

    /// The lowest and the highest shift of a tap along an axis.
    fn bounds(&self, axis: usize) -> (isize, isize) {
        let shifts = || self.parts.iter().flat_map(|part| part[axis].taps.iter().map(|(_, shift)| *shift));
        (shifts().min().unwrap_or(0), shifts().max().unwrap_or(0))
    }

    fn prepare(&self, part: &Part, window: &Window, tasks: &Blocks, width: usize) -> Prepared {
        let taps = self.taps(part);
        let shifts = part[0].taps.iter().flat_map(|i| part[1].taps.iter().map(move |j| window.shift([i.1, j.1])));
        let shifts: Vec<isize> = shifts.collect();
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

impl Geometry {
    /// Offset of the input that a tap reads from the first one of its output, along one axis.
    pub(super) fn shift(&self, axis: usize, tap: usize) -> isize {
        (tap * self.dilation[axis]) as isize - self.padding[axis] as isize
    }
}
