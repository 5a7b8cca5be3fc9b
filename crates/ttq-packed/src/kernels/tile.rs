//! The inner loops: products of some weight rows and some activation columns, with all sums in registers.
//!
//! An activation column is one row of `x` in a matrix product, or the elements under the kernel at one pixel in a
//! convolution.

use super::panels::{PANEL, STEP, shift_of};
use super::simd::Simd;

/// Distance in words between a load of codes and the prefetch.
///
/// A matrix-vector product reads each code once, and a step has too many instructions for the processor to look far
/// enough ahead on its own.
pub(crate) const AHEAD: usize = 1024;

/// Number of steps between two calls of [`widen`](Simd::widen): 32 dot products, and at most 31 more before the last
/// call.
const WIDEN: usize = 8;

/// Repeats a block with a constant index, since a shift by a constant needs no register.
macro_rules! unroll {
    ($index:ident in [$($value:literal)*] $body:block) => { $( { const $index: usize = $value; $body } )* };
}
pub(crate) use unroll;

/// Offsets of the elements of an activation column from its pointer.
pub(crate) trait Offsets: Copy {
    /// Returns the offset of an element.
    ///
    /// # Safety
    /// `index` must be less than the number of elements.
    unsafe fn at(self, index: usize) -> usize;
}

/// Elements are contiguous.
#[derive(Clone, Copy)]
pub(crate) struct Contiguous;

impl Offsets for Contiguous {
    #[inline(always)]
    unsafe fn at(self, index: usize) -> usize {
        index
    }
}

/// Offsets are stored in a table.
#[derive(Clone, Copy)]
pub(crate) struct OffsetTable(pub(crate) *const u32);

impl Offsets for OffsetTable {
    #[inline(always)]
    unsafe fn at(self, index: usize) -> usize {
        // SAFETY: the caller guarantees the index.
        unsafe { *self.0.add(index) as usize }
    }
}

/// Conversion of codes to weights.
pub(crate) trait Decode: Copy {
    /// Data for a vector of rows.
    type Rows<V: Simd>: Copy;
    /// Loads the data for the vector of rows that starts at `first`.
    ///
    /// # Safety
    /// The processor must support the instructions of `V`, and the rows must exist.
    unsafe fn rows<V: Simd>(self, first: usize) -> Self::Rows<V>;
    /// Returns the weights whose codes are the lowest two bits of each lane.
    ///
    /// # Safety
    /// The processor must support the instructions of `V`.
    unsafe fn decode<V: Simd>(rows: Self::Rows<V>, codes: V::Words) -> V::Floats;
}

/// The pair `[w_pos, w_neg]` of all rows.
#[derive(Clone, Copy)]
pub(crate) struct SharedScales(pub(crate) [f32; 2]);

impl Decode for SharedScales {
    type Rows<V: Simd> = V::Floats;

    #[inline(always)]
    unsafe fn rows<V: Simd>(self, _first: usize) -> V::Floats {
        // SAFETY: the caller guarantees the instructions.
        unsafe { V::table([0.0, self.0[0], -self.0[1], 0.0]) }
    }

    #[inline(always)]
    unsafe fn decode<V: Simd>(table: V::Floats, codes: V::Words) -> V::Floats {
        // SAFETY: as above.
        unsafe { V::look_up(table, codes) }
    }
}

/// Pointers to the `w_pos` and `w_neg` of each row.
#[derive(Clone, Copy)]
pub(crate) struct PerRowScales(pub(crate) [*const f32; 2]);

impl Decode for PerRowScales {
    type Rows<V: Simd> = [V::Floats; 2];

    #[inline(always)]
    unsafe fn rows<V: Simd>(self, first: usize) -> [V::Floats; 2] {
        // SAFETY: the caller guarantees the instructions and the rows.
        unsafe {
            let neg = V::load(self.0[1].add(first));
            [V::load(self.0[0].add(first)), V::mul(neg, V::splat(-1.0))]
        }
    }

    #[inline(always)]
    unsafe fn decode<V: Simd>([pos, neg]: [V::Floats; 2], codes: V::Words) -> V::Floats {
        // SAFETY: the caller guarantees the instructions.
        unsafe { V::select(codes, pos, neg) }
    }
}

/// The codes of some weight rows.
#[derive(Clone, Copy)]
pub(crate) struct Codes {
    /// Pointer to the first word.
    pub(crate) words: *const u32,
    /// Number of words from one step to the next.
    pub(crate) step: usize,
    /// Number of columns.
    pub(crate) columns: usize,
}

/// Computes `sums[r][c] = Σ_k weight[r][k] x[c][k]` for `R` vectors of weight rows and `C` activation columns.
///
/// # Safety
/// The processor must support the instructions of `V`. The codes, the rows of `weights` and the activations must exist.
#[inline(always)]
pub(crate) unsafe fn floats<V: Simd, D: Decode, O: Offsets, const R: usize, const C: usize>(
    codes: Codes,
    weights: D,
    row: usize,
    x: &[*const f32; C],
    offsets: O,
) -> [[V::Floats; C]; R] {
    // SAFETY: guaranteed by the caller. The last step is read completely, and its padding exists in memory.
    unsafe {
        let mut rows = [weights.rows::<V>(row); R];
        for r in 1..R {
            rows[r] = weights.rows::<V>(row + r * V::LANES);
        }
        let mut sums = [[V::splat(0.0); C]; R];
        let mut words = [V::splat_word(0); R];
        let mut at = codes.words;
        macro_rules! column {
            ($column:expr, $k:expr) => {{
                let offset = offsets.at($column);
                let mut w = [V::splat(0.0); R];
                for r in 0..R {
                    w[r] = D::decode::<V>(rows[r], V::shift(words[r], shift_of($k)));
                }
                for c in 0..C {
                    let x = V::splat(*x[c].add(offset));
                    for r in 0..R {
                        sums[r][c] = V::mul_add(w[r], x, sums[r][c]);
                    }
                }
            }};
        }
        let full = codes.columns / STEP;
        for step in 0..full {
            for r in 0..R {
                words[r] = V::load_words(at.add(r * V::LANES));
                if const { C == 1 } {
                    V::prefetch(at.wrapping_add(r * V::LANES + AHEAD));
                }
            }
            if const { V::LANES > 4 } {
                unroll!(K in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15] { column!(step * STEP + K, K) });
            } else {
                for k in 0..STEP {
                    column!(step * STEP + k, k);
                }
            }
            at = at.add(codes.step);
        }
        if !codes.columns.is_multiple_of(STEP) {
            for r in 0..R {
                words[r] = V::load_words(at.add(r * V::LANES));
            }
            for k in 0..codes.columns % STEP {
                column!(full * STEP + k, k);
            }
        }
        sums
    }
}

/// Computes sums of byte products: `[Σ w x]` if `PLANES` is 1, or `[Σ p x, 2^s Σ n x]` if it is 2.
///
/// `w` is the byte of the code in the table of the row (see [`weights`](Simd::weights)), `p` and `n` are the indicators
/// of +1 and -1, and `s` is [`NEG_SHIFT`](Simd::NEG_SHIFT). An element of `x` is a word of four columns.
///
/// # Safety
/// As for [`floats`]. An activation column must have `⌈columns / 4⌉` words. If `PLANES` is 1, `tables` must point to the
/// tables of the rows.
#[inline(always)]
pub(crate) unsafe fn integers<V: Simd, O: Offsets, const PLANES: usize, const R: usize, const C: usize>(
    codes: Codes,
    tables: *const u32,
    x: &[*const u32; C],
    offsets: O,
) -> [[[V::Dots; PLANES]; C]; R] {
    // SAFETY: see `floats`.
    unsafe {
        let mut rows = [V::splat_word(0); R];
        if PLANES == 1 {
            for r in 0..R {
                rows[r] = V::load_words(tables.add(r * V::LANES));
            }
        }
        let mut sums = [[[V::no_dots(); PLANES]; C]; R];
        let mut words = [V::splat_word(0); R];
        let mut at = codes.words;
        macro_rules! quad {
            ($quad:expr, $j:expr) => {{
                let offset = offsets.at($quad);
                let mut w = [[V::pos(V::splat_word(0)); PLANES]; R];
                for r in 0..R {
                    let field = V::shift(words[r], 2 * $j as u32);
                    w[r][0] = if PLANES == 1 { V::weights(field, rows[r]) } else { V::pos(field) };
                    w[r][PLANES - 1] = if PLANES == 1 { w[r][0] } else { V::neg(field) };
                }
                for c in 0..C {
                    let x = V::splat_word(*x[c].add(offset));
                    for r in 0..R {
                        for p in 0..PLANES {
                            sums[r][c][p] = V::dot(sums[r][c][p], x, w[r][p]);
                        }
                    }
                }
            }};
        }
        macro_rules! widen {
            () => {
                for r in 0..R {
                    for c in 0..C {
                        for p in 0..PLANES {
                            sums[r][c][p] = V::widen(sums[r][c][p]);
                        }
                    }
                }
            };
        }
        let quads = codes.columns.div_ceil(4);
        for step in 0..quads / 4 {
            for r in 0..R {
                words[r] = V::load_words(at.add(r * V::LANES));
                if const { C <= 2 } {
                    V::prefetch(at.wrapping_add(r * V::LANES + AHEAD));
                }
            }
            if const { V::LANES > 4 } {
                unroll!(J in [0 1 2 3] { quad!(4 * step + J, J) });
            } else {
                for j in 0..4 {
                    quad!(4 * step + j, j);
                }
            }
            if step % WIDEN == WIDEN - 1 {
                widen!();
            }
            at = at.add(codes.step);
        }
        if !quads.is_multiple_of(4) {
            for r in 0..R {
                words[r] = V::load_words(at.add(r * V::LANES));
            }
            for j in 0..quads % 4 {
                quad!(quads / 4 * 4 + j, j);
            }
        }
        widen!();
        sums
    }
}

/// A product that is computed in tiles.
pub(crate) trait Tile<V: Simd> {
    /// Computes and stores the `R` vectors of rows that start at `row`, for the `count <= C` columns that start at
    /// `column`.
    ///
    /// # Safety
    /// The processor must support the instructions of `V`, and the rows and columns must exist.
    unsafe fn tile<const R: usize, const C: usize>(&self, row: usize, column: usize, count: usize);
}

/// Computes `rows` rows, a multiple of 16, and the range `columns` in tiles of `R` vectors and `C` columns.
///
/// Remaining rows take tiles of one vector. Remaining columns take tiles of one, `HALF` or `C` columns.
///
/// # Safety
/// As for [`Tile::tile`].
#[inline(always)]
pub(crate) unsafe fn cover<V: Simd, T: Tile<V>, const R: usize, const C: usize, const HALF: usize>(
    tile: &T,
    rows: usize,
    columns: core::ops::Range<usize>,
) {
    let mut row = 0;
    // SAFETY: guaranteed by the caller.
    unsafe {
        while row + R * V::LANES <= rows {
            cover_columns::<V, T, R, C, HALF>(tile, row, columns.clone());
            row += R * V::LANES;
        }
        // `R` vectors may have more than the 16 rows of a panel, so some rows may remain.
        if const { R * V::LANES > PANEL } {
            while row < rows {
                cover_columns::<V, T, 1, C, HALF>(tile, row, columns.clone());
                row += V::LANES;
            }
        }
    }
}

#[inline(always)]
unsafe fn cover_columns<V: Simd, T: Tile<V>, const R: usize, const C: usize, const HALF: usize>(
    tile: &T,
    row: usize,
    columns: core::ops::Range<usize>,
) {
    for column in columns.clone().step_by(C) {
        let count = C.min(columns.end - column);
        // SAFETY: guaranteed by the caller.
        unsafe {
            if count == 1 {
                tile.tile::<R, 1>(row, column, 1);
            } else if count <= HALF {
                tile.tile::<R, HALF>(row, column, count);
            } else {
                tile.tile::<R, C>(row, column, count);
            }
        }
    }
}

/// Returns pointers to `C` columns. Columns beyond `count` repeat the last existing one.
#[inline(always)]
pub(crate) fn clamped<T, const C: usize>(count: usize, at: impl Fn(usize) -> *const T) -> [*const T; C] {
    let mut pointers = [at(0); C];
    for (c, pointer) in pointers.iter_mut().enumerate() {
        *pointer = at(c.min(count - 1));
    }
    pointers
}
