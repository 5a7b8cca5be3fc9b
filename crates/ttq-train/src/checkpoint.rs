//! Checkpoints that are whole or not there, and which of them to keep.

use std::fs;
use std::path::{Path, PathBuf};

use burn::record::{FileRecorder, Recorder, RecorderError};
use burn::tensor::backend::Backend;
use burn::train::checkpoint::{CheckpointingAction, CheckpointingStrategy};
use burn::train::metric::store::EventStoreClient;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::History;

/// A [`FileRecorder`] around another that writes under a temporary name and then renames, so that a crash leaves nothing
/// half-written under the final name.
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
        let temporary = path.with_file_name(format!("part-{name}"));
        self.inner.save_item(item, temporary.clone())?;
        let extended = |path: &Path| path.with_extension(R::file_extension());
        fs::rename(extended(&temporary), extended(&path)).map_err(|error| {
            RecorderError::Unknown(format!("cannot rename {} to {}: {error}", temporary.display(), path.display()))
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

/// Saves every epoch and keeps the last one, to resume from, and the one with the best validation metric, to use.
#[derive(Clone)]
pub struct KeepLastAndBest {
    history: History,
    metric: String,
    kept: Vec<usize>,
}

impl KeepLastAndBest {
    /// Keeps by `metric` (higher is better) as logged in `history`.
    pub fn new(history: History, metric: &str) -> Self {
        // What an earlier process kept: its best, and its last, from which this one resumes.
        let last = history.epochs().last().map(|metrics| metrics.epoch);
        let kept = history.best_epoch(metric).into_iter().chain(last).collect();
        Self { history, metric: metric.into(), kept }
    }
}

impl CheckpointingStrategy for KeepLastAndBest {
    fn checkpointing(&mut self, epoch: usize, _store: &EventStoreClient) -> Vec<CheckpointingAction> {
        self.history.wait_valid(epoch, &self.metric);
        let best = self.history.best_epoch(&self.metric);
        let keep = |saved: usize| saved == epoch || Some(saved) == best;
        let mut actions = vec![CheckpointingAction::Save];
        actions
            .extend(self.kept.iter().filter(|saved| !keep(**saved)).map(|saved| CheckpointingAction::Delete(*saved)));
        self.kept.retain(|saved| keep(*saved));
        self.kept.push(epoch);
        actions
    }
}

/// The newest epoch of which model, optimizer and schedule are all saved in the `checkpoint` folder of a training's
/// directory.
pub fn latest_checkpoint(directory: impl AsRef<Path>) -> Option<usize> {
    let names: Vec<String> = fs::read_dir(directory.as_ref().join("checkpoint"))
        .ok()?
        .filter_map(|entry| Some(Path::new(&entry.ok()?.file_name()).file_stem()?.to_string_lossy().into_owned()))
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
    use burn::backend::Flex;
    use burn::module::Module;
    use burn::nn::{Linear, LinearConfig};
    use burn::record::{FullPrecisionSettings, NamedMpkFileRecorder};

    type Atomic = AtomicRecorder<NamedMpkFileRecorder<FullPrecisionSettings>>;

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
}
