//! W_p and W_n of every step of a run with one ternary layer.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// The heads of the table whose rows are [`Track::row`].
pub(super) const HEADINGS: &str = "\
| layer | start | sign | W_p, W_n at the start | at the end | largest change of W_p² + W_n² | of W_p² − W_n² \
| largest distance of W_p and W_n | test accuracy |
|---|---|---|---:|---:|---:|---:|---:|---:|
";

/// Every this many steps a point is drawn.
const EVERY: usize = 2;

/// One run.
pub(super) struct Track {
    /// The scales `[W_p, W_n]` of every step.
    scales: Vec<[f64; 2]>,
    /// Test accuracy at the end, percent.
    accuracy: f64,
}

/// What exact gradients keep constant behind batch normalization.
pub(super) fn sum_of_squares([w_pos, w_neg]: [f64; 2]) -> f64 {
    w_pos * w_pos + w_neg * w_neg
}

/// What published gradients keep constant behind batch normalization.
pub(super) fn difference_of_squares([w_pos, w_neg]: [f64; 2]) -> f64 {
    w_pos * w_pos - w_neg * w_neg
}

impl Track {
    /// Reads burn-train's logs of the first epoch, a line `value,count` for every step, and the run's summary.
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
        let path = directory.join("summary.json");
        let accuracy = crate::reproduce::read(&path)?["ternary_accuracy"].as_f64();
        Ok(Self {
            scales: w_pos.into_iter().zip(w_neg).map(|(w_pos, w_neg)| [w_pos, w_neg]).collect(),
            accuracy: accuracy.with_context(|| format!("{} lacks ternary_accuracy", path.display()))?,
        })
    }

    /// A value over the steps.
    pub(super) fn line(&self, value: impl Fn([f64; 2]) -> f64) -> Vec<(f64, f64)> {
        let steps = self.scales.iter().enumerate().step_by(EVERY);
        steps.map(|(step, scales)| (step as f64, value(*scales))).collect()
    }

    /// A value over the steps, 1 at the start.
    pub(super) fn relative(&self, value: impl Fn([f64; 2]) -> f64) -> Vec<(f64, f64)> {
        let start = value(self.scales[0]);
        self.line(|scales| value(scales) / start)
    }

    /// A row of the table; changes are relative to `W_p² + W_n²` at the start.
    pub(super) fn row(&self, name: &str) -> String {
        let (start, end) = (self.scales[0], self.scales[self.scales.len() - 1]);
        let largest = |value: &dyn Fn([f64; 2]) -> f64| self.scales.iter().map(|s| value(*s).abs()).fold(0.0, f64::max);
        let change = |value: fn([f64; 2]) -> f64| {
            100.0 * largest(&|scales| value(scales) - value(start)) / sum_of_squares(start)
        };
        let [start_pos, start_neg, end_pos, end_neg] = [start[0], start[1], end[0], end[1]].map(short);
        format!(
            "| {name} | {start_pos}, {start_neg} | {end_pos}, {end_neg} | {} | {} | {} | {:.2} % |\n",
            percent(change(sum_of_squares)),
            percent(change(difference_of_squares)),
            short(largest(&|[w_pos, w_neg]| w_pos - w_neg)),
            self.accuracy
        )
    }
}

/// Two decimals, or one digit and an exponent where these say nothing.
fn percent(value: f64) -> String {
    if value == 0.0 || (0.01..1e4).contains(&value) { format!("{value:.2} %") } else { format!("{value:.0e} %") }
}

/// Four decimals, or two digits and an exponent where these say nothing.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if (1e-3..1e3).contains(&size) => format!("{value:.4}"),
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A circle around the origin, as exact gradients draw it.
    fn circle() -> Track {
        let angles = (0..50).map(|step| 0.7 + 0.01 * f64::from(step));
        Track { scales: angles.map(|angle| angle.sin_cos().into()).collect(), accuracy: 99.0 }
    }

    #[test]
    fn a_circle_keeps_the_sum_of_squares_and_not_the_difference() {
        assert!(circle().relative(sum_of_squares).iter().all(|(_, value)| (value - 1.0).abs() < 1e-12));
        let row = circle().row("x");
        let changes: Vec<f64> =
            row.split('|').filter_map(|cell| cell.trim().strip_suffix(" %")?.parse().ok()).collect();
        assert!(changes[0] < 1e-10 && changes[1] > 10.0 && changes[2] == 99.0, "{row}");
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
        fs::write(directory.join("summary.json"), "{\"ternary_accuracy\":98.5}").unwrap();
        let track = Track::read(&directory).unwrap();
        fs::write(logs.join("W_n.log"), "1.0,1\n").unwrap();
        let damaged = Track::read(&directory);
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!((track.scales, track.accuracy), (vec![[1.0, 1.0], [1.5, 0.5]], 98.5));
        assert!(damaged.is_err());
    }
}
