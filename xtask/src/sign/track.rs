//! W_p and W_n at every step of a run with one ternary layer.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Headings of the table whose rows are [`Track::row`].
pub(super) const HEADINGS: &str = "\
| layer | start | sign | W_p, W_n at the start | at the end | largest change of W_p² + W_n² | of W_p² − W_n² \
| largest distance of W_p and W_n | test accuracy |
|---|---|---|---:|---:|---:|---:|---:|---:|
";

/// Steps between two points of a chart.
const STEPS_PER_POINT: usize = 2;

/// Scales and accuracy of one run.
pub(super) struct Track {
    /// The scales `[W_p, W_n]` at every step.
    scales: Vec<[f64; 2]>,
    /// Test accuracy at the end of the run, in percent.
    accuracy: f64,
}

/// `W_p² + W_n²`, which is constant with exact gradients if batch normalization follows.
pub(super) fn sum_of_squares([w_pos, w_neg]: [f64; 2]) -> f64 {
    w_pos * w_pos + w_neg * w_neg
}

/// `W_p² - W_n²`, which is constant with published gradients if batch normalization follows.
pub(super) fn difference_of_squares([w_pos, w_neg]: [f64; 2]) -> f64 {
    w_pos * w_pos - w_neg * w_neg
}

impl Track {
    /// Reads burn-train's logs of the first epoch, with a line `value,count` for every step, and the summary of the
    /// run.
    ///
    /// # Errors
    /// Returns an error if a log is missing, is not valid, or if the logs differ in length.
    pub(super) fn read(directory: &Path) -> Result<Self> {
        let logs = directory.join("ternary/train/epoch-1");
        let values = |name: &str| -> Result<Vec<f64>> {
            let path = logs.join(name);
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let value = |line: &str| line.split(',').next().and_then(|value| value.parse().ok());
            let values: Option<Vec<f64>> = text.lines().map(value).collect();
            values.with_context(|| format!("{} has a line that does not start with a number", path.display()))
        };
        let (w_pos, w_neg) = (values("W_p.log")?, values("W_n.log")?);
        if w_pos.is_empty() || w_pos.len() != w_neg.len() {
            bail!(
                "the logs in {} have {} values of W_p and {} of W_n: repeat the run",
                logs.display(),
                w_pos.len(),
                w_neg.len()
            );
        }
        let path = directory.join("summary.json");
        let accuracy = crate::reproduce::read(&path)?["ternary_accuracy"].as_f64();
        Ok(Self {
            scales: w_pos.into_iter().zip(w_neg).map(|(w_pos, w_neg)| [w_pos, w_neg]).collect(),
            accuracy: accuracy.with_context(|| format!("{} has no field ternary_accuracy", path.display()))?,
        })
    }

    /// Points `(step, value)` of a chart.
    pub(super) fn line(&self, value: impl Fn([f64; 2]) -> f64) -> Vec<(f64, f64)> {
        let steps = self.scales.iter().enumerate().step_by(STEPS_PER_POINT);
        steps.map(|(step, scales)| (step as f64, value(*scales))).collect()
    }

    /// Points `(step, value)` of a chart, relative to the value at the start.
    pub(super) fn relative(&self, value: impl Fn([f64; 2]) -> f64) -> Vec<(f64, f64)> {
        let start = value(self.scales[0]);
        self.line(|scales| value(scales) / start)
    }

    /// Row of the table. Changes are relative to `W_p² + W_n²` at the start.
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

/// Formats a percentage with two decimals, or with one digit and an exponent if it is very small or very large.
fn percent(value: f64) -> String {
    if value == 0.0 || (0.01..1e4).contains(&value) { format!("{value:.2} %") } else { format!("{value:.0e} %") }
}

/// Formats a number with four decimals, or with two digits and an exponent if it is very small or very large.
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

    /// Scales on a circle around the origin, as with exact gradients.
    fn circle() -> Track {
        let angles = (0..50).map(|step| 0.7 + 0.01 * f64::from(step));
        Track { scales: angles.map(|angle| angle.sin_cos().into()).collect(), accuracy: 99.0 }
    }

    #[test]
    fn on_a_circle_the_sum_of_squares_is_constant_and_the_difference_is_not() {
        assert!(circle().relative(sum_of_squares).iter().all(|(_, value)| (value - 1.0).abs() < 1e-12));
        let row = circle().row("x");
        let changes: Vec<f64> =
            row.split('|').filter_map(|cell| cell.trim().strip_suffix(" %")?.parse().ok()).collect();
        assert!(changes[0] < 1e-10 && changes[1] > 10.0 && changes[2] == 99.0, "{row}");
        let difference = circle().line(difference_of_squares);
        assert!((difference[0].1 - difference.last().unwrap().1).abs() > 0.1);
    }

    #[test]
    fn logs_have_a_value_per_step_and_incomplete_logs_are_rejected() {
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
