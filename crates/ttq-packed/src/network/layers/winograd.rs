//! Convolutions with stride 1 and a kernel of 3×3 or 5×5 by the algorithms F(4×4, 3×3) and F(2×2, 5×5) of Winograd.
//!
//! A tile of 4×4 or 2×2 outputs is a polynomial product that is evaluated at 36 points: with the transforms `B`, `G` and `A`
//! of F(4, 3) or F(2, 5), `Y = Aᵀ [(G w Gᵀ) ⊙ (Bᵀ x B)] A`. Sums over channels run at the points, 36 products for 16 or 4
//! outputs instead of 144 or 100. (Lavin, Gray, "Fast Algorithms for Convolutional Neural Networks", 2015.) `B` is the same
//! for both, since it depends on the points alone.
//!
//! The points of one dimension are 0, ±a, ±b and ∞ with `a = 45/64` and `b = 91/64`. With `a b ≈ 1` all powers stay small,
//! which halves the rounding errors in comparison with the usual points 0, ±1, ±2 and ∞: they are 1.5 to 2 times those of
//! a direct convolution. All coefficients of `B` and `A` are exact in float32.

use super::epilogue::UNIT;
use super::tile::{PANEL, Runs, cover, sums, vector};
use super::{Call, Epilogue, Layer, Split, Task};
use crate::kernels::ConvolutionOptions;
use crate::kernels::level::Kernel;
use crate::kernels::memory::Words;
use crate::kernels::simd::Simd;
use crate::network::layout::Image;

/// Inputs of a tile in each dimension.
const SIZE: usize = 6;
const POINTS: usize = SIZE * SIZE;
const A: f32 = 45.0 / 64.0;
const B: f32 = 91.0 / 64.0;
const A2: f32 = A * A;
const B2: f32 = B * B;
/// Range of the maximum number of floats of the scratch memory of a task. More is better for large weights, which each task
/// reads once.
const SCRATCH: [usize; 2] = [1 << 15, 1 << 17];

/// A convolution by F(4×4, 3×3) or F(2×2, 5×5).
#[derive(Debug)]
pub(in crate::network) struct Winograd {
    input: Image,
    output: Image,
    /// Outputs of a tile in each dimension.
    tile: usize,
    padding: [usize; 2],
    /// `[POINTS, panels, channels, PANEL]`
    weights: Words,
    epilogue: Epilogue,
}

impl Winograd {
    /// Creates the layer. `weight(o, c, y, x)` returns a weight.
    ///
    /// The input must have the border that [`border`](Self::border) returns, and a pitch of whole panels.
    pub(in crate::network) fn new(
        [input, output]: [Image; 2],
        kernel: usize,
        padding: [usize; 2],
        epilogue: Epilogue,
        weight: impl Fn(usize, usize, usize, usize) -> f64,
    ) -> Self {
        let (channels, panels) = (input.channels, output.channels.div_ceil(PANEL));
        let unit = f64::from(output.quantization.unwrap_or(UNIT).scale);
        let mut weights = Words::default();
        let to = weights.reserve::<f32>(POINTS * panels * channels * PANEL);
        let g = weight_transform(kernel);
        for o in 0..output.channels {
            for c in 0..channels {
                let points = transform_weight(&g, kernel, |y, x| weight(o, c, y, x) / unit);
                for (point, value) in points.into_iter().enumerate() {
                    to[((point * panels + o / PANEL) * channels + c) * PANEL + o % PANEL] = value as f32;
                }
            }
        }
        Self { input, output, tile: Self::tile(kernel), padding, weights, epilogue }
    }

    /// Returns the number of outputs of a tile in each dimension.
    fn tile(kernel: usize) -> usize {
        SIZE + 1 - kernel
    }

    /// Returns the border that the input needs for tiles that reach over the image.
    pub(in crate::network) fn border(
        kernel: usize,
        input: [usize; 2],
        output: [usize; 2],
        padding: [usize; 2],
    ) -> [[usize; 2]; 2] {
        [0, 1].map(|i| {
            let end = output[i].next_multiple_of(Self::tile(kernel)) + kernel - 1;
            [padding[i], end.saturating_sub(padding[i] + input[i])]
        })
    }

    /// Returns `true` if the algorithm computes a convolution, with clearly fewer products than a direct one.
    pub(in crate::network) fn suits(
        kernel: [usize; 2],
        options: &ConvolutionOptions,
        input: &Image,
        output: &Image,
    ) -> bool {
        let ConvolutionOptions { stride, dilation, groups, .. } = options;
        let tile = match kernel {
            [3, 3] | [5, 5] => Self::tile(kernel[0]),
            _ => return false,
        };
        let tiles = output.height.div_ceil(tile) * output.width.div_ceil(tile);
        [*stride, *dilation] == [[1; 2]; 2]
            && *groups == 1
            && input.quantization.is_none()
            && input.channels.min(output.channels) >= 8
            && 2 * POINTS * tiles <= kernel[0] * kernel[1] * output.height * output.width
    }

    /// Returns the number of tiles of an item in each dimension.
    fn tiles(&self) -> [usize; 2] {
        [self.output.height.div_ceil(self.tile), self.output.width.div_ceil(self.tile)]
    }
}

/// Returns `G`; the columns from `kernel` on are zeros.
fn weight_transform(kernel: usize) -> [[f64; SIZE]; SIZE] {
    let (a, b) = (f64::from(A), f64::from(B));
    let (a2, b2) = (a * a, b * b);
    // The powers of a point.
    let row = |x: f64, scale: f64| {
        let mut powers = [0.0; SIZE];
        let mut power = 1.0 / scale;
        for value in &mut powers[..kernel] {
            (*value, power) = (power, power * x);
        }
        powers
    };
    let (at_a, at_b) = (2.0 * a2 * (a2 - b2), 2.0 * b2 * (b2 - a2));
    let mut infinity = [0.0; SIZE];
    infinity[kernel - 1] = 1.0;
    [row(0.0, a2 * b2), row(a, at_a), row(-a, at_a), row(b, at_b), row(-b, at_b), infinity]
}

/// `G w Gᵀ`, row by row.
fn transform_weight(g: &[[f64; SIZE]; SIZE], kernel: usize, weight: impl Fn(usize, usize) -> f64) -> [f64; POINTS] {
    let mut rows = [[0.0; SIZE]; SIZE];
    for y in 0..kernel {
        for x in 0..kernel {
            let weight = weight(y, x);
            for i in 0..SIZE {
                rows[i][x] += g[i][y] * weight;
            }
        }
    }
    core::array::from_fn(|point| {
        let (row, column) = (&rows[point / SIZE], &g[point % SIZE]);
        row.iter().zip(column).take(kernel).map(|(row, column)| row * column).sum()
    })
}

/// `Bᵀ x`
#[inline(always)]
unsafe fn transform_input<V: Simd>(x: [V::Floats; SIZE]) -> [V::Floats; SIZE] {
    // SAFETY: the caller guarantees the instructions.
    unsafe {
        let (product, sum) = (V::splat(A2 * B2), V::splat(-(A2 + B2)));
        let (minus_a2, minus_b2) = (V::splat(-A2), V::splat(-B2));
        let (even_a, odd_a) = (V::mul_add(x[2], minus_b2, x[4]), V::mul_add(x[1], minus_b2, x[3]));
        let (even_b, odd_b) = (V::mul_add(x[2], minus_a2, x[4]), V::mul_add(x[1], minus_a2, x[3]));
        [
            V::mul_add(x[0], product, V::mul_add(x[2], sum, x[4])),
            V::mul_add(odd_a, V::splat(A), even_a),
            V::mul_add(odd_a, V::splat(-A), even_a),
            V::mul_add(odd_b, V::splat(B), even_b),
            V::mul_add(odd_b, V::splat(-B), even_b),
            V::mul_add(x[1], product, V::mul_add(x[3], sum, x[5])),
        ]
    }
}

/// `Aᵀ m`
#[inline(always)]
unsafe fn transform_output<V: Simd, const TILE: usize>(m: [V::Floats; SIZE]) -> [V::Floats; TILE] {
    // SAFETY: the caller guarantees the instructions.
    unsafe {
        let (sum_a, difference_a) = (V::add(m[1], m[2]), V::sub(m[1], m[2]));
        let (sum_b, difference_b) = (V::add(m[3], m[4]), V::sub(m[3], m[4]));
        let (mut power_a, mut power_b) = (A, B);
        let mut y = [V::add(m[0], V::add(sum_a, sum_b)); TILE];
        for (i, y) in y.iter_mut().enumerate().skip(1) {
            let [a, b] = if i % 2 == 0 { [sum_a, sum_b] } else { [difference_a, difference_b] };
            *y = V::mul(b, V::splat(power_b));
            if i + 1 == TILE {
                *y = V::mul_add(b, V::splat(power_b), m[5]);
            }
            *y = V::mul_add(a, V::splat(power_a), *y);
            (power_a, power_b) = (power_a * A, power_b * B);
        }
        y
    }
}

impl Layer for Winograd {
    fn split(&self, items: usize, threads: usize) -> Split {
        let [rows, columns] = self.tiles();
        let total = items * rows;
        let per_row = POINTS * columns * (self.input.pitch + self.output.pitch);
        let scratch = (self.weights.as_slice().len() / 4).clamp(SCRATCH[0], SCRATCH[1]);
        let fewest = total.div_ceil((scratch / per_row).max(1));
        if threads == 1 {
            return Split::rows(fewest);
        }
        // Tasks have at least eight tiles; for more tasks, channels are divided.
        let rows = (2 * threads).min(total * columns / 8).clamp(fewest, total.max(1));
        let pairs = self.output.channels.div_ceil(2 * PANEL);
        Split { rows, channels: (2 * threads / rows).clamp(1, pairs) }
    }

    unsafe fn run(&self, task: Task, call: &Call<'_>, scratch: &mut Words) {
        // SAFETY: the caller guarantees level, memory and exclusive access; tasks have disjoint rows or channels.
        unsafe { call.level.run(Part { layer: self, memory: call.memory, items: call.items, task, scratch }) }
    }

    fn describe(&self) -> &'static str {
        "winograd"
    }
}

/// A task of a layer.
struct Part<'a> {
    layer: &'a Winograd,
    memory: *mut f32,
    items: usize,
    task: Task,
    scratch: &'a mut Words,
}

impl Kernel for Part<'_> {
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        let Self { layer, memory, items, task, scratch } = self;
        let Winograd { input, output, tile, padding, .. } = layer;
        let [height, columns] = layer.tiles();
        let rows = task.rows(items * height);
        let pairs = task.channels(output.channels.div_ceil(2 * PANEL));
        let channels = 2 * PANEL * pairs.start..output.pitch.min(2 * PANEL * pairs.end);
        let (tiles, outputs) = (rows.len() * columns, channels.len());
        let scratch = scratch.reserve::<f32>(POINTS * tiles * (input.pitch + outputs));
        let (points, products) = scratch.split_at_mut(POINTS * tiles * input.pitch);
        // SAFETY: guaranteed by the caller; pixels and borders of input and output lie within the arena, and both parts of
        // the scratch memory have a line per point and tile.
        unsafe {
            let mut to = points.as_mut_ptr();
            for row in rows.clone() {
                let (item, top) = (row / height, row % height * tile);
                for left in (0..columns * tile).step_by(*tile) {
                    let first = input.pixel(item, top, left) - padding[0] * input.row() - padding[1] * input.pitch;
                    for c in (0..input.pitch).step_by(V::LANES) {
                        evaluate::<V>(input, memory.add(first + c), to.add(c), tiles * input.pitch);
                    }
                    to = to.add(input.pitch);
                }
            }
            let (points, products) = (points.as_ptr(), products.as_mut_ptr());
            for point in 0..POINTS {
                let x = points.add(point * tiles * input.pitch);
                let y = products.add(point * tiles * outputs);
                cover!(V, vectors outputs / V::LANES, pixels tiles, |r, c| {
                    product(layer, point, x.add(c * input.pitch), channels.start + r * V::LANES, y.add(c * outputs + r * V::LANES), outputs)
                });
            }
            let mut from = products.cast_const();
            for row in rows {
                let (item, top) = (row / height, row % height * tile);
                for left in (0..columns * tile).step_by(*tile) {
                    for c in (0..outputs).step_by(V::LANES) {
                        let (at, from) = ([item, top, left, channels.start + c], from.add(c));
                        match tile {
                            2 => interpolate::<V, 2>(layer, memory, at, from, tiles * outputs),
                            _ => interpolate::<V, 4>(layer, memory, at, from, tiles * outputs),
                        }
                    }
                    from = from.add(outputs);
                }
                if task.is_first() {
                    let first = item * output.height + top;
                    output.clear_border(memory, first..first + tile.min(&(output.height - top)));
                }
            }
        }
    }
}

/// Evaluates a tile of inputs at all points, which are `distance` floats apart.
#[inline(always)]
unsafe fn evaluate<V: Simd>(input: &Image, x: *const f32, to: *mut f32, distance: usize) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mut columns = [[V::splat(0.0); SIZE]; SIZE];
        for (j, column) in columns.iter_mut().enumerate() {
            let mut values = [V::splat(0.0); SIZE];
            for (i, value) in values.iter_mut().enumerate() {
                *value = V::load(x.add(i * input.row() + j * input.pitch));
            }
            *column = transform_input::<V>(values);
        }
        for i in 0..SIZE {
            let mut row = [V::splat(0.0); SIZE];
            for j in 0..SIZE {
                row[j] = columns[j][i];
            }
            for (j, value) in transform_input::<V>(row).into_iter().enumerate() {
                V::store(to.add((i * SIZE + j) * distance), value);
            }
        }
    }
}

/// Computes the sums over channels at a point, for `R` vectors of output channels and `C` tiles.
#[inline(always)]
unsafe fn product<V: Simd, const R: usize, const C: usize>(
    layer: &Winograd,
    point: usize,
    x: *const f32,
    channel: usize,
    y: *mut f32,
    outputs: usize,
) {
    let (pitch, channels) = (layer.input.pitch, layer.input.channels);
    // SAFETY: guaranteed by the caller.
    unsafe {
        let panels = layer.output.channels.div_ceil(PANEL);
        let weights = layer.weights.as_ptr().add(point * panels * channels * PANEL);
        let (mut columns, mut w) = ([x; C], [weights.cast::<f32>(); R]);
        for c in 0..C {
            columns[c] = x.add(c * pitch);
        }
        for r in 0..R {
            w[r] = vector::<V>(weights, channels, channel + r * V::LANES).cast();
        }
        let sums = sums::<V, R, C>(&columns, Runs { offsets: &[0], len: channels }, w, None);
        for r in 0..R {
            for c in 0..C {
                V::store(y.add(c * outputs + r * V::LANES), sums[r][c]);
            }
        }
    }
}

/// Computes a tile of outputs from its points, and applies the epilogue.
#[inline(always)]
unsafe fn interpolate<V: Simd, const TILE: usize>(
    layer: &Winograd,
    memory: *mut f32,
    [item, top, left, channel]: [usize; 4],
    from: *const f32,
    distance: usize,
) {
    let Winograd { output, epilogue, .. } = layer;
    // SAFETY: guaranteed by the caller.
    unsafe {
        let bias = V::load(epilogue.bias.as_ptr().add(channel));
        let mut columns = [[V::splat(0.0); TILE]; SIZE];
        for (j, column) in columns.iter_mut().enumerate() {
            let mut values = [V::splat(0.0); SIZE];
            for (i, value) in values.iter_mut().enumerate() {
                *value = V::load(from.add((i * SIZE + j) * distance));
            }
            *column = transform_output::<V, TILE>(values);
        }
        for i in 0..TILE.min(output.height - top) {
            let mut row = [V::splat(0.0); SIZE];
            for j in 0..SIZE {
                row[j] = columns[j][i];
            }
            let mut values = transform_output::<V, TILE>(row);
            let mut at = [[0; 2]; TILE];
            for j in 0..TILE {
                values[j] = V::add(values[j], bias);
                let column = left + j;
                at[j] = [output.pixel(item, top + i, column), epilogue.residual(item, top + i, column)];
            }
            if left + TILE <= output.width {
                epilogue.finish::<V, TILE>(values, &at, channel, memory, output, V::LANES);
            } else {
                for j in 0..output.width - left {
                    epilogue.finish::<V, 1>([values[j]], &[at[j]], channel, memory, output, V::LANES);
                }
            }
        }
    }
}
