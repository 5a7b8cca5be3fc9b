//! Progress of a training as plain lines: for logs, pipes and terminals without Burn's dashboard.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::time::{Duration, Instant};

use burn::train::LearnerSummary;
use burn::train::logger::MetricLogger;
use burn::train::metric::store::{EpochSummary, MetricsUpdate, Split};
use burn::train::metric::{MetricAttributes, MetricDefinition, NumericEntry};
use burn::train::renderer::{
    EvaluationName, EvaluationProgress, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining, ProgressType, TrainingProgress,
};

use crate::{EpochMetrics, History};

/// Time between two lines within an epoch.
const INTERVAL: Duration = Duration::from_secs(15);

/// A renderer that prints the progress within an epoch, with the time left, every 15 seconds.
///
/// Register it with `SupervisedTraining::renderer`.
pub struct ProgressLines {
    label: String,
    start: Instant,
    /// Fraction of the training that was done when the clock started.
    done_at_start: Option<f64>,
    last: Instant,
    interval: Duration,
}

impl ProgressLines {
    /// Creates a renderer whose lines begin with `label`.
    pub fn new(label: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            start: Instant::now(),
            done_at_start: None,
            last: Instant::now(),
            interval: INTERVAL,
        }
    }

    /// Creates a renderer that prints nothing.
    pub(crate) fn silent() -> Self {
        Self { interval: Duration::MAX, ..Self::new("") }
    }
}

impl MetricsRendererTraining for ProgressLines {
    fn update_train(&mut self, _state: MetricState) {}

    fn update_valid(&mut self, _state: MetricState) {}

    fn render_train(&mut self, item: TrainingProgress, _indicators: Vec<ProgressType>) {
        let Some(progress) = item.progress else { return };
        let within = progress.items_processed as f64 / progress.items_total.max(1) as f64;
        let (epoch, epochs) = (item.global_progress.items_processed, item.global_progress.items_total);
        let done = (epoch as f64 - 1.0 + within) / epochs.max(1) as f64;
        let before = *self.done_at_start.get_or_insert(done);
        if self.last.elapsed() < self.interval || done <= before {
            return;
        }
        self.last = Instant::now();
        let left = self.start.elapsed().as_secs_f64() * (1.0 - done) / (done - before);
        print_line(&format!(
            "{}: epoch {epoch}/{epochs}, {}/{} items, {} left",
            self.label,
            progress.items_processed,
            progress.items_total,
            seconds(left)
        ));
    }

    fn render_valid(&mut self, _item: TrainingProgress, _indicators: Vec<ProgressType>) {}

    fn on_train_end(&mut self, _summary: Option<LearnerSummary>) -> Result<(), Box<dyn std::error::Error>> {
        Ok(())
    }
}

impl MetricsRendererEvaluation for ProgressLines {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}

    fn render_test(&mut self, _item: EvaluationProgress, _indicators: Vec<ProgressType>) {}
}

impl MetricsRenderer for ProgressLines {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, _definition: MetricDefinition) {}
}

/// A metric logger that passes everything to a [`History`] and prints the metrics of each epoch in one line.
///
/// Register it with `SupervisedTraining::with_metric_logger`, in place of the history.
pub struct EpochLines {
    history: History,
    label: String,
    epochs: usize,
    units: HashMap<String, String>,
    start: Instant,
    counted: usize,
}

impl EpochLines {
    /// Creates a logger for a training of `epochs` epochs, whose lines begin with `label`.
    pub fn new(history: History, label: impl Into<String>, epochs: usize) -> Self {
        let (label, units) = (label.into(), HashMap::new());
        Self { history, label, epochs, units, start: Instant::now(), counted: 0 }
    }

    fn line(&self, metrics: &EpochMetrics) -> String {
        let values = |values: &BTreeMap<String, f64>| {
            let values = values.iter().map(|(name, value)| {
                let unit = self.units.get(name).map_or(String::new(), |unit| format!(" {unit}"));
                format!("{name} {value:.4}{unit}")
            });
            values.collect::<Vec<_>>().join(", ")
        };
        let per_epoch = self.start.elapsed().as_secs_f64() / self.counted as f64;
        let left = per_epoch * self.epochs.saturating_sub(metrics.epoch) as f64;
        format!(
            "{}: epoch {}/{}: training {}; validation {}; {} per epoch, {} left",
            self.label,
            metrics.epoch,
            self.epochs,
            values(&metrics.train),
            values(&metrics.valid),
            seconds(per_epoch),
            seconds(left)
        )
    }
}

impl MetricLogger for EpochLines {
    fn log(&mut self, update: MetricsUpdate, epoch: usize, split: &Split) {
        self.history.log(update, epoch, split);
    }

    fn read_numeric(&mut self, name: &str, epoch: usize, split: &Split) -> Result<Vec<NumericEntry>, String> {
        self.history.read_numeric(name, epoch, split)
    }

    fn log_metric_definition(&mut self, definition: MetricDefinition) {
        if let MetricAttributes::Numeric(attributes) = &definition.attributes
            && let Some(unit) = &attributes.unit
        {
            self.units.insert(definition.name.clone(), unit.clone());
        }
        self.history.log_metric_definition(definition);
    }

    fn log_epoch_summary(&mut self, summary: EpochSummary) {
        let (epoch, validated) = (summary.epoch_number, summary.split == Split::Valid);
        self.history.log_epoch_summary(summary);
        if validated && let Some(metrics) = self.history.epoch(epoch) {
            self.counted += 1;
            print_line(&self.line(&metrics));
        }
    }
}

/// Prints a line. A closed standard output, as after `| head`, does not end a training: errors are ignored.
pub(crate) fn print_line(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).ok();
}

/// Formats whole seconds, such as `1m 5s`.
fn seconds(seconds: f64) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(seconds.max(0.0).round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::train::metric::{LossMetric, Metric, MetricId};

    #[test]
    fn a_line_names_every_metric_with_its_unit() {
        let directory = tempfile::tempdir().unwrap();
        let mut lines = EpochLines::new(History::new(directory.path()), "ternary", 3);
        let sparsity = crate::SparsityMetric::new();
        lines.log_metric_definition(MetricDefinition::new(MetricId::new(sparsity.name()), &sparsity));
        let loss = LossMetric::<burn::backend::Flex>::new();
        lines.log_metric_definition(MetricDefinition::new(MetricId::new(loss.name()), &loss));
        lines.counted = 1;
        let metrics = EpochMetrics {
            epoch: 2,
            train: [("Loss".into(), 0.5), ("Sparsity".into(), 40.25)].into(),
            valid: [("Loss".into(), 0.75)].into(),
            layers: Vec::new(),
        };
        assert_eq!(
            lines.line(&metrics),
            "ternary: epoch 2/3: training Loss 0.5000, Sparsity 40.2500 %; validation Loss 0.7500; 0s per epoch, 0s left"
        );
    }
}
