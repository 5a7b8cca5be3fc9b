//! Convolution without a matrix of patches, for any stride, padding and dilation.
//!
//! The images of a task are laid out as one strip per channel: rows one behind the other, with zeros after each row and after
//! each image wherever the kernel reaches beyond. Each place of the kernel ("tap") is then a constant offset into the strip,
//! whatever the row or the image, and a vector of outputs is a sum of vectors of inputs that lie side by side. The few outputs
//! that fall on the gaps are computed and thrown away.
//!
//! With a stride of `s` a channel is laid out as its `s` times `s` phases (every s-th row and column, from each start): a tap
//! reads one phase at unit steps, so the kernels know of no strides. The gradient of the input is, phase by phase, a
//! correlation of the output's gradient with the taps that read this phase.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::simd::{COLUMNS, Kernel, Level, MAX_LANES, MAX_ROWS, Vector};
use super::{Geometry, Shared, copy, with_scratch};

/// Places of a strip, about: few enough for the caches, enough to spread the work at its ends.
const PLACES: usize = 1100;
/// Floats of a strip's channels together, about: half of a second-level cache.
const FLOATS: usize = 1 << 17;
/// Vectors beyond the end of a channel may be loaded by the widest instruction set.
const OVERRUN: usize = 16 * COLUMNS;
/// Partial sums of a weight's gradient: a fixed number, so that the result does not depend on the number of threads.
const PARTIALS: usize = 16;

/// Which phase of the input a tap reads along one axis, and how far from the output's index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tap {
    phase: usize,
    shift: isize,
}

impl Geometry {
    fn tap(&self, axis: usize, index: usize) -> Tap {
        let stride = self.stride[axis] as isize;
        let from = (index * self.dilation[axis]) as isize - self.padding[axis] as isize;
        Tap { phase: from.rem_euclid(stride) as usize, shift: from.div_euclid(stride) }
    }

    /// All taps, row by row.
    fn each_tap(&self) -> Vec<[Tap; 2]> {
        let [kh, kw] = self.kernel;
        (0..kh).flat_map(|i| (0..kw).map(move |j| [self.tap(0, i), self.tap(1, j)])).collect()
    }

    /// All phases.
    fn phases(&self) -> Vec<[usize; 2]> {
        let [sh, sw] = self.stride;
        (0..sh).flat_map(|i| (0..sw).map(move |j| [i, j])).collect()
    }

    /// Rows or columns of the input in a phase.
    fn phase_len(&self, axis: usize, phase: usize) -> usize {
        self.input[axis].saturating_sub(phase).div_ceil(self.stride[axis])
    }
}

/// How images lie in a strip along one axis.
#[derive(Debug, Clone, Copy)]
struct Axis {
    /// Zeros before the first row (or column); those before the others are the zeros after their predecessors.
    before: usize,
    /// From an image to the next (or a row to the next).
    cells: usize,
    /// The largest shift.
    reach: isize,
}

impl Axis {
    /// For `data` rows of input in the largest phase, `output` rows of output, and these shifts of taps.
    fn new(data: usize, output: usize, shifts: impl Iterator<Item = isize> + Clone) -> Self {
        let lowest = shifts.clone().min().unwrap_or(0).min(0);
        let reach = shifts.max().unwrap_or(0).max(0);
        let before = lowest.unsigned_abs();
        Self { before, cells: (data + before).max(output + reach as usize), reach }
    }
}

/// The layout of a strip.
struct Strip {
    /// Height and width of an image, and the stride between rows and columns of a phase.
    size: [usize; 2],
    stride: [usize; 2],
    phases: Vec<[usize; 2]>,
    axes: [Axis; 2],
    images: usize,
}

impl Strip {
    fn new(
        geometry: &Geometry,
        size: [usize; 2],
        stride: [usize; 2],
        phases: Vec<[usize; 2]>,
        axes: [Axis; 2],
    ) -> Self {
        let channels = (geometry.channels_in * phases.len()).max(geometry.channels_out);
        let places = PLACES.min(FLOATS / channels);
        let images = (places / (axes[0].cells * axes[1].cells)).clamp(1, geometry.batch);
        Self { size, stride, phases, axes, images }
    }

    /// The strip of the input.
    fn of_input(geometry: &Geometry, output: [usize; 2]) -> Self {
        let taps = geometry.each_tap();
        let axes = [0, 1].map(|axis| {
            let shifts = taps.iter().map(|tap| tap[axis].shift);
            Axis::new(geometry.phase_len(axis, 0), output[axis], shifts)
        });
        // Phases that no tap reads are not laid out.
        let is_read = |phase: &[usize; 2]| taps.iter().any(|tap| tap.map(|tap| tap.phase) == *phase);
        let phases = geometry.phases().into_iter().filter(is_read).collect();
        Self::new(geometry, geometry.input, geometry.stride, phases, axes)
    }

    /// The strip of the output's gradient of which the input's gradient is made: shifts go the other way.
    fn of_gradient(geometry: &Geometry, output: [usize; 2]) -> Self {
        let taps = geometry.each_tap();
        let axes = [0, 1].map(|axis| {
            let shifts = taps.iter().map(|tap| -tap[axis].shift);
            Axis::new(output[axis], geometry.phase_len(axis, 0), shifts)
        });
        Self::new(geometry, output, [1, 1], vec![[0, 0]], axes)
    }

    fn strips(&self, batch: usize) -> usize {
        batch.div_ceil(self.images)
    }

    fn pitch(&self) -> usize {
        self.axes[1].cells
    }

    /// Places of an image with its gap.
    fn image(&self) -> usize {
        self.axes[0].cells * self.pitch()
    }

    /// Zeros before the first image.
    fn margin(&self) -> usize {
        self.axes[0].before * self.pitch() + self.axes[1].before
    }

    /// Places from the first image's start to the last one's end.
    fn places(&self) -> usize {
        self.images * self.image()
    }

    /// From a phase to the next: a margin before, and what taps and vectors reach after it.
    fn phase(&self) -> usize {
        let reach = (self.axes[0].reach * self.pitch() as isize + self.axes[1].reach) as usize;
        (self.margin() + self.places() + reach + 2 * OVERRUN).next_multiple_of(16)
    }

    /// From a channel to the next.
    fn channel(&self) -> usize {
        self.phases.len() * self.phase()
    }

    /// The offset of a place that is shifted by so many rows and columns.
    fn offset(&self, shifts: [isize; 2]) -> isize {
        shifts[0] * self.pitch() as isize + shifts[1]
    }

    /// Lays out images `[images, channels, height, width]`, with zeros everywhere else.
    fn pack(&self, images: &[f32], channels: usize, strip: &mut [f32]) {
        let [h, w] = self.size;
        let count = images.len() / (channels * h * w);
        for (index, strip) in strip.chunks_exact_mut(self.phase()).enumerate() {
            let (c, [row, column]) = (index / self.phases.len(), self.phases[index % self.phases.len()]);
            strip[..self.margin()].fill(0.0);
            let mut at = self.margin();
            for image in 0..count {
                let end = at + self.image();
                let from = &images[(image * channels + c) * h * w..][..h * w];
                for from in from.chunks_exact(w).skip(row).step_by(self.stride[0]) {
                    let next = at + self.pitch();
                    at += gather(&from[column.min(w)..], self.stride[1], &mut strip[at..next]);
                    strip[at..next].fill(0.0);
                    at = next;
                }
                strip[at..end].fill(0.0);
                at = end;
            }
            strip[at..].fill(0.0);
        }
    }
}

/// Copies every `stride`-th float; how many there were.
fn gather(from: &[f32], stride: usize, to: &mut [f32]) -> usize {
    let n = from.len().div_ceil(stride);
    let to = &mut to[..n];
    if stride == 1 {
        copy_row(from, to);
    } else {
        to.iter_mut().zip(from.iter().step_by(stride)).for_each(|(to, from)| *to = *from);
    }
    n
}

/// Copies a row of an image: too short for a call into the C library to pay.
fn copy_row(from: &[f32], to: &mut [f32]) {
    let (from_eights, from_rest) = from.as_chunks::<8>();
    let (to_eights, to_rest) = to.as_chunks_mut::<8>();
    for (to, from) in to_eights.iter_mut().zip(from_eights) {
        *to = *from;
    }
    for (to, from) in to_rest.iter_mut().zip(from_rest) {
        *to = *from;
    }
}

/// The part of a result that one list of taps makes: every `step`-th row and column from `start`.
struct Part {
    /// From a place to what is summed there, for each channel and tap.
    offsets: Vec<isize>,
    /// `[blocks of ROWS outputs, channels * taps, ROWS]`, zeros for outputs that do not exist.
    weights: Vec<f32>,
    start: [usize; 2],
    step: [usize; 2],
    /// Rows and columns.
    size: [usize; 2],
}

/// `[blocks, terms, rows]` of `weight(output, term)`
fn pack_weights(rows: usize, outputs: usize, terms: usize, weight: impl Fn(usize, usize) -> f32) -> Vec<f32> {
    let mut packed = vec![0.0; outputs.next_multiple_of(rows) * terms];
    for output in 0..outputs {
        for term in 0..terms {
            packed[(output / rows * terms + term) * rows + output % rows] = weight(output, term);
        }
    }
    packed
}

/// `y[n, o, ..] = bias[o] + sum over channels c and taps of weight[o, c, tap] * x[n, c, ..]`
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

/// Where each weight's input is, seen from an output's place.
fn input_offsets(geometry: &Geometry, strip: &Strip) -> Vec<isize> {
    let taps: Vec<isize> = geometry
        .each_tap()
        .iter()
        .map(|tap| {
            let phase = strip.phases.iter().position(|phase| *phase == tap.map(|tap| tap.phase)).unwrap_or(0);
            (phase * strip.phase()) as isize + strip.offset(tap.map(|tap| tap.shift))
        })
        .collect();
    let channel = strip.channel() as isize;
    (0..geometry.channels_in as isize).flat_map(|c| taps.iter().map(move |tap| c * channel + tap)).collect()
}

/// The gradient of the input.
pub(crate) fn input_gradient(
    level: Level,
    geometry: &Geometry,
    output: [usize; 2],
    dy: &[f32],
    weight: &[f32],
    dx: &mut [MaybeUninit<f32>],
) {
    let strip = Strip::of_gradient(geometry, output);
    let (channels, outputs, taps) = (geometry.channels_in, geometry.channels_out, geometry.each_tap());
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

/// Sums of shifted strips: all parts of `y`, whose images have this size.
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
    // Few strips are split by output channels as well.
    let splits = if strips < 8 { blocks.min(8 / strips) } else { 1 };
    let y = Shared::new(y);
    (0..strips * splits).into_par_iter().for_each(|task| {
        let (index, split) = (task / splits, task % splits);
        let first = index * strip.images;
        let images = strip.images.min(batch - first);
        let own = split * blocks / splits..(split + 1) * blocks / splits;
        let pitch = strip.places() + OVERRUN;
        with_scratch(channels * strip.channel() + own.len() * rows * pitch, |scratch| {
            let (x_strip, y_strip) = scratch.split_at_mut(channels * strip.channel());
            strip.pack(&x[first * image..][..images * image], channels, x_strip);
            for part in parts {
                let terms = part.offsets.len();
                level.run(Correlate {
                    strip,
                    places: images * strip.image(),
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
                        let place = ((first + image) * outputs + output) * size[0] * size[1];
                        // SAFETY: this image's channel belongs to this task alone.
                        let to = unsafe { y.slice(place, size[0] * size[1]) };
                        part.unpack(&from[image * strip.image()..], strip.pitch(), shift, size[1], to);
                    }
                }
            }
        });
    });
}

impl Part {
    /// Writes the part's rows of one image of a result that is `width` wide.
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

/// Rows of a register tile.
struct Rows;

impl Kernel for Rows {
    type Output = usize;

    #[inline(always)]
    fn run<V: Vector>(self) -> usize {
        V::ROWS
    }
}

/// One part's outputs of one strip, `[blocks * ROWS, pitch]`.
struct Correlate<'a> {
    strip: &'a Strip,
    places: usize,
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
        assert!(self.weights.len() >= blocks * block && self.pitch >= self.places + OVERRUN);
        let (lowest, highest) =
            (offsets.iter().min().copied().unwrap_or(0), offsets.iter().max().copied().unwrap_or(0));
        let margin = self.strip.margin();
        assert!(margin as isize + lowest >= 0);
        assert!((margin + self.places + OVERRUN) as isize + highest <= self.x.len() as isize);
        for place in (0..self.places).step_by(COLUMNS * V::LANES) {
            for index in 0..blocks {
                // SAFETY: a tile takes at most `OVERRUN` places from one that is less than `places`. Offsets from there stay
                // within the strip, the blocks of weights and of the output are there: all was checked above.
                unsafe {
                    correlate_tile::<V>(
                        self.x.as_ptr().add(margin + place),
                        offsets,
                        self.weights.as_ptr().add(index * block),
                        self.y.as_mut_ptr().add(index * V::ROWS * self.pitch + place),
                        self.pitch,
                    );
                }
            }
        }
    }
}

/// `ROWS` outputs at `COLUMNS * LANES` places.
///
/// # Safety
/// All that `x` and the offsets, `weights` and `y` point to must be there.
#[inline(always)]
unsafe fn correlate_tile<V: Vector>(x: *const f32, offsets: &[isize], weights: *const f32, y: *mut f32, pitch: usize) {
    // SAFETY: the memory is there, says the caller.
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

/// The gradient of the weights, `[channels_out, channels_in, taps]`.
pub(crate) fn weight_gradient(
    level: Level,
    geometry: &Geometry,
    output: [usize; 2],
    x: &[f32],
    dy: &[f32],
    dw: &mut [MaybeUninit<f32>],
) {
    let strip = Strip::of_input(geometry, output);
    // The output's gradient lies at the outputs' places.
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
                    places: images * strip.image(),
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

/// Adds one strip's part to the sums, `[blocks * ROWS, channels * taps]`.
struct WeightGradient<'a> {
    margin: usize,
    places: usize,
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
        let places = self.places.next_multiple_of(V::LANES);
        let blocks = self.dy.len() / (V::ROWS * channel);
        let (lowest, highest) =
            (offsets.iter().min().copied().unwrap_or(0), offsets.iter().max().copied().unwrap_or(0));
        assert!(margin as isize + lowest >= 0 && margin + places <= channel);
        assert!((margin + places) as isize + highest <= self.x.len() as isize);
        let terms = offsets.len();
        for block in 0..blocks {
            for (first, own) in (0..terms).step_by(COLUMNS).zip(offsets.chunks(COLUMNS)) {
                // A term that is not there repeats the last one; its sum is not used.
                let own: [isize; COLUMNS] = core::array::from_fn(|index| own[index.min(own.len() - 1)]);
                // SAFETY: places and offsets stay within the strips, as was checked above.
                let sums = unsafe {
                    weight_tile::<V>(
                        own.map(|offset| self.x.as_ptr().add(margin).offset(offset)),
                        self.dy.as_ptr().add(block * V::ROWS * channel + margin),
                        channel,
                        places,
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

/// Sums of `ROWS` rows of gradients times `COLUMNS` rows of inputs, over all places.
///
/// # Safety
/// `places` floats, a multiple of the vector's, must be there behind each of `x` and behind each row of `dy`.
#[inline(always)]
unsafe fn weight_tile<V: Vector>(
    x: [*const f32; COLUMNS],
    dy: *const f32,
    channel: usize,
    places: usize,
) -> [[f32; COLUMNS]; MAX_ROWS] {
    // SAFETY: the memory is there, says the caller.
    unsafe {
        let mut sums = [[V::splat(0.0); COLUMNS]; MAX_ROWS];
        for place in (0..places).step_by(V::LANES) {
            let inputs: [V; COLUMNS] = [V::load(x[0].add(place)), V::load(x[1].add(place)), V::load(x[2].add(place))];
            for (row, sums) in sums.iter_mut().enumerate().take(V::ROWS) {
                let gradient = V::load(dy.add(row * channel + place));
                for (sum, input) in sums.iter_mut().zip(inputs) {
                    *sum = sum.add_product(gradient, input);
                }
            }
        }
        // Sums leave the registers by stores alone: whatever else reads them makes the compiler keep them in memory.
        let mut lanes = [[[0.0_f32; MAX_LANES]; COLUMNS]; MAX_ROWS];
        for (lanes, sums) in lanes.iter_mut().zip(&sums).take(V::ROWS) {
            for (lanes, sum) in lanes.iter_mut().zip(sums) {
                sum.store(lanes.as_mut_ptr());
            }
        }
        lanes.map(|row| row.map(|lanes| lanes.iter().sum()))
    }
}
