//! Atomic checkpoints, and the strategy that decides which of them to keep.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use burn::record::{FileRecorder, Recorder, RecorderError};
use burn::tensor::backend::Backend;
use burn::train::Interrupter;
use burn::train::checkpoint::{CheckpointingAction, CheckpointingStrategy};
use burn::train::metric::store::EventStoreClient;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{History, MetricGoal};

/// A [`FileRecorder`] that wraps another one: it writes to a temporary name, syncs the file, then renames it, so that no
/// truncated file appears under the final name. The file format is that of the wrapped recorder, which can read the file.
#[derive(Debug, Clone, Default)]
pub struct AtomicRecorder<R> {
    inner: R,
}

impl<B: Backend, R: FileRecorder<B>> Recorder<B> for AtomicRecorder<R> {
    type Settings = R::Settings;
    type RecordArgs = PathBuf;
    type RecordOutput = ();
    type LoadArgs = PathBuf;

    fn save_item<I: Serialize>(&self, item: I, path: PathBuf) -> Result<(), RecorderError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let temporary = path.with_file_name(format!("{TEMPORARY}{name}"));
        self.inner.save_item(item, temporary.clone())?;
        let [temporary, path] = [temporary, path].map(|path| path.with_extension(R::file_extension()));
        sync_and_rename(&temporary, &path).map_err(|error| {
            let (temporary, path) = (temporary.display(), path.display());
            RecorderError::Unknown(format!("cannot move {temporary} to {path}, free space or fix permissions: {error}"))
        })
    }

    fn load_item<I: DeserializeOwned>(&self, path: &mut PathBuf) -> Result<I, RecorderError> {
        self.inner.load_item(path)
    }
}

impl<B: Backend, R: FileRecorder<B>> FileRecorder<B> for AtomicRecorder<R> {
    fn file_extension() -> &'static str {
        R::file_extension()
    }
}

/// Prefix of the name of a file that is not complete.
const TEMPORARY: &str = "part-";

/// Syncs a file, then renames it, so that no truncated file appears.
pub(crate) fn sync_and_rename(temporary: &Path, path: &Path) -> std::io::Result<()> {
    File::options().write(true).open(temporary)?.sync_all()?;
    fs::rename(temporary, path)
}

/// Saves every epoch; keeps the last checkpoint, to resume from, and the one with the best validation metric (the earliest
/// of equal ones), to use. It deletes an older checkpoint after all files of the new one are written. If the metric is not
/// logged, it deletes nothing, logs an error that lists the metrics, and stops the training by its interrupter.
#[derive(Clone)]
pub struct KeepLastAndBest {
    history: History,
    goal: MetricGoal,
    interrupter: Interrupter,
    /// Epochs whose checkpoints may exist.
    saved: Vec<usize>,
}

impl KeepLastAndBest {
    /// Creates the strategy. It compares epochs by the metric of `goal` as logged in `history`.
    pub fn new(history: History, goal: MetricGoal) -> Self {
        // Includes checkpoints that an earlier process was stopped from deleting.
        let saved = history.epochs().iter().map(|metrics| metrics.epoch).collect();
        Self { history, goal, interrupter: Interrupter::new(), saved }
    }

    /// Saves no checkpoint after `interrupter` has stopped the training.
    ///
    /// burn-train then ends the validation of the running epoch early and asks for its checkpoint all the same. The metric
    /// of a part of the validation split would take part in the choice of the best epoch, and a resumed run would differ
    /// from an uninterrupted one. Without the checkpoint, the resumed run trains that epoch again.
    #[must_use]
    pub fn with_interrupter(mut self, interrupter: Interrupter) -> Self {
        self.interrupter = interrupter;
        self
    }

    fn actions(&mut self, epoch: usize) -> Vec<CheckpointingAction> {
        if self.interrupter.should_stop() {
            return Vec::new();
        }
        self.saved.push(epoch);
        if self.history.wait_valid(epoch, self.goal.metric()).is_none() {
            log::error!(
                "no checkpoint is deleted: epoch {epoch} has no validation metric `{}`; the metrics are: {}",
                self.goal.metric(),
                self.history.valid_metrics().join(", ")
            );
            self.interrupter.stop(Some("the metric of the goal is not logged"));
            return vec![CheckpointingAction::Save];
        }
        let best = self.history.best_epoch(&self.goal);
        let (kept, stale): (Vec<_>, Vec<_>) =
            self.saved.iter().copied().partition(|saved| *saved == epoch || Some(*saved) == best);
        self.saved = kept;
        let mut actions = vec![CheckpointingAction::Save];
        if !stale.is_empty() {
            actions.push(BARRIER);
        }
        actions.extend(stale.into_iter().map(CheckpointingAction::Delete));
        actions
    }
}

/// Deletes nothing, since epochs count from 1, but makes burn-train wait: each of its three checkpointer threads (model,
/// optimizer, schedule) accepts an action only after it has finished the one before. Without it, the old model could be
/// deleted while the new optimizer is still being written, and a crash at that moment would leave no complete checkpoint.
const BARRIER: CheckpointingAction = CheckpointingAction::Delete(0);

impl CheckpointingStrategy for KeepLastAndBest {
    fn checkpointing(&mut self, epoch: usize, _store: &EventStoreClient) -> Vec<CheckpointingAction> {
        self.actions(epoch)
    }
}

/// Returns the newest epoch whose model, optimizer and schedule are all saved in the folder `checkpoint` of a training's
/// directory, by any recorder. Incomplete files do not count.
pub fn latest_checkpoint(directory: impl AsRef<Path>) -> Option<usize> {
    // The stem of `model-3.mpk.gz` is `model-3`: some of Burn's extensions have two parts.
    let stem = |name: &str| Some(name.split_once('.')?.0.to_owned());
    let names: Vec<String> = fs::read_dir(directory.as_ref().join("checkpoint"))
        .ok()?
        .filter_map(|entry| stem(entry.ok()?.file_name().to_str()?))
        .collect();
    let has = |part: &str, epoch: usize| names.contains(&format!("{part}-{epoch}"));
    names
        .iter()
        .filter_map(|name| name.strip_prefix("model-")?.parse().ok())
        .filter(|epoch| has("optim", *epoch) && has("scheduler", *epoch))
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::tests::with_accuracies;
    use burn::backend::Flex;
    use burn::module::Module;
    use burn::nn::{Linear, LinearConfig};
    use burn::record::{FullPrecisionSettings, NamedMpkFileRecorder, NamedMpkGzFileRecorder};
    use burn::train::checkpoint::CheckpointingAction::{Delete, Save};
    use burn::train::checkpoint::{AsyncCheckpointer, Checkpointer, CheckpointerError};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    fn goal() -> MetricGoal {
        MetricGoal::maximize("Accuracy")
    }

    type Plain = NamedMpkFileRecorder<FullPrecisionSettings>;
    type Atomic = AtomicRecorder<Plain>;

    #[test]
    fn a_record_comes_back_and_leaves_no_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model-3");
        let device = Default::default();
        let layer: Linear<Flex> = LinearConfig::new(3, 2).init(&device);
        layer.weight.val(); // Clones of an uninitialized parameter would each draw other values.
        layer.clone().save_file(&path, &Atomic::default()).unwrap();
        let names: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["model-3.mpk"]);
        let other: Linear<Flex> = LinearConfig::new(3, 2).init(&device);
        let loaded = other.load_file(&path, &Atomic::default(), &device).unwrap();
        loaded.weight.val().into_data().assert_eq(&layer.weight.val().into_data(), true);
        let other: Linear<Flex> = LinearConfig::new(3, 2).init(&device);
        let plain = other.load_file(&path, &Plain::default(), &device).unwrap();
        plain.weight.val().into_data().assert_eq(&layer.weight.val().into_data(), true);
    }

    /// Fails after its first bytes, as on a full disk.
    #[derive(Debug, Clone, Default)]
    struct Broken;

    impl Recorder<Flex> for Broken {
        type Settings = FullPrecisionSettings;
        type RecordArgs = PathBuf;
        type RecordOutput = ();
        type LoadArgs = PathBuf;

        fn save_item<I: Serialize>(&self, _item: I, path: PathBuf) -> Result<(), RecorderError> {
            fs::write(path.with_extension("mpk"), "half").unwrap();
            Err(RecorderError::Unknown("the disk is full".into()))
        }

        fn load_item<I: DeserializeOwned>(&self, path: &mut PathBuf) -> Result<I, RecorderError> {
            Recorder::<Flex>::load_item(&Plain::default(), path)
        }
    }

    impl FileRecorder<Flex> for Broken {
        fn file_extension() -> &'static str {
            "mpk"
        }
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model-3");
        let recorder = |saved: usize| Recorder::<Flex>::record(&Atomic::default(), saved, path.clone());
        recorder(7).unwrap();
        let broken = AtomicRecorder { inner: Broken };
        assert!(Recorder::<Flex>::record(&broken, 8_usize, path.clone()).is_err());
        let loaded: usize = Recorder::<Flex>::load(&Atomic::default(), path.clone(), &Default::default()).unwrap();
        assert_eq!(loaded, 7);
    }

    #[test]
    fn the_last_and_the_best_epoch_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let accuracies = [50.0, 70.0, 60.0, 70.0, 80.0];
        let mut strategy = KeepLastAndBest::new(History::new(directory.path()), goal());
        let expected = [
            vec![Save],
            vec![Save, BARRIER, Delete(1)],
            vec![Save],
            // As good as epoch 2, but later.
            vec![Save, BARRIER, Delete(3)],
            vec![Save, BARRIER, Delete(2), Delete(4)],
        ];
        for (index, expected) in expected.iter().enumerate() {
            strategy.history = with_accuracies(directory.path(), &accuracies[..=index]);
            assert_eq!(&strategy.actions(index + 1), expected, "epoch {}", index + 1);
        }
    }

    #[test]
    fn a_minimized_metric_keeps_its_lowest_value() {
        let directory = tempfile::tempdir().unwrap();
        let history = with_accuracies(directory.path(), &[50.0, 40.0, 60.0]);
        let mut strategy = KeepLastAndBest::new(history, MetricGoal::minimize("Accuracy"));
        assert_eq!(strategy.actions(3), [Save, BARRIER, Delete(1)]);
    }

    #[test]
    fn a_metric_that_is_not_logged_deletes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let history = with_accuracies(directory.path(), &[50.0, 40.0, 60.0]);
        let mut strategy = KeepLastAndBest::new(history, MetricGoal::maximize("accuracy"));
        assert_eq!(strategy.actions(3), [Save]);
    }

    /// A slow disk that records each action when it is done.
    struct Slow(&'static str, Arc<Mutex<Vec<String>>>);

    impl Checkpointer<usize, Flex> for Slow {
        fn save(&self, epoch: usize, _record: usize) -> Result<(), CheckpointerError> {
            std::thread::sleep(Duration::from_millis(if self.0 == "model" { 0 } else { 100 }));
            self.1.lock().unwrap().push(format!("save {} {epoch}", self.0));
            Ok(())
        }

        fn delete(&self, epoch: usize) -> Result<(), CheckpointerError> {
            self.1.lock().unwrap().push(format!("delete {} {epoch}", self.0));
            Ok(())
        }

        fn restore(&self, _epoch: usize, _device: &burn_flex::FlexDevice) -> Result<usize, CheckpointerError> {
            Err(CheckpointerError::Unknown("never saved".into()))
        }
    }

    #[test]
    fn nothing_is_deleted_before_the_new_checkpoint_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let mut strategy = KeepLastAndBest::new(with_accuracies(directory.path(), &[50.0, 60.0]), goal());
        strategy.saved.push(1);
        let log = Arc::new(Mutex::new(Vec::new()));
        let parts = ["model", "optim", "scheduler"].map(|part| AsyncCheckpointer::new(Slow(part, log.clone())));
        // The loop of Burn's learner.
        for action in strategy.actions(2) {
            for part in &parts {
                match action {
                    Save => part.save(2, 0).unwrap(),
                    Delete(epoch) => part.delete(epoch).unwrap(),
                }
            }
        }
        drop(parts);
        let log = log.lock().unwrap();
        let at = |entry: &str| log.iter().position(|found| found == entry).unwrap();
        assert!(at("delete model 1") > at("save optim 2").max(at("save scheduler 2")), "{log:?}");
    }

    #[test]
    fn a_resumed_training_deletes_what_its_predecessor_did_not() {
        let directory = tempfile::tempdir().unwrap();
        with_accuracies(directory.path(), &[50.0, 70.0, 60.0]);
        let mut strategy = KeepLastAndBest::new(History::resume(directory.path(), 3).unwrap(), goal());
        strategy.history = with_accuracies(directory.path(), &[50.0, 70.0, 60.0, 65.0]);
        assert_eq!(strategy.actions(4), [Save, BARRIER, Delete(1), Delete(3)]);
    }

    #[test]
    fn an_epoch_in_which_training_was_stopped_is_not_saved() {
        let directory = tempfile::tempdir().unwrap();
        let interrupter = Interrupter::new();
        let history = with_accuracies(directory.path(), &[50.0, 100.0]);
        let mut strategy = KeepLastAndBest::new(history, goal()).with_interrupter(interrupter.clone());
        assert_eq!(strategy.actions(1)[0], Save);
        interrupter.stop(None);
        assert_eq!(strategy.actions(2), []);
    }

    #[test]
    fn the_latest_checkpoint_is_the_newest_that_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(latest_checkpoint(directory.path()), None);
        let folder = directory.path().join("checkpoint");
        fs::create_dir(&folder).unwrap();
        for name in ["model-2", "optim-2", "scheduler-2", "model-10", "optim-10", "part-scheduler-10", "model-9"] {
            fs::write(folder.join(format!("{name}.mpk")), "").unwrap();
        }
        assert_eq!(latest_checkpoint(directory.path()), Some(2));
        fs::write(folder.join("scheduler-10.mpk"), "").unwrap();
        assert_eq!(latest_checkpoint(directory.path()), Some(10));
    }

    #[test]
    fn a_checkpoint_is_found_whatever_its_extension() {
        let directory = tempfile::tempdir().unwrap();
        let recorder = AtomicRecorder::<NamedMpkGzFileRecorder<FullPrecisionSettings>>::default();
        for part in ["model", "optim", "scheduler"] {
            let path = directory.path().join("checkpoint").join(format!("{part}-12"));
            Recorder::<Flex>::record(&recorder, 1_usize, path).unwrap();
        }
        assert_eq!(latest_checkpoint(directory.path()), Some(12));
    }
}
