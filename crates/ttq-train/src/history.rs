//! The metrics of every epoch, complete, in order and across resumes.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use burn::train::logger::MetricLogger;
use burn::train::metric::store::{EpochSummary, MetricsUpdate, Split};
use burn::train::metric::{MetricDefinition, MetricEntry, MetricId, NumericEntry};
use serde::{Deserialize, Deserializer, Serialize};
use ttq_packed::file::write_atomically;

use crate::metric_files::MetricFiles;
use crate::{LayerState, LayersMetric, MetricGoal, Ranks};

/// Time without an entry after which waiting for a validation fails: before the first entry and after it.
const PATIENCE: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(600)];

/// An error of a history's file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The file cannot be read.
    #[error(
        "the history {} of the run to resume cannot be read: restore it or start a new run ({source})",
        path.display()
    )]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not a history.
    #[error("{} is not the history of a run: restore the file or start a new run ({source})", path.display())]
    Format {
        /// Path of the file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// The file lacks an epoch before the checkpoint.
    #[error(
        "{} lacks epoch {missing}, so the run cannot go on after epoch {epoch}: resume earlier or start a new run",
        path.display()
    )]
    Missing {
        /// Path of the file.
        path: PathBuf,
        /// The first missing epoch.
        missing: usize,
        /// The epoch to resume after.
        epoch: usize,
    },
}

/// The numeric metrics of one epoch: means over the epoch, by the name of the metric.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochMetrics {
    /// The epoch, from 1.
    pub epoch: usize,
    /// Metrics of the training split.
    #[serde(deserialize_with = "null_is_nan")]
    pub train: BTreeMap<String, f64>,
    /// Metrics of the validation split.
    #[serde(deserialize_with = "null_is_nan")]
    pub valid: BTreeMap<String, f64>,
    /// State of each ternary layer at the last training step of the epoch, if a [`LayersMetric`] is registered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<LayerState>,
}

/// JSON has no infinity and no NaN: `serde_json` writes `null` for a metric that diverged and does not read it back.
fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let values = BTreeMap::<String, Option<f64>>::deserialize(deserializer)?;
    Ok(values.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}

/// The metrics of every epoch. It is a handle: clones share one history.
///
/// It implements [`MetricLogger`], writes the same files as Burn's own logger, and corrects two faults: Burn's event
/// store can be read before all batches of the epoch are aggregated; and after a resume it numbers the first epoch 1.
/// Register it with `SupervisedTraining::with_metric_logger(history.clone())`. The schedules, the early stopping and
/// the checkpoint strategy of this crate read from it.
///
/// The value of an epoch is Burn's running value after the last batch: for a mean, the mean over what the metric counts, which
/// are the epoch's items, but batches in Burn's `LossMetric`.
///
/// After each epoch it writes `history.json` into its directory. Each launch needs a history of its own.
#[derive(Clone)]
pub struct History {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    state: Mutex<State>,
    /// Notified of every entry.
    validated: Condvar,
    /// Time without an entry after which waiting fails: before the first entry and after it.
    patience: [Duration; 2],
    ranks: Ranks,
}

struct State {
    files: MetricFiles,
    /// The first file that could not be written.
    failure: Option<(PathBuf, io::Error)>,
    names: HashMap<MetricId, String>,
    /// The epoch before the first one that this process trains.
    offset: usize,
    /// Splits that have completed an epoch in this process.
    numbered: Vec<Split>,
    current: HashMap<Split, Values>,
    /// Those of the last epoch of training.
    trained: Values,
    /// The last entry of the [`LayersMetric`], as JSON.
    layers: Option<String>,
    epochs: BTreeMap<usize, EpochMetrics>,
    complete: usize,
    /// Number of entries that are logged by this process.
    entries: usize,
}

/// Means by the name of the metric, with the numbers of their items.
type Values = BTreeMap<String, (f64, f64)>;

impl History {
    /// Creates an empty history of a run that logs to `directory`.
    pub fn new(directory: impl AsRef<Path>) -> Self {
        Self::with(directory.as_ref(), 0, BTreeMap::new(), Ranks::default())
    }

    /// Loads the history of a run that continues after `epoch`. Later epochs are dropped: they will be trained again.
    ///
    /// # Errors
    /// [`HistoryError`] if `history.json` in `directory` cannot be read or lacks an epoch up to `epoch`.
    pub fn resume(directory: impl AsRef<Path>, epoch: usize) -> Result<Self, HistoryError> {
        let path = file(directory.as_ref());
        let text = fs::read_to_string(&path).map_err(|source| HistoryError::Read { path: path.clone(), source })?;
        let epochs: Vec<EpochMetrics> =
            serde_json::from_str(&text).map_err(|source| HistoryError::Format { path: path.clone(), source })?;
        let epochs: BTreeMap<_, _> = epochs.into_iter().filter(|e| e.epoch <= epoch).map(|e| (e.epoch, e)).collect();
        if let Some(missing) = (1..=epoch).find(|number| !epochs.contains_key(number)) {
            return Err(HistoryError::Missing { path, missing, epoch });
        }
        Ok(Self::with(directory.as_ref(), epoch, epochs, Ranks::default()))
    }

    /// Creates the history of a training in several processes that continues after `epochs`: that of every process has the
    /// means over the items of all of them, and process 0 writes.
    pub(crate) fn over(ranks: &Ranks, directory: &Path, epochs: Vec<EpochMetrics>) -> Self {
        let epochs: BTreeMap<_, _> = epochs.into_iter().map(|metrics| (metrics.epoch, metrics)).collect();
        Self::with(directory, epochs.len(), epochs, ranks.clone())
    }

    fn with(directory: &Path, offset: usize, epochs: BTreeMap<usize, EpochMetrics>, ranks: Ranks) -> Self {
        let state = State {
            files: MetricFiles::new(directory),
            failure: None,
            names: HashMap::new(),
            offset,
            numbered: Vec::new(),
            current: HashMap::new(),
            trained: Values::new(),
            layers: None,
            epochs,
            complete: offset,
            entries: 0,
        };
        let (state, validated) = (Mutex::new(state), Condvar::new());
        let shared = Shared { path: file(directory), state, validated, patience: PATIENCE, ranks };
        Self { shared: Arc::new(shared) }
    }

    /// Returns the metrics of an epoch, if it is complete.
    pub fn epoch(&self, epoch: usize) -> Option<EpochMetrics> {
        let state = self.lock();
        (epoch <= state.complete).then(|| state.epochs.get(&epoch).cloned()).flatten()
    }

    /// Returns the metrics of all complete epochs.
    pub fn epochs(&self) -> Vec<EpochMetrics> {
        let state = self.lock();
        state.epochs.range(..=state.complete).map(|(_, metrics)| metrics.clone()).collect()
    }

    /// Waits until the validation metrics of an epoch are complete and returns one of them, or `None` if no metric of
    /// that name is logged. Call it after the last batch of the epoch was trained.
    ///
    /// Under Burn's distributed strategy every worker waits here for the one that validates, so that all decide from
    /// the same numbers.
    ///
    /// # Panics
    /// Panics if nothing is logged for ten minutes, or for one minute if nothing ever was: the worker that validates
    /// has failed, or this history is not registered with the training.
    pub fn wait_valid(&self, epoch: usize, metric: &str) -> Option<f64> {
        let mut state = self.lock();
        while state.complete < epoch {
            let entries = state.entries;
            let patience = self.shared.patience[usize::from(entries > 0)];
            let silent = |state: &mut State| state.complete < epoch && state.entries == entries;
            let waited = self.shared.validated.wait_timeout_while(state, patience, silent);
            let (next, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            state = next;
            if waited.timed_out() {
                drop(state);
                panic!(
                    "History: the validation metrics of epoch {epoch} are not complete and nothing was logged for \
                     {patience:.0?}: look for the failure of the worker that validates, or register the history by \
                     `with_metric_logger`"
                );
            }
        }
        state.epochs.get(&epoch)?.valid.get(metric).copied()
    }

    /// Returns the complete epoch with the best value of the validation metric of `goal`; the earliest of equal ones. A
    /// value that is not finite is never the best. Returns `None` if no epoch has a finite value of the metric.
    pub fn best_epoch(&self, goal: &MetricGoal) -> Option<usize> {
        self.best_of(goal, |_| true)
    }

    /// Returns the best of the epochs in `saved`.
    pub(crate) fn best_epoch_of(&self, goal: &MetricGoal, saved: &[usize]) -> Option<usize> {
        self.best_of(goal, |epoch| saved.contains(&epoch))
    }

    fn best_of(&self, goal: &MetricGoal, takes_part: impl Fn(usize) -> bool) -> Option<usize> {
        let epochs = self.epochs();
        let values = epochs
            .iter()
            .filter(|e| takes_part(e.epoch) && goal.counts(e.epoch))
            .filter_map(|e| e.valid.get(goal.metric()).map(|value| (e.epoch, *value)));
        let values = values.filter(|(_, value)| value.is_finite());
        let best = values.reduce(|best, next| if goal.is_better(next.1, best.1) { next } else { best })?;
        Some(best.0)
    }

    /// Returns the names of the validation metrics of the last complete epoch.
    pub fn valid_metrics(&self) -> Vec<String> {
        self.epochs().pop().map(|epoch| epoch.valid.into_keys().collect()).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the directory of the run.
    pub(crate) fn directory(&self) -> &Path {
        self.shared.path.parent().unwrap_or(Path::new(""))
    }

    /// Returns whether a file could not be written.
    pub(crate) fn has_failed(&self) -> bool {
        self.lock().failure.is_some()
    }

    /// Takes the path and the error of the first file that could not be written.
    pub(crate) fn take_failure(&self) -> Option<(PathBuf, io::Error)> {
        self.lock().failure.take()
    }
}

/// Writes the metrics of all epochs.
fn write(path: &Path, epochs: &[&EpochMetrics]) -> io::Result<()> {
    let text = serde_json::to_string_pretty(epochs)?;
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    write_atomically(path, |file| file.write_all(text.as_bytes()))
}

fn file(directory: &Path) -> PathBuf {
    directory.join("history.json")
}

impl State {
    /// Corrects Burn's number of the running epoch.
    fn number(&self, epoch: usize, split: &Split) -> usize {
        if self.numbered.contains(split) { epoch } else { self.offset + 1 }
    }

    /// Takes the layers out of the entries for Burn's files, which would hold all layers of every batch.
    fn take_layers(&mut self, update: &mut MetricsUpdate) {
        let is_layers =
            |entry: &MetricEntry| self.names.get(&entry.metric_id).is_some_and(|name| name == LayersMetric::NAME);
        if let Some(at) = update.entries.iter().position(is_layers) {
            self.layers = Some(update.entries.swap_remove(at).serialized_entry.serialized);
        }
    }

    /// Keeps the first failure.
    fn note(&mut self, result: Result<(), (PathBuf, io::Error)>) {
        if let Err((path, error)) = result {
            log::error!("cannot write {}: {error}", path.display());
            self.failure.get_or_insert((path, error));
        }
    }

    /// Parses the layers at the end of the epoch.
    fn layers(&mut self) -> Vec<LayerState> {
        let parsed = self.layers.take().map(|text| serde_json::from_str(&text)).transpose();
        parsed
            .unwrap_or_else(|error| {
                log::error!("the entry of the metric {} is not a list of layers: {error}", LayersMetric::NAME);
                None
            })
            .unwrap_or_default()
    }
}

impl MetricLogger for History {
    fn log(&mut self, mut update: MetricsUpdate, epoch: usize, split: &Split) {
        let mut state = self.lock();
        state.entries += 1;
        self.shared.validated.notify_all();
        state.take_layers(&mut update);
        let epoch = state.number(epoch, split);
        for numeric in &update.entries_numeric {
            let Some(name) = state.names.get(&numeric.entry.metric_id).cloned() else { continue };
            state.current.entry(split.clone()).or_default().insert(name, counted(&numeric.running_entry));
        }
        if !self.shared.ranks.is_first() {
            return;
        }
        let numeric = update.entries_numeric.iter().map(|numeric| &numeric.entry);
        for entry in update.entries.iter().chain(numeric) {
            let Some(name) = state.names.get(&entry.metric_id).cloned() else { continue };
            state.files.log(&name, &entry.serialized_entry.serialized, epoch, split);
        }
    }

    fn read_numeric(&mut self, name: &str, epoch: usize, split: &Split) -> Result<Vec<NumericEntry>, String> {
        self.lock().files.read(name, epoch, split)
    }

    fn log_metric_definition(&mut self, definition: MetricDefinition) {
        self.lock().names.insert(definition.metric_id, definition.name);
    }

    fn log_epoch_summary(&mut self, summary: EpochSummary) {
        let mut state = self.lock();
        state.entries += 1;
        self.shared.validated.notify_all();
        let (epoch, split) = (summary.epoch_number, summary.split);
        let written = state.files.end_epoch(epoch, &split);
        state.note(written);
        let values = state.current.remove(&split).unwrap_or_default();
        if !state.numbered.contains(&split) {
            state.numbered.push(split.clone());
        }
        let layers = if split == Split::Train { state.layers() } else { Vec::new() };
        // The thread that trains exchanges nothing with other processes until the epoch is complete.
        let ranks = &self.shared.ranks;
        let trained = std::mem::take(&mut state.trained);
        let metrics = state.epochs.entry(epoch).or_default();
        metrics.epoch = epoch;
        match split {
            Split::Train => {
                (metrics.train, metrics.layers) = (without_counts(&values), layers);
                state.trained = values;
            }
            Split::Valid => {
                (metrics.train, metrics.valid) = (means(ranks, &trained), means(ranks, &values));
                state.complete = epoch;
                if ranks.is_first() {
                    let path = &self.shared.path;
                    let written = write(path, &state.epochs.values().collect::<Vec<_>>());
                    state.note(written.map_err(|error| (path.clone(), error)));
                }
            }
            Split::Test(_) => {}
        }
    }
}

fn counted(entry: &NumericEntry) -> (f64, f64) {
    match entry {
        NumericEntry::Value(value) => (*value, 1.0),
        NumericEntry::Aggregated { aggregated_value, count } => (*aggregated_value, *count as f64),
    }
}

fn without_counts(values: &Values) -> BTreeMap<String, f64> {
    values.iter().map(|(name, (value, _))| (name.clone(), *value)).collect()
}

/// Computes the means over the items of all processes, equal to the bit in each.
fn means(ranks: &Ranks, values: &Values) -> BTreeMap<String, f64> {
    if !ranks.are_several() {
        return without_counts(values);
    }
    // JSON has no NaN.
    let own: Vec<(String, u64, f64)> =
        values.iter().map(|(name, (value, count))| (name.clone(), value.to_bits(), *count)).collect();
    let mut all = BTreeMap::<String, Vec<(f64, f64)>>::new();
    for (name, value, count) in ranks.gather(&own).into_iter().flatten() {
        all.entry(name).or_default().push((f64::from_bits(value), count));
    }
    let mean = |values: Vec<(f64, f64)>| {
        if values.iter().all(|(value, _)| *value == values[0].0) {
            return values[0].0;
        }
        let sum: f64 = values.iter().map(|(value, count)| value * count).sum();
        sum / values.iter().map(|(_, count)| count).sum::<f64>()
    };
    all.into_iter().map(|(name, values)| (name, mean(values))).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use burn::train::metric::store::NumericMetricUpdate;
    use burn::train::metric::{MetricAttributes, SerializedEntry};

    /// A history with these validation accuracies in percent, logged in the way of Burn.
    pub(crate) fn with_accuracies(directory: &Path, accuracies: &[f64]) -> History {
        let mut history = History::new(directory);
        define(&mut history);
        for (index, accuracy) in accuracies.iter().enumerate() {
            log_epoch(&mut history, index + 1, index + 1, *accuracy);
        }
        history
    }

    fn id() -> MetricId {
        MetricId::new(Arc::new("Accuracy".into()))
    }

    fn define(history: &mut History) {
        history.log_metric_definition(MetricDefinition {
            metric_id: id(),
            name: "Accuracy".into(),
            description: None,
            attributes: MetricAttributes::None,
        });
    }

    fn log_epoch(history: &mut History, burns_number: usize, epoch: usize, accuracy: f64) {
        for (split, value) in [(Split::Train, accuracy - 1.0), (Split::Valid, accuracy)] {
            history.log(update(0.0, value), burns_number, &split);
            history.log_epoch_summary(EpochSummary::new(epoch, split));
        }
    }

    /// What Burn logs for one batch: the value of the batch and the one of the epoch so far.
    fn update(batch: f64, running: f64) -> MetricsUpdate {
        let entry = MetricEntry::new(id(), SerializedEntry::new(String::new(), batch.to_string()));
        let update = NumericMetricUpdate::new(entry, NumericEntry::Value(batch), NumericEntry::Value(running));
        MetricsUpdate::new(vec![], vec![update])
    }

    #[test]
    fn an_epoch_appears_when_its_validation_is_complete() {
        let directory = tempfile::tempdir().unwrap();
        let history = with_accuracies(directory.path(), &[50.0, 70.0, 70.0]);
        assert_eq!(history.wait_valid(2, "Accuracy"), Some(70.0));
        assert_eq!(history.wait_valid(2, "Nonsense"), None);
        assert_eq!(history.epoch(3).unwrap().train["Accuracy"], 69.0);
        assert_eq!(history.epoch(4), None);
        assert_eq!(history.best_epoch(&MetricGoal::maximize("Accuracy")), Some(2));
        assert_eq!(history.best_epoch(&MetricGoal::minimize("Accuracy")), Some(1));
        assert_eq!(history.best_epoch(&MetricGoal::maximize("Nonsense")), None);
        assert_eq!(history.valid_metrics(), ["Accuracy"]);
    }

    #[test]
    fn waiting_ends_when_another_thread_delivers() {
        let directory = tempfile::tempdir().unwrap();
        let mut history = with_accuracies(directory.path(), &[50.0]);
        let waiting = history.clone();
        let waiter = std::thread::spawn(move || waiting.wait_valid(2, "Accuracy"));
        log_epoch(&mut history, 2, 2, 60.0);
        assert_eq!(waiter.join().unwrap(), Some(60.0));
    }

    #[test]
    fn waiting_goes_on_as_long_as_entries_arrive_and_then_ends_with_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let mut history = with_accuracies(directory.path(), &[50.0]);
        let patience = Duration::from_millis(400);
        Arc::get_mut(&mut history.shared).unwrap().patience = [patience; 2];
        let waiting = history.clone();
        let waiter = std::thread::spawn(move || waiting.wait_valid(2, "Accuracy"));
        // A validation that takes three times the patience.
        for _ in 0..12 {
            std::thread::sleep(patience / 4);
            history.log(update(60.0, 60.0), 2, &Split::Valid);
        }
        log_epoch(&mut history, 2, 2, 60.0);
        assert_eq!(waiter.join().unwrap(), Some(60.0));
        let waiting = history.clone();
        let error = std::thread::spawn(move || waiting.wait_valid(3, "Accuracy")).join().unwrap_err();
        let error = error.downcast::<String>().unwrap();
        assert!(error.contains("epoch 3") && error.contains("with_metric_logger"), "{error}");
        assert_eq!(history.wait_valid(2, "Accuracy"), Some(60.0), "the history itself is intact");
    }

    #[test]
    fn a_resumed_history_numbers_epochs_on_and_drops_later_ones() {
        let directory = tempfile::tempdir().unwrap();
        let whole = with_accuracies(directory.path(), &[50.0, 60.0, 65.0]);
        with_accuracies(directory.path(), &[50.0, 60.0, 1.0]);
        let mut resumed = History::resume(directory.path(), 2).unwrap();
        assert_eq!(resumed.epoch(3), None);
        define(&mut resumed);
        // Burn counts the first epoch of a resumed run as 1.
        log_epoch(&mut resumed, 1, 3, 65.0);
        assert_eq!(resumed.epochs(), whole.epochs());
        assert!(directory.path().join("valid/epoch-3/Accuracy.log").is_file());
    }

    #[test]
    fn a_metric_that_diverged_survives_a_resume_and_is_never_best() {
        let directory = tempfile::tempdir().unwrap();
        let whole = with_accuracies(directory.path(), &[f64::NAN, 60.0, f64::INFINITY]);
        let resumed = History::resume(directory.path(), 3).unwrap();
        assert_eq!(whole.best_epoch(&MetricGoal::maximize("Accuracy")), Some(2));
        assert!(resumed.wait_valid(1, "Accuracy").unwrap().is_nan());
        assert_eq!(resumed.best_epoch(&MetricGoal::minimize("Accuracy")), Some(2));
    }

    #[test]
    fn the_last_running_value_of_an_epoch_counts() {
        let directory = tempfile::tempdir().unwrap();
        let mut history = with_accuracies(directory.path(), &[]);
        for (batch, running) in [(10.0, 10.0), (40.0, 25.0), (70.0, 40.0)] {
            history.log(update(batch, running), 1, &Split::Valid);
            assert_eq!(history.epoch(1), None);
        }
        history.log_epoch_summary(EpochSummary::new(1, Split::Valid));
        assert_eq!(history.wait_valid(1, "Accuracy"), Some(40.0));
        // The next epoch starts from nothing.
        history.log_epoch_summary(EpochSummary::new(2, Split::Valid));
        assert_eq!(history.wait_valid(2, "Accuracy"), None);
    }

    #[test]
    fn a_history_that_lacks_an_epoch_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        with_accuracies(directory.path(), &[50.0, 60.0]);
        let error = History::resume(directory.path(), 3).err().unwrap().to_string();
        assert!(error.contains("lacks epoch 3") && error.contains("history.json"), "{error}");
    }

    #[test]
    fn a_missing_or_broken_history_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = |directory: &Path| History::resume(directory, 1).err().unwrap().to_string();
        assert!(error(directory.path()).contains("history.json"));
        fs::write(directory.path().join("history.json"), "{").unwrap();
        assert!(error(directory.path()).contains("not the history of a run"));
    }
}
