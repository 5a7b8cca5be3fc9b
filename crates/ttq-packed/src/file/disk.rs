//! Files on disk: models are loaded from them, and saved atomically.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Coding, FileError, PackedModel, TernaryWeight};

impl PackedModel {
    /// Saves the model to the file `path` by [`write_atomically`], with the same coding for all weights.
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
        write_bytes(path.as_ref(), &self.write_with(coding)?)
    }

    /// Loads a model from the file `path`.
    ///
    /// # Errors
    /// The errors of [`read`](Self::read), and [`FileError::Io`] if the file cannot be read.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, FileError> {
        Self::read(&read_bytes(path.as_ref())?)
    }
}

/// Writes the bytes of a file by [`write_atomically`].
pub(crate) fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write_atomically(path, |file| file.write_all(bytes)).map_err(|cause| FileError::Io {
        action: "write",
        path: path.into(),
        cause,
    })
}

/// Reads the bytes of a file.
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).map_err(|cause| FileError::Io { action: "read", path: path.into(), cause })
}

/// Writes the file `path` so that it is complete when it appears under its name. An existing file is replaced.
///
/// `contents` writes to a buffered temporary file in the same directory. The temporary file is synced to disk, then
/// renamed to `path`, and the directory is synced. The permissions are those of a new file.
///
/// If `contents` fails or panics, or a file operation fails, an existing file is unchanged and the temporary file is
/// removed. Only a failure to sync the directory is reported after the file was replaced.
///
/// # Errors
/// The error of `contents`, or that of the operating system, for example if the disk is full.
///
/// # Examples
/// ```
/// use std::io::Write;
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("notes.txt");
/// ttq_packed::file::write_atomically(&path, |file| file.write_all(b"complete"))?;
/// assert_eq!(std::fs::read(path)?, b"complete");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn write_atomically(
    path: impl AsRef<Path>,
    contents: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let path = path.as_ref();
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (file, temporary) = Temporary::create(directory)?;
    let mut writer = BufWriter::new(file);
    contents(&mut writer)?;
    // Unlike dropping the writer, this reports the error of the last flush.
    let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    drop(file);
    temporary.rename(path)?;
    sync_directory(directory)
}

/// A file that is removed when the value is dropped, unless it was renamed.
struct Temporary(Option<PathBuf>);

impl Temporary {
    /// Creates a file in `directory` under a name that no other file has.
    fn create(directory: &Path) -> io::Result<(File, Self)> {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        loop {
            // A short name, since the final one may have the maximum length.
            let call = CALLS.fetch_add(1, Ordering::Relaxed);
            let path = directory.join(format!(".{}-{call}.part", std::process::id()));
            match File::create_new(&path) {
                Ok(file) => return Ok((file, Self(Some(path)))),
                // A file that a killed process with the same identifier has left, which is common in containers.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn rename(mut self, path: &Path) -> io::Result<()> {
        if let Some(temporary) = &self.0 {
            fs::rename(temporary, path)?;
            self.0 = None;
        }
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // An error of the removal is ignored: the first error is the one to report.
            fs::remove_file(path).ok();
        }
    }
}

/// Syncs a directory, which makes a rename durable, where the system and the file system can. Only Unix can open
/// directories as files.
fn sync_directory(directory: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.or_else(|error| match error.kind() {
        ErrorKind::InvalidInput | ErrorKind::Unsupported | ErrorKind::PermissionDenied => Ok(()),
        _ => Err(error),
    })
}
