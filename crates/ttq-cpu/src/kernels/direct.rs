//! Direct convolution (without im2col) for any stride, padding and dilation.
//!
//! A task copies its images to one [strip](super::strip) per channel, in which each position of the kernel (*tap*) is a
//! constant offset. A vector of outputs is then a sum of contiguous vectors of inputs. The outputs that fall on the
//! gaps between rows and images are computed and discarded.
//!
//! With a stride, a tap reads one *phase* of the strip with unit stride, so the kernels need no strides. The gradient
//! of the input is computed phase by phase, as a correlation of the output's gradient with the taps that read the
//! phase.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::simd::{COLUMNS, Kernel, Level, MAX_LANES, MAX_ROWS, Vector};
use super::strip::{OVERRUN, Strip};
use super::{Geometry, SharedOutput, copy, with_scratch};

/// Maximum number of partial sums of the weight gradient. It is fixed, so that the result does not depend on the number
/// of threads.
const PARTIALS: usize = 16;

/// The outputs that one list of taps computes: every `step`-th row and column from `start`.
struct Part {
    /// Offset from an output's position to the input of each term (channel and tap).
    offsets: Vec<isize>,
    /// `[blocks of ROWS outputs, channels * taps, ROWS]`, padded with zeros.
    weights: Vec<f32>,
    start: [usize; 2],
    step: [usize; 2],
    /// Number of rows and columns.
    size: [usize; 2],
}

/// Packs `weight(output, term)` as `[blocks, terms, rows]`, padded with zeros.
fn pack_weights(rows: usize, outputs: usize, terms: usize, weight: impl Fn(usize, usize) -> f32) -> Vec<f32> {
    let mut packed = vec![0.0; outputs.next_multiple_of(rows) * terms];
    for output in 0..outputs {
        for term in 0..terms {
            packed[(output / rows * terms + term) * rows + output % rows] = weight(output, term);
        }
    }
    packed
}

/// Computes a convolution: `y[n, o, i] = bias[o] + Σ_{c, tap} weight[o, c, tap] * x[n, c, input of tap at i]`.
///
/// `x` is `[batch, channels_in, height, width]`, `weight` `[channels_out, channels_in, kh, kw]`, `bias`
/// `[channels_out]` and `y` `[batch, channels_out, output height, output width]`, all contiguous. Writes every element
/// of `y`.
pub(crate) fn forward(
    level: Level,
    geometry: &Geometry,
    output: [usize; 2],
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    y: &mut [MaybeUninit<f32>],
) {
    let strip = Strip::of_input(geometry, output);
    let terms = geometry.channels_in * geometry.taps();
    let part = Part {
        offsets: input_offsets(geometry, &strip),
        weights: pack_weights(level.run(Rows), geometry.channels_out, terms, |o, term| weight[o * terms + term]),
        start: [0, 0],
        step: [1, 1],
        size: output,
    };
    let channels = [geometry.channels_in, geometry.channels_out];
    correlate(level, geometry.batch, channels, &strip, x, &[part], bias, output, y);
}

/// Offset from an output's position to the input of each channel and tap.
fn input_offsets(geometry: &Geometry, strip: &Strip) -> Vec<isize> {
    let taps: Vec<isize> = geometry
        .all_taps()
        .iter()
        .map(|tap| {
            let phase = strip.phases.iter().position(|phase| *phase == tap.map(|tap| tap.phase)).unwrap_or(0);
            (phase * strip.phase()) as isize + strip.offset(tap.map(|tap| tap.shift))
        })
        .collect();
    let channel = strip.channel() as isize;
    (0..geometry.channels_in as isize).flat_map(|c| taps.iter().map(move |tap| c * channel + tap)).collect()
}

/// Computes the gradient of the input from the output's gradient `dy`. Shapes are those of [`forward`]. Writes every
/// element of `dx`.
pub(crate) fn input_gradient(
    level: Level,
    geometry: &Geometry,
    output: [usize; 2],
    dy: &[f32],
    weight: &[f32],
    dx: &mut [MaybeUninit<f32>],
) {
    let strip = Strip::of_gradient(geometry, output);
    let (channels, outputs, taps) = (geometry.channels_in, geometry.channels_out, geometry.all_taps());
    let part = |phase: [usize; 2]| {
        let own: Vec<usize> = (0..taps.len()).filter(|tap| taps[*tap].map(|tap| tap.phase) == phase).collect();
        let offset =
            |o: usize, tap: usize| (o * strip.channel()) as isize + strip.offset(taps[tap].map(|tap| -tap.shift));
        let weight = |c: usize, term: usize| {
            let (o, tap) = (term / own.len(), own[term % own.len()]);
            weight[(o * channels + c) * taps.len() + tap]
        };
        Part {
            offsets: (0..outputs).flat_map(|o| own.iter().map(move |tap| offset(o, *tap))).collect(),
            weights: pack_weights(level.run(Rows), channels, outputs * own.len(), weight),
            start: phase,
            step: geometry.stride,
            size: [0, 1].map(|axis| geometry.phase_len(axis, phase[axis])),
        }
    };
    let parts: Vec<Part> = geometry.phases().into_iter().map(part).collect();
    correlate(level, geometry.batch, [outputs, channels], &strip, dy, &parts, None, geometry.input, dx);
}

/// Computes all parts of `y` as sums of shifted strips of `x`. `size` is the height and width of the images of `y`.
#[allow(clippy::too_many_arguments)]
fn correlate(
    level: Level,
    batch: usize,
    [channels, outputs]: [usize; 2],
    strip: &Strip,
    x: &[f32],
    parts: &[Part],
    bias: Option<&[f32]>,
    size: [usize; 2],
    y: &mut [MaybeUninit<f32>],
) {
    let rows = level.run(Rows);
    let blocks = outputs.div_ceil(rows);
    let strips = strip.strips(batch);
    let image = x.len() / batch;
    // If there are few strips, tasks also split the output channels.
    let splits = if strips < 8 { blocks.min(8 / strips) } else { 1 };
    let y = SharedOutput::new(y);
    (0..strips * splits).into_par_iter().for_each(|task| {
        let (index, split) = (task / splits, task % splits);
        let first = index * strip.images;
        let images = strip.images.min(batch - first);
        let own = split * blocks / splits..(split + 1) * blocks / splits;
        let pitch = strip.positions() + OVERRUN;
        with_scratch(channels * strip.channel() + own.len() * rows * pitch, |scratch| {
            let (x_strip, y_strip) = scratch.split_at_mut(channels * strip.channel());
            strip.pack(&x[first * image..][..images * image], channels, x_strip);
            for part in parts {
                let terms = part.offsets.len();
                level.run(Correlate {
                    strip,
                    positions: images * strip.image(),
                    part,
                    x: x_strip,
                    weights: &part.weights[own.start * rows * terms..own.end * rows * terms],
                    pitch,
                    y: y_strip,
                });
                for output in own.start * rows..outputs.min(own.end * rows) {
                    let shift = bias.map_or(0.0, |bias| bias[output]);
                    let from = &y_strip[(output - own.start * rows) * pitch..][..pitch];
                    for image in 0..images {
                        let start = ((first + image) * outputs + output) * size[0] * size[1];
                        // SAFETY: no other task writes this channel of this image.
                        let to = unsafe { y.slice(start, size[0] * size[1]) };
                        part.unpack(&from[image * strip.image()..], strip.pitch(), shift, size[1], to);
                    }
                }
            }
        });
    });
}

impl Part {
    /// Writes the part's rows and columns of one image of a result of width `width`.
    fn unpack(&self, from: &[f32], pitch: usize, shift: f32, width: usize, to: &mut [MaybeUninit<f32>]) {
        let ([first, column], [row_step, step]) = (self.start, self.step);
        let rows = to.chunks_exact_mut(width).skip(first).step_by(row_step);
        for (to, from) in rows.zip(from.chunks(pitch)).take(self.size[0]) {
            let from = &from[..self.size[1]];
            if step == 1 {
                for (to, from) in to.iter_mut().zip(from) {
                    to.write(from + shift);
                }
            } else {
                for (to, from) in to.iter_mut().skip(column).step_by(step).zip(from) {
                    to.write(from + shift);
                }
            }
        }
    }
}

/// Returns the number of rows of a register tile.
struct Rows;

impl Kernel for Rows {
    type Output = usize;

    #[inline(always)]
    fn run<V: Vector>(self) -> usize {
        V::ROWS
    }
}

/// Computes the outputs of one part for one strip, `[blocks * ROWS, pitch]`.
struct Correlate<'a> {
    strip: &'a Strip,
    positions: usize,
    part: &'a Part,
    x: &'a [f32],
    weights: &'a [f32],
    pitch: usize,
    y: &'a mut [f32],
}

impl Kernel for Correlate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let offsets = self.part.offsets.as_slice();
        let block = V::ROWS * offsets.len();
        let blocks = self.y.len() / (V::ROWS * self.pitch);
        assert!(self.weights.len() >= blocks * block && self.pitch >= self.positions + OVERRUN);
        let (lowest, highest) =
            (offsets.iter().min().copied().unwrap_or(0), offsets.iter().max().copied().unwrap_or(0));
        let margin = self.strip.margin();
        assert!(margin as isize + lowest >= 0);
        assert!((margin + self.positions + OVERRUN) as isize + highest <= self.x.len() as isize);
        for position in (0..self.positions).step_by(COLUMNS * V::LANES) {
            for index in 0..blocks {
                // SAFETY: a tile covers at most `OVERRUN` positions from `position`, which is less than `positions`. By
                // the assertions above, their offsets stay within the strip, and the blocks of weights and of the
                // output exist.
                unsafe {
                    correlate_tile::<V>(
                        self.x.as_ptr().add(margin + position),
                        offsets,
                        self.weights.as_ptr().add(index * block),
                        self.y.as_mut_ptr().add(index * V::ROWS * self.pitch + position),
                        self.pitch,
                    );
                }
            }
        }
    }
}

/// Computes `ROWS` outputs at `COLUMNS * LANES` positions.
///
/// # Safety
/// `x` plus each of the offsets must be valid for reads of `COLUMNS * LANES` floats, `weights` for reads of
/// `offsets.len() * ROWS` floats, and each of the `ROWS` rows of `y` for writes of `COLUMNS * LANES` floats.
#[inline(always)]
unsafe fn correlate_tile<V: Vector>(x: *const f32, offsets: &[isize], weights: *const f32, y: *mut f32, pitch: usize) {
    // SAFETY: the caller guarantees that the memory is valid.
    unsafe {
        let mut weights = weights;
        let mut sums = [[V::splat(0.0); COLUMNS]; MAX_ROWS];
        for offset in offsets {
            let x = x.offset(*offset);
            let inputs: [V; COLUMNS] = [V::load(x), V::load(x.add(V::LANES)), V::load(x.add(2 * V::LANES))];
            for (row, sums) in sums.iter_mut().enumerate().take(V::ROWS) {
                let weight = V::splat(*weights.add(row));
                for (sum, input) in sums.iter_mut().zip(inputs) {
                    *sum = sum.add_product(weight, input);
                }
            }
            weights = weights.add(V::ROWS);
        }
        for (row, sums) in sums.iter().enumerate().take(V::ROWS) {
            for (column, sum) in sums.iter().enumerate() {
                sum.store(y.add(row * pitch + column * V::LANES));
            }
        }
    }
}

/// Computes the gradient of the weights, `[channels_out, channels_in, taps]`. Shapes are those of [`forward`]. Writes
/// every element of `dw`.
pub(crate) fn weight_gradient(
    level: Level,
    geometry: &Geometry,
    output: [usize; 2],
    x: &[f32],
    dy: &[f32],
    dw: &mut [MaybeUninit<f32>],
) {
    let strip = Strip::of_input(geometry, output);
    // The output's gradient is laid out at the positions of the outputs.
    let dy_strip = Strip { size: output, stride: [1, 1], phases: vec![[0, 0]], ..strip };
    let (channels, outputs) = (geometry.channels_in, geometry.channels_out);
    let (image, result) = (x.len() / geometry.batch, dy.len() / geometry.batch);
    let offsets = input_offsets(geometry, &strip);
    let padded = outputs.next_multiple_of(level.run(Rows));
    let strips = strip.strips(geometry.batch);
    let partials = strips.min(PARTIALS).min(((1 << 22) / geometry.weights()).max(2));
    let partial = |part: usize| {
        let mut sums = vec![0.0; padded * offsets.len()];
        for index in part * strips / partials..(part + 1) * strips / partials {
            let first = index * strip.images;
            let images = strip.images.min(geometry.batch - first);
            with_scratch(channels * strip.channel() + padded * dy_strip.channel(), |scratch| {
                let (x_strip, gradients) = scratch.split_at_mut(channels * strip.channel());
                strip.pack(&x[first * image..][..images * image], channels, x_strip);
                let (used, unused) = gradients.split_at_mut(outputs * dy_strip.channel());
                dy_strip.pack(&dy[first * result..][..images * result], outputs, used);
                unused.fill(0.0);
                level.run(WeightGradient {
                    margin: strip.margin(),
                    positions: images * strip.image(),
                    offsets: &offsets,
                    x: x_strip,
                    dy: gradients,
                    channel: dy_strip.channel(),
                    sums: &mut sums,
                });
            });
        }
        sums
    };
    let mut partials: Vec<Vec<f32>> = (0..partials).into_par_iter().map(partial).collect();
    let (sums, others) = partials.split_at_mut(1);
    for other in others {
        sums[0].iter_mut().zip(other).for_each(|(sum, other)| *sum += *other);
    }
    copy(dw, &sums[0][..geometry.weights()]);
}

/// Adds the contribution of one strip to the sums, `[blocks * ROWS, channels * taps]`.
struct WeightGradient<'a> {
    margin: usize,
    positions: usize,
    offsets: &'a [isize],
    x: &'a [f32],
    /// `[blocks * ROWS, channel]`
    dy: &'a [f32],
    channel: usize,
    sums: &'a mut [f32],
}

impl Kernel for WeightGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { margin, offsets, channel, .. } = self;
        let positions = self.positions.next_multiple_of(V::LANES);
        let blocks = self.dy.len() / (V::ROWS * channel);
        let (lowest, highest) =
            (offsets.iter().min().copied().unwrap_or(0), offsets.iter().max().copied().unwrap_or(0));
        assert!(margin as isize + lowest >= 0 && margin + positions <= channel);
        assert!((margin + positions) as isize + highest <= self.x.len() as isize);
        let terms = offsets.len();
        for block in 0..blocks {
            for (first, own) in (0..terms).step_by(COLUMNS).zip(offsets.chunks(COLUMNS)) {
                // The last chunk is padded with its last term; the sums of the padding are not used.
                let own: [isize; COLUMNS] = core::array::from_fn(|index| own[index.min(own.len() - 1)]);
                // SAFETY: by the assertions above, positions and offsets stay within the strips.
                let sums = unsafe {
                    weight_tile::<V>(
                        own.map(|offset| self.x.as_ptr().add(margin).offset(offset)),
                        self.dy.as_ptr().add(block * V::ROWS * channel + margin),
                        channel,
                        positions,
                    )
                };
                for (row, sums) in sums.iter().enumerate().take(V::ROWS) {
                    let to = &mut self.sums[(block * V::ROWS + row) * terms..][first..terms.min(first + COLUMNS)];
                    to.iter_mut().zip(sums).for_each(|(to, sum)| *to += *sum);
                }
            }
        }
    }
}

/// Computes the sums over all positions of `ROWS` rows of gradients times `COLUMNS` rows of inputs.
///
/// # Safety
/// `positions` must be a multiple of `LANES`. Each pointer of `x` and each row of `dy` must be valid for reads of
/// `positions` floats.
#[inline(always)]
unsafe fn weight_tile<V: Vector>(
    x: [*const f32; COLUMNS],
    dy: *const f32,
    channel: usize,
    positions: usize,
) -> [[f32; COLUMNS]; MAX_ROWS] {
    // SAFETY: the caller guarantees that the memory is valid.
    unsafe {
        let mut sums = [[V::splat(0.0); COLUMNS]; MAX_ROWS];
        for position in (0..positions).step_by(V::LANES) {
            let inputs: [V; COLUMNS] =
                [V::load(x[0].add(position)), V::load(x[1].add(position)), V::load(x[2].add(position))];
            for (row, sums) in sums.iter_mut().enumerate().take(V::ROWS) {
                let gradient = V::load(dy.add(row * channel + position));
                for (sum, input) in sums.iter_mut().zip(inputs) {
                    *sum = sum.add_product(gradient, input);
                }
            }
        }
        // Sums are only read by vector stores: any other access makes the compiler keep them in memory instead of
        // registers.
        let mut lanes = [[[0.0_f32; MAX_LANES]; COLUMNS]; MAX_ROWS];
        for (lanes, sums) in lanes.iter_mut().zip(&sums).take(V::ROWS) {
            for (lanes, sum) in lanes.iter_mut().zip(sums) {
                sum.store(lanes.as_mut_ptr());
            }
        }
        lanes.map(|row| row.map(|lanes| lanes.iter().sum()))
    }
}
