//! A matrix-vector product without products: sums of pairs, looked up.
//!
//! A pair of activations and two ternary weights have nine possible sums. A table of 16 floats, indexed by the four bits of the two
//! codes, lies in one register of AVX-512, and one permutation fetches the sums of 16 rows. In a word of codes the pairs of columns
//! that share four bits are `b + 8 h` and `b + 8 h + 4`, at bit `8 b + 4 h`.
//!
//! Rows that share a pair of scales need one table of `w_pos` and `-w_neg` times activations; others two, the sums at +1 and at -1.

use super::panels::{Group, STEP};
use super::simd::Simd;
use super::tile::unroll;

/// Floats of a table.
const ENTRIES: usize = 16;
/// Tables of a step.
const PAIRS: usize = STEP / 2;

/// Words that the tables of so many columns take; `planes` is 1 for a shared pair of scales, 2 otherwise.
pub(crate) fn table_len(columns: usize, planes: usize) -> usize {
    columns.div_ceil(STEP) * PAIRS * planes * ENTRIES
}

/// Builds the tables of `x`: for each pair, one for each `[value of +1, value of -1]`.
#[inline(always)]
pub(crate) unsafe fn build<V: Simd, const PLANES: usize>(x: &[f32], values: [[f32; 2]; PLANES], tables: &mut [f32]) {
    let mut first = [[0.0; ENTRIES]; PLANES];
    let mut second = [[0.0; ENTRIES]; PLANES];
    for plane in 0..PLANES {
        let value = [0.0, values[plane][0], values[plane][1], 0.0];
        for entry in 0..ENTRIES {
            first[plane][entry] = value[entry & 3];
            second[plane][entry] = value[entry >> 2];
        }
    }
    let mut to = tables.chunks_exact_mut(ENTRIES);
    for step in x.chunks(STEP) {
        let mut padded = [0.0; STEP];
        padded[..step.len()].copy_from_slice(step);
        for pair in 0..PAIRS {
            let (b, h) = (pair / 2, pair % 2);
            for plane in 0..PLANES {
                let Some(table) = to.next() else { return };
                // SAFETY: the caller vouches for the instructions; tables have 16 entries.
                unsafe {
                    let (a, c) = (V::splat(padded[b + 8 * h]), V::splat(padded[b + 8 * h + 4]));
                    for lane in (0..ENTRIES).step_by(V::LANES) {
                        let late = V::mul(V::load(second[plane].as_ptr().add(lane)), c);
                        let sum = V::mul_add(V::load(first[plane].as_ptr().add(lane)), a, late);
                        V::store(table.as_mut_ptr().add(lane), sum);
                    }
                }
            }
        }
    }
}

/// Sums of `R` vectors of rows, starting with `row` of the group, over `steps` steps: one for each plane of the tables.
///
/// # Safety
/// The instructions of `V`, which permutes; the rows and steps exist, and so do the tables of all steps.
#[inline(always)]
pub(crate) unsafe fn sums<V: Simd, const PLANES: usize, const R: usize>(
    group: Group,
    row: usize,
    steps: usize,
    tables: *const f32,
) -> [[V::Floats; PLANES]; R] {
    // SAFETY: the caller's vows.
    unsafe {
        // Two accumulators a row: an addition takes longer than the next one waits.
        let mut sums = [[[V::splat(0.0); 2]; PLANES]; R];
        let mut words = [V::splat_word(0); R];
        let (mut at, mut table) = (group.words.add(row), tables);
        for _ in 0..steps {
            for r in 0..R {
                words[r] = V::load_words(at.add(r * V::LANES));
            }
            unroll!(PAIR in [0 1 2 3 4 5 6 7] {
                for p in 0..PLANES {
                    for r in 0..R {
                        let term = V::permute(table, V::shift(words[r], 4 * PAIR as u32));
                        sums[r][p][PAIR % 2] = V::add(sums[r][p][PAIR % 2], term);
                    }
                    table = table.add(ENTRIES);
                }
            });
            at = at.add(group.rows);
        }
        let mut result = [[V::splat(0.0); PLANES]; R];
        for r in 0..R {
            for p in 0..PLANES {
                result[r][p] = V::add(sums[r][p][0], sums[r][p][1]);
            }
        }
        result
    }
}
