//! Files on disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Coding, FileError, PackedModel, TernaryWeight};

impl PackedModel {
    /// Writes the model to a file that is there either whole or not at all: under a temporary name beside it, then to the disk, then
    /// under its own name. A file that was there is replaced, and stays where this fails.
    ///
    /// # Errors
    /// What [`write`](Self::write) refuses, and [`FileError::Io`].
    pub fn save(&self, path: impl AsRef<Path>, coding: Coding) -> Result<(), FileError> {
        self.save_with(path, |_, _| coding)
    }

    /// The same, with a coding for each weight by its name and itself.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub fn save_with(
        &self,
        path: impl AsRef<Path>,
        coding: impl Fn(&str, &TernaryWeight) -> Coding,
    ) -> Result<(), FileError> {
        let path = path.as_ref();
        let bytes = self.write_with(coding)?;
        let temporary = temporary_name(path);
        let fail = |action, path: &Path, cause| FileError::Io { action, path: path.into(), cause };
        let written = write_through(&temporary, &bytes).map_err(|cause| fail("write", &temporary, cause));
        let renamed = written.and_then(|()| fs::rename(&temporary, path).map_err(|cause| fail("replace", path, cause)));
        if renamed.is_err() {
            // The first error is the one to tell; nothing is lost with the second.
            fs::remove_file(&temporary).ok();
        }
        renamed?;
        sync_folder(path).map_err(|cause| fail("sync the folder of", path, cause))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// What [`read`](Self::read) refuses, and [`FileError::Io`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, FileError> {
        let path = path.as_ref();
        let bytes = fs::read(path).map_err(|cause| FileError::Io { action: "read", path: path.into(), cause })?;
        Self::read(&bytes)
    }
}

/// A name beside `path` that no other process and no other call uses.
fn temporary_name(path: &Path) -> PathBuf {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}-{call}.tmp", std::process::id()));
    path.with_file_name(name)
}

fn write_through(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A rename reaches the disk with its folder. Only Unix opens folders as files.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}
