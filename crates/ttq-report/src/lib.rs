//! A run's record and its page.
//!
//! - [`record`] reads what a training run left in its directory: `config.json`, `summary.json`, the histories of its two
//!   phases, and `evidence.json` (predictions, latent weights' histograms, ternary codes, machine and versions). Every file
//!   may be missing.
//! - [`page`] turns a record into one HTML string without any reference to the outside: no scripts, no fonts, no network.
//!   What the record lacks, the page says.
//! - The arithmetic between them is free functions: [`classification`], [`calibration`], [`distribution`], [`operations`].
//!
//! ```no_run
//! let page = ttq_report::write("runs/mnist-1")?; // runs/mnist-1/report.html
//! ttq_report::compare(&["runs/mnist-1", "runs/mnist-2"], "comparison.html")?;
//! # Ok::<(), ttq_report::ReportError>(())
//! ```

pub mod calibration;
pub mod classification;
pub mod distribution;
pub mod operations;
pub mod page;
pub mod record;

mod chart;
mod error;

use std::fs;
use std::path::{Path, PathBuf};

pub use error::ReportError;
pub use record::Record;

/// Name of the page in a run's directory.
pub const REPORT: &str = "report.html";

/// Reads the run in `directory` and writes its page, [`REPORT`], there. Gives the page's path.
///
/// # Errors
/// [`ReportError`] where the directory holds no run, a file is damaged, or the page cannot be written.
pub fn write(directory: impl AsRef<Path>) -> Result<PathBuf, ReportError> {
    let record = Record::read(directory.as_ref())?;
    let path = directory.as_ref().join(REPORT);
    publish(&path, &page::render(&record))?;
    Ok(path)
}

/// Reads the runs in `directories` and writes one page about all of them to `out`.
///
/// # Errors
/// [`ReportError`] where there is no directory, one holds no run, a file is damaged, or the page cannot be written.
pub fn compare<P: AsRef<Path>>(directories: &[P], out: impl AsRef<Path>) -> Result<(), ReportError> {
    if directories.is_empty() {
        return Err(ReportError::NothingToCompare);
    }
    let records =
        directories.iter().map(|directory| Record::read(directory.as_ref())).collect::<Result<Vec<_>, _>>()?;
    publish(out.as_ref(), &page::render_comparison(&records))
}

/// Writes under a temporary name, then renames: a reader never sees half a page.
fn publish(path: &Path, text: &str) -> Result<(), ReportError> {
    let temporary = path.with_extension("html.part");
    fs::write(&temporary, text)
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|source| ReportError::Write { path: path.into(), source })
}
