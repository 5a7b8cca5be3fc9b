//! The inner loops: sums of some rows times some columns of activations, all in registers.

use super::panels::{PANEL, STEP, shift_of};
use super::simd::Simd;

/// Words between a load of codes and the prefetch that precedes it: a matrix-vector product reads each code once, and what the
/// processor does between two steps is too much for it to see far enough ahead itself.
pub(crate) const AHEAD: usize = 1024;

/// Steps between two widenings: 32 dots, and at most 31 more before the last one.
const WIDEN: usize = 8;

/// Repeats a block with a constant index: shifts by a constant need no register.
macro_rules! unroll {
    ($index:ident in [$($value:literal)*] $body:block) => { $( { const $index: usize = $value; $body } )* };
}
pub(crate) use unroll;

/// Where the elements of an activation column are, counted from its pointer.
pub(crate) trait Offsets: Copy {
    /// # Safety
    /// `index` is less than the number of elements.
    unsafe fn at(self, index: usize) -> usize;
}

/// One after the other.
#[derive(Clone, Copy)]
pub(crate) struct Contiguous;

impl Offsets for Contiguous {
    #[inline(always)]
    unsafe fn at(self, index: usize) -> usize {
        index
    }
}

/// By a table.
#[derive(Clone, Copy)]
pub(crate) struct Table(pub(crate) *const u32);

impl Offsets for Table {
    #[inline(always)]
    unsafe fn at(self, index: usize) -> usize {
        // SAFETY: the caller vouches for the index.
        unsafe { *self.0.add(index) as usize }
    }
}

/// What two bits stand for.
pub(crate) trait Decode: Copy {
    /// What a vector of rows needs.
    type Rows<V: Simd>: Copy;
    /// # Safety
    /// The instructions of `V`; the rows exist.
    unsafe fn rows<V: Simd>(self, first: usize) -> Self::Rows<V>;
    /// The weights whose codes are the lowest two bits of each lane.
    ///
    /// # Safety
    /// The instructions of `V`.
    unsafe fn decode<V: Simd>(rows: Self::Rows<V>, codes: V::Words) -> V::Floats;
}

/// All rows have the pair `[w_pos, w_neg]`.
#[derive(Clone, Copy)]
pub(crate) struct Shared(pub(crate) [f32; 2]);

impl Decode for Shared {
    type Rows<V: Simd> = V::Floats;

    #[inline(always)]
    unsafe fn rows<V: Simd>(self, _first: usize) -> V::Floats {
        // SAFETY: the caller vouches for the instructions.
        unsafe { V::table([0.0, self.0[0], -self.0[1], 0.0]) }
    }

    #[inline(always)]
    unsafe fn decode<V: Simd>(table: V::Floats, codes: V::Words) -> V::Floats {
        // SAFETY: as above.
        unsafe { V::look_up(table, codes) }
    }
}

/// Each row has its own: pointers to `w_pos` and `w_neg`.
#[derive(Clone, Copy)]
pub(crate) struct Own(pub(crate) [*const f32; 2]);

impl Decode for Own {
    type Rows<V: Simd> = [V::Floats; 2];

    #[inline(always)]
    unsafe fn rows<V: Simd>(self, first: usize) -> [V::Floats; 2] {
        // SAFETY: the caller vouches for the instructions and the rows.
        unsafe {
            let neg = V::load(self.0[1].add(first));
            [V::load(self.0[0].add(first)), V::mul(neg, V::splat(-1.0))]
        }
    }

    #[inline(always)]
    unsafe fn decode<V: Simd>([pos, neg]: [V::Floats; 2], codes: V::Words) -> V::Floats {
        // SAFETY: the caller vouches for the instructions.
        unsafe { V::select(codes, pos, neg) }
    }
}

/// The codes of some rows: the first word, the words from one step to the next, and the number of columns.
#[derive(Clone, Copy)]
pub(crate) struct Codes {
    pub(crate) words: *const u32,
    pub(crate) step: usize,
    pub(crate) columns: usize,
}

/// `sums[r][c] = Σ_k weight[r][k] x[c][k]` over `R` vectors of rows, `C` columns of activations.
///
/// # Safety
/// The instructions of `V`; codes, rows of `weights` and activations exist.
#[inline(always)]
pub(crate) unsafe fn floats<V: Simd, D: Decode, O: Offsets, const R: usize, const C: usize>(
    codes: Codes,
    weights: D,
    row: usize,
    x: &[*const f32; C],
    offsets: O,
) -> [[V::Floats; C]; R] {
    // SAFETY: the caller's vows; a step that is not full is read as a whole, and so it lies in memory.
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

/// Sums of products of bytes: `[Σ t x]` in one plane where `PLANES` is 1, `[Σ p x, 2^s Σ n x]` where it is 2, with `t = p - n`
/// and `s` = [`NEG_SHIFT`](Simd::NEG_SHIFT). An element of `x` is a word of four columns.
///
/// # Safety
/// As for [`floats`]; `x` has `⌈columns / 4⌉` elements.
#[inline(always)]
pub(crate) unsafe fn integers<V: Simd, O: Offsets, const PLANES: usize, const R: usize, const C: usize>(
    codes: Codes,
    x: &[*const u32; C],
    offsets: O,
) -> [[[V::Dots; PLANES]; C]; R] {
    // SAFETY: see `floats`.
    unsafe {
        let mut sums = [[[V::no_dots(); PLANES]; C]; R];
        let mut words = [V::splat_word(0); R];
        let mut at = codes.words;
        macro_rules! quad {
            ($quad:expr, $j:expr) => {{
                let offset = offsets.at($quad);
                let mut w = [[V::pos(V::splat_word(0)); PLANES]; R];
                for r in 0..R {
                    let field = V::shift(words[r], 2 * $j as u32);
                    w[r][0] = if PLANES == 1 { V::signs(field) } else { V::pos(field) };
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
                if const { C == 1 } {
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

/// A product cut into tiles.
pub(crate) trait Tile<V: Simd> {
    /// Computes and stores `R` vectors of rows from `row` on for the `count <= C` columns from `column` on.
    ///
    /// # Safety
    /// The instructions of `V`; rows and columns exist.
    unsafe fn tile<const R: usize, const C: usize>(&self, row: usize, column: usize, count: usize);
}

/// Does `rows` rows, a multiple of 16, and `columns` columns in tiles of `R` vectors and `C` columns, and at the ends of one vector,
/// and `HALF` columns or one.
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
    // SAFETY: the caller's vows.
    unsafe {
        while row + R * V::LANES <= rows {
            cover_columns::<V, T, R, C, HALF>(tile, row, columns.clone());
            row += R * V::LANES;
        }
        // Panels have 16 rows: some vectors are more than a panel.
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
        // SAFETY: the caller's vows.
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

/// Pointers to `C` columns, the last of the `count` that exist standing for those that do not.
#[inline(always)]
pub(crate) fn clamped<T, const C: usize>(count: usize, at: impl Fn(usize) -> *const T) -> [*const T; C] {
    let mut pointers = [at(0); C];
    for (c, pointer) in pointers.iter_mut().enumerate() {
        *pointer = at(c.min(count - 1));
    }
    pointers
}
