//! W_p and W_n at every step of a run with one ternary layer.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Headings of the table whose rows are [`Track::row`].
pub(super) const HEADINGS: &str = "\
| layer | sign | W_p, W_n at the start | at the end | largest change of W_p W_n | of W_p / W_n | test accuracy |
|---|---|---:|---:|---:|---:|---:|
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

/// `W_p W_n`, which is constant with exact gradients of the logarithms if batch normalization follows.
pub(super) fn product([w_pos, w_neg]: [f64; 2]) -> f64 {
    w_pos * w_neg
}

/// `W_p / W_n`, which is constant with published gradients of the logarithms if batch normalization follows.
pub(super) fn ratio([w_pos, w_neg]: [f64; 2]) -> f64 {
    w_pos / w_neg
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

    /// Row of the table. Changes are relative to the start.
    pub(super) fn row(&self, name: &str) -> String {
        let (start, end) = (self.scales[0], self.scales[self.scales.len() - 1]);
        let change = |value: fn([f64; 2]) -> f64| {
            let changes = self.scales.iter().map(|scales| (value(*scales) / value(start) - 1.0).abs());
            percent(100.0 * changes.fold(0.0, f64::max))
        };
        let [start_pos, start_neg, end_pos, end_neg] = [start[0], start[1], end[0], end[1]].map(short);
        format!(
            "| {name} | {start_pos}, {start_neg} | {end_pos}, {end_neg} | {} | {} | {:.2} % |\n",
            change(product),
            change(ratio),
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

    /// Scales on a hyperbola, as with exact gradients of their logarithms.
    fn hyperbola() -> Track {
        Track {
            scales: (0..50).map(|step| [1.0 + 0.01 * f64::from(step), 1.0 / (1.0 + 0.01 * f64::from(step))]).collect(),
            accuracy: 99.0,
        }
    }

    #[test]
    fn on_a_hyperbola_the_product_is_constant_and_the_ratio_is_not() {
        assert!(hyperbola().relative(product).iter().all(|(_, value)| (value - 1.0).abs() < 1e-12));
        let row = hyperbola().row("x");
        let changes: Vec<f64> =
            row.split('|').filter_map(|cell| cell.trim().strip_suffix(" %")?.parse().ok()).collect();
        assert!(changes[0] < 1e-10 && changes[1] > 10.0 && changes[2] == 99.0, "{row}");
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
