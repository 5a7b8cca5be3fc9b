//! What can go wrong between a run's files and its page.

use std::path::PathBuf;

/// A report that cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The directory holds none of a run's files.
    #[error(
        "{} holds no run (neither config.json nor summary.json, evidence.json or a history): give the directory of a run",
        directory.display()
    )]
    NoRun {
        /// The directory.
        directory: PathBuf,
    },
    /// Nothing to compare.
    #[error("no run was given to compare: name at least one directory")]
    NothingToCompare,
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what its name says.
    #[error("{} is damaged or not of a run: restore it or move it away ({source})", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}: is the directory writable? ({source})", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}
