//! Matrix products of strided operands.
//!
//! A task computes a range of rows and columns of the result. It copies blocks of the right operand to panels as wide
//! as a register tile, which then stay in the second-level cache, and reads the left operand in place: a tile loads
//! single elements of it, so any strides cost the same. Each element of the result is a sum in the order of `k`,
//! whatever the tile or the task, so results do not depend on the number of threads.

mod block;
mod dot;
mod pack;
#[cfg(test)]
mod tests;
mod tile;

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use super::simd::{Kernel, Level, MAX_LANES, Vector};
use super::{SharedOutput, with_scratch};
use block::Block;
use tile::{MAX_ROWS, MAX_WIDTH};

/// Rows of the right operand that are packed at once.
const K_BLOCK: usize = 384;
/// Columns of the right operand that are packed at once. Such a block takes half of a second-level cache of 1 MiB.
const COLUMN_BLOCK: usize = 384;
/// Multiplications below which one thread computes everything: waking another one takes as long.
const MIN_PARALLEL: usize = 1 << 20;
/// Multiplications of the smallest task.
const MIN_TASK: usize = 1 << 18;
/// Tasks per thread, so that a thread that is interrupted delays the others little.
const TASKS_PER_THREAD: usize = 4;

/// One or more matrices of the same shape and strides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrices<'a> {
    pub(crate) floats: &'a [f32],
    /// Offset of the first element.
    pub(crate) start: usize,
    /// Strides of rows and columns.
    pub(crate) strides: [isize; 2],
}

impl Matrices<'_> {
    fn transposed(self) -> Self {
        Self { strides: [self.strides[1], self.strides[0]], ..self }
    }
}

/// Products `c[i] = bias + a[i] · b[i]` of matrices `[m, k]` and `[k, n]` for all indices `i` of a batch.
#[derive(Debug, Clone)]
pub(crate) struct Product<'a> {
    /// Sizes of the batch axes, and strides of both operands along them.
    batch: Vec<(usize, [isize; 2])>,
    m: usize,
    n: usize,
    k: usize,
    a: Matrices<'a>,
    b: Matrices<'a>,
    /// Added to each row; one value is added to all elements.
    bias: Option<&'a [f32]>,
}

impl<'a> Product<'a> {
    /// Creates the products of the matrices `a` and `b`. `sizes` are `m`, `k` and `n`; `batch` lists the sizes of the
    /// batch axes and both operands' strides along them; `bias` has `n` elements.
    ///
    /// # Panics
    /// Panics if an operand is too short, or if a size is 0.
    pub(crate) fn new(
        mut batch: Vec<(usize, [isize; 2])>,
        [mut m, k, n]: [usize; 3],
        mut a: Matrices<'a>,
        b: Matrices<'a>,
        bias: Option<&'a [f32]>,
    ) -> Self {
        assert!(bias.is_none_or(|bias| bias.len() == n));
        for (operand, matrices, shape) in [(0, a, [m, k]), (1, b, [k, n])] {
            let axes = batch.iter().map(|(size, strides)| (*size, strides[operand]));
            let axes = axes.chain(shape.into_iter().zip(matrices.strides));
            let (mut lowest, mut highest) = (matrices.start as isize, matrices.start as isize);
            for (size, stride) in axes {
                assert!(size > 0);
                let extent = (size as isize - 1) * stride;
                *if extent < 0 { &mut lowest } else { &mut highest } += extent;
            }
            assert!(lowest >= 0 && (highest as usize) < matrices.floats.len());
        }
        batch.retain(|(size, _)| *size > 1);
        // Matrices that are multiplied by the same right operand are one matrix if their rows are evenly spaced.
        while let Some((size, [stride, 0])) = batch.last().copied()
            && (m == 1 || stride == a.strides[0] * m as isize)
        {
            if m == 1 {
                a.strides[0] = stride;
            }
            m *= size;
            batch.pop();
        }
        // A matrix times a column is a row times the transposed matrix.
        if n == 1 && m > 1 {
            for (_, strides) in &mut batch {
                strides.swap(0, 1);
            }
            return Self { batch, m: 1, n: m, k, a: b.transposed(), b: a.transposed(), bias };
        }
        Self { batch, m, n, k, a, b, bias }
    }

    /// Writes the products to `c`, which is `[batch, m, n]`.
    ///
    /// # Panics
    /// Panics if `c` does not have this number of elements.
    pub(crate) fn compute(&self, level: Level, c: &mut [MaybeUninit<f32>]) {
        let batch: usize = self.batch.iter().map(|(size, _)| size).product();
        assert_eq!(c.len(), batch * self.m * self.n);
        let work = c.len().saturating_mul(self.k);
        let tasks = match rayon::current_num_threads() {
            1 => 1,
            _ if work < MIN_PARALLEL => 1,
            threads => (work / MIN_TASK).clamp(1, threads * TASKS_PER_THREAD),
        };
        let groups = tasks.min(batch);
        let parts = self.parts(tasks.div_ceil(groups));
        let c = SharedOutput::new(c);
        let run = |task: usize| {
            let (group, row, column) = (task / parts[1] / parts[0], task / parts[1] % parts[0], task % parts[1]);
            let entries = group * batch / groups..(group + 1) * batch / groups;
            let rows = part(self.m, MAX_ROWS, parts[0], row);
            let columns = part(self.n, MAX_LANES, parts[1], column);
            with_scratch(self.scratch(&columns), |scratch| {
                level.run(Task { product: self, entries, rows, columns, c, scratch });
            });
        };
        match groups * parts[0] * parts[1] {
            1 => run(0),
            tasks => (0..tasks).into_par_iter().for_each(run),
        }
    }

    /// Returns the numbers of parts that the rows and the columns of each product are split into.
    fn parts(&self, parts: usize) -> [usize; 2] {
        // Each part packs its columns, which is worth some rows.
        let (most_rows, most_columns) = (self.m.div_ceil(64), self.n.div_ceil(MAX_WIDTH * MAX_LANES));
        if self.m >= self.n {
            let rows = parts.min(most_rows);
            [rows, parts.div_ceil(rows).min(most_columns)]
        } else {
            let columns = parts.min(most_columns);
            [parts.div_ceil(columns).min(most_rows), columns]
        }
    }

    /// Returns the offsets of the operands of one product.
    fn offsets(&self, mut entry: usize) -> [isize; 2] {
        let mut offsets = [self.a.start as isize, self.b.start as isize];
        for (size, strides) in self.batch.iter().rev() {
            let index = (entry % size) as isize;
            entry /= size;
            offsets[0] += index * strides[0];
            offsets[1] += index * strides[1];
        }
        offsets
    }

    /// Returns what is added to a column.
    fn bias(&self, column: usize) -> f32 {
        match self.bias {
            None => 0.0,
            Some([bias]) => *bias,
            Some(bias) => bias[column],
        }
    }

    /// Whether the product is one row times a matrix whose columns are contiguous.
    fn is_dot(&self) -> bool {
        self.m == 1 && self.b.strides[0] == 1 && self.k > 1
    }

    /// Returns the number of floats of scratch memory that a task needs.
    fn scratch(&self, columns: &Range<usize>) -> usize {
        if self.is_dot() {
            return self.k;
        }
        let columns = columns.len().min(COLUMN_BLOCK).next_multiple_of(MAX_LANES);
        columns + Block::scratch(self.k.min(K_BLOCK), columns)
    }
}

/// Returns a part of `0..n` that starts at a multiple of `unit`.
fn part(n: usize, unit: usize, parts: usize, index: usize) -> Range<usize> {
    let units = n.div_ceil(unit);
    units * index / parts * unit..(units * (index + 1) / parts * unit).min(n)
}

/// A range of rows and columns of several products.
struct Task<'a> {
    product: &'a Product<'a>,
    entries: Range<usize>,
    rows: Range<usize>,
    columns: Range<usize>,
    c: SharedOutput,
    scratch: &'a mut [f32],
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { product, entries, rows, columns, c, scratch } = self;
        if product.is_dot() {
            // SAFETY: the product's constructor checked that the operands hold all elements, and no other task writes
            // these elements of the result.
            return entries.for_each(|entry| unsafe { dot::row::<V>(product, entry, columns.clone(), c, scratch) });
        }
        for entry in entries {
            let [a, b] = product.offsets(entry);
            for first in columns.clone().step_by(COLUMN_BLOCK) {
                let columns = first..columns.end.min(first + COLUMN_BLOCK);
                let (start, scratch) = scratch.split_at_mut(columns.len().next_multiple_of(MAX_LANES));
                start.fill(0.0);
                if product.bias.is_some() {
                    start.iter_mut().zip(columns.clone()).for_each(|(start, column)| *start = product.bias(column));
                }
                for k in (0..product.k).step_by(K_BLOCK) {
                    let [a_strides, b_strides] = [product.a.strides, product.b.strides];
                    let a = a + rows.start as isize * a_strides[0] + k as isize * a_strides[1];
                    let b = b + k as isize * b_strides[0] + columns.start as isize * b_strides[1];
                    // SAFETY: the product's constructor checked that the operands hold all elements, and no other task
                    // writes these elements of the result.
                    unsafe {
                        let block = Block {
                            k: K_BLOCK.min(product.k - k),
                            rows: rows.len(),
                            columns: columns.len(),
                            a: product.a.floats.as_ptr().offset(a),
                            a_strides,
                            b: product.b.floats.as_ptr().offset(b),
                            b_strides,
                            start: (k == 0).then_some(start.as_ptr()),
                            c: c.pointer().add((entry * product.m + rows.start) * product.n + columns.start),
                            c_pitch: product.n,
                        };
                        block.compute::<V>(scratch);
                    }
                }
            }
        }
    }
}
