//! Saving and loading of models as files on disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Coding, FileError, PackedModel, TernaryWeight};

impl PackedModel {
    /// Saves the model to the file `path` atomically, with the same coding for all weights.
    ///
    /// The bytes are written to a temporary file in the same directory and synced to disk before the temporary file is
    /// renamed to `path`. An existing file is replaced. If saving fails before the rename, an existing file is
    /// unchanged and the temporary file is removed.
    ///
    /// # Errors
    /// The errors of [`write`](Self::write), and [`FileError::Io`] if a file operation fails.
    pub fn save(&self, path: impl AsRef<Path>, coding: Coding) -> Result<(), FileError> {
        self.save_with(path, |_, _| coding)
    }

    /// Saves the model like [`save`](Self::save), with the coding that `coding(name, weight)` returns for each weight.
    ///
    /// # Errors
    /// The errors of [`save`](Self::save).
    pub fn save_with(
        &self,
        path: impl AsRef<Path>,
        coding: impl Fn(&str, &TernaryWeight) -> Coding,
    ) -> Result<(), FileError> {
        let path = path.as_ref();
        let bytes = self.write_with(coding)?;
        let temporary = temporary_name(path);
        let io_error = |action, path: &Path, cause| FileError::Io { action, path: path.into(), cause };
        let written = write_and_sync(&temporary, &bytes).map_err(|cause| io_error("write", &temporary, cause));
        let renamed =
            written.and_then(|()| fs::rename(&temporary, path).map_err(|cause| io_error("replace", path, cause)));
        if renamed.is_err() {
            // An error of the removal is ignored: the first error is the one to report.
            fs::remove_file(&temporary).ok();
        }
        renamed?;
        sync_directory(path).map_err(|cause| io_error("sync the directory of", path, cause))
    }

    /// Loads a model from the file `path`.
    ///
    /// # Errors
    /// The errors of [`read`](Self::read), and [`FileError::Io`] if the file cannot be read.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, FileError> {
        let path = path.as_ref();
        let bytes = fs::read(path).map_err(|cause| FileError::Io { action: "read", path: path.into(), cause })?;
        Self::read(&bytes)
    }
}

/// Returns a path in the directory of `path` that no other process and no other call uses.
fn temporary_name(path: &Path) -> PathBuf {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}-{call}.tmp", std::process::id()));
    path.with_file_name(name)
}

/// Writes a new file and syncs it to disk.
fn write_and_sync(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Syncs the directory of `path`, which makes a rename durable. Only Unix can open directories as files.
fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}
