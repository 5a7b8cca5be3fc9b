//! Transposed convolutions: a convolution of stride 1 for each set of output pixels that read the same elements of the
//! kernel.

use alloc::vec;
use alloc::vec::Vec;

use super::direct::Position;
use super::epilogue::UNIT;
use super::tile::{PANEL, Runs, cover, sums, vector};
use super::{Call, Epilogue, Layer, Split, Task};
use crate::kernels::ConvolutionOptions;
use crate::kernels::level::Kernel;
use crate::kernels::memory::Words;
use crate::kernels::simd::Simd;
use crate::network::layout::Image;

/// Minimum number of multiply-adds of vectors per task.
const WORK: usize = 1 << 13;

/// A transposed convolution of floats, without products by the zeros between the elements of its operand.
#[derive(Debug)]
pub(in crate::network) struct Transposed {
    input: Image,
    output: Image,
    stride: [usize; 2],
    groups: usize,
    /// Distance from the first element that a pixel reads to the element with the indices of the pixel in its phase.
    origin: usize,
    phases: Vec<Phase>,
    epilogue: Epilogue,
}

/// The output pixels `stride q + first`.
#[derive(Debug)]
struct Phase {
    first: [usize; 2],
    /// The pixels `q`.
    grid: Image,
    /// Offsets of the elements under the kernel, from the first channel of the group at the first one.
    offsets: Vec<u32>,
    /// For each group: panels of `[elements, PANEL]`.
    weights: Words,
}

/// The elements of a kernel in one dimension, by phase: the index in the kernel, and the distance from `q` to the index of
/// the element of the operand.
struct Taps {
    phases: Vec<Vec<(usize, i64)>>,
    /// Smallest and largest distance, and 0.
    range: [i64; 2],
}

impl Taps {
    /// Output `y` reads element `q + d` with the weight `k` if `stride (q + d) = y + removed - dilation k`, where
    /// `y = stride q + phase`. Sizes are those that the graph has checked.
    fn new(output: usize, stride: usize, dilation: usize, removed: usize, kernel: usize) -> Self {
        let mut taps = Self { phases: vec![Vec::new(); stride.min(output)], range: [0; 2] };
        let stride = i64::try_from(stride).unwrap_or(i64::MAX);
        for k in 0..kernel {
            let from_start = (dilation * k) as i64 - removed as i64;
            let phase = from_start.rem_euclid(stride);
            let distance = -from_start.div_euclid(stride);
            if let Some(taps_of_phase) = usize::try_from(phase).ok().and_then(|phase| taps.phases.get_mut(phase)) {
                taps_of_phase.push((k, distance));
                taps.range = [taps.range[0].min(distance), taps.range[1].max(distance)];
            }
        }
        taps
    }

    /// Returns the taps in both dimensions.
    fn of(output: &Image, kernel: [usize; 2], options: &ConvolutionOptions) -> [Self; 2] {
        let ConvolutionOptions { stride, padding, dilation, .. } = options;
        let size = [output.height, output.width];
        [0, 1].map(|i| Self::new(size[i], stride[i], dilation[i], padding[i][0], kernel[i]))
    }
}

impl Transposed {
    /// Returns the number of floats that the lists of phases take.
    pub(in crate::network) fn phases(output: &Image, stride: [usize; 2]) -> usize {
        let phases = stride[0].min(output.height).saturating_mul(stride[1].min(output.width));
        phases.saturating_mul(size_of::<Phase>() / size_of::<f32>())
    }

    /// Returns the border that the operand must have.
    pub(in crate::network) fn border(
        [input, output]: [&Image; 2],
        kernel: [usize; 2],
        options: &ConvolutionOptions,
    ) -> [[usize; 2]; 2] {
        let taps = Taps::of(output, kernel, options);
        let size = |image: &Image| [image.height, image.width];
        [0, 1].map(|i| {
            let [first, last] = taps[i].range;
            let pixels = size(output)[i].div_ceil(options.stride[i]) as u64;
            let end = pixels + last.unsigned_abs();
            [first.unsigned_abs() as usize, end.saturating_sub(size(input)[i] as u64) as usize]
        })
    }

    /// Creates the layer. `weight(o, c, y, x)` returns the weight of output channel `o` and channel `c` of its group.
    pub(in crate::network) fn new(
        [input, output]: [Image; 2],
        kernel: [usize; 2],
        options: &ConvolutionOptions,
        epilogue: Epilogue,
        weight: impl Fn(usize, usize, usize, usize) -> f64,
    ) -> Self {
        let ConvolutionOptions { stride, groups, .. } = *options;
        let [rows, columns] = Taps::of(&output, kernel, options);
        let [top, left] = [&rows, &columns].map(|taps| taps.range[0]);
        let origin = top.unsigned_abs() as usize * input.row() + left.unsigned_abs() as usize * input.pitch;
        let mut phases = Vec::with_capacity(rows.phases.len() * columns.phases.len());
        for (first_y, rows) in rows.phases.iter().enumerate() {
            for (first_x, columns) in columns.phases.iter().enumerate() {
                let taps = || rows.iter().flat_map(|y| columns.iter().map(move |x| (*y, *x)));
                let offset = |((_, y), (_, x)): ((usize, i64), (usize, i64))| {
                    ((y - top) as usize * input.row() + (x - left) as usize * input.pitch) as u32
                };
                let first = [first_y, first_x];
                let [height, width] = [0, 1].map(|i| ([output.height, output.width][i] - first[i]).div_ceil(stride[i]));
                let mut phase = Phase {
                    first,
                    grid: Image::new(height, width, output.channels),
                    offsets: taps().map(offset).collect(),
                    weights: Words::default(),
                };
                let kernel: Vec<[usize; 2]> = taps().map(|((y, _), (x, _))| [y, x]).collect();
                phase.set_weights(&input, &output, groups, &kernel, &weight);
                phases.push(phase);
            }
        }
        Self { input, output, stride, groups, origin, phases, epilogue }
    }
}

impl Phase {
    /// Packs the weights at some elements of the kernel.
    fn set_weights(
        &mut self,
        input: &Image,
        output: &Image,
        groups: usize,
        kernel: &[[usize; 2]],
        weight: impl Fn(usize, usize, usize, usize) -> f64,
    ) {
        let unit = f64::from(output.quantization.unwrap_or(UNIT).scale);
        let (inputs, outputs) = (input.channels / groups, output.channels / groups);
        let (panels, elements) = (outputs.div_ceil(PANEL), kernel.len() * inputs);
        let words = self.weights.reserve::<u32>(groups * panels * PANEL * elements);
        for o in 0..groups * outputs {
            let (group, lane) = (o / outputs, o % outputs);
            let first = (group * panels + lane / PANEL) * PANEL * elements + lane % PANEL;
            for (tap, [y, x]) in kernel.iter().enumerate() {
                for c in 0..inputs {
                    words[first + (tap * inputs + c) * PANEL] = ((weight(o, c, *y, *x) / unit) as f32).to_bits();
                }
            }
        }
    }
}

impl Layer for Transposed {
    fn split(&self, items: usize, threads: usize) -> Split {
        let taps: usize = self.phases.iter().map(|phase| phase.offsets.len()).sum();
        let products = taps * self.input.channels / self.groups * self.output.channels.div_ceil(PANEL);
        let work = items * self.input.height * self.input.width * products;
        let tasks = if threads == 1 { 1 } else { (2 * threads).min(work / WORK) };
        Split::rows(tasks.min(items * self.output.height.div_ceil(self.stride[0])))
    }

    unsafe fn run(&self, task: Task, call: &Call<'_>, _scratch: &mut Words) {
        // SAFETY: the caller guarantees level, memory and exclusive access; tasks have disjoint rows.
        unsafe { call.level.run(Part { layer: self, memory: call.memory, items: call.items, task }) }
    }

    fn describe(&self) -> &'static str {
        "transposed"
    }
}

/// A task of a layer.
struct Part<'a> {
    layer: &'a Transposed,
    memory: *mut f32,
    items: usize,
    task: Task,
}

impl Kernel for Part<'_> {
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        let Self { layer, memory, items, task } = self;
        let Transposed { output, stride, groups, .. } = layer;
        // Rows of all phases with the same `q`.
        let bands = output.height.div_ceil(stride[0]);
        let range = task.rows(items * bands);
        let row = |band: usize, height: usize, rows: usize| band / bands * height + (band % bands * rows).min(height);
        // SAFETY: guaranteed by the caller; pixels and borders of input and output lie within the arena.
        unsafe {
            let rows = [range.start, range.end].map(|band| row(band, output.height, stride[0]));
            output.clear_border(memory, rows[0]..rows[1]);
            for phase in &layer.phases {
                let grid = &phase.grid;
                let [first, end] = [range.start, range.end].map(|band| row(band, grid.height, 1) * grid.width);
                let vectors = (output.channels / groups).div_ceil(V::LANES);
                for group in 0..*groups {
                    let mut at = Position::new(grid, first);
                    cover!(V, vectors vectors, pixels end - first, |r, c| {
                        tile(layer, phase, memory, group, r * V::LANES, at.advanced_to(grid, first + c))
                    });
                }
            }
        }
    }
}

/// Computes `R` vectors of output channels from `channel` of a group, for `C` pixels of a phase from a position.
#[inline(always)]
unsafe fn tile<V: Simd, const R: usize, const C: usize>(
    layer: &Transposed,
    phase: &Phase,
    memory: *mut f32,
    group: usize,
    channel: usize,
    mut position: Position,
) {
    let Transposed { input, output, stride, groups, origin, epilogue, .. } = layer;
    let Phase { first, grid, offsets, weights } = phase;
    let (inputs, outputs) = (input.channels / groups, output.channels / groups);
    let runs = Runs { offsets, len: inputs };
    // SAFETY: guaranteed by the caller. The border of the input covers what pixels outside of it read.
    unsafe {
        let mut x = [memory.cast_const(); C];
        let mut at = [[0; 2]; C];
        for c in 0..C {
            if c > 0 {
                position = position.advanced_to(grid, position.index + 1);
            }
            let Position { item, y, x: column, .. } = position;
            x[c] = x[c].add(input.pixel(item, y, column) - origin + group * inputs);
            let [row, column] = [y * stride[0] + first[0], column * stride[1] + first[1]];
            at[c] = [output.pixel(item, row, column), epilogue.residual(item, row, column)];
        }
        let panels = weights.as_ptr().add(group * outputs.div_ceil(PANEL) * PANEL * runs.elements());
        let mut w = [panels.cast::<f32>(); R];
        for r in 0..R {
            w[r] = vector::<V>(panels, runs.elements(), channel + r * V::LANES).cast();
        }
        let sums = sums::<V, R, C>(&x, runs, w, None);
        // Full vectors may reach into the padding of the channels of the last group.
        let count = if *groups == 1 { output.pitch } else { outputs };
        for r in 0..R {
            let lane = channel + r * V::LANES;
            let o = group * outputs + lane;
            let bias = V::load(epilogue.bias.as_ptr().add(o));
            let mut y = [bias; C];
            for c in 0..C {
                y[c] = V::add(sums[r][c], bias);
            }
            epilogue.finish::<V, C>(y, &at, o, memory, output, count.saturating_sub(lane));
        }
    }
}
