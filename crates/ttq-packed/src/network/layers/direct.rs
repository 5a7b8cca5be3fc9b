//! Direct convolutions of any geometry, and linear layers as convolutions of one pixel.

use alloc::vec::Vec;

use super::epilogue::UNIT;
use super::tile::{PANEL, Runs, ahead, byte_sums, cover, sums, vector};
use super::{Call, Epilogue, Layer, Split, Task};
use crate::kernels::ConvolutionOptions;
use crate::kernels::level::Kernel;
use crate::kernels::memory::Words;
use crate::kernels::simd::Simd;
use crate::network::layout::Image;
use crate::network::quantize::quantize_weights;

/// Minimum number of multiply-adds of vectors per task.
const WORK: usize = 1 << 13;

/// A convolution that reads the elements under the kernel where they are.
///
/// The elements are floats, or bytes: these are multiplied by weights of signed bytes, with exact sums.
#[derive(Debug)]
pub(in crate::network) struct Direct {
    input: Image,
    output: Image,
    stride: [usize; 2],
    padding: [usize; 2],
    groups: usize,
    /// Offsets of the runs under the kernel, from the first channel of the group at the pixel.
    offsets: Vec<u32>,
    /// Number of elements of a run.
    run: usize,
    /// For each group: panels of `[elements, PANEL]`, or of `[elements / 4, PANEL]` words of four bytes.
    weights: Words,
    /// Factor of the sums of bytes, one per output channel and zeros up to a multiple of a vector.
    scale: Vec<f32>,
    epilogue: Epilogue,
}

impl Direct {
    /// Creates the layer. `weight(o, c, y, x)` returns a weight of output channel `o` and channel `c` of its group.
    ///
    /// The input must have a border as large as the padding. If its elements are bytes, there is one group, or the
    /// channels of a group are multiples of four.
    pub(in crate::network) fn new(
        [input, output]: [Image; 2],
        [kh, kw]: [usize; 2],
        options: &ConvolutionOptions,
        epilogue: Epilogue,
        weight: impl Fn(usize, usize, usize, usize) -> f64,
    ) -> Self {
        let ConvolutionOptions { stride, padding, dilation, groups } = *options;
        let inner = input.channels / groups;
        let channels = if input.quantization.is_some() { inner.next_multiple_of(4) } else { inner };
        let tap = |y: usize, x: usize| (y * dilation[0] * input.row() + x * dilation[1] * input.pitch) as u32;
        // Neighbouring pixels without padding channels form one run.
        let whole_rows = channels == input.pitch && dilation[1] == 1;
        let (offsets, run): (Vec<u32>, usize) = match whole_rows {
            true => ((0..kh).map(|y| tap(y, 0)).collect(), kw * channels),
            false => ((0..kh).flat_map(|y| (0..kw).map(move |x| tap(y, x))).collect(), channels),
        };
        let padding = [padding[0][0], padding[1][0]];
        let (weights, scale) = (Words::default(), Vec::new());
        let mut layer = Self { input, output, stride, padding, groups, offsets, run, weights, scale, epilogue };
        layer.set_weights(kh * kw * channels, |o, k| {
            let (y, x, c) = (k / (kw * channels), k / channels % kw, k % channels);
            if c < inner { weight(o, c, y, x) } else { 0.0 }
        });
        layer
    }

    /// Packs the weights of each output channel at each element under the kernel.
    fn set_weights(&mut self, elements: usize, weight: impl Fn(usize, usize) -> f64) {
        let unit = f64::from(self.output.quantization.unwrap_or(UNIT).scale);
        let outputs = self.output.channels / self.groups;
        let panels = outputs.div_ceil(PANEL);
        let bytes = self.input.quantization;
        let rows = if bytes.is_some() { elements / 4 } else { elements };
        let words = self.weights.reserve::<u32>(self.groups * panels * PANEL * rows);
        self.scale.resize((self.groups * outputs).next_multiple_of(16) + 16, 0.0);
        for o in 0..self.groups * outputs {
            let (group, lane) = (o / outputs, o % outputs);
            let first = (group * panels + lane / PANEL) * PANEL * rows + lane % PANEL;
            let values = (0..elements).map(|k| weight(o, k));
            let Some(quantization) = bytes else {
                values.enumerate().for_each(|(k, w)| words[first + k * PANEL] = ((w / unit) as f32).to_bits());
                continue;
            };
            let (values, scale) = quantize_weights(&values.collect::<Vec<_>>());
            let scale = scale * f64::from(quantization.scale) / unit;
            let sum: i64 = values.iter().map(|w| i64::from(*w)).sum();
            self.epilogue.subtract(o, scale * f64::from(quantization.zero) * sum as f64);
            self.scale[o] = scale as f32;
            for (k, values) in values.as_chunks().0.iter().enumerate() {
                words[first + k * PANEL] = u32::from_le_bytes(values.map(|w: i8| w as u8));
            }
        }
    }
}

impl Layer for Direct {
    fn split(&self, items: usize, threads: usize) -> Split {
        let rows = items * self.output.height;
        let panels = (self.output.channels / self.groups).div_ceil(2 * PANEL);
        let work = rows * self.output.width * self.offsets.len() * self.run * self.output.channels.div_ceil(PANEL);
        let tasks = if threads == 1 { 1 } else { (2 * threads).min(work / WORK).max(1) };
        let rows = tasks.min(rows).max(1);
        Split { rows, channels: tasks.div_ceil(rows).min(panels).max(1) }
    }

    unsafe fn run(&self, task: Task, call: &Call<'_>, _scratch: &mut Words) {
        // SAFETY: the caller guarantees level, memory and exclusive access; tasks have disjoint rows or channels.
        unsafe { call.level.run(Part { layer: self, memory: call.memory, items: call.items, task }) }
    }

    fn describe(&self) -> &'static str {
        if self.input.quantization.is_some() { "int8" } else { "direct" }
    }
}

/// A task of a layer.
struct Part<'a> {
    layer: &'a Direct,
    memory: *mut f32,
    items: usize,
    task: Task,
}

impl Kernel for Part<'_> {
    const DOTS: bool = true;

    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        let Self { layer, memory, items, task } = self;
        let Direct { output, groups, .. } = layer;
        let rows = task.rows(items * output.height);
        let outputs = output.channels / groups;
        // Pairs of panels, of which the last may be cut off.
        let pairs = task.channels(outputs.div_ceil(2 * PANEL));
        let channels = 2 * PANEL * pairs.start..outputs.min(2 * PANEL * pairs.end);
        let (first, pixels) = (rows.start * output.width, rows.len() * output.width);
        // SAFETY: guaranteed by the caller; pixels and borders of input and output lie within the arena.
        unsafe {
            if task.is_first() {
                output.clear_border(memory, rows);
            }
            for group in 0..*groups {
                let vectors = channels.len().div_ceil(V::LANES);
                let mut at = Position::new(output, first);
                cover!(V, vectors vectors, pixels pixels, |r, c| {
                    tile(layer, memory, group, channels.start + r * V::LANES, at.advanced_to(output, first + c))
                });
            }
        }
    }
}

/// A pixel of the output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Position {
    /// Index of the pixel, through all items.
    pub(super) index: usize,
    pub(super) item: usize,
    pub(super) y: usize,
    pub(super) x: usize,
}

impl Position {
    #[inline(always)]
    pub(super) fn new(output: &Image, index: usize) -> Self {
        let row = index / output.width.max(1);
        let (item, y) = (row / output.height.max(1), row % output.height.max(1));
        Self { index, item, y, x: index % output.width.max(1) }
    }

    /// Moves to a pixel, of which neighbours follow each other without division.
    #[inline(always)]
    pub(super) fn advanced_to(&mut self, output: &Image, index: usize) -> Self {
        if index < self.index {
            *self = Self::new(output, index);
        }
        self.x += index - self.index;
        self.index = index;
        while self.x >= output.width {
            self.x -= output.width;
            self.y += 1;
            if self.y == output.height {
                (self.item, self.y) = (self.item + 1, 0);
            }
        }
        *self
    }
}

/// Computes `R` vectors of output channels from `channel` of a group, for `C` pixels from a position.
#[inline(always)]
unsafe fn tile<V: Simd, const R: usize, const C: usize>(
    layer: &Direct,
    memory: *mut f32,
    group: usize,
    channel: usize,
    position: Position,
) {
    let Direct { input, output, stride, padding, groups, offsets, run, weights, scale, epilogue } = layer;
    let (inputs, outputs) = (input.channels / groups, output.channels / groups);
    let runs = Runs { offsets, len: *run };
    let bytes = input.quantization.is_some();
    // SAFETY: guaranteed by the caller. The border of the input covers the padding.
    unsafe {
        let mut from = [0; C];
        let mut at = [[0; 2]; C];
        let place = |Position { item, y, x, .. }: Position| {
            // The border is counted from the padding, which it covers.
            let pixel = input.pixel(item, y * stride[0], x * stride[1]);
            let from = pixel - padding[0] * input.row() - padding[1] * input.pitch + group * inputs;
            (from, [output.pixel(item, y, x), epilogue.residual(item, y, x)])
        };
        (from[0], at[0]) = place(position);
        if position.x + C <= output.width {
            let residual = epilogue.residual_pitch();
            for c in 1..C {
                from[c] = from[c - 1] + stride[1] * input.pitch;
                at[c] = [at[c - 1][0] + output.pitch, at[c - 1][1] + residual];
            }
        } else {
            let mut position = position;
            for c in 1..C {
                (from[c], at[c]) = place(position.advanced_to(output, position.index + 1));
            }
        }
        // Full vectors may reach into the padding of the channels of the last group.
        let count = if *groups == 1 { output.pitch } else { outputs };
        let rows = if bytes { runs.elements() / 4 } else { runs.elements() };
        let panels = weights.as_ptr().add(group * outputs.div_ceil(PANEL) * PANEL * rows);
        let mut w = [panels; R];
        for r in 0..R {
            w[r] = vector::<V>(panels, rows, channel + r * V::LANES);
        }
        macro_rules! finish {
            ($sums:ident, |$sum:ident, $bias:ident, $o:ident| $value:expr) => {
                for r in 0..R {
                    let lane = channel + r * V::LANES;
                    let $o = group * outputs + lane;
                    let $bias = V::load(epilogue.bias.as_ptr().add($o));
                    let mut y = [$bias; C];
                    for c in 0..C {
                        let $sum = $sums[r][c];
                        y[c] = $value;
                    }
                    epilogue.finish::<V, C>(y, &at, $o, memory, output, count.saturating_sub(lane));
                }
            };
        }
        if bytes {
            let mut x = [memory.cast::<u8>().cast_const(); C];
            for c in 0..C {
                x[c] = x[c].add(from[c]);
            }
            let sums = byte_sums::<V, R, C>(&x, runs, w);
            finish!(sums, |sum, bias, o| {
                let scale = V::load(scale.as_ptr().add(o));
                V::mul_add(V::dots_to_floats(sum), scale, bias)
            });
        } else {
            let last = channel + R * V::LANES >= outputs;
            let next = if last { w[0] } else { vector::<V>(panels, rows, channel + R * V::LANES) };
            let ahead = ahead(next, rows, position.index / C);
            let mut x = [memory.cast_const(); C];
            let mut weights = [w[0].cast::<f32>(); R];
            for c in 0..C {
                x[c] = x[c].add(from[c]);
            }
            for r in 0..R {
                weights[r] = w[r].cast();
            }
            let sums = sums::<V, R, C>(&x, runs, weights, Some(ahead));
            finish!(sums, |sum, bias, o| V::add(sum, bias));
        }
    }
}
