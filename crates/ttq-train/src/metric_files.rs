//! The values of every batch in files, in the format of Burn's own logger.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use burn::train::metric::NumericEntry;
use burn::train::metric::store::Split;

/// Writes `<split>/epoch-<n>/<metric>.log`, one line for each batch, at the end of an epoch. (Burn's own logger panics
/// in a thread of its own if a file cannot be written.)
pub(crate) struct MetricFiles {
    directory: PathBuf,
    /// The lines of the running epochs.
    lines: BTreeMap<PathBuf, String>,
}

impl MetricFiles {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { directory: directory.into(), lines: BTreeMap::new() }
    }

    fn path(&self, name: &str, epoch: usize, split: &Split) -> PathBuf {
        self.folder(epoch, split).join(format!("{}.log", name.replace(' ', "_")))
    }

    fn folder(&self, epoch: usize, split: &Split) -> PathBuf {
        self.directory.join(split.to_string()).join(format!("epoch-{epoch}"))
    }

    /// Adds the value of a batch.
    pub(crate) fn log(&mut self, name: &str, value: &str, epoch: usize, split: &Split) {
        let lines = self.lines.entry(self.path(name, epoch, split)).or_default();
        lines.push_str(value);
        lines.push('\n');
    }

    /// Writes the files of an epoch. On failure, returns the path and the error of the first one.
    pub(crate) fn end_epoch(&mut self, epoch: usize, split: &Split) -> Result<(), (PathBuf, io::Error)> {
        let folder = self.folder(epoch, split);
        let (ended, running) =
            std::mem::take(&mut self.lines).into_iter().partition(|(path, _)| path.starts_with(&folder));
        self.lines = running;
        let ended: BTreeMap<PathBuf, String> = ended;
        if !ended.is_empty() {
            fs::create_dir_all(&folder).map_err(|error| (folder, error))?;
        }
        ended.into_iter().try_for_each(|(path, lines)| fs::write(&path, lines).map_err(|error| (path, error)))
    }

    /// Reads the values of an epoch, of the running one or from its file. Empty if there is none.
    pub(crate) fn read(&self, name: &str, epoch: usize, split: &Split) -> Result<Vec<NumericEntry>, String> {
        let path = self.path(name, epoch, split);
        let lines = self.lines.get(&path).cloned().unwrap_or_else(|| fs::read_to_string(&path).unwrap_or_default());
        lines.lines().map(NumericEntry::deserialize).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_of_an_epoch_are_read_while_it_runs_and_from_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = MetricFiles::new(directory.path());
        let read = |files: &MetricFiles, epoch| -> Vec<f64> {
            let entries = files.read("Top 5", epoch, &Split::Valid).unwrap();
            entries.iter().map(NumericEntry::current).collect()
        };
        files.log("Top 5", "1.5", 3, &Split::Valid);
        files.log("Top 5", "NaN,8", 3, &Split::Valid);
        files.log("Top 5", "7", 3, &Split::Train);
        assert_eq!(read(&files, 3)[0], 1.5);
        files.end_epoch(3, &Split::Valid).unwrap();
        files.log("Top 5", "2", 4, &Split::Valid);
        assert!(read(&files, 3)[1].is_nan() && read(&files, 4) == [2.0] && read(&files, 5).is_empty());
        assert!(directory.path().join("valid/epoch-3/Top_5.log").is_file());
        assert!(!directory.path().join("train").exists(), "the epoch of training has not ended");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("train"), "in the way").unwrap();
        let mut files = MetricFiles::new(directory.path());
        files.log("Loss", "1", 1, &Split::Train);
        let (path, _) = files.end_epoch(1, &Split::Train).unwrap_err();
        assert_eq!(path, directory.path().join("train/epoch-1"));
    }
}
