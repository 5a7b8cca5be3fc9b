//! A matrix-vector product without products: partial sums, looked up.
//!
//! A bit of a word of codes says whether an activation counts for `P` or for `N` (see [`panels`](super::panels)); bit `i` is worth
//! `v[i] = w_pos x[k]` if `i` is even and `-w_neg x[k]` if it is odd. A register of 2^n floats holds the sums of all subsets of
//! `n` neighbouring bits, and one permutation, indexed by these bits of the words of a vector of rows, fetches the sums of all these
//! rows at once: 4 bits with AVX-512, 3 with AVX2.
//!
//! Rows that share a pair of scales need one such table for each few bits; others two, for `P` and for `N`.

use super::panels::{Group, STEP, shift_of};
use super::simd::Simd;
use super::tile::{AHEAD, unroll};

/// Most floats of the tables of a step: eight times 16, or eleven times 8.
const TABLES: usize = 128;

/// Words that the tables of so many columns take; `planes` is 1 for a shared pair of scales, 2 otherwise.
pub(crate) fn table_len(columns: usize, planes: usize) -> usize {
    columns.div_ceil(STEP) * planes * TABLES
}

/// Bits that index a table: it is one register.
const fn bits<V: Simd>() -> usize {
    V::LANES.ilog2() as usize
}

/// Builds the tables of `x`: for each few bits, one for each `[value of +1, value of -1]`.
///
/// # Safety
/// The instructions of `V`, which permutes; `tables` are as long as [`table_len`] says.
#[inline(always)]
pub(crate) unsafe fn build<V: Simd, const PLANES: usize>(x: &[f32], values: [[f32; 2]; PLANES], tables: &mut [f32]) {
    // Is the bit a part of the entry's index?
    let mut parts = [[0.0; 16]; 4];
    for (bit, part) in parts.iter_mut().enumerate() {
        for (entry, part) in part.iter_mut().enumerate() {
            *part = (entry >> bit & 1) as f32;
        }
    }
    let mut to = tables.as_mut_ptr();
    for step in x.chunks(STEP) {
        let mut padded = [0.0; STEP];
        padded[..step.len()].copy_from_slice(step);
        let mut bit_values = [[0.0; 36]; PLANES];
        for (bit_values, [pos, neg]) in bit_values.iter_mut().zip(values) {
            for column in 0..STEP {
                bit_values[shift_of(column) as usize] = pos * padded[column];
                bit_values[shift_of(column) as usize + 1] = neg * padded[column];
            }
        }
        for first in (0..32).step_by(bits::<V>()) {
            for bit_values in &bit_values {
                // SAFETY: the caller's vows; bits behind the last one are worth nothing.
                unsafe {
                    let mut table = V::splat(0.0);
                    for bit in 0..bits::<V>() {
                        table = V::mul_add(V::load(parts[bit].as_ptr()), V::splat(bit_values[first + bit]), table);
                    }
                    V::store(to, table);
                    to = to.add(V::LANES);
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
        macro_rules! look_up {
            ($index:ident) => {{
                for p in 0..PLANES {
                    for r in 0..R {
                        let bit = (bits::<V>() * $index) as u32;
                        // (Measured: with two planes and AVX2's 16 registers plain shifts are quicker.)
                        let index = if PLANES == 1 || V::LANES == 16 {
                            V::index(words[r], bit)
                        } else {
                            V::shift(words[r], bit)
                        };
                        let term = V::permute(table, index);
                        sums[r][p][$index % 2] = V::add(sums[r][p][$index % 2], term);
                    }
                    table = table.add(V::LANES);
                }
            }};
        }
        for _ in 0..steps {
            for r in 0..R {
                words[r] = V::load_words(at.add(r * V::LANES));
                V::prefetch(at.wrapping_add(r * V::LANES + AHEAD));
            }
            unroll!(I in [0 1 2 3 4 5 6 7] { look_up!(I) });
            if const { V::LANES == 8 } {
                unroll!(I in [8 9 10] { look_up!(I) });
            }
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
