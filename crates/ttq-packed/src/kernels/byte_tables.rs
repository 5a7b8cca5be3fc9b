//! A matrix-vector product of bytes without products: partial sums, looked up 32 rows at a time.
//!
//! One bit of the codes says whether an activation, a byte, counts for `P` or for `N` (see [`panels`](super::panels)). Four of these
//! bits are the index of a table of 16 sums, as many as a shuffle of bytes reaches. A sum of four bytes has ten bits: a table of its
//! lower and one of its upper five bits, whose entries eight additions cannot carry out of a byte.
//!
//! Two steps are taken together. With every other bit from each of them, a nibble is the columns `4 j + b` and `4 j + 4 + b` (`j` 0 or
//! 2) of both, and the same tables do for `P` and for `N`.

use super::panels::STEP;

/// Words of the tables of a pair of steps: eight nibbles, twice 16 bytes each.
const TABLES: usize = 64;
/// Bits in the lower table.
pub(crate) const LOWER: u32 = 5;

/// Words that the tables of so many columns take.
pub(crate) const fn table_len(columns: usize) -> usize {
    columns.div_ceil(2 * STEP) * TABLES
}

/// Builds the tables of a row of `x`, whose words are four bytes each.
#[inline(always)]
pub(crate) fn build(x: &[u32], tables: &mut [u32]) {
    // A step is a quarter of its columns in words.
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

/// The sums of all subsets: a bit of the index for each value.
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
