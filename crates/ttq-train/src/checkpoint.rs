//! Atomic checkpoints, and the strategy that decides which of them to keep.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use burn::record::{
    FileRecorder, NamedMpkBytesRecorder, NamedMpkFileRecorder, PrecisionSettings, Recorder, RecorderError,
};
use burn::tensor::backend::Backend;
use burn::train::Interrupter;
use burn::train::checkpoint::{CheckpointingAction, CheckpointingStrategy};
use burn::train::metric::store::EventStoreClient;
use serde::Serialize;
use serde::de::DeserializeOwned;
use ttq_packed::file::write_atomically;

use crate::divergence::Watch;
use crate::{History, MetricGoal};

/// Burn's [`NamedMpkFileRecorder`] with atomic writing: a file is complete and synced when it appears under its name.
///
/// Each recorder writes files that the other one reads. On failure, for instance on a full disk, an existing file is
/// unchanged and no temporary file is left. (Burn's file recorders drop the error of their last write, and leave a
/// truncated file under the final name.)
#[derive(Debug, Clone, Default)]
pub struct AtomicRecorder<S: PrecisionSettings> {
    format: NamedMpkFileRecorder<S>,
    /// The first failure. Burn's learner keeps only its text.
    failure: Arc<Mutex<Option<(PathBuf, io::Error)>>>,
}

impl<S: PrecisionSettings> AtomicRecorder<S> {
    /// Takes the path and the error of the first file that this recorder or a clone of it could not write.
    pub(crate) fn take_failure(&self) -> Option<(PathBuf, io::Error)> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn write(&self, path: &Path, contents: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), RecorderError> {
        let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
        folder.and_then(|()| write_atomically(path, contents)).map_err(|error| {
            let message = format!("cannot write {}: {error}", path.display());
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((path.into(), error));
            RecorderError::Unknown(message)
        })
    }
}

impl<B: Backend, S: PrecisionSettings> Recorder<B> for AtomicRecorder<S> {
    type Settings = S;
    type RecordArgs = PathBuf;
    type RecordOutput = ();
    type LoadArgs = PathBuf;

    fn save_item<I: Serialize>(&self, item: I, path: PathBuf) -> Result<(), RecorderError> {
        let bytes = Recorder::<B>::save_item(&NamedMpkBytesRecorder::<S>::default(), item, ())?;
        let path = path.with_extension(<Self as FileRecorder<B>>::file_extension());
        self.write(&path, |file| file.write_all(&bytes))
    }

    fn load_item<I: DeserializeOwned>(&self, path: &mut PathBuf) -> Result<I, RecorderError> {
        Recorder::<B>::load_item(&self.format, path)
    }
}

impl<B: Backend, S: PrecisionSettings> FileRecorder<B> for AtomicRecorder<S> {
    fn file_extension() -> &'static str {
        <NamedMpkFileRecorder<S> as FileRecorder<B>>::file_extension()
    }
}

/// Saves every epoch; keeps the last checkpoint, to resume from, and the one with the best validation metric (the
/// earliest of equal ones), to use.
///
/// It deletes an older checkpoint only after it finds all files of a newer one on the disk: before the next checkpoint,
/// and when it is dropped. If the metric is not logged, it deletes nothing, logs an error that lists the metrics, and
/// stops the training by its interrupter.
///
/// The directory of the history must be that of the training.
#[derive(Clone)]
pub struct KeepLastAndBest {
    history: History,
    goal: MetricGoal,
    interrupter: Interrupter,
    watch: Option<Watch>,
}

impl KeepLastAndBest {
    /// Creates the strategy. It compares epochs by the metric of `goal` as logged in `history`.
    pub fn new(history: History, goal: MetricGoal) -> Self {
        Self { history, goal, interrupter: Interrupter::new(), watch: None }
    }

    /// Saves no checkpoint after `interrupter` has stopped the training.
    ///
    /// burn-train then ends the validation of the running epoch early and asks for its checkpoint all the same. The
    /// metric of a part of the validation split would take part in the choice of the best epoch, and a resumed run
    /// would differ from an uninterrupted one. Without the checkpoint, the resumed run trains that epoch again.
    #[must_use]
    pub fn with_interrupter(mut self, interrupter: Interrupter) -> Self {
        self.interrupter = interrupter;
        self
    }

    /// Saves no checkpoint of a training that has diverged.
    #[must_use]
    pub(crate) fn with_watch(mut self, watch: Watch) -> Self {
        self.watch = Some(watch);
        self
    }

    fn is_stopped(&self) -> bool {
        self.interrupter.should_stop() || self.watch.as_ref().is_some_and(|watch| watch.found().is_some())
    }

    fn actions(&self, epoch: usize) -> Vec<CheckpointingAction> {
        if self.is_stopped() {
            return Vec::new();
        }
        if self.history.wait_valid(epoch, self.goal.metric()).is_none() {
            log::error!(
                "no checkpoint is deleted: epoch {epoch} has no validation metric `{}`; the metrics are: {}",
                self.goal.metric(),
                self.history.valid_metrics().join(", ")
            );
            self.interrupter.stop(Some("the metric of the goal is not logged"));
            return vec![CheckpointingAction::Save];
        }
        // Without its history a training cannot resume.
        if self.history.has_failed() {
            self.interrupter.stop(Some("the history cannot be written"));
        }
        // The metrics of the epoch may have stopped the training.
        if self.is_stopped() {
            return Vec::new();
        }
        self.delete_stale();
        vec![CheckpointingAction::Save]
    }

    /// Deletes the checkpoints before the newest complete one, except the best of them.
    fn delete_stale(&self) {
        if !self.history.valid_metrics().iter().any(|name| name == self.goal.metric()) {
            return;
        }
        let saved = complete_checkpoints(self.history.directory());
        let Some(newest) = saved.first().copied() else { return };
        let best = self.history.best_epoch_of(&self.goal, &saved);
        for (path, epoch) in checkpoint_files(self.history.directory()) {
            if epoch < newest
                && Some(epoch) != best
                && let Err(error) = fs::remove_file(&path)
            {
                log::warn!("cannot delete the old checkpoint {}: {error}", path.display());
            }
        }
    }
}

impl Drop for KeepLastAndBest {
    /// burn-train drops the strategy after all files are written.
    fn drop(&mut self) {
        self.delete_stale();
    }
}

impl CheckpointingStrategy for KeepLastAndBest {
    fn checkpointing(&mut self, epoch: usize, _store: &EventStoreClient) -> Vec<CheckpointingAction> {
        self.actions(epoch)
    }
}

/// The files of a checkpoint.
pub(crate) const PARTS: [&str; 3] = ["model", "optim", "scheduler"];

/// Returns the files of all checkpoints in a training's directory, complete ones or not, with their epochs.
fn checkpoint_files(directory: &Path) -> Vec<(PathBuf, usize)> {
    let Ok(entries) = fs::read_dir(directory.join("checkpoint")) else { return Vec::new() };
    let epoch = |path: &Path| {
        // The stem of `model-3.mpk.gz` is `model-3`: some of Burn's extensions have two parts.
        let (part, epoch) = path.file_name()?.to_str()?.split_once('.')?.0.split_once('-')?;
        if PARTS.contains(&part) { epoch.parse().ok() } else { None }
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let files = paths.filter(|path| path.is_file());
    files.filter_map(|path| epoch(&path).map(|epoch| (path, epoch))).collect()
}

/// Returns the epochs whose model, optimizer and schedule are all saved, from the newest to the oldest.
pub(crate) fn complete_checkpoints(directory: &Path) -> Vec<usize> {
    let mut files = BTreeMap::<usize, usize>::new();
    checkpoint_files(directory).into_iter().for_each(|(_, epoch)| *files.entry(epoch).or_default() += 1);
    files.into_iter().rev().filter(|(_, count)| *count == PARTS.len()).map(|(epoch, _)| epoch).collect()
}

/// Deletes the files of the checkpoints after `epoch`, and the temporary files of a process that was killed while it
/// wrote.
pub(crate) fn delete_after(directory: &Path, epoch: usize) {
    let later = checkpoint_files(directory).into_iter().filter(|(_, found)| *found > epoch).map(|(path, _)| path);
    let folders = [directory.to_path_buf(), directory.join("checkpoint")];
    let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let temporary =
        paths.filter(|path| path.is_file() && path.extension().is_some_and(|extension| extension == "part"));
    for path in later.chain(temporary) {
        if let Err(error) = fs::remove_file(&path) {
            log::warn!("cannot delete {}: {error}", path.display());
        }
    }
}

/// Returns the newest epoch whose model, optimizer and schedule are all saved in the folder `checkpoint` of a
/// training's directory, by any recorder. Incomplete files do not count.
pub fn latest_checkpoint(directory: impl AsRef<Path>) -> Option<usize> {
    complete_checkpoints(directory.as_ref()).first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::tests::with_accuracies;
    use burn::backend::Flex;
    use burn::module::Module;
    use burn::nn::{Linear, LinearConfig};
    use burn::record::{FullPrecisionSettings, NamedMpkGzFileRecorder};
    use burn::train::checkpoint::CheckpointingAction::Save;

    fn goal() -> MetricGoal {
        MetricGoal::maximize("Accuracy")
    }

    type Plain = NamedMpkFileRecorder<FullPrecisionSettings>;
    type Atomic = AtomicRecorder<FullPrecisionSettings>;

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

    /// Mounts a file system of `kib` KiB, unmounted when dropped. `None` without the permission.
    struct SmallDisk(tempfile::TempDir);

    impl SmallDisk {
        fn mount(kib: usize) -> Option<Self> {
            let folder = tempfile::tempdir().unwrap();
            let size = format!("size={kib}k");
            let mut mount = std::process::Command::new("mount");
            let mounted = mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
            mounted.is_ok_and(|output| output.status.success()).then_some(Self(folder))
        }
    }

    impl Drop for SmallDisk {
        fn drop(&mut self) {
            let unmounted = std::process::Command::new("umount").arg(self.0.path()).status();
            assert!(unmounted.is_ok_and(|status| status.success()));
        }
    }

    #[test]
    fn a_full_disk_is_an_error_with_the_cause_and_leaves_the_old_file_alone() {
        let Some(disk) = SmallDisk::mount(64) else {
            println!("skipped: mounting a file system needs a permission");
            return;
        };
        let path = disk.0.path().join("model-3");
        let recorder = Atomic::default();
        Recorder::<Flex>::record(&recorder, vec![0.25_f32; 1], path.clone()).unwrap();
        let mut failures = 0;
        // Every size around the space that is left, a block of 4 KiB.
        for size in (40..80).map(|kib| 1024 * kib - 300) {
            let expected = match Recorder::<Flex>::record(&recorder, vec![0.5_f32; size / 4], path.clone()) {
                Ok(()) => vec![0.5; size / 4],
                Err(_) => {
                    failures += 1;
                    let (failed, error) = recorder.take_failure().unwrap();
                    assert_eq!((failed, error.kind()), (path.with_extension("mpk"), io::ErrorKind::StorageFull));
                    vec![0.25]
                }
            };
            assert_eq!(names(disk.0.path()), ["model-3.mpk"], "{size}");
            let loaded = Recorder::<Flex>::load::<Vec<f32>>(&recorder, path.clone(), &Default::default());
            assert_eq!(loaded.unwrap(), expected, "{size}");
            Recorder::<Flex>::record(&recorder, vec![0.25_f32; 1], path.clone()).unwrap();
        }
        assert!((1..40).contains(&failures), "{failures} of 40 sizes do not fit");
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model-3");
        Recorder::<Flex>::record(&Atomic::default(), 7_usize, path.clone()).unwrap();
        // It fails at once, in the writer's buffer, and after bytes have reached the disk.
        for written in [0, 10, 1 << 20] {
            let recorder = Atomic::default();
            let file = path.with_extension("mpk");
            let result = recorder.write(&file, |contents| {
                contents.write_all(&vec![1; written])?;
                Err(io::ErrorKind::StorageFull.into())
            });
            assert!(result.unwrap_err().to_string().contains("model-3.mpk"));
            let (failed, error) = recorder.take_failure().unwrap();
            assert_eq!((failed, error.kind()), (file, io::ErrorKind::StorageFull));
            assert_eq!(names(directory.path()), ["model-3.mpk"], "no temporary file is left");
            let loaded: usize = Recorder::<Flex>::load(&recorder, path.clone(), &Default::default()).unwrap();
            assert_eq!(loaded, 7);
        }
    }

    #[test]
    fn a_file_that_cannot_get_its_name_is_an_error_and_leaves_no_temporary_file() {
        let directory = tempfile::tempdir().unwrap();
        let recorder = Atomic::default();
        let blocked = directory.path().join("model-4");
        fs::create_dir(blocked.with_extension("mpk")).unwrap();
        let error = Recorder::<Flex>::record(&recorder, 8_usize, blocked.clone()).unwrap_err().to_string();
        assert!(error.contains("model-4.mpk"), "{error}");
        assert_eq!(recorder.take_failure().unwrap().0, blocked.with_extension("mpk"));
        assert_eq!(names(directory.path()), ["model-4.mpk"]);
    }

    /// Writes the files of a checkpoint.
    fn save(directory: &Path, epoch: usize, parts: &[&str]) {
        let folder = directory.join("checkpoint");
        fs::create_dir_all(&folder).unwrap();
        parts.iter().for_each(|part| fs::write(folder.join(format!("{part}-{epoch}.mpk")), "").unwrap());
    }

    #[test]
    fn the_last_and_the_best_epoch_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let accuracies = [50.0, 70.0, 60.0, 70.0, 80.0];
        // Epoch 4 is as good as epoch 2, but later.
        let expected: [&[usize]; 5] = [&[1], &[2], &[3, 2], &[4, 2], &[5]];
        for (index, expected) in expected.iter().enumerate() {
            let history = with_accuracies(directory.path(), &accuracies[..=index]);
            let strategy = KeepLastAndBest::new(history, goal());
            assert_eq!(strategy.actions(index + 1), [Save]);
            save(directory.path(), index + 1, &PARTS);
            drop(strategy);
            assert_eq!(complete_checkpoints(directory.path()), *expected, "epoch {}", index + 1);
        }
    }

    #[test]
    fn a_minimized_metric_keeps_its_lowest_value() {
        let directory = tempfile::tempdir().unwrap();
        (1..=3).for_each(|epoch| save(directory.path(), epoch, &PARTS));
        let history = with_accuracies(directory.path(), &[50.0, 40.0, 60.0]);
        drop(KeepLastAndBest::new(history, MetricGoal::minimize("Accuracy")));
        assert_eq!(complete_checkpoints(directory.path()), [3, 2]);
    }

    #[test]
    fn a_metric_that_is_not_logged_deletes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        (1..=3).for_each(|epoch| save(directory.path(), epoch, &PARTS));
        let history = with_accuracies(directory.path(), &[50.0, 40.0, 60.0]);
        let strategy = KeepLastAndBest::new(history, MetricGoal::maximize("accuracy"));
        assert_eq!(strategy.actions(3), [Save]);
        drop(strategy);
        assert_eq!(complete_checkpoints(directory.path()), [3, 2, 1]);
    }

    #[test]
    fn nothing_is_deleted_before_a_newer_checkpoint_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        save(directory.path(), 1, &PARTS);
        let strategy = KeepLastAndBest::new(with_accuracies(directory.path(), &[50.0, 60.0]), goal());
        assert_eq!(strategy.actions(2), [Save]);
        // The disk is full: the optimizer is not saved.
        save(directory.path(), 2, &["model", "scheduler"]);
        drop(strategy.clone());
        assert_eq!(complete_checkpoints(directory.path()), [1]);
        save(directory.path(), 2, &["optim"]);
        drop(strategy);
        assert_eq!(complete_checkpoints(directory.path()), [2]);
    }

    #[test]
    fn the_best_epoch_is_chosen_among_those_that_are_saved() {
        let directory = tempfile::tempdir().unwrap();
        (1..=3).for_each(|epoch| save(directory.path(), epoch, &PARTS));
        // Epoch 4 is the best, but saving it failed: a resumed run needs the best of the others.
        drop(KeepLastAndBest::new(with_accuracies(directory.path(), &[50.0, 70.0, 60.0, 80.0]), goal()));
        assert_eq!(complete_checkpoints(directory.path()), [3, 2]);
    }

    #[test]
    fn an_epoch_in_which_training_was_stopped_is_not_saved() {
        let directory = tempfile::tempdir().unwrap();
        let interrupter = Interrupter::new();
        let history = with_accuracies(directory.path(), &[50.0, 100.0]);
        let strategy = KeepLastAndBest::new(history, goal()).with_interrupter(interrupter.clone());
        assert_eq!(strategy.actions(1), [Save]);
        interrupter.stop(None);
        assert_eq!(strategy.actions(2), []);
    }

    #[test]
    fn a_new_process_deletes_what_a_killed_one_left() {
        let directory = tempfile::tempdir().unwrap();
        (1..=2).for_each(|epoch| save(directory.path(), epoch, &PARTS));
        save(directory.path(), 3, &["model"]);
        for folder in [directory.path().to_path_buf(), directory.path().join("checkpoint")] {
            fs::write(folder.join(".17-0.part"), "").unwrap();
        }
        delete_after(directory.path(), 2);
        assert_eq!(checkpoint_files(directory.path()).len(), 6);
        assert_eq!(fs::read_dir(directory.path().join("checkpoint")).unwrap().count(), 6);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_latest_checkpoint_is_the_newest_that_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(latest_checkpoint(directory.path()), None);
        save(directory.path(), 2, &PARTS);
        save(directory.path(), 9, &["model"]);
        save(directory.path(), 10, &["model", "optim", "part-scheduler"]);
        assert_eq!(latest_checkpoint(directory.path()), Some(2));
        save(directory.path(), 10, &["scheduler"]);
        assert_eq!(latest_checkpoint(directory.path()), Some(10));
    }

    #[test]
    fn a_checkpoint_is_found_whatever_its_extension() {
        let directory = tempfile::tempdir().unwrap();
        let recorder = NamedMpkGzFileRecorder::<FullPrecisionSettings>::default();
        for part in PARTS {
            let path = directory.path().join("checkpoint").join(format!("{part}-12"));
            Recorder::<Flex>::record(&recorder, 1_usize, path).unwrap();
        }
        assert_eq!(latest_checkpoint(directory.path()), Some(12));
    }
}
