//! The results of a run.

use std::fmt;

use serde::{Deserialize, Serialize};
use ttq_core::TernaryStats;

use crate::evaluate::Evaluation;

/// The results of a run: `summary.json` in its directory, and the table at its end (`Display`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Name of the example.
    pub example: String,
    /// Origin of the data.
    pub data: String,
    /// Name of the backend.
    pub backend: String,
    /// Test accuracy of the network in full precision, percent.
    pub full_precision_accuracy: Option<f64>,
    /// Its top-5 accuracy, percent.
    pub full_precision_top5: Option<f64>,
    /// Test accuracy of the ternary network, percent.
    pub ternary_accuracy: Option<f64>,
    /// Its top-5 accuracy, percent.
    pub ternary_top5: Option<f64>,
    /// Share of zeros among the ternary weights, 0 to 1.
    pub sparsity: Option<f64>,
    /// Bytes of the network's parameters in float32.
    pub float_bytes: usize,
    /// Bytes with ternary weights at 2 bits and the rest in float32.
    pub packed_bytes: Option<usize>,
    /// Seconds of training and evaluation, those before a resume included.
    pub seconds: f64,
    /// Statistics of each ternary weight.
    pub layers: Option<TernaryStats>,
}

impl Summary {
    pub(crate) fn with_full_precision(mut self, evaluation: Evaluation) -> Self {
        self.full_precision_accuracy = Some(evaluation.accuracy);
        self.full_precision_top5 = Some(evaluation.top5);
        self
    }

    pub(crate) fn with_ternary(mut self, evaluation: Evaluation, stats: TernaryStats) -> Self {
        self.ternary_accuracy = Some(evaluation.accuracy);
        self.ternary_top5 = Some(evaluation.top5);
        self.sparsity = Some(stats.sparsity());
        self.packed_bytes = Some(stats.packed_bytes());
        self.layers = Some(stats);
        self
    }
}

/// A number or a dash.
fn cell<T>(value: Option<T>, format: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "-".into(), format)
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |value: f64| format!("{value:.2} %");
        let bytes = |value: usize| value.to_string();
        if let Some(layers) = &self.layers {
            writeln!(f, "{layers}\n")?;
        }
        writeln!(f, "{:24} {:>15} {:>15}", "", "full precision", "ternary")?;
        let mut row = |name: &str, full: String, ternary: String| writeln!(f, "{name:24} {full:>15} {ternary:>15}");
        row("test accuracy", cell(self.full_precision_accuracy, percent), cell(self.ternary_accuracy, percent))?;
        row("top-5", cell(self.full_precision_top5, percent), cell(self.ternary_top5, percent))?;
        row("zeros", "-".into(), cell(self.sparsity.map(|s| 100.0 * s), percent))?;
        row("bytes (float32 / 2-bit)", bytes(self.float_bytes), cell(self.packed_bytes, bytes))?;
        row(
            "smaller by",
            "1".into(),
            cell(self.packed_bytes.map(|p| self.float_bytes as f64 / p as f64), |x| format!("{x:.1}")),
        )?;
        write!(f, "{:.0} s on {}, {}", self.seconds, self.backend, self.data)
    }
}
