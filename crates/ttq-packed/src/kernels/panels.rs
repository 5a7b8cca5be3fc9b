//! The layout of weights in memory: rows in lanes.
//!
//! Rows (outputs) are taken by 16, a *panel*; columns by 16, a *step*. The codes of a panel in a step are 64 bytes, one 32-bit word
//! for each row, so that a vector register holds the same columns of many rows and a sum never leaves its lane. In a word, the
//! column `4 j + b` of the step has bits `8 b + 2 j` and `8 b + 2 j + 1`: shifted right by `2 j` and masked, the four bytes are the
//! four consecutive columns that a byte dot product takes.
//!
//! The two bits are the two indicator planes, `0b01` for +1 and `0b10` for -1. (Files have another code: see
//! [`codes`](crate::codes).) Rows and columns that only fill up have `0b00`, which adds nothing whatever the activations are.
//!
//! Up to four panels make a *group*. A step of a group is contiguous, so that a matrix-vector product reads one stream.

use super::KernelError;
use super::memory::Words;

/// Rows of a panel.
pub(crate) const PANEL: usize = 16;
/// Columns of a step.
pub(crate) const STEP: usize = 16;
/// Rows of a full group.
pub(crate) const GROUP: usize = 4 * PANEL;
/// Most columns: int8 sums of twice that many bytes must fit an i32.
pub(crate) const MAX_COLUMNS: usize = 1 << 22;

/// The place of a column's two bits in a word.
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

/// Up to 64 rows.
#[derive(Clone, Copy)]
pub(crate) struct Group {
    /// The first word.
    pub(crate) words: *const u32,
    /// The first row.
    pub(crate) first: usize,
    /// Rows, a multiple of 16, which is also the words from one step to the next.
    pub(crate) rows: usize,
}

// SAFETY: a group is a shared borrow of codes that nobody changes; it is used while the panels are borrowed.
unsafe impl Send for Group {}
// SAFETY: as above.
unsafe impl Sync for Group {}

impl Panels {
    /// Packs `value(row, column)`, each asked for once, in row-major order.
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
                    // 0, 1, -1 to 0b00, 0b01, 0b10, without a branch that nobody can predict.
                    word |= ((value & 1) as u32 + u32::from(value < 0)) << shift_of(column);
                }
                words[place(rows, columns, row, first)] = word;
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

    /// Rows with those that fill up the last panel.
    pub(crate) fn padded_rows(&self) -> usize {
        self.rows.next_multiple_of(PANEL)
    }

    pub(crate) fn bytes(&self) -> usize {
        4 * self.padded_rows() * self.columns.div_ceil(STEP)
    }

    /// A weight.
    pub(crate) fn get(&self, row: usize, column: usize) -> i8 {
        let word = self.words.as_slice()[place(self.rows, self.columns, row, column)];
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
        // SAFETY: every group before this one is full.
        let words = unsafe { self.words.as_ptr().add(first * self.columns.div_ceil(STEP)) };
        Group { words, first, rows }
    }
}

/// The word of a weight.
fn place(rows: usize, columns: usize, row: usize, column: usize) -> usize {
    let first = row / GROUP * GROUP;
    let width = GROUP.min(rows.next_multiple_of(PANEL) - first);
    first * columns.div_ceil(STEP) + column / STEP * width + row - first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_of_a_step_has_the_documented_bits() {
        let panels = Panels::new(1, 16, |_, column| i8::from(column == 6)).unwrap();
        // Column 6 = 4 · 1 + 2: byte 2, bits 2 and 3.
        assert_eq!(panels.words.as_slice()[0], 0b01 << (8 * 2 + 2));
    }

    #[test]
    fn every_weight_comes_back() {
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
    fn what_is_not_ternary_is_refused() {
        let error = Panels::new(2, 3, |row, column| (row * 3 + column) as i8 - 1).unwrap_err();
        assert_eq!(error, KernelError::NotTernary { row: 1, column: 0, value: 2 });
    }
}
