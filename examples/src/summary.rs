//! The results of a run.

use std::fmt;

use serde::{Deserialize, Serialize};
use ttq_core::TernaryStats;

use crate::Score;
use crate::evaluate::Evaluation;

/// The results of a run: `summary.json` in its directory, and the table at its end (`Display`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
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
    /// Perplexity of the network in full precision on the test data, per byte (text).
    pub full_precision_perplexity: Option<f64>,
    /// The same as bits per byte: its logarithm to the base 2.
    pub full_precision_bits_per_byte: Option<f64>,
    /// Perplexity of the ternary network, per byte (text).
    pub ternary_perplexity: Option<f64>,
    /// The same as bits per byte.
    pub ternary_bits_per_byte: Option<f64>,
    /// Share of zeros among the ternary weights, 0 to 1.
    pub sparsity: Option<f64>,
    /// Bytes of the network's file in float32.
    pub float_bytes: usize,
    /// Bytes of the packed file: ternary weights at 2 bits, the rest in float32, names and shapes.
    pub packed_bytes: Option<u64>,
    /// Seconds of training and evaluation, those before a resume included.
    pub seconds: f64,
    /// Statistics of each ternary weight.
    pub layers: Option<TernaryStats>,
}

impl Summary {
    pub(crate) fn with_full_precision(mut self, score: Score, evaluation: Evaluation) -> Self {
        match score {
            Score::Accuracy => {
                self.full_precision_accuracy = Some(evaluation.accuracy);
                self.full_precision_top5 = Some(evaluation.top5);
            }
            Score::Perplexity => {
                self.full_precision_perplexity = Some(evaluation.perplexity());
                self.full_precision_bits_per_byte = Some(evaluation.bits());
            }
        }
        self
    }

    pub(crate) fn with_ternary(
        mut self,
        score: Score,
        evaluation: Evaluation,
        stats: TernaryStats,
        packed_bytes: u64,
    ) -> Self {
        match score {
            Score::Accuracy => {
                self.ternary_accuracy = Some(evaluation.accuracy);
                self.ternary_top5 = Some(evaluation.top5);
            }
            Score::Perplexity => {
                self.ternary_perplexity = Some(evaluation.perplexity());
                self.ternary_bits_per_byte = Some(evaluation.bits());
            }
        }
        self.sparsity = Some(stats.sparsity());
        self.packed_bytes = Some(packed_bytes);
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
        if let Some(layers) = &self.layers {
            writeln!(f, "{layers}\n")?;
        }
        writeln!(f, "{:24} {:>15} {:>15}", "", "full precision", "ternary")?;
        let mut row = |name: &str, full: String, ternary: String| writeln!(f, "{name:24} {full:>15} {ternary:>15}");
        let number = |value: f64| format!("{value:.3}");
        for (name, full, ternary, text) in [
            ("test accuracy", self.full_precision_accuracy, self.ternary_accuracy, &percent as &dyn Fn(f64) -> String),
            ("top-5", self.full_precision_top5, self.ternary_top5, &percent),
            ("perplexity per byte", self.full_precision_perplexity, self.ternary_perplexity, &number),
            ("bits per byte", self.full_precision_bits_per_byte, self.ternary_bits_per_byte, &number),
        ] {
            if full.or(ternary).is_some() {
                row(name, cell(full, text), cell(ternary, text))?;
            }
        }
        row("zeros", "-".into(), cell(self.sparsity.map(|s| 100.0 * s), percent))?;
        row("file, bytes", self.float_bytes.to_string(), cell(self.packed_bytes, |bytes| bytes.to_string()))?;
        row(
            "smaller by",
            "1".into(),
            cell(self.packed_bytes.map(|p| self.float_bytes as f64 / p as f64), |x| format!("{x:.1}")),
        )?;
        write!(f, "{:.0} s on {}, {}", self.seconds, self.backend, self.data)
    }
}
