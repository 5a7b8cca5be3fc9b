//! Matrix products of two values.

use alloc::vec::Vec;

use super::direct::Position;
use super::epilogue::UNIT;
use super::general::Operand;
use super::strided::{Loops, Strided};
use super::tile::{PANEL, Runs, cover, sums, vector};
use super::{Call, Epilogue, Layer, Split, Task};
use crate::kernels::level::Kernel;
use crate::kernels::memory::Words;
use crate::kernels::simd::Simd;
use crate::network::layout::Image;

/// Minimum number of multiply-adds of vectors per task.
const WORK: usize = 1 << 13;
/// Number of columns of the second operand that are packed at once.
const COLUMNS: usize = 2 * PANEL;

/// `activation(scale Σ_k a[i, k] b[k, j] + shift + residual)`, for the matrices of some leading dimensions.
///
/// Columns of `b` are packed in the form of the weights of a convolution. The rows of `a` are read where they are if their
/// elements are neighbours, and otherwise copied.
#[derive(Debug)]
pub(in crate::network) struct Product {
    operands: [Operand; 2],
    /// Strides of the rows and columns of the operands.
    strides: [[usize; 2]; 2],
    /// First elements of the matrices of the output and of both operands.
    matrices: Loops<3>,
    /// `[m, k, n]`
    sizes: [usize; 3],
    output: Image,
    /// Factor of the sums, one per column and zeros up to a multiple of a vector.
    scale: Vec<f32>,
    epilogue: Epilogue,
}

impl Product {
    /// Returns the number of floats of scratch memory for panels of `k` rows of the second operand. The copies of rows of the first
    /// one take no more than that value.
    pub(in crate::network) fn panels(k: usize) -> usize {
        k.saturating_mul(COLUMNS)
    }

    /// Creates the layer. `output` has the dimensions of the result, with the rows of all matrices as pixels.
    pub(in crate::network) fn new(
        operands: [Operand; 2],
        dims: &[usize],
        output: Image,
        scale: &[f64],
        epilogue: Epilogue,
    ) -> Self {
        let rank = dims.len() - 2;
        let strides = [0, 1].map(|i| {
            let at = operands[i].at();
            let rank = at.dims.len();
            [at.strides[rank - 2], at.strides[rank - 1]]
        });
        let k = operands[0].at().dims.last().copied().unwrap_or(1);
        let [a, b] = [0, 1].map(|i| {
            let at = operands[i].at();
            at.split_at(at.dims.len() - 2)[0].broadcast(&dims[..rank])
        });
        let matrices = Loops::lines([&Strided::row_major(&dims[..rank]), &a, &b]);
        let unit = f64::from(output.quantization.unwrap_or(UNIT).scale);
        let mut scale: Vec<f32> = scale.iter().map(|scale| (scale / unit) as f32).collect();
        scale.resize(scale.len().next_multiple_of(PANEL) + PANEL, 0.0);
        Self { operands, strides, matrices, sizes: [dims[rank], k, dims[rank + 1]], output, scale, epilogue }
    }
}

impl Layer for Product {
    fn split(&self, items: usize, threads: usize) -> Split {
        let [m, k, n] = self.sizes;
        let rows = items * self.matrices.rows * m;
        let work = rows.saturating_mul(k).saturating_mul(n.div_ceil(PANEL)) / WORK;
        Split::rows(if threads == 1 { 1 } else { (2 * threads).min(work).min(rows) })
    }

    unsafe fn run(&self, task: Task, call: &Call<'_>, scratch: &mut Words) {
        // SAFETY: the caller guarantees level, memory and exclusive access; tasks have disjoint rows.
        unsafe { call.level.run(Part { layer: self, memory: call.memory, items: call.items, task, scratch }) }
    }

    fn describe(&self) -> &'static str {
        "matrix product"
    }
}

/// A task of a layer.
struct Part<'a> {
    layer: &'a Product,
    memory: *mut f32,
    items: usize,
    task: Task,
    scratch: &'a mut Words,
}

impl Kernel for Part<'_> {
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        let Self { layer, memory, items, task, scratch } = self;
        let Product { operands, strides: [[row, step], [b_row, b_column]], matrices, sizes: [m, k, n], output, .. } =
            layer;
        let (m, k, n) = (*m, *k, *n);
        let [a, b] = [0, 1].map(|i| operands[i].base(memory));
        let pixels = task.rows(items * matrices.rows * m);
        let copies = *step != 1;
        let scratch = scratch.reserve::<f32>(k * COLUMNS + if copies { m.min(pixels.len()) * k } else { 0 });
        let (panels, rows) = scratch.split_at_mut(k * COLUMNS);
        let mut pixel = pixels.start;
        // SAFETY: guaranteed by the caller; all indices lie within the values, whose dimensions the graph has checked.
        unsafe {
            for [_, first, second] in matrices.iter(pixels.start / m..pixels.end.div_ceil(m)) {
                let start = pixel % m;
                let count = (m - start).min(pixels.end - pixel);
                let (mut x, mut distance) = (a.add(first + start * row), *row);
                if copies {
                    for i in 0..count {
                        for l in 0..k {
                            rows[i * k + l] = *x.add(i * row + l * step);
                        }
                    }
                    (x, distance) = (rows.as_ptr(), k);
                }
                for channel in (0..n).step_by(COLUMNS) {
                    let columns = COLUMNS.min(n - channel);
                    for panel in (0..columns).step_by(PANEL) {
                        let from = b.add(second + (channel + panel) * b_column);
                        let to = panels[panel * k..].as_mut_ptr();
                        pack::<V>(from, [*b_row, *b_column], [k, PANEL.min(columns - panel)], to);
                    }
                    let mut at = Position::new(output, pixel);
                    cover!(V, vectors columns.div_ceil(V::LANES), pixels count, |r, c| {
                        tile(layer, memory, x.add(c * distance), distance, panels, [channel, r * V::LANES], at.advanced_to(output, pixel + c))
                    });
                }
                pixel += count;
            }
        }
    }
}

/// Packs some columns of a matrix as a panel `[k, PANEL]`; missing columns are zeros.
#[inline(always)]
unsafe fn pack<V: Simd>(from: *const f32, [row, column]: [usize; 2], [k, columns]: [usize; 2], to: *mut f32) {
    let mut l = 0;
    // SAFETY: guaranteed by the caller.
    unsafe {
        if column == 1 && columns == PANEL {
            while l < k {
                to.add(l * PANEL)
                    .cast::<[f32; PANEL]>()
                    .write(from.add(l * row).cast::<[f32; PANEL]>().read_unaligned());
                l += 1;
            }
        }
        if row == 1 && columns == PANEL {
            while l + PANEL <= k {
                let block = &mut *to.add(l * PANEL).cast::<[f32; PANEL * PANEL]>();
                for (j, block) in block.as_chunks_mut::<PANEL>().0.iter_mut().enumerate() {
                    *block = from.add(l + j * column).cast::<[f32; PANEL]>().read_unaligned();
                }
                V::transpose(block);
                l += PANEL;
            }
        }
        while l < k {
            for j in 0..PANEL {
                *to.add(l * PANEL + j) = if j < columns { *from.add(l * row + j * column) } else { 0.0 };
            }
            l += 1;
        }
    }
}

/// Computes `R` vectors of columns from `channel + lane`, which are at `lane` of the panels, for `C` rows from a position.
#[inline(always)]
unsafe fn tile<V: Simd, const R: usize, const C: usize>(
    layer: &Product,
    memory: *mut f32,
    x: *const f32,
    distance: usize,
    panels: &[f32],
    [channel, lane]: [usize; 2],
    position: Position,
) {
    let Product { sizes: [_, k, _], output, scale, epilogue, .. } = layer;
    // SAFETY: guaranteed by the caller.
    unsafe {
        let (mut rows, mut at, mut position) = ([x; C], [[0; 2]; C], position);
        for c in 0..C {
            let Position { index, item, y, x: column } = position;
            rows[c] = x.add(c * distance);
            at[c] = [output.pixel(item, y, column), epilogue.residual(item, y, column)];
            if c + 1 < C {
                position.advanced_to(output, index + 1);
            }
        }
        let mut w = [panels.as_ptr(); R];
        for r in 0..R {
            w[r] = vector::<V>(panels.as_ptr().cast(), *k, lane + r * V::LANES).cast();
        }
        let sums = sums::<V, R, C>(&rows, Runs { offsets: &[0], len: *k }, w, None);
        for r in 0..R {
            let o = channel + lane + r * V::LANES;
            let (scale, bias) = (V::load(scale.as_ptr().add(o)), V::load(epilogue.bias.as_ptr().add(o)));
            let mut y = [bias; C];
            for c in 0..C {
                y[c] = V::mul_add(sums[r][c], scale, bias);
            }
            epilogue.finish::<V, C>(y, &at, o, memory, output, output.pitch.saturating_sub(o));
        }
    }
}
