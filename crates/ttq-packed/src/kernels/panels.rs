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

use super::KernelError;
use super::memory::Words;

/// Number of rows of a panel.
pub(crate) const PANEL: usize = 16;
/// Number of columns of a step.
pub(crate) const STEP: usize = 16;
/// Number of rows of a full group.
pub(crate) const GROUP: usize = 4 * PANEL;
/// Maximum number of columns: int8 sums of twice that many bytes must fit in an i32.
pub(crate) const MAX_COLUMNS: usize = 1 << 22;

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
    /// Packs the values of `value(row, column)`, which is called once per element in row-major order.
    pub(crate) fn new(
        rows: usize,
        columns: usize,
        mut value: impl FnMut(usize, usize) -> i8,
    ) -> Result<Self, KernelError> {
        KernelError::check_positive("the number of rows", rows)?;
        KernelError::check_positive("the number of columns", columns)?;
        if columns > MAX_COLUMNS {
            let what = "the number of columns";
            return Err(KernelError::Dimension { what, value: columns, expected: "at most 2^22" });
        }
        let mut panels = Self { rows, columns, words: Words::zeros(0) };
        let words = panels.words.reserve(rows.next_multiple_of(PANEL) * columns.div_ceil(STEP));
        words.fill(0);
        for row in 0..rows {
            for first in (0..columns).step_by(STEP) {
                let mut word = 0;
                for column in first..columns.min(first + STEP) {
                    let value = value(row, column);
                    if !(-1..=1).contains(&value) {
                        return Err(KernelError::NotTernary { row, column, value });
                    }
                    // Maps 0, 1, -1 to 0b00, 0b01, 0b10 without an unpredictable branch.
                    word |= ((value & 1) as u32 + u32::from(value < 0)) << shift_of(column);
                }
                words[word_index(rows, columns, row, first)] = word;
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
        let panels = Panels::new(1, 16, |_, column| i8::from(column == 6)).unwrap();
        // Column 6 = 4 · 1 + 2 has the bits 2 and 3 of byte 2.
        assert_eq!(panels.words.as_slice()[0], 0b01 << (8 * 2 + 2));
    }

    #[test]
    fn every_weight_can_be_read_back() {
        let value = |row: usize, column: usize| ((row * 7 + column * 5 + row * column) % 3) as i8 - 1;
        for rows in [1, 15, 16, 17, 64, 65, 100, 130] {
            for columns in [1, 15, 16, 33] {
                let panels = Panels::new(rows, columns, value).unwrap();
                for row in 0..rows {
                    for column in 0..columns {
                        assert_eq!(panels.get(row, column), value(row, column), "{row} {column} of {rows} {columns}");
                    }
                }
            }
        }
    }

    #[test]
    fn values_that_are_not_ternary_are_rejected() {
        let error = Panels::new(2, 3, |row, column| (row * 3 + column) as i8 - 1).unwrap_err();
        assert_eq!(error, KernelError::NotTernary { row: 1, column: 0, value: 2 });
    }
}
