//! Results of a run, read from the files in its directory, and their mean and deviation over several runs.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Results of one run.
pub(super) struct Figures {
    /// Test accuracy of the network with the best validation accuracy, in percent.
    pub(super) test: f64,
    /// Validation accuracy of the last epoch, in percent.
    pub(super) valid_last: f64,
    /// Validation accuracy of the best epoch, in percent.
    pub(super) valid_best: f64,
    /// Share of zeros among the ternary weights, in percent.
    pub(super) zeros: Option<f64>,
    /// Mean entropy of the ternary codes, in bits per weight.
    pub(super) entropy: Option<f64>,
    /// Share of ternary weights whose code changed in a step, in percent, mean over the last epoch.
    pub(super) flips: Option<f64>,
    /// Time of training and evaluation in seconds.
    pub(super) seconds: f64,
    /// Statistics of the ternary layers at the end of each epoch.
    pub(super) layers: Vec<Value>,
    /// Machine and versions.
    pub(super) environment: Value,
    /// Name of the backend.
    pub(super) backend: String,
}

impl Figures {
    /// Reads `summary.json`, `evidence.json` and the history of the run's last phase.
    ///
    /// # Errors
    /// Returns an error if a file is missing or not valid.
    pub(super) fn of_run(directory: &Path) -> Result<Self> {
        let summary = read(&directory.join("summary.json"))?;
        let phases = ["ternary", "full-precision"].map(|phase| directory.join(phase).join("history.json"));
        let history = phases.iter().find(|path| path.is_file()).unwrap_or(&phases[0]);
        let epochs = read(history)?;
        let epochs = epochs.as_array().with_context(|| format!("{} is not a history of epochs", history.display()))?;
        let mut accuracies = epochs.iter().map(|epoch| epoch["valid"]["Accuracy"].as_f64());
        let accuracies: Option<Vec<f64>> = accuracies.by_ref().collect();
        let accuracies =
            accuracies.with_context(|| format!("{} has an epoch without validation accuracy", history.display()))?;
        let number = |name: &str| summary[name].as_f64();
        Ok(Self {
            test: number("ternary_accuracy")
                .or_else(|| number("full_precision_accuracy"))
                .with_context(|| format!("the run in {} has no test accuracy", directory.display()))?,
            valid_last: *accuracies.last().with_context(|| format!("{} contains no epochs", history.display()))?,
            valid_best: accuracies.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            zeros: number("sparsity").map(|share| 100.0 * share),
            entropy: entropy(&summary["layers"]["layers"]),
            flips: epochs.last().and_then(|epoch| epoch["train"]["Flip ratio"].as_f64()),
            seconds: number("seconds")
                .with_context(|| format!("the run in {} has no duration", directory.display()))?,
            layers: epochs.iter().map(|epoch| epoch["layers"].clone()).collect(),
            environment: read(&directory.join("evidence.json"))?["environment"].clone(),
            backend: summary["backend"].as_str().unwrap_or_default().into(),
        })
    }
}

/// Returns the mean entropy per weight of the layers in a summary.
fn entropy(layers: &Value) -> Option<f64> {
    let layers =
        layers.as_array()?.iter().map(|layer| Some((layer["weights"].as_f64()?, layer["entropy_bits"].as_f64()?)));
    let layers: Vec<(f64, f64)> = layers.collect::<Option<_>>()?;
    let weights: f64 = layers.iter().map(|(weights, _)| weights).sum();
    Some(layers.iter().map(|(weights, bits)| weights * bits).sum::<f64>() / weights)
}

/// Reads a JSON file.
pub(crate) fn read(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not valid JSON", path.display()))
}

/// Values of several runs. `Display` prints `mean ± deviation` with the given precision, or a single value without
/// deviation.
pub(super) struct Spread(pub(super) Vec<f64>);

impl Spread {
    pub(super) fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    /// Returns the sample standard deviation (divisor n - 1); `None` for a single value.
    pub(super) fn deviation(&self) -> Option<f64> {
        let mean = self.mean();
        let squares: f64 = self.0.iter().map(|value| (value - mean).powi(2)).sum();
        (self.0.len() > 1).then(|| (squares / (self.0.len() - 1) as f64).sqrt())
    }

    pub(super) fn json(&self) -> Value {
        json!({ "mean": self.mean(), "deviation": self.deviation(), "values": self.0 })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let precision = f.precision().unwrap_or(2);
        write!(f, "{:.precision$}", self.mean())?;
        self.deviation().map_or(Ok(()), |deviation| write!(f, " ± {deviation:.precision$}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deviation_is_the_sample_standard_deviation() {
        let spread = Spread(vec![2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]);
        assert_eq!(spread.mean(), 5.0);
        assert!((spread.deviation().unwrap() - (32.0f64 / 7.0).sqrt()).abs() < 1e-12);
        assert_eq!(format!("{spread:.1}"), "5.0 ± 2.1");
        assert_eq!(Spread(vec![3.0]).deviation(), None);
        assert_eq!(Spread(vec![3.0]).to_string(), "3.00");
    }

    #[test]
    fn figures_contain_the_best_and_the_last_epoch() {
        let directory = std::env::temp_dir().join(format!("xtask-figures-{}", std::process::id()));
        fs::create_dir_all(directory.join("ternary")).unwrap();
        let write = |name: &str, value: Value| fs::write(directory.join(name), value.to_string()).unwrap();
        write(
            "summary.json",
            json!({ "full_precision_accuracy": 99.5, "ternary_accuracy": 99.0, "sparsity": 0.25, "seconds": 7.5,
                    "backend": "cpu",
                    "layers": { "layers": [{ "weights": 30, "entropy_bits": 1.5 }, { "weights": 10, "entropy_bits": 0.5 }] } }),
        );
        write("evidence.json", json!({ "environment": { "threads": 2 } }));
        let epoch = |accuracy: f64, w_pos: f64| json!({ "valid": { "Accuracy": accuracy }, "train": { "Flip ratio": w_pos / 4.0 }, "layers": [{ "w_pos": w_pos }] });
        write("ternary/history.json", json!([epoch(98.0, 1.0), epoch(98.75, 2.0), epoch(98.5, 3.0)]));
        let figures = Figures::of_run(&directory).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!((figures.test, figures.valid_best, figures.valid_last), (99.0, 98.75, 98.5));
        assert_eq!((figures.zeros, figures.seconds), (Some(25.0), 7.5));
        assert_eq!((figures.entropy, figures.flips), (Some(1.25), Some(0.75)));
        assert_eq!(figures.layers[2][0]["w_pos"], 3.0);
        assert_eq!(figures.environment["threads"], 2);
        assert!(Figures::of_run(&directory).is_err());
    }
}
