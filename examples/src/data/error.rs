//! Errors of data sets.

use std::io;
use std::path::PathBuf;

/// A data set that cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The given directory does not hold the data set.
    #[error(
        "no {name} in {} ({named_by}): {}; without --data and $TTQ_DATA the cache or a download is used",
        directory.display(),
        match directory.is_dir() {
            true => format!("expected {expected} there or in its folder `{folder}`"),
            false => "there is no such directory".to_owned(),
        }
    )]
    Missing {
        /// Name of the data set.
        name: &'static str,
        /// The directory.
        directory: PathBuf,
        /// What names the directory: `--data` or `$TTQ_DATA`.
        named_by: &'static str,
        /// The expected file.
        expected: &'static str,
        /// The folder that may hold the files.
        folder: &'static str,
    },
    /// There is no file at the given path.
    #[error("there is no file at {}: check --data", path.display())]
    NoFile {
        /// The path.
        path: PathBuf,
    },
    /// The file is empty.
    #[error("{} is empty: give a text with --data", path.display())]
    Empty {
        /// Path of the file.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// The failed operation, as a verb.
        action: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file is damaged.
    #[error("{} is damaged: its {what} should be {expected} and is {found}; fetch the file again", path.display())]
    Damaged {
        /// Path of the file.
        path: PathBuf,
        /// The part that is wrong.
        what: &'static str,
        /// The expected value.
        expected: String,
        /// The value in the file.
        found: String,
    },
    /// A download failed.
    #[error(
        "cannot download {name} from {url} ({reason}): connect to the network, or fetch it elsewhere and give --data DIR"
    )]
    Download {
        /// Name of the data set.
        name: &'static str,
        /// Address.
        url: String,
        /// The cause.
        reason: String,
    },
    /// The data set is not on disk, and this program does not download it.
    #[error(
        "no {name} was found, and it is not downloaded by this program: fetch {url}, unpack it and give --data DIR"
    )]
    NotDownloaded {
        /// Name of the data set.
        name: &'static str,
        /// Address.
        url: &'static str,
    },
    /// Image files cannot be decoded.
    #[error("{bad} of {all} images of {name} cannot be decoded: {first}; fetch them again")]
    Undecodable {
        /// Name of the data set.
        name: &'static str,
        /// Number of such files.
        bad: usize,
        /// Number of all files.
        all: usize,
        /// Names of the first such files, with the causes.
        first: String,
    },
    /// The user has no cache directory.
    #[error("no cache directory is known for this user, so {name} cannot be downloaded: give --data DIR")]
    NoCache {
        /// Name of the data set.
        name: &'static str,
    },
}

impl DataError {
    /// Returns a function that makes an error of a failed operation on a file.
    pub fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// Creates the error of a damaged file.
    pub fn damaged(
        path: impl Into<PathBuf>,
        what: &'static str,
        expected: impl ToString,
        found: impl ToString,
    ) -> Self {
        Self::Damaged { path: path.into(), what, expected: expected.to_string(), found: found.to_string() }
    }
}
