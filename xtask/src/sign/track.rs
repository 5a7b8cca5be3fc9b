//! W_p and W_n of every step of a run with one ternary layer.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// The heads of the table whose rows are [`Track::row`].
pub(super) const HEADINGS: &str = "\
| layer | start | sign | W_p, W_n at the start | at the end | largest change of W_p² + W_n² | of W_p² − W_n² | largest |W_p − W_n| |
|---|---|---|---:|---:|---:|---:|---:|
";

/// Every this many steps a point is drawn.
const EVERY: usize = 5;

/// The scales `[W_p, W_n]` of every step.
pub(super) struct Track(Vec<[f64; 2]>);

/// What exact gradients keep constant behind batch normalization.
pub(super) fn sum_of_squares([w_pos, w_neg]: [f64; 2]) -> f64 {
    w_pos * w_pos + w_neg * w_neg
}

/// What published gradients keep constant behind batch normalization.
pub(super) fn difference_of_squares([w_pos, w_neg]: [f64; 2]) -> f64 {
    w_pos * w_pos - w_neg * w_neg
}

impl Track {
    /// Reads burn-train's logs of the first epoch: a line `value,count` for every step.
    ///
    /// # Errors
    /// Logs that are missing, hold something else, or differ in length.
    pub(super) fn read(directory: &Path) -> Result<Self> {
        let logs = directory.join("ternary/train/epoch-1");
        let values = |name: &str| -> Result<Vec<f64>> {
            let path = logs.join(name);
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let value = |line: &str| line.split(',').next().and_then(|value| value.parse().ok());
            let values: Option<Vec<f64>> = text.lines().map(value).collect();
            values.with_context(|| format!("{} holds a line that is no number", path.display()))
        };
        let (w_pos, w_neg) = (values("W_p.log")?, values("W_n.log")?);
        if w_pos.is_empty() || w_pos.len() != w_neg.len() {
            bail!("{} holds {} values of W_p and {} of W_n", logs.display(), w_pos.len(), w_neg.len());
        }
        Ok(Self(w_pos.into_iter().zip(w_neg).map(|(w_pos, w_neg)| [w_pos, w_neg]).collect()))
    }

    /// A value over the steps.
    pub(super) fn line(&self, value: impl Fn([f64; 2]) -> f64) -> Vec<(f64, f64)> {
        let steps = self.0.iter().enumerate().step_by(EVERY);
        steps.map(|(step, scales)| (step as f64, value(*scales))).collect()
    }

    /// A value over the steps, 1 at the start.
    pub(super) fn relative(&self, value: impl Fn([f64; 2]) -> f64) -> Vec<(f64, f64)> {
        let start = value(self.0[0]);
        self.line(|scales| value(scales) / start)
    }

    /// A row of the table; changes are relative to `W_p² + W_n²` at the start.
    pub(super) fn row(&self, name: &str) -> String {
        let (start, end) = (self.0[0], self.0[self.0.len() - 1]);
        let largest = |value: &dyn Fn([f64; 2]) -> f64| self.0.iter().map(|s| value(*s).abs()).fold(0.0, f64::max);
        let change = |value: fn([f64; 2]) -> f64| {
            100.0 * largest(&|scales| value(scales) - value(start)) / sum_of_squares(start)
        };
        format!(
            "| {name} | {:.4}, {:.4} | {:.4}, {:.4} | {:.2} % | {:.2} % | {:.1e} |\n",
            start[0],
            start[1],
            end[0],
            end[1],
            change(sum_of_squares),
            change(difference_of_squares),
            largest(&|[w_pos, w_neg]| w_pos - w_neg)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A circle around the origin, as exact gradients draw it.
    fn circle() -> Track {
        Track((0..50).map(|step| (0.7 + 0.01 * f64::from(step)).sin_cos()).map(|(sin, cos)| [sin, cos]).collect())
    }

    #[test]
    fn a_circle_keeps_the_sum_of_squares_and_not_the_difference() {
        assert!(circle().relative(sum_of_squares).iter().all(|(_, value)| (value - 1.0).abs() < 1e-12));
        assert!(circle().row("x").contains("| 0.00 % |"));
        let difference = circle().line(difference_of_squares);
        assert!((difference[0].1 - difference.last().unwrap().1).abs() > 0.1);
    }

    #[test]
    fn logs_are_read_step_by_step_and_damage_is_named() {
        let directory = std::env::temp_dir().join(format!("xtask-track-{}", std::process::id()));
        let logs = directory.join("ternary/train/epoch-1");
        fs::create_dir_all(&logs).unwrap();
        fs::write(logs.join("W_p.log"), "1.0,1\n1.5,1\n").unwrap();
        fs::write(logs.join("W_n.log"), "1.0,1\n0.5,1\n").unwrap();
        let track = Track::read(&directory).unwrap();
        fs::write(logs.join("W_n.log"), "1.0,1\n").unwrap();
        let damaged = Track::read(&directory);
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(track.0, [[1.0, 1.0], [1.5, 0.5]]);
        assert!(damaged.is_err());
    }
}
