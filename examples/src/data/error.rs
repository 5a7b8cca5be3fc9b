//! What can be wrong with a data set.

use std::io;
use std::path::PathBuf;

/// A data set that cannot be had. Each message is one sentence: what, where, what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// Not in the directory that was asked for.
    #[error("no {name} in {}: expected {expected} there or in its folder `{folder}`", directory.display())]
    Missing {
        /// The data set.
        name: &'static str,
        /// Where it was looked for.
        directory: PathBuf,
        /// The file that was expected.
        expected: &'static str,
        /// The folder that may hold the files.
        folder: &'static str,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what its name says.
    #[error("{} is damaged: its {what} should be {expected} and is {found}; fetch the file again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The part that is wrong.
        what: &'static str,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// Nothing could be downloaded.
    #[error(
        "cannot download {name} from {url} ({reason}): connect to the network, or fetch it elsewhere and give --data DIR"
    )]
    Download {
        /// The data set.
        name: &'static str,
        /// Where from.
        url: String,
        /// Why not.
        reason: String,
    },
    /// Not on disk, and not for this program to download.
    #[error(
        "no {name} was found, and it is not downloaded by this program: fetch {url}, unpack it and give --data DIR"
    )]
    NotDownloaded {
        /// The data set.
        name: &'static str,
        /// Where it can be had.
        url: &'static str,
    },
    /// Image files that are none.
    #[error("{bad} of {all} images of {name} cannot be decoded: {first}; fetch them again")]
    Undecodable {
        /// The data set.
        name: &'static str,
        /// How many are bad.
        bad: usize,
        /// Of how many.
        all: usize,
        /// Names of the first ones, and why.
        first: String,
    },
    /// There is no place for downloads.
    #[error("no cache directory is known for this user, so {name} cannot be downloaded: give --data DIR")]
    NoCache {
        /// The data set.
        name: &'static str,
    },
}

impl DataError {
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    pub(crate) fn damaged(
        path: impl Into<PathBuf>,
        what: &'static str,
        expected: impl ToString,
        found: impl ToString,
    ) -> Self {
        Self::Damaged { path: path.into(), what, expected: expected.to_string(), found: found.to_string() }
    }
}
