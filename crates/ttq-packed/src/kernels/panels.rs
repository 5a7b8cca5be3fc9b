//! The memory layout of packed weights, with rows in vector lanes.
//!
//! A *panel* is 16 rows (outputs), and a *step* is 16 columns. The codes of a panel and a step take 64 bytes, one
//! 32-bit word per row. A vector register thus holds the same columns of several rows, and each sum stays in its lane.
//! In a word, the column `4 j + b` of the step has the bits `8 b + 2 j` and `8 b + 2 j + 1`: after a right shift by
//! `2 j` and a mask, the four bytes of the word are four consecutive columns, as a byte dot product needs them.
//!
//! The two bits of a code form the two indicator planes: `0b01` is +1 and `0b10` is -1. (Files use other codes, see
//! [`codes`](crate::codes).) Padding rows and columns have the code `0b00`, which adds nothing for any activation.
//!
//! A *group* is up to four panels. A step of a group is contiguous in memory, so a matrix-vector product reads one
//! stream.

use alloc::vec;
use alloc::vec::Vec;

use super::KernelError;
use super::memory::Words;
use crate::Codes;
use crate::codes::VALUES_PER_BYTE;

/// Number of rows of a panel.
pub(crate) const PANEL: usize = 16;
/// Number of columns of a step.
pub(crate) const STEP: usize = 16;
/// Number of rows of a full group.
pub(crate) const GROUP: usize = 4 * PANEL;
/// Maximum number of columns: int8 sums of twice that many bytes must fit in an i32.
pub(crate) const MAX_COLUMNS: usize = 1 << 22;

/// The bits of the codes +1.
const EVEN: u32 = 0x5555_5555;

/// Returns the position of the two bits of a column in its word.
pub(crate) const fn shift_of(column: usize) -> u32 {
    (8 * (column % 4) + 2 * (column % STEP / 4)) as u32
}

/// A ternary matrix in the [layout](self).
#[derive(Debug, Clone)]
pub(crate) struct Panels {
    rows: usize,
    columns: usize,
    words: Words,
}

/// A group of up to 64 rows.
#[derive(Clone, Copy)]
pub(crate) struct Group {
    /// Pointer to the first word.
    pub(crate) words: *const u32,
    /// Index of the first row.
    pub(crate) first: usize,
    /// Number of rows, a multiple of 16. It is also the number of words of a step.
    pub(crate) rows: usize,
}

// SAFETY: a group only reads the codes of `Panels`, and it is used only while the panels are borrowed.
unsafe impl Send for Group {}
// SAFETY: as for `Send`.
unsafe impl Sync for Group {}

impl Panels {
    /// Packs the matrix whose element `[row, column]` is the value number `first + row · stride + offset(column)` of the
    /// codes, or zero if the column has no offset.
    pub(crate) fn new(
        [rows, columns]: [usize; 2],
        codes: &Codes,
        [first, stride]: [usize; 2],
        offset: impl Fn(usize) -> Option<usize>,
    ) -> Result<Self, KernelError> {
        KernelError::check_positive("the number of rows", rows)?;
        KernelError::check_positive("the number of columns", columns)?;
        if columns > MAX_COLUMNS {
            let what = "the number of columns";
            return Err(KernelError::Dimension { what, value: columns, expected: "at most 2^22" });
        }
        let mut panels = Self { rows, columns, words: Words::zeros(0) };
        let mut words: &mut [u32] = panels.words.reserve(rows.next_multiple_of(PANEL) * columns.div_ceil(STEP));
        words.fill(0);
        // In the order of the words, in blocks of a panel and a step. The bytes of the codes of a step of a group fit in
        // the L1 cache.
        for group in (0..rows).step_by(GROUP) {
            let count = GROUP.min(rows - group);
            for step in (0..columns).step_by(STEP) {
                let (mut offsets, mut used) = ([0; STEP], 0);
                for column in step..columns.min(step + STEP) {
                    if let Some(offset) = offset(column) {
                        offsets[column - step] = offset;
                        used |= 0b11 << shift_of(column);
                    }
                }
                let (to, rest) = words.split_at_mut(count.next_multiple_of(PANEL));
                for (panel, to) in to[..count].chunks_mut(PANEL).enumerate() {
                    let block = block(codes.as_bytes(), first + (group + panel * PANEL) * stride, stride, offsets);
                    to.iter_mut().zip(block).for_each(|(to, word)| *to = of_codes(word) & used);
                }
                words = rest;
            }
        }
        Ok(panels)
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Returns the number of rows, including the padding of the last panel.
    pub(crate) fn padded_rows(&self) -> usize {
        self.rows.next_multiple_of(PANEL)
    }

    pub(crate) fn bytes(&self) -> usize {
        4 * self.padded_rows() * self.columns.div_ceil(STEP)
    }

    /// Returns the numbers of codes +1 and -1 in each row, including padding rows.
    pub(crate) fn counts(&self) -> Vec<[u32; 2]> {
        let mut counts = vec![[0; 2]; self.padded_rows()];
        for group in 0..self.groups() {
            let Group { first, rows, .. } = self.group(group);
            let steps = self.columns.div_ceil(STEP);
            for step in self.words.as_slice()[first * steps..][..rows * steps].chunks_exact(rows) {
                for ([pos, neg], word) in counts[first..].iter_mut().zip(step) {
                    *pos += (word & EVEN).count_ones();
                    *neg += (word & !EVEN).count_ones();
                }
            }
        }
        counts
    }

    /// Returns the ternary value at a row and column.
    pub(crate) fn get(&self, row: usize, column: usize) -> i8 {
        let word = self.words.as_slice()[word_index(self.rows, self.columns, row, column)];
        match word >> shift_of(column) & 0b11 {
            0b01 => 1,
            0b10 => -1,
            _ => 0,
        }
    }

    pub(crate) fn groups(&self) -> usize {
        self.rows.div_ceil(GROUP)
    }

    pub(crate) fn group(&self, index: usize) -> Group {
        let first = index * GROUP;
        let rows = GROUP.min(self.padded_rows() - first);
        // SAFETY: all previous groups are full, so the offset is within the words.
        let words = unsafe { self.words.as_ptr().add(first * self.columns.div_ceil(STEP)) };
        Group { words, first, rows }
    }
}

/// Returns the codes of 16 rows with a common distance: column `i` of a row, at bits `2 i` and `2 i + 1` of its word, is
/// the code number `first + row · stride + offsets[i]`. Codes after the last one are arbitrary.
#[inline(always)]
fn block(codes: &[u8], first: usize, stride: usize, offsets: [usize; STEP]) -> [u32; PANEL] {
    if stride == 1 {
        let mut block = offsets.map(|offset| run(codes, first + offset));
        transpose(&mut block);
        return block;
    }
    let mut rows = [0; PANEL];
    let consecutive = offsets.windows(2).all(|pair| pair[1] == pair[0] + 1);
    for (row, word) in rows.iter_mut().enumerate() {
        let first = first + row * stride;
        if consecutive {
            *word = run(codes, first + offsets[0]);
            continue;
        }
        for (column, offset) in offsets.into_iter().enumerate() {
            let index = first + offset;
            let byte = codes.get(index / VALUES_PER_BYTE).copied().unwrap_or(0);
            *word |= u32::from(byte >> (2 * (index % VALUES_PER_BYTE)) & 0b11) << (2 * column);
        }
    }
    rows
}

/// Returns 16 successive codes.
#[inline(always)]
fn run(codes: &[u8], first: usize) -> u32 {
    let bytes = codes.get(first / VALUES_PER_BYTE..).unwrap_or_default();
    let bytes = bytes.first_chunk().copied().unwrap_or_else(|| {
        let mut padded = [0; 8];
        padded[..bytes.len()].copy_from_slice(bytes);
        padded
    });
    (u64::from_le_bytes(bytes) >> (2 * (first % VALUES_PER_BYTE))) as u32
}

/// Transposes a matrix of 16 × 16 codes: exchanges quarters of it, then quarters of these, down to single codes.
#[inline(always)]
fn transpose(block: &mut [u32; PANEL]) {
    let (mut width, mut mask) = (PANEL / 2, 0x0000_ffff);
    while width > 0 {
        for low in (0..PANEL).filter(|row| row & width == 0) {
            let (low, high) = (low, low + width);
            let differing = (block[low] >> (2 * width) ^ block[high]) & mask;
            block[high] ^= differing;
            block[low] ^= differing << (2 * width);
        }
        width /= 2;
        mask ^= mask << (2 * width);
    }
}

/// Converts a word of 16 successive codes of a [file](crate::codes) to a word of a panel.
#[inline(always)]
fn of_codes(word: u32) -> u32 {
    // The bytes of a word are columns of a matrix of 4 × 4 codes whose rows are the bytes of the result.
    let exchange = |word: u32, distance: u32, mask: u32| {
        let differing = (word >> distance ^ word) & mask;
        word ^ differing ^ differing << distance
    };
    let word = exchange(exchange(word, 12, 0x0000_f0f0), 6, 0x00cc_00cc);
    // 0b10 is +1 and 0b00 is -1.
    let pos = word >> 1 & EVEN;
    pos | !(pos | word) << 1 & !EVEN
}

/// Returns the index of the word that contains a weight.
fn word_index(rows: usize, columns: usize, row: usize, column: usize) -> usize {
    let first = row / GROUP * GROUP;
    let width = GROUP.min(rows.next_multiple_of(PANEL) - first);
    first * columns.div_ceil(STEP) + column / STEP * width + row - first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_of_a_column_match_the_documentation() {
        let values: Vec<i8> = (0..16).map(|column| i8::from(column == 6)).collect();
        let panels = Panels::new([1, 16], &Codes::pack(&values).unwrap(), [0, 16], Some).unwrap();
        // Column 6 = 4 · 1 + 2 has the bits 2 and 3 of byte 2.
        assert_eq!(panels.words.as_slice()[0], 0b01 << (8 * 2 + 2));
    }

    #[test]
    fn every_weight_can_be_read_back() {
        let values: Vec<i8> = (0..130 * 33).map(|i: usize| (i * i % 7 % 3) as i8 - 1).collect();
        let codes = Codes::pack(&values).unwrap();
        for rows in [1, 15, 16, 17, 64, 65, 100, 130] {
            for columns in [1, 15, 16, 33] {
                for [down, right, absent] in [[columns, 1, 33], [columns, 1, 4], [1, rows, 33], [1, rows, 4]] {
                    let offset = |column: usize| (column % 34 != absent).then_some(column * right);
                    let panels = Panels::new([rows, columns], &codes, [0, down], offset).unwrap();
                    let counts = panels.counts();
                    for row in 0..rows {
                        let expected = |column| offset(column).map_or(0, |offset| values[row * down + offset]);
                        for column in 0..columns {
                            assert_eq!(panels.get(row, column), expected(column), "{row} {column} of {rows} {columns}");
                        }
                        let count = |sign| (0..columns).filter(|column| expected(*column) == sign).count() as u32;
                        assert_eq!(counts[row], [count(1), count(-1)]);
                    }
                }
            }
        }
    }
}
