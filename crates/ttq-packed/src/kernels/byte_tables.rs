//! Matrix-vector products of bytes with lookup tables of partial sums instead of multiplications, for 32 rows at a
//! time.
//!
//! Each bit of a code says whether an activation (a byte) contributes to `P` or to `N` (see [`panels`](super::panels)).
//! Four such bits index a table of 16 sums, the size of a byte shuffle. A sum of four bytes has ten bits, so one table
//! holds the lower five bits and another one the upper five bits. Eight additions of such entries do not overflow a
//! byte.
//!
//! Two steps are processed together. With every second bit of each step, a nibble covers the columns `4 j + b` and
//! `4 j + 4 + b` (`j` is 0 or 2) of both steps, and the same tables serve `P` and `N`.

use super::panels::STEP;

/// Number of words in the tables of a pair of steps: eight nibbles with two tables of 16 bytes each.
const TABLES: usize = 64;
/// Number of bits in the lower table.
pub(crate) const LOWER: u32 = 5;

/// Returns the number of words in the tables of `columns` columns.
pub(crate) const fn table_len(columns: usize) -> usize {
    columns.div_ceil(2 * STEP) * TABLES
}

/// Builds the tables of a row of activations `x`, in words of four bytes.
#[inline(always)]
pub(crate) fn build(x: &[u32], tables: &mut [u32]) {
    // A step of 16 columns takes four words.
    for (x, tables) in x.chunks(STEP / 2).zip(tables.chunks_exact_mut(TABLES)) {
        let mut padded = [0; STEP / 2];
        padded[..x.len()].copy_from_slice(x);
        let (first, second) = padded.split_at(STEP / 4);
        let mut tables = tables.chunks_exact_mut(8);
        for byte in 0..4 {
            for j in [0, 2] {
                let value = |word: u32| u16::from(word.to_le_bytes()[byte]);
                let values = [value(first[j]), value(second[j]), value(first[j + 1]), value(second[j + 1])];
                let Some(to) = tables.next() else { return };
                write(sums(values), to);
            }
        }
    }
}

/// Returns the sums of all subsets. Bit `i` of the index selects `values[i]`.
#[inline(always)]
fn sums(values: [u16; 4]) -> [u16; 16] {
    const PARTS: [[u16; 16]; 4] = {
        let mut parts = [[0; 16]; 4];
        let mut i = 0;
        while i < 64 {
            parts[i / 16][i % 16] = if (i % 16) >> (i / 16) & 1 == 1 { u16::MAX } else { 0 };
            i += 1;
        }
        parts
    };
    let mut sums = [0; 16];
    for (value, part) in values.into_iter().zip(PARTS) {
        for entry in 0..16 {
            sums[entry] += value & part[entry];
        }
    }
    sums
}

/// Writes the lower and the upper bits of sums as two tables.
#[inline(always)]
fn write(sums: [u16; 16], to: &mut [u32]) {
    let mut bytes = [0; 32];
    for entry in 0..16 {
        bytes[entry] = (sums[entry] & ((1 << LOWER) - 1)) as u8;
        bytes[16 + entry] = (sums[entry] >> LOWER) as u8;
    }
    for (to, bytes) in to.iter_mut().zip(bytes.as_chunks().0) {
        *to = u32::from_le_bytes(*bytes);
    }
}
