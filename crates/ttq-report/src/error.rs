//! The error type of the crate.

use std::path::PathBuf;

/// Error of reading a run or writing its report. The message contains the cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The directory contains none of the files of a run.
    #[error(
        "{} contains no run (no config.json, summary.json, evidence.json or history.json): pass the directory of a run",
        directory.display()
    )]
    NoRun {
        /// The directory.
        directory: PathBuf,
    },
    /// The list of runs to compare is empty.
    #[error("there are no runs to compare: pass at least one directory of a run")]
    NothingToCompare,
    /// A file cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: std::io::Error,
    },
    /// A file is not valid JSON or does not have the expected fields.
    #[error("{} is damaged or is not a file of a run: restore or remove it ({cause})", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The cause, with line and column.
        cause: serde_json::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}: check that the directory exists and is writable ({cause})", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: std::io::Error,
    },
}
