//! Matrix-vector products with lookup tables of partial sums instead of multiplications.
//!
//! Each bit of a word of codes says whether an activation contributes to `P` or to `N` (see [`panels`](super::panels)).
//! Bit `i` contributes `v[i] = w_pos x[k]` if `i` is even and `v[i] = -w_neg x[k]` if it is odd. A register of `2^n`
//! floats holds the sums of all subsets of `n` neighbouring bits. One permutation, indexed by these bits of the words
//! of a vector of rows, looks up the sums of all these rows at once, with `n = 4` on AVX-512 and `n = 3` on AVX2.
//!
//! Rows with a common pair of scales need one table per `n` bits. Otherwise there are two tables, one for `P` and one
//! for `N`.

use super::panels::{Group, STEP, shift_of};
use super::simd::Simd;
use super::tile::{AHEAD, unroll};

/// Maximum number of floats in the tables of a step: 8 tables of 16 floats, or 11 tables of 8.
const TABLES: usize = 128;

/// Returns the number of floats in the tables of `columns` columns.
///
/// `planes` is 1 for a pair of scales shared by all rows, and 2 otherwise.
pub(crate) fn table_len(columns: usize, planes: usize) -> usize {
    columns.div_ceil(STEP) * planes * TABLES
}

/// Returns the number of bits that index a table of one register.
const fn bits<V: Simd>() -> usize {
    V::LANES.ilog2() as usize
}

/// Builds the tables of the activations `x`.
///
/// `values` are the pairs `[value of +1, value of -1]`. Each index has one table per pair.
///
/// # Safety
/// The processor must support the instructions of `V`, [`PERMUTES`](Simd::PERMUTES) must be true, and `tables` must
/// have the length [`table_len`].
#[inline(always)]
pub(crate) unsafe fn build<V: Simd, const PLANES: usize>(x: &[f32], values: [[f32; 2]; PLANES], tables: &mut [f32]) {
    // 1 if the bit is set in the index of the entry, otherwise 0.
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
                // SAFETY: guaranteed by the caller. Bits after the last one contribute 0.
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

/// Returns the sums of the `R` vectors of rows that start at `row` of the group, over `steps` steps, one per plane.
///
/// # Safety
/// The processor must support the instructions of `V`, and [`PERMUTES`](Simd::PERMUTES) must be true. The rows, the
/// steps and the tables of all steps must exist.
#[inline(always)]
pub(crate) unsafe fn sums<V: Simd, const PLANES: usize, const R: usize>(
    group: Group,
    row: usize,
    steps: usize,
    tables: *const f32,
) -> [[V::Floats; PLANES]; R] {
    // SAFETY: guaranteed by the caller.
    unsafe {
        // Two accumulators per row hide the latency of additions.
        let mut sums = [[[V::splat(0.0); 2]; PLANES]; R];
        let mut words = [V::splat_word(0); R];
        let (mut at, mut table) = (group.words.add(row), tables);
        macro_rules! look_up {
            ($index:ident) => {{
                for p in 0..PLANES {
                    for r in 0..R {
                        let bit = (bits::<V>() * $index) as u32;
                        // With two planes and the 16 registers of AVX2, plain shifts are faster (measured).
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
