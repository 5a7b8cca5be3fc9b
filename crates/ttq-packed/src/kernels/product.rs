//! The tasks of a matrix product: preparing activations, and multiplying a group of weight rows by rows of activations.

use super::epilogue::{Finish, Sums};
use super::level::Kernel;
use super::memory::Output;
use super::panels::{GROUP, Group, PANEL, Panels, STEP};
use super::simd::Simd;
use super::tile::{self, Codes, Contiguous, Decode, PerRowScales, SharedScales, Tile, clamped, cover};
use super::{byte_tables, lookup, quantize};

/// Quantizes rows of activations to bytes.
pub(super) struct Quantize<'a> {
    pub(super) x: &'a [f32],
    pub(super) columns: usize,
    pub(super) bytes: &'a mut [u32],
    pub(super) factors: &'a mut [f32],
}

impl Kernel for Quantize<'_> {
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        quantize::rows(self.x, self.columns, self.bytes, self.factors);
    }
}

/// Builds the [tables](lookup) of rows of activations.
pub(super) struct BuildTables<'a> {
    pub(super) x: &'a [f32],
    pub(super) columns: usize,
    pub(super) tables: &'a mut [f32],
}

impl Kernel for BuildTables<'_> {
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        let rows = self.x.chunks_exact(self.columns);
        for (x, tables) in rows.zip(self.tables.chunks_exact_mut(lookup::table_len(self.columns))) {
            // SAFETY: guaranteed by the contract of the trait.
            unsafe { lookup::build::<V>(x, tables) };
        }
    }
}

/// Builds the [tables](byte_tables) of rows of bytes.
pub(super) struct BuildByteTables<'a> {
    pub(super) x: &'a [u32],
    pub(super) rows: usize,
    pub(super) tables: &'a mut [u32],
}

impl Kernel for BuildByteTables<'_> {
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        let rows = self.x.chunks_exact(self.x.len() / self.rows);
        for (x, tables) in rows.zip(self.tables.chunks_exact_mut(self.tables.len() / self.rows)) {
            byte_tables::build(x, tables);
        }
    }
}

/// Number of rows of activations that [`LookUp`] multiplies at once.
pub(super) const LOOKUP_ROWS: usize = 4;

/// Multiplies up to [`LOOKUP_ROWS`] rows of activations by a group of weight rows with [tables](lookup).
pub(super) struct LookUp<'a> {
    pub(super) panels: &'a Panels,
    pub(super) epilogue: Finish<'a>,
    pub(super) tables: &'a [f32],
    pub(super) output: Output<'a>,
    /// The first row of activations, and the number of rows.
    pub(super) row: usize,
    pub(super) count: usize,
    pub(super) group: Group,
}

impl Kernel for LookUp<'_> {
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        if const { V::PERMUTES } {
            // SAFETY: guaranteed by the contract of the trait.
            unsafe {
                match self.count {
                    // More sums and indices than these would not fit in the 16 registers of AVX2.
                    1 if V::LANES == 8 => self.rows::<V, 2, 1>(),
                    2 if V::LANES == 8 => self.rows::<V, 1, 2>(),
                    1 => self.rows::<V, 4, 1>(),
                    2 => self.rows::<V, 2, 2>(),
                    _ => self.rows::<V, 2, LOOKUP_ROWS>(),
                }
            }
        }
    }
}

impl LookUp<'_> {
    #[inline(always)]
    unsafe fn rows<V: Simd, const R: usize, const C: usize>(&self) {
        let mut row = 0;
        // SAFETY: a group consists of whole panels, and the lanes of a vector divide the rows of a panel.
        unsafe {
            while row + R * V::LANES <= self.group.rows {
                self.vectors::<V, R, C>(row);
                row += R * V::LANES;
            }
            if const { R * V::LANES > PANEL } {
                while row < self.group.rows {
                    self.vectors::<V, 1, C>(row);
                    row += V::LANES;
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn vectors<V: Simd, const R: usize, const C: usize>(&self, row: usize) {
        let Self { panels, epilogue, group, output, .. } = self;
        let steps = panels.columns().div_ceil(STEP);
        let first = group.first + row;
        let len = lookup::table_len(panels.columns());
        let tables = clamped::<_, C>(self.count, |c| self.tables[c * len..].as_ptr());
        // SAFETY: the caller guarantees the rows; the tables cover all steps.
        unsafe {
            let sums = lookup::sums::<V, R, C>(*group, row, steps, tables);
            for c in 0..self.count {
                let mut y = [0.0; GROUP];
                for r in 0..R {
                    let [pos, neg] = sums[r][c];
                    let at = first + r * V::LANES;
                    let neg = V::mul(V::load(epilogue.w_neg.as_ptr().add(at)), neg);
                    let sum = V::sub(V::mul(V::load(epilogue.w_pos.as_ptr().add(at)), pos), neg);
                    V::store(y[r * V::LANES..][..V::LANES].as_mut_ptr(), sum);
                }
                let y = &mut y[..R * V::LANES];
                epilogue.floats(first, y);
                store(*output, panels.rows(), self.row + c, first, y);
            }
        }
    }
}

/// Arguments of the product of a group of weight rows and rows of activations.
#[derive(Clone, Copy)]
pub(super) struct Product<'a, T> {
    pub(super) panels: &'a Panels,
    pub(super) epilogue: Finish<'a>,
    pub(super) x: &'a [T],
    pub(super) factors: &'a [f32],
    pub(super) output: Output<'a>,
    pub(super) group: Group,
}

impl Product<'_, u32> {
    /// Applies the epilogue to integer sums and stores the results of the rows that start at `row` of the group.
    ///
    /// `y` is a temporary buffer.
    #[inline(always)]
    unsafe fn finish(&self, row: usize, column: usize, sums: Sums<'_>, y: &mut [f32]) {
        self.epilogue.integers(self.group.first + row, self.factors[column], sums, y);
        // SAFETY: as for `store`.
        unsafe { self.store(row, column, y) }
    }
}

impl<T> Product<'_, T> {
    fn codes(&self, row: usize) -> Codes {
        // SAFETY: the row is in the group.
        let words = unsafe { self.group.words.add(row) };
        Codes { words, step: self.group.rows, columns: self.panels.columns() }
    }

    /// Stores `y` as the rows that start at `row` of the group, for the activation row `column`.
    #[inline(always)]
    unsafe fn store(&self, row: usize, column: usize, y: &[f32]) {
        // SAFETY: tasks write disjoint rows or columns.
        unsafe { store(self.output, self.panels.rows(), column, self.group.first + row, y) }
    }
}

/// Stores `y` as the rows that start at `first`, for the activation row `column`. Padding rows are dropped.
///
/// # Safety
/// No other thread may access these elements of the output.
#[inline(always)]
unsafe fn store(output: Output<'_>, rows: usize, column: usize, first: usize, y: &[f32]) {
    let count = y.len().min(rows.saturating_sub(first));
    // SAFETY: the caller guarantees exclusive access.
    unsafe { output.slice(column * rows + first.min(rows), count).copy_from_slice(&y[..count]) }
}

/// Multiplies the float32 activation rows `.1 .. .2` by a group of weight rows.
pub(super) struct FloatProduct<'a>(pub(super) Product<'a, f32>, pub(super) usize, pub(super) usize);

struct FloatTile<'a, D>(Product<'a, f32>, D);

impl Kernel for FloatProduct<'_> {
    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        let Self(product, from, to) = self;
        let epilogue = product.epilogue;
        // SAFETY: guaranteed by the contract of the trait.
        unsafe {
            match epilogue.shared {
                Some(pair) => FloatTile(product, SharedScales(pair)).cover::<V>(from, to),
                None => {
                    let scales = PerRowScales([epilogue.w_pos.as_ptr(), epilogue.w_neg.as_ptr()]);
                    FloatTile(product, scales).cover::<V>(from, to);
                }
            }
        }
    }
}

impl<D: Decode> FloatTile<'_, D> {
    #[inline(always)]
    unsafe fn cover<V: Simd>(&self, from: usize, to: usize) {
        let rows = self.0.group.rows;
        // SAFETY: guaranteed by the caller.
        unsafe {
            if const { V::LANES == 16 } {
                cover::<V, _, 2, 8, 4>(self, rows, from..to);
            } else if to - from == 1 {
                cover::<V, _, 4, 1, 1>(self, rows, from..to);
            } else {
                cover::<V, _, 2, 4, 4>(self, rows, from..to);
            }
        }
    }
}

impl<V: Simd, D: Decode> Tile<V> for FloatTile<'_, D> {
    #[inline(always)]
    unsafe fn tile<const R: usize, const C: usize>(&self, row: usize, column: usize, count: usize) {
        let product = &self.0;
        let columns = product.panels.columns();
        let x = clamped::<_, C>(count, |c| product.x[(column + c) * columns..].as_ptr());
        // SAFETY: guaranteed by the caller.
        unsafe {
            let sums =
                tile::floats::<V, D, _, R, C>(product.codes(row), self.1, product.group.first + row, &x, Contiguous);
            for c in 0..count {
                for r in 0..R {
                    let mut y = [0.0; 16];
                    V::store(y.as_mut_ptr(), sums[r][c]);
                    let y = &mut y[..V::LANES];
                    let row = row + r * V::LANES;
                    product.epilogue.floats(product.group.first + row, y);
                    product.store(row, column + c, y);
                }
            }
        }
    }
}

/// Multiplies the int8 activation rows `from .. to` by a group of weight rows.
///
/// `tables` are the [tables](byte_tables) of all activation rows, or empty for byte dot products.
pub(super) struct IntegerProduct<'a> {
    pub(super) product: Product<'a, u32>,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) tables: &'a [u32],
}

struct IntegerTile<'a, const PLANES: usize>(Product<'a, u32>);

impl Kernel for IntegerProduct<'_> {
    const DOTS: bool = true;

    #[inline(always)]
    unsafe fn run<V: Simd>(self) {
        let Self { product, from, to, tables } = self;
        let rows = product.group.rows;
        let one = IntegerTile::<1>(product);
        let two = IntegerTile::<2>(product);
        let sums = product.epilogue.bytes.sums(V::ANY_BYTES);
        // SAFETY: guaranteed by the contract of the trait.
        unsafe {
            if const { V::BYTE_TABLES } && !tables.is_empty() {
                two.by_tables::<V>(from..to, tables);
            } else if const { V::LANES == 16 } {
                match (sums, to - from) {
                    (1, 1) => cover::<V, _, 4, 1, 1>(&one, rows, from..to),
                    (1, 2) => cover::<V, _, 4, 2, 2>(&one, rows, from..to),
                    (1, _) => cover::<V, _, 2, 8, 4>(&one, rows, from..to),
                    (_, 1) => cover::<V, _, 4, 1, 1>(&two, rows, from..to),
                    (_, _) => cover::<V, _, 2, 4, 2>(&two, rows, from..to),
                }
            } else if const { V::LANES == 4 } {
                match (sums, to - from) {
                    (1, 1) => cover::<V, _, 2, 1, 1>(&one, rows, from..to),
                    (_, 1) => cover::<V, _, 2, 1, 1>(&two, rows, from..to),
                    (1, _) => cover::<V, _, 1, 4, 4>(&one, rows, from..to),
                    (_, _) => cover::<V, _, 1, 4, 4>(&two, rows, from..to),
                }
            } else {
                match (sums, to - from) {
                    (1, 1) => cover::<V, _, 4, 1, 1>(&one, rows, from..to),
                    (1, _) => cover::<V, _, 2, 2, 2>(&one, rows, from..to),
                    (_, _) => cover::<V, _, 2, 1, 1>(&two, rows, from..to),
                }
            }
        }
    }
}

impl IntegerTile<'_, 2> {
    #[inline(always)]
    unsafe fn by_tables<V: Simd>(&self, columns: core::ops::Range<usize>, tables: &[u32]) {
        let product = &self.0;
        let len = byte_tables::table_len(product.panels.columns());
        let steps = product.panels.columns().div_ceil(STEP);
        for column in columns {
            let tables = tables[column * len..][..len].as_ptr().cast();
            let mut row = 0;
            // SAFETY: guaranteed by the caller; a group consists of whole panels.
            unsafe {
                while row + 32 <= product.group.rows {
                    let words = product.codes(row).words;
                    let [first, second] = V::sums_by_tables(words, product.group.rows, steps, tables);
                    let sums = Sums::new(2, [&first, &second], V::NEG_SHIFT);
                    product.finish(row, column, sums, &mut [0.0; 32]);
                    row += 32;
                }
                if row < product.group.rows {
                    Tile::<V>::tile::<2, 1>(self, row, column, 1);
                }
            }
        }
    }
}

impl<V: Simd, const PLANES: usize> Tile<V> for IntegerTile<'_, PLANES> {
    #[inline(always)]
    unsafe fn tile<const R: usize, const C: usize>(&self, row: usize, column: usize, count: usize) {
        let product = &self.0;
        let words = product.panels.columns().div_ceil(4);
        let x = clamped::<_, C>(count, |c| product.x[(column + c) * words..].as_ptr());
        // SAFETY: guaranteed by the caller.
        unsafe {
            let tables = product.epilogue.bytes.tables().wrapping_add(product.group.first + row);
            let sums = tile::integers::<V, _, PLANES, R, C>(product.codes(row), tables, &x, Contiguous);
            for c in 0..count {
                for r in 0..R {
                    let (mut stored, mut y) = ([[0; 16]; 2], [0.0; 16]);
                    for p in 0..PLANES {
                        V::store_dots(stored[p].as_mut_ptr(), sums[r][c][p]);
                    }
                    let [first, second] = &stored;
                    let sums = Sums::new(PLANES, [first, second], V::NEG_SHIFT);
                    product.finish(row + r * V::LANES, column + c, sums, &mut y[..V::LANES]);
                }
            }
        }
    }
}
