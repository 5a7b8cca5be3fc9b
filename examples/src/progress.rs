//! Progress as plain lines, where there is no terminal for Burn's dashboard or it is not wanted.

use std::time::{Duration, Instant};

use burn::train::LearnerSummary;
use burn::train::logger::MetricLogger;
use burn::train::metric::store::{EpochSummary, MetricsUpdate, Split};
use burn::train::metric::{MetricDefinition, NumericEntry};
use burn::train::renderer::{
    EvaluationName, EvaluationProgress, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining, ProgressType, TrainingProgress,
};
use ttq_train::{EpochMetrics, FlipRatioMetric, History, NegativeScaleMetric, PositiveScaleMetric, SparsityMetric};

use crate::phase::{ACCURACY, LOSS};

/// How often a line tells of progress within an epoch.
const EVERY: Duration = Duration::from_secs(15);

/// Prints how far the epoch has come every few seconds.
pub(crate) struct PlainRenderer {
    phase: &'static str,
    start: Instant,
    /// Fraction of the whole phase that was done when the clock started.
    done_at_start: Option<f64>,
    last: Instant,
}

impl PlainRenderer {
    pub(crate) fn new(phase: &'static str) -> Self {
        Self { phase, start: Instant::now(), done_at_start: None, last: Instant::now() }
    }
}

impl MetricsRendererTraining for PlainRenderer {
    fn update_train(&mut self, _state: MetricState) {}

    fn update_valid(&mut self, _state: MetricState) {}

    fn render_train(&mut self, item: TrainingProgress, _indicators: Vec<ProgressType>) {
        let Some(progress) = item.progress else { return };
        let within = progress.items_processed as f64 / progress.items_total.max(1) as f64;
        let (epoch, epochs) = (item.global_progress.items_processed, item.global_progress.items_total);
        let done = (epoch as f64 - 1.0 + within) / epochs.max(1) as f64;
        let before = *self.done_at_start.get_or_insert(done);
        if self.last.elapsed() < EVERY || done <= before {
            return;
        }
        self.last = Instant::now();
        let left = self.start.elapsed().as_secs_f64() * (1.0 - done) / (done - before);
        println!(
            "{}: epoch {epoch}/{epochs}, {}/{} images, {} left",
            self.phase,
            progress.items_processed,
            progress.items_total,
            duration(left)
        );
    }

    fn render_valid(&mut self, _item: TrainingProgress, _indicators: Vec<ProgressType>) {}

    fn on_train_end(&mut self, _summary: Option<LearnerSummary>) -> Result<(), Box<dyn std::error::Error>> {
        Ok(())
    }
}

impl MetricsRendererEvaluation for PlainRenderer {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}

    fn render_test(&mut self, _item: EvaluationProgress, _indicators: Vec<ProgressType>) {}
}

impl MetricsRenderer for PlainRenderer {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, _definition: MetricDefinition) {}
}

/// Passes everything on to the history and prints a line at the end of each epoch.
pub(crate) struct EpochLines {
    history: History,
    phase: &'static str,
    epochs: usize,
    start: Instant,
    counted: usize,
}

impl EpochLines {
    pub(crate) fn new(history: History, phase: &'static str, epochs: usize) -> Self {
        Self { history, phase, epochs, start: Instant::now(), counted: 0 }
    }

    fn line(&self, metrics: &EpochMetrics) -> String {
        let value = |values: &std::collections::BTreeMap<String, f64>, name: &str, unit: &str| {
            values.get(name).map_or_else(|| "-".into(), |v| format!("{v:.4}{unit}"))
        };
        let mut line = format!(
            "{}: epoch {}/{}: training loss {} accuracy {}, validation loss {} accuracy {}",
            self.phase,
            metrics.epoch,
            self.epochs,
            value(&metrics.train, LOSS, ""),
            value(&metrics.train, ACCURACY, " %"),
            value(&metrics.valid, LOSS, ""),
            value(&metrics.valid, ACCURACY, " %"),
        );
        for (name, unit) in [
            (SparsityMetric::NAME, " %"),
            (PositiveScaleMetric::NAME, ""),
            (NegativeScaleMetric::NAME, ""),
            (FlipRatioMetric::NAME, " %"),
        ] {
            if metrics.train.contains_key(name) {
                line += &format!(", {} {}", name, value(&metrics.train, name, unit));
            }
        }
        let per_epoch = self.start.elapsed().as_secs_f64() / self.counted as f64;
        let left = per_epoch * self.epochs.saturating_sub(metrics.epoch) as f64;
        line + &format!(", {per_epoch:.0} s an epoch, {} left", duration(left))
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
        self.history.log_metric_definition(definition);
    }

    fn log_epoch_summary(&mut self, summary: EpochSummary) {
        let (epoch, validated) = (summary.epoch_number, summary.split == Split::Valid);
        self.history.log_epoch_summary(summary);
        if validated && let Some(metrics) = self.history.epoch(epoch) {
            self.counted += 1;
            println!("{}", self.line(&metrics));
        }
    }
}

/// Prints every few seconds how far a loop over images has come.
pub(crate) struct Countdown {
    what: &'static str,
    images: usize,
    start: Instant,
    last: Instant,
}

impl Countdown {
    pub(crate) fn new(what: &'static str, images: usize) -> Self {
        Self { what, images, start: Instant::now(), last: Instant::now() }
    }

    /// So many images are done.
    pub(crate) fn tell(&mut self, done: usize) {
        if self.last.elapsed() < EVERY || done >= self.images {
            return;
        }
        self.last = Instant::now();
        let left = self.start.elapsed().as_secs_f64() * (self.images - done) as f64 / done as f64;
        println!("{}: {done}/{} images, {} left", self.what, self.images, duration(left));
    }
}

/// Seconds as people say them.
pub(crate) fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_read_as_people_say_them() {
        assert_eq!([7.4, 61.0, 3725.0, -1.0].map(duration), ["7 s", "1 min 1 s", "1 h 2 min", "0 s"]);
    }
}
