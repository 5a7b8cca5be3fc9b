//! Convolution of stride 1, without a matrix of patches.
//!
//! The images of a task are laid out as one strip per channel: rows one behind the other, `padding` zeros after each row and
//! `padding` rows of zeros after each image. Each place of the kernel is then a constant offset into the strip, whatever the
//! row or the image, and a vector of outputs is a sum of vectors of inputs that lie side by side. The few outputs that fall
//! on the gaps are computed and thrown away.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::simd::{COLUMNS, Kernel, Level, MAX_ROWS, Vector};
use super::{Geometry, Shared, copy, with_scratch};

/// Places of a strip, about: few enough for the caches, enough to spread the work at its ends.
const PLACES: usize = 1100;
/// Floats of a strip's channels together, about: half of a second-level cache.
const FLOATS: usize = 1 << 17;
/// Vectors beyond the end of a channel may be loaded by the widest instruction set.
const OVERRUN: usize = 16 * COLUMNS;

/// Can these kernels do it?
pub(crate) fn fits(geometry: &Geometry) -> bool {
    geometry.stride == [1, 1] && (0..2).all(|axis| geometry.padding[axis] < geometry.extent(axis))
}

/// The layout of a strip.
#[derive(Clone, Copy)]
struct Strip {
    input: [usize; 2],
    output: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
    kernel: [usize; 2],
    /// From a row to the next, and rows of an image with its gap.
    pitch: usize,
    rows: usize,
    images: usize,
}

impl Strip {
    fn new(geometry: &Geometry) -> Self {
        let [[h, w], [ph, pw]] = [geometry.input, geometry.padding];
        let (rows, pitch) = (h + ph, w + pw);
        let channels = geometry.channels_in.max(geometry.channels_out);
        let places = PLACES.min(FLOATS / channels);
        let images = (places / (rows * pitch)).clamp(1, geometry.batch);
        let output = geometry.output().unwrap_or([0, 0]);
        let Geometry { padding, dilation, kernel, .. } = *geometry;
        Self { input: geometry.input, output, padding, dilation, kernel, pitch, rows, images }
    }

    fn strips(&self, batch: usize) -> usize {
        batch.div_ceil(self.images)
    }

    /// Zeros before the first image.
    fn margin(&self) -> usize {
        self.padding[0] * self.pitch + self.padding[1]
    }

    /// Places from the first image's start to the last one's end.
    fn places(&self) -> usize {
        self.images * self.rows * self.pitch
    }

    /// From a channel to the next: with a margin before, and after it what the kernel reaches for.
    fn channel(&self) -> usize {
        let reach = self.margin() + self.reach(0) * self.pitch + self.reach(1);
        (self.places() + reach + 2 * OVERRUN).next_multiple_of(16)
    }

    fn reach(&self, axis: usize) -> usize {
        self.dilation[axis] * (self.kernel[axis] - 1)
    }

    /// The offset of a place of the kernel.
    fn tap(&self, i: usize, j: usize) -> isize {
        let row = (i * self.dilation[0]) as isize - self.padding[0] as isize;
        let column = (j * self.dilation[1]) as isize - self.padding[1] as isize;
        row * self.pitch as isize + column
    }

    fn taps(&self) -> Vec<isize> {
        let [kh, kw] = self.kernel;
        (0..kh).flat_map(|i| (0..kw).map(move |j| (i, j))).map(|(i, j)| self.tap(i, j)).collect()
    }

    /// Lays out images of size `[h, w]`, `[images, channels, h, w]`, with zeros everywhere else.
    fn pack(&self, images: &[f32], channels: usize, [h, w]: [usize; 2], strip: &mut [f32]) {
        let count = images.len() / (channels * h * w);
        for (c, channel) in strip.chunks_exact_mut(self.channel()).enumerate() {
            channel[..self.margin()].fill(0.0);
            let mut at = self.margin();
            for image in 0..count {
                let from = &images[(image * channels + c) * h * w..][..h * w];
                for row in from.chunks_exact(w) {
                    channel[at..at + w].copy_from_slice(row);
                    channel[at + w..at + self.pitch].fill(0.0);
                    at += self.pitch;
                }
                let gap = (self.rows - h) * self.pitch;
                channel[at..at + gap].fill(0.0);
                at += gap;
            }
            channel[at..].fill(0.0);
        }
    }
}

/// `y[n, o, ..] = bias[o] + sum over c of x[n, c, ..] * weight[o, c, ..]`; `weight(o, c, tap)`.
pub(crate) fn forward(
    level: Level,
    geometry: &Geometry,
    x: &[f32],
    weight: impl Fn(usize, usize, usize) -> f32,
    bias: Option<&[f32]>,
    y: &mut [MaybeUninit<f32>],
) {
    let strip = Strip::new(geometry);
    let [channels, outputs] = [geometry.channels_in, geometry.channels_out];
    let rows = level.run(Rows);
    let weights = pack_weights(rows, geometry, weight);
    let blocks = outputs.div_ceil(rows);
    let (image, result) = (channels * strip.input[0] * strip.input[1], strip.output[0] * strip.output[1]);
    let strips = strip.strips(geometry.batch);
    // Few strips are split by output channels as well.
    let parts = if strips < 8 { blocks.min(8 / strips) } else { 1 };
    let y = Shared::new(y);
    (0..strips * parts).into_par_iter().for_each(|task| {
        let (index, part) = (task / parts, task % parts);
        let first = index * strip.images;
        let images = strip.images.min(geometry.batch - first);
        let own = part * blocks / parts..(part + 1) * blocks / parts;
        let pitch = strip.places() + OVERRUN;
        with_scratch(channels * strip.channel() + own.len() * rows * pitch, |scratch| {
            let (x_strip, y_strip) = scratch.split_at_mut(channels * strip.channel());
            strip.pack(&x[first * image..][..images * image], channels, strip.input, x_strip);
            level.run(Forward {
                strip: &strip,
                channels,
                taps: &strip.taps(),
                x: x_strip,
                weights: &weights[own.start * rows * channels * geometry.taps()..],
                blocks: own.len(),
                pitch,
                y: y_strip,
            });
            for output in own.start * rows..outputs.min(own.end * rows) {
                let shift = bias.map_or(0.0, |bias| bias[output]);
                let from = &y_strip[(output - own.start * rows) * pitch..][..pitch];
                for image in 0..images {
                    // SAFETY: this image's channel belongs to this task alone.
                    let to = unsafe { y.slice(((first + image) * outputs + output) * result, result) };
                    let from = &from[image * strip.rows * strip.pitch..];
                    for (to, from) in to.chunks_exact_mut(strip.output[1]).zip(from.chunks(strip.pitch)) {
                        for (to, from) in to.iter_mut().zip(from) {
                            to.write(from + shift);
                        }
                    }
                }
            }
        });
    });
}

/// `[blocks, channels, taps, rows]`, zeros for outputs that do not exist.
fn pack_weights(rows: usize, geometry: &Geometry, weight: impl Fn(usize, usize, usize) -> f32) -> Vec<f32> {
    let (channels, outputs, taps) = (geometry.channels_in, geometry.channels_out, geometry.taps());
    let mut packed = vec![0.0; outputs.div_ceil(rows) * rows * channels * taps];
    for o in 0..outputs {
        for c in 0..channels {
            for tap in 0..taps {
                packed[(((o / rows) * channels + c) * taps + tap) * rows + o % rows] = weight(o, c, tap);
            }
        }
    }
    packed
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

/// The output of one strip, `[blocks * ROWS, pitch]`.
struct Forward<'a> {
    strip: &'a Strip,
    channels: usize,
    taps: &'a [isize],
    x: &'a [f32],
    weights: &'a [f32],
    blocks: usize,
    pitch: usize,
    y: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let (places, margin, channel) = (self.strip.places(), self.strip.margin(), self.strip.channel());
        assert!(self.x.len() >= self.channels * channel && self.y.len() >= self.blocks * V::ROWS * self.pitch);
        assert!(self.weights.len() >= self.blocks * V::ROWS * self.channels * self.taps.len());
        let mut place = 0;
        while place < places {
            for block in 0..self.blocks {
                // SAFETY: a channel has room for what any tap reaches from any place and `OVERRUN` beyond; a row of the
                // output for all places and `OVERRUN`; both were checked above.
                unsafe {
                    forward_tile::<V>(
                        self.x.as_ptr().add(margin + place),
                        channel,
                        self.channels,
                        self.taps,
                        self.weights.as_ptr().add(block * V::ROWS * self.channels * self.taps.len()),
                        self.y.as_mut_ptr().add(block * V::ROWS * self.pitch + place),
                        self.pitch,
                    );
                }
            }
            place += COLUMNS * V::LANES;
        }
    }
}

/// `ROWS` outputs at `COLUMNS * LANES` places.
///
/// # Safety
/// All that `x` and the offsets, `weights` and `y` point to must be there.
#[inline(always)]
unsafe fn forward_tile<V: Vector>(
    x: *const f32,
    channel: usize,
    channels: usize,
    taps: &[isize],
    mut weights: *const f32,
    y: *mut f32,
    pitch: usize,
) {
    // SAFETY: the memory is there, says the caller.
    unsafe {
        let mut sums = [[V::splat(0.0); COLUMNS]; MAX_ROWS];
        for c in 0..channels {
            let x = x.add(c * channel);
            for tap in taps {
                let x = x.offset(*tap);
                let inputs: [V; COLUMNS] = [V::load(x), V::load(x.add(V::LANES)), V::load(x.add(2 * V::LANES))];
                for (row, sums) in sums.iter_mut().enumerate().take(V::ROWS) {
                    let weight = V::splat(*weights.add(row));
                    for (sum, input) in sums.iter_mut().zip(inputs) {
                        *sum = sum.add_product(weight, input);
                    }
                }
                weights = weights.add(V::ROWS);
            }
        }
        for (row, sums) in sums.iter().enumerate().take(V::ROWS) {
            for (column, sum) in sums.iter().enumerate() {
                sum.store(y.add(row * pitch + column * V::LANES));
            }
        }
    }
}

/// The gradient of the weights, `[channels_out, channels_in, taps]`.
pub(crate) fn weight_gradient(level: Level, geometry: &Geometry, x: &[f32], dy: &[f32], dw: &mut [MaybeUninit<f32>]) {
    let strip = Strip::new(geometry);
    let [channels, outputs] = [geometry.channels_in, geometry.channels_out];
    let image = channels * strip.input[0] * strip.input[1];
    let result = outputs * strip.output[0] * strip.output[1];
    let rows = level.run(Rows);
    let padded = outputs.next_multiple_of(rows);
    let strips = strip.strips(geometry.batch);
    // A fixed number of partial sums: the result does not depend on the number of threads.
    let parts = strips.min(16).min(((1 << 22) / geometry.weights()).max(2));
    let partial = |part: usize| {
        let mut sums = vec![0.0; padded * channels * geometry.taps()];
        for index in part * strips / parts..(part + 1) * strips / parts {
            let first = index * strip.images;
            let images = strip.images.min(geometry.batch - first);
            with_scratch((channels + padded) * strip.channel(), |scratch| {
                let (x_strip, dy_strip) = scratch.split_at_mut(channels * strip.channel());
                strip.pack(&x[first * image..][..images * image], channels, strip.input, x_strip);
                let (dy_strip, unused) = dy_strip.split_at_mut(outputs * strip.channel());
                strip.pack(&dy[first * result..][..images * result], outputs, strip.output, dy_strip);
                unused.fill(0.0);
                level.run(WeightGradient {
                    strip: &strip,
                    channels,
                    blocks: padded / rows,
                    strips: scratch,
                    sums: &mut sums,
                });
            });
        }
        sums
    };
    let mut partials: Vec<Vec<f32>> = (0..parts).into_par_iter().map(partial).collect();
    let (sums, others) = partials.split_at_mut(1);
    for other in others {
        sums[0].iter_mut().zip(other).for_each(|(sum, other)| *sum += *other);
    }
    copy(dw, &sums[0][..geometry.weights()]);
}

/// Adds one strip's part to the sums, `[blocks * ROWS, channels, taps]`.
struct WeightGradient<'a> {
    strip: &'a Strip,
    channels: usize,
    blocks: usize,
    /// Those of the input's channels, then those of the output's.
    strips: &'a [f32],
    sums: &'a mut [f32],
}

impl Kernel for WeightGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let strip = self.strip;
        let (channel, margin) = (strip.channel(), strip.margin());
        let [kh, kw] = strip.kernel;
        let places = strip.places().next_multiple_of(V::LANES);
        assert!(self.strips.len() >= (self.channels + self.blocks * V::ROWS) * channel);
        assert!(self.sums.len() >= self.blocks * V::ROWS * self.channels * kh * kw);
        for block in 0..self.blocks {
            for c in 0..self.channels {
                for i in 0..kh {
                    for j in (0..kw).step_by(COLUMNS) {
                        let taps = COLUMNS.min(kw - j);
                        // A tap that is not there repeats the last one; its sum is not used.
                        let offsets = [0, 1, 2].map(|next| strip.tap(i, (j + next).min(kw - 1)));
                        let mut sums = [[0.0; COLUMNS]; MAX_ROWS];
                        // SAFETY: the strips were checked above; a channel has room for what any tap reaches from any
                        // place and for the last vector.
                        unsafe {
                            let x = self.strips.as_ptr().add(c * channel + margin);
                            let dy = self.strips.as_ptr().add((self.channels + block * V::ROWS) * channel + margin);
                            if taps == 1 {
                                weight_tile::<V, 1>(x, [offsets[0]], dy, channel, places, &mut sums);
                            } else {
                                weight_tile::<V, COLUMNS>(x, offsets, dy, channel, places, &mut sums);
                            }
                        }
                        for (row, sums) in sums.iter().enumerate().take(V::ROWS) {
                            let at = (((block * V::ROWS + row) * self.channels + c) * kh + i) * kw + j;
                            let to = &mut self.sums[at..at + taps];
                            to.iter_mut().zip(sums).for_each(|(to, sum)| *to += *sum);
                        }
                    }
                }
            }
        }
    }
}

/// Sums of `ROWS` gradients of outputs times the inputs at `T` taps, over all places.
///
/// # Safety
/// `places` floats, rounded up to vectors, must be there behind `x` at each offset and behind each row of `dy`.
#[inline(always)]
unsafe fn weight_tile<V: Vector, const T: usize>(
    x: *const f32,
    offsets: [isize; T],
    dy: *const f32,
    channel: usize,
    places: usize,
    result: &mut [[f32; COLUMNS]; MAX_ROWS],
) {
    // SAFETY: the memory is there, says the caller.
    unsafe {
        let mut sums = [[V::splat(0.0); T]; MAX_ROWS];
        let mut place = 0;
        while place < places {
            let inputs = offsets.map(|offset| V::load(x.offset(offset).add(place)));
            for (row, sums) in sums.iter_mut().enumerate().take(V::ROWS) {
                let gradient = V::load(dy.add(row * channel + place));
                for (sum, input) in sums.iter_mut().zip(inputs) {
                    *sum = sum.add_product(gradient, input);
                }
            }
            place += V::LANES;
        }
        for (result, sums) in result.iter_mut().zip(sums).take(V::ROWS) {
            for (result, sum) in result.iter_mut().zip(sums) {
                *result = sum.sum();
            }
        }
    }
}
