//! Reductions of values of a [tape](super), without writing the values to memory.
//!
//! The index space is `[outer, len, inner]`, and values are reduced over the axis in the middle. The work is divided by
//! the sizes alone, so results do not depend on the number of threads.

use std::ops::Range;

use rayon::prelude::*;

use super::tile::Tiles;
use super::{Plan, TILE, Tape, Value};
use crate::kernels::SharedOutput;
use crate::kernels::simd::{Kernel, Level, Vector};

/// Elements per task.
const TASK: usize = 1 << 15;

/// Reduces the elements of a row in two times 16 lanes, which stay in registers.
macro_rules! reduce_row {
    ($row:ident, $start:expr, |$a:ident, $b:ident| $combine:expr, $combine_f64:expr) => {{
        let (chunks, rest) = $row.as_chunks::<16>();
        let mut lanes = [[$start; 16]; 2];
        let (pairs, single) = chunks.as_chunks::<2>();
        for pair in pairs {
            for (lanes, chunk) in lanes.iter_mut().zip(pair) {
                for (lane, x) in lanes.iter_mut().zip(chunk) {
                    let ($a, $b) = (*lane, *x);
                    *lane = $combine;
                }
            }
        }
        for chunk in single {
            for (lane, x) in lanes[0].iter_mut().zip(chunk) {
                let ($a, $b) = (*lane, *x);
                *lane = $combine;
            }
        }
        let mut halves = [$start; 16];
        for index in 0..16 {
            let ($a, $b) = (lanes[0][index], lanes[1][index]);
            halves[index] = $combine;
        }
        let mut eight = [$start; 8];
        for index in 0..8 {
            let ($a, $b) = (halves[index], halves[index + 8]);
            eight[index] = $combine;
        }
        let mut four = [$start; 4];
        for index in 0..4 {
            let ($a, $b) = (eight[index], eight[index + 4]);
            four[index] = $combine;
        }
        let combine = $combine_f64;
        let [a, b, c, d] = four.map(f64::from);
        let mut total: f64 = combine(combine(a, b), combine(c, d));
        for x in rest {
            total = combine(total, f64::from(*x));
        }
        total
    }};
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduction {
    Sum,
    /// NaN if an element is NaN.
    Max,
}

impl Reduction {
    fn start(self) -> f32 {
        match self {
            Self::Sum => 0.0,
            Self::Max => f32::NEG_INFINITY,
        }
    }

    #[inline(always)]
    fn combine(self, a: f64, b: f64) -> f64 {
        match self {
            Self::Sum => a + b,
            Self::Max => maximum(a, b),
        }
    }

    /// Combines each element of `to` with that of `from`.
    #[inline(always)]
    fn combine_all(self, to: &mut [f32], from: &[f32]) {
        match self {
            Self::Sum => {
                for (to, x) in to.iter_mut().zip(from) {
                    *to += *x;
                }
            }
            Self::Max => {
                for (to, x) in to.iter_mut().zip(from) {
                    *to = if to.is_nan() || *x <= *to { *to } else { *x };
                }
            }
        }
    }

    /// Reduces a row.
    #[inline(always)]
    pub(crate) fn reduce(self, row: &[f32]) -> f64 {
        match self {
            Self::Sum => reduce_row!(row, 0.0_f32, |a, b| a + b, |a, b| a + b),
            Self::Max => {
                reduce_row!(row, f32::NEG_INFINITY, |a, b| if a.is_nan() || b <= a { a } else { b }, maximum)
            }
        }
    }
}

fn maximum(a: f64, b: f64) -> f64 {
    if a.is_nan() || b <= a { a } else { b }
}

/// A value that is reduced, and the factor of the result.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reduced {
    pub(crate) value: Value,
    pub(crate) reduction: Reduction,
    pub(crate) factor: f64,
}

/// Sizes of the index space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) outer: usize,
    pub(crate) len: usize,
    pub(crate) inner: usize,
}

impl Tape<'_> {
    /// Reduces values over the middle axis, and writes the values `stored` to `outputs`.
    ///
    /// # Safety
    /// `results` must hold one output of `outer * inner` floats for each reduced value, and `outputs` must be valid as in
    /// [`Tape::store`]. `sizes` must be those of the tape.
    pub(crate) unsafe fn reduce(
        self,
        reduced: &[Reduced],
        sizes: Sizes,
        (stored, outputs): (&[Value], &[SharedOutput]),
        results: &[SharedOutput],
    ) {
        debug_assert_eq!(sizes.outer * sizes.len * sizes.inner, self.len());
        let by_rows = sizes.inner == 1 && (sizes.outer > 1 || sizes.len <= TASK);
        let is_summed = |reduced: &&Reduced| !by_rows && reduced.reduction == Reduction::Sum;
        let summed: Vec<Option<Value>> = reduced.iter().map(|r| Some(r).filter(is_summed).map(|r| r.value)).collect();
        let kept: Vec<Value> =
            reduced.iter().filter(|reduced| !is_summed(reduced)).map(|reduced| reduced.value).collect();
        let plan = &self.plan(stored, &kept, &summed);
        if by_rows {
            let rows = TASK.div_ceil(sizes.len);
            let run = |task: usize| {
                let rows = task * rows..sizes.outer.min((task + 1) * rows);
                Level::best().run(Rows { plan, reduced, len: sizes.len, rows, stored: outputs, results });
            };
            return for_each_task(sizes.outer.div_ceil(rows), run);
        }
        // A block of columns, and a part of the rows.
        let width = sizes.inner.min(TILE);
        let blocks = sizes.inner.div_ceil(width);
        let rows = (TASK / width).next_multiple_of(TILE / width).min(sizes.len);
        let parts = sizes.len.div_ceil(rows);
        let mut partials = vec![0.0_f64; sizes.outer * parts * sizes.inner * reduced.len()];
        let partial = |outer: usize, part: usize, block: usize| {
            let columns = block * width..sizes.inner.min((block + 1) * width);
            let rows = part * rows..sizes.len.min((part + 1) * rows);
            Level::best().run(Columns { plan, reduced, sizes, outer, rows, columns, stored: outputs })
        };
        let tasks = sizes.outer * parts * blocks;
        let place = |task: usize| (task / (parts * blocks), task / blocks % parts, task % blocks);
        let computed: Vec<Vec<f64>> = if tasks == 1 {
            vec![partial(0, 0, 0)]
        } else {
            (0..tasks)
                .into_par_iter()
                .map(|task| {
                    let (outer, part, block) = place(task);
                    partial(outer, part, block)
                })
                .collect()
        };
        for (task, own) in computed.iter().enumerate() {
            let (outer, part, block) = place(task);
            let columns = own.len() / reduced.len();
            for (index, own) in own.chunks_exact(columns).enumerate() {
                let at = ((index * sizes.outer + outer) * parts + part) * sizes.inner + block * width;
                partials[at..at + columns].copy_from_slice(own);
            }
        }
        for (index, (reduced, result)) in reduced.iter().zip(results).enumerate() {
            for outer in 0..sizes.outer {
                let own = &partials[(index * sizes.outer + outer) * parts * sizes.inner..][..parts * sizes.inner];
                // SAFETY: the result has `outer * inner` floats, and only this thread writes it.
                let to = unsafe { result.slice(outer * sizes.inner, sizes.inner) };
                for (column, to) in to.iter_mut().enumerate() {
                    let terms = own[column..].iter().step_by(sizes.inner).copied();
                    let total = terms.reduce(|a, b| reduced.reduction.combine(a, b)).unwrap_or(0.0);
                    to.write((total * reduced.factor) as f32);
                }
            }
        }
    }
}

fn for_each_task(tasks: usize, run: impl Fn(usize) + Send + Sync) {
    match tasks {
        1 => run(0),
        _ => (0..tasks).into_par_iter().for_each(run),
    }
}

/// Reduces rows of contiguous elements.
struct Rows<'a> {
    plan: &'a Plan<'a>,
    reduced: &'a [Reduced],
    len: usize,
    rows: Range<usize>,
    stored: &'a [SharedOutput],
    results: &'a [SharedOutput],
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let mut tiles = Tiles::new(self.plan, self.stored);
        let (len, tile) = (self.len, self.plan.tile);
        let write = |index: usize, row: usize, total: f64| {
            // SAFETY: no other task writes the result of this row.
            let to = unsafe { self.results[index].slice(row, 1) };
            to[0].write((total * self.reduced[index].factor) as f32);
        };
        if len > tile {
            let mut totals = vec![0.0_f64; self.reduced.len()];
            for row in self.rows {
                for (total, reduced) in totals.iter_mut().zip(self.reduced) {
                    *total = f64::from(reduced.reduction.start());
                }
                for at in (0..len).step_by(tile) {
                    let (first, n) = (row * len + at, tile.min(len - at));
                    tiles.compute::<V>(first, n);
                    for (total, reduced) in totals.iter_mut().zip(self.reduced) {
                        let own = reduced.reduction.reduce(tiles.value(reduced.value, first, n));
                        *total = reduced.reduction.combine(*total, own);
                    }
                }
                totals.iter().enumerate().for_each(|(index, total)| write(index, row, *total));
            }
            return;
        }
        let per_tile = tile / len;
        for from in self.rows.clone().step_by(per_tile) {
            let count = per_tile.min(self.rows.end - from);
            tiles.compute::<V>(from * len, count * len);
            for (index, reduced) in self.reduced.iter().enumerate() {
                let values = tiles.value(reduced.value, from * len, count * len);
                for (row, values) in values.chunks_exact(len).enumerate() {
                    write(index, from + row, reduced.reduction.reduce(values));
                }
            }
        }
    }
}

/// Reduces a part of the rows of a block of columns. Returns the partial results of each reduced value.
struct Columns<'a> {
    plan: &'a Plan<'a>,
    reduced: &'a [Reduced],
    sizes: Sizes,
    outer: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    stored: &'a [SharedOutput],
}

impl Kernel for Columns<'_> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn run<V: Vector>(self) -> Vec<f64> {
        let mut tiles = Tiles::new(self.plan, self.stored);
        let width = self.columns.len();
        // A tile holds several rows if they are short.
        let per_tile = if width == self.sizes.inner { TILE / width } else { 1 };
        let mut sums: Vec<[f32; TILE]> = self.reduced.iter().map(|reduced| [reduced.reduction.start(); TILE]).collect();
        for row in self.rows.clone().step_by(per_tile) {
            let n = per_tile.min(self.rows.end - row) * width;
            let first = (self.outer * self.sizes.len + row) * self.sizes.inner + self.columns.start;
            tiles.compute::<V>(first, n);
            let others =
                self.reduced.iter().zip(&mut sums).zip(&self.plan.summed).filter(|(_, is_summed)| !**is_summed);
            for ((reduced, sums), _) in others {
                reduced.reduction.combine_all(&mut sums[..n], tiles.value(reduced.value, first, n));
            }
        }
        let summed = sums.iter_mut().zip(&self.plan.summed).enumerate().filter(|(_, (_, is_summed))| **is_summed);
        for (index, (sums, _)) in summed {
            sums.copy_from_slice(&tiles.sum(index)[..TILE]);
        }
        let mut totals = vec![0.0; width * self.reduced.len()];
        for (totals, (reduced, sums)) in totals.chunks_exact_mut(width).zip(self.reduced.iter().zip(&sums)) {
            totals.fill(f64::from(reduced.reduction.start()));
            for row in sums[..per_tile * width].chunks_exact(width) {
                for (total, sum) in totals.iter_mut().zip(row) {
                    *total = reduced.reduction.combine(*total, f64::from(*sum));
                }
            }
        }
        totals
    }
}
