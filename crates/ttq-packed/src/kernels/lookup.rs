//! Matrix-vector products with lookup tables of partial sums instead of multiplications.
//!
//! Each bit of a code says whether an activation contributes to `P` or to `N` (see [`panels`](super::panels)). Two steps
//! are processed together: with every second bit of each step, a word has the bits of one plane for 32 columns (see
//! [`planes`](Simd::planes)). A register of `2^n` floats holds the sums of all subsets of `n` neighbouring activations in
//! the order of these bits. One permutation, indexed by `n` bits of the words of a vector of rows, looks up the sums of all
//! these rows at once, with `n = 4` on AVX-512 and `n = 3` on AVX2.
//!
//! The same table serves `P` and `N`, and the same index serves several rows of activations. Scales are applied to the
//! sums, so that each row of weights can have its own.

use super::panels::{Group, STEP, shift_of};
use super::simd::Simd;
use super::tile::{AHEAD, unroll};

/// Number of columns of two steps.
const COLUMNS: usize = 2 * STEP;
/// Maximum number of floats in the tables of two steps: 8 tables of 16 floats, or 11 tables of 8.
const TABLES: usize = 128;

/// Returns the number of floats in the tables of `columns` columns.
pub(crate) fn table_len(columns: usize) -> usize {
    columns.div_ceil(COLUMNS) * TABLES
}

/// Returns the number of bits that index a table of one register.
const fn bits<V: Simd>() -> usize {
    V::LANES.ilog2() as usize
}

/// Builds the tables of the activations `x`.
///
/// # Safety
/// The processor must support the instructions of `V`, [`PERMUTES`](Simd::PERMUTES) must be true, and `tables` must
/// have the length [`table_len`].
#[inline(always)]
pub(crate) unsafe fn build<V: Simd>(x: &[f32], tables: &mut [f32]) {
    // 1 if the bit is set in the index of the entry, otherwise 0.
    let mut parts = [[0.0; 16]; 4];
    for (bit, part) in parts.iter_mut().enumerate() {
        for (entry, part) in part.iter_mut().enumerate() {
            *part = (entry >> bit & 1) as f32;
        }
    }
    let mut to = tables.as_mut_ptr();
    for x in x.chunks(COLUMNS) {
        let mut padded = [0.0; COLUMNS];
        padded[..x.len()].copy_from_slice(x);
        // In the order of the bits; those after the last one contribute 0.
        let mut values = [0.0; COLUMNS + 4];
        for column in 0..STEP {
            let bit = shift_of(column) as usize;
            (values[bit], values[bit + 1]) = (padded[column], padded[STEP + column]);
        }
        for first in (0..COLUMNS).step_by(bits::<V>()) {
            // SAFETY: guaranteed by the caller.
            unsafe {
                let mut table = V::splat(0.0);
                for bit in 0..bits::<V>() {
                    table = V::mul_add(V::load(parts[bit].as_ptr()), V::splat(values[first + bit]), table);
                }
                V::store(to, table);
                to = to.add(V::LANES);
            }
        }
    }
}

/// Returns `[P, N]` of the `R` vectors of rows that start at `row` of the group, over `steps` steps, for `C` rows of
/// activations.
///
/// # Safety
/// The processor must support the instructions of `V`, and [`PERMUTES`](Simd::PERMUTES) must be true. The rows, the
/// steps and the tables of all steps must exist.
#[inline(always)]
pub(crate) unsafe fn sums<V: Simd, const R: usize, const C: usize>(
    group: Group,
    row: usize,
    steps: usize,
    tables: [*const f32; C],
) -> [[[V::Floats; 2]; C]; R] {
    // SAFETY: guaranteed by the caller.
    unsafe {
        // A product with 1 is exact. On Zen 4 with AVX-512, half of the additions thus have execution units of their own.
        let one = V::splat(core::hint::black_box(1.0));
        let mut sums = [[[V::splat(0.0); 2]; C]; R];
        let mut planes = [[V::splat_word(0); 2]; R];
        let (mut at, mut table) = (group.words.add(row), 0);
        macro_rules! look_up {
            ($index:ident) => {{
                let bit = (bits::<V>() * $index) as u32;
                let mut indices = planes;
                for r in 0..R {
                    for p in 0..2 {
                        indices[r][p] = V::index(planes[r][p], bit);
                    }
                }
                for c in 0..C {
                    for r in 0..R {
                        for p in 0..2 {
                            let term = V::permute(tables[c].add(table + $index * V::LANES), indices[r][p]);
                            sums[r][c][p] = if V::LANES == 16 && p == 1 {
                                V::mul_add(one, term, sums[r][c][p])
                            } else {
                                V::add(sums[r][c][p], term)
                            };
                        }
                    }
                }
            }};
        }
        macro_rules! look_up_all {
            () => {
                unroll!(I in [0 1 2 3 4 5 6 7] { look_up!(I) });
                if const { V::LANES == 8 } {
                    unroll!(I in [8 9 10] { look_up!(I) });
                }
            };
        }
        for _ in 0..steps / 2 {
            for r in 0..R {
                let (first, second) = (at.add(r * V::LANES), at.add(group.rows + r * V::LANES));
                planes[r] = V::planes(V::load_words(first), V::load_words(second));
                V::prefetch(first.wrapping_add(AHEAD));
                V::prefetch(second.wrapping_add(AHEAD));
            }
            look_up_all!();
            at = at.add(2 * group.rows);
            table += COLUMNS.div_ceil(bits::<V>()) * V::LANES;
        }
        if steps % 2 == 1 {
            for r in 0..R {
                planes[r] = V::planes(V::load_words(at.add(r * V::LANES)), V::splat_word(0));
            }
            look_up_all!();
        }
        sums
    }
}
