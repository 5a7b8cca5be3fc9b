//! Text tables with aligned columns.

use std::fmt;

use ttq_pytorch::Escaped;

/// Table with a heading as its first row. The first `left` columns are left-aligned, the others right-aligned.
pub(crate) struct Table {
    left: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(left: usize, heading: [&str; N]) -> Self {
        Self { left, rows: vec![heading.map(str::to_owned).to_vec()] }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| Escaped(&cell).to_string()).to_vec());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cells = |column: usize| self.rows.iter().filter_map(move |row| row.get(column));
        let widths: Vec<usize> =
            (0..columns).map(|column| cells(column).map(|cell| cell.chars().count()).max().unwrap_or(0)).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                line += &if column < self.left { format!("{cell:width$}  ") } else { format!("{cell:>width$}  ") };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Formats a number with five significant digits.
pub(crate) fn significant(value: f32) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let decimals = (4 - value.abs().log10().floor() as i32).clamp(0, 12) as usize;
    format!("{value:.decimals$}")
}

/// Formats a shape: 48×3×3×3, or `scalar` for no dimensions.
pub(crate) fn shape(shape: &[usize]) -> String {
    match shape {
        [] => "scalar".into(),
        dims => dims.iter().map(usize::to_string).collect::<Vec<_>>().join("×"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_spaces() {
        let mut table = Table::new(1, ["name", "n", ""]);
        table.row(["a".into(), "100".into(), String::new()]);
        table.row(["longer".into(), "2".into(), "x".into()]);
        assert_eq!(table.to_string(), "name      n\na       100\nlonger    2  x\n");
    }

    #[test]
    fn control_characters_in_cells_are_escaped() {
        let mut table = Table::new(1, ["name"]);
        table.row(["a\n\u{1b}[31m".into()]);
        assert_eq!(table.to_string(), "name\na\\n\\u{1b}[31m\n");
    }

    #[test]
    fn numbers_have_five_significant_digits() {
        for (value, text) in [(1.0, "1.0000"), (0.0123456, "0.012346"), (123.456, "123.46"), (1e9, "1000000000")] {
            assert_eq!(significant(value), text);
        }
        assert_eq!(shape(&[48, 3, 3, 3]), "48×3×3×3");
    }
}
