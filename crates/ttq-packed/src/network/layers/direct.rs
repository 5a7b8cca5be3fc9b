//! Direct convolutions of any geometry, and linear layers as convolutions of one pixel.

use alloc::vec::Vec;

use super::epilogue::store_first;
use super::tile::{PANEL, Runs, cover, sums, vector};
use super::{Call, Epilogue, Layer, Split, Task};
use crate::kernels::ConvolutionOptions;
use crate::kernels::level::Kernel;
use crate::kernels::memory::Words;
use crate::kernels::simd::Simd;
use crate::network::layout::Image;

/// Minimum number of multiply-adds of vectors per task.
const WORK: usize = 1 << 13;

/// A convolution that reads the elements under the kernel where they are.
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
    /// For each group: panels of `[elements, PANEL]`.
    weights: Words,
    epilogue: Epilogue,
}

impl Direct {
    /// Creates the layer. `weight(o, c, y, x)` returns a weight of output channel `o` and channel `c` of its group.
    ///
    /// The input must have a border as large as the padding.
    pub(in crate::network) fn new(
        [input, output]: [Image; 2],
        [kh, kw]: [usize; 2],
        options: &ConvolutionOptions,
        epilogue: Epilogue,
        weight: impl Fn(usize, usize, usize, usize) -> f32,
    ) -> Self {
        let ConvolutionOptions { stride, padding, dilation, groups } = *options;
        let channels = input.channels / groups;
        let tap = |y: usize, x: usize| (y * dilation[0] * input.row() + x * dilation[1] * input.pitch) as u32;
        // Neighbouring pixels without padding channels form one run.
        let whole_rows = channels == input.pitch && dilation[1] == 1;
        let (offsets, run): (Vec<u32>, usize) = match whole_rows {
            true => ((0..kh).map(|y| tap(y, 0)).collect(), kw * channels),
            false => ((0..kh).flat_map(|y| (0..kw).map(move |x| tap(y, x))).collect(), channels),
        };
        let outputs = output.channels / groups;
        let (elements, panels) = (kh * kw * channels, outputs.div_ceil(PANEL));
        let mut weights = Words::default();
        let to = weights.reserve::<f32>(groups * panels * PANEL * elements);
        for (i, to) in to.iter_mut().enumerate() {
            let (panel, k, lane) = (i / (PANEL * elements), i / PANEL % elements, i % PANEL);
            let (group, o) = (panel / panels, panel % panels * PANEL + lane);
            let (y, x, c) = (k / (kw * channels), k / channels % kw, k % channels);
            *to = if o < outputs { weight(group * outputs + o, c, y, x) } else { 0.0 };
        }
        let padding = [padding[0][0], padding[1][0]];
        Self { input, output, stride, padding, groups, offsets, run, weights, epilogue }
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
        "direct"
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
                output.clear_border(memory, rows, 0);
            }
            for group in 0..*groups {
                let vectors = channels.len().div_ceil(V::LANES);
                cover!(V, vectors vectors, pixels pixels, |r, c| {
                    tile(layer, memory, group, channels.start + r * V::LANES, first + c)
                });
            }
        }
    }
}

/// Computes `R` vectors of output channels from `channel` of a group, for `C` pixels from `first`.
#[inline(always)]
unsafe fn tile<V: Simd, const R: usize, const C: usize>(
    layer: &Direct,
    memory: *mut f32,
    group: usize,
    channel: usize,
    first: usize,
) {
    let Direct { input, output, stride, padding, groups, offsets, run, weights, epilogue } = layer;
    let (inputs, outputs) = (input.channels / groups, output.channels / groups);
    let runs = Runs { offsets, len: *run };
    // SAFETY: guaranteed by the caller. The border of the input covers the padding.
    unsafe {
        let mut x = [memory.cast_const(); C];
        let mut at = [[0; 2]; C];
        let (mut row, mut column) = (first / output.width, first % output.width);
        let (mut item, mut y) = (row / output.height, row % output.height);
        for c in 0..C {
            let (top, left) = (y * stride[0], column * stride[1]);
            // The border is counted from the padding, which it covers.
            let pixel = input.pixel(item, top, left) - padding[0] * input.row() - padding[1] * input.pitch;
            x[c] = x[c].add(pixel + group * inputs);
            let residual = epilogue.residual.map_or(0, |image| image.pixel(item, y, column));
            at[c] = [output.pixel(item, y, column), residual];
            column += 1;
            if column == output.width {
                (column, row, y) = (0, row + 1, y + 1);
                if y == output.height {
                    (item, y) = (item + 1, 0);
                }
            }
        }
        let panels = weights.as_ptr().cast::<f32>().add(group * outputs.div_ceil(PANEL) * PANEL * runs.elements());
        let mut w = [panels; R];
        for r in 0..R {
            w[r] = vector::<V>(panels, runs.elements(), channel + r * V::LANES);
        }
        let sums = sums::<V, R, C>(&x, runs, w);
        // Full vectors may reach into the padding of the channels of the last group.
        let count = if *groups == 1 { output.pitch } else { outputs };
        for r in 0..R {
            let lane = channel + r * V::LANES;
            let o = group * outputs + lane;
            let bias = V::load(epilogue.bias.as_ptr().add(o));
            for c in 0..C {
                let [to, residual] = at[c];
                let y = epilogue.apply::<V>(sums[r][c], bias, memory.add(residual + o));
                store_first::<V>(memory.add(to + o), y, count.saturating_sub(lane));
            }
        }
    }
}
