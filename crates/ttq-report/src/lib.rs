//! Reports of training runs: one self-contained HTML page per run.
//!
//! - [`record`] reads the files that a training run writes into its directory: `config.json`, `summary.json`, the
//!   `history.json` of both phases, and `evidence.json` (predictions, histograms of latent weights, ternary codes,
//!   machine and versions). Every file is optional.
//! - [`page`] renders a record as one HTML string without scripts, fonts or other external resources. Where a file is
//!   missing, the page says which one.
//! - [`classification`], [`calibration`], [`distribution`] and [`operations`] compute the statistics on the page, as
//!   free functions.
//! - [`network`] computes the statistics of a network's graph, and [`write_network`] writes a page with its picture.
//!
//! ```no_run
//! let page = ttq_report::write("runs/mnist-1")?; // runs/mnist-1/report.html
//! ttq_report::compare(&["runs/mnist-1", "runs/mnist-2"], "comparison.html")?;
//! # Ok::<(), ttq_report::ReportError>(())
//! ```

pub mod calibration;
pub mod classification;
pub mod distribution;
pub mod network;
pub mod operations;
pub mod page;
pub mod record;

mod chart;
mod environment;
mod error;

use std::path::{Path, PathBuf};

use network::NetworkSummary;

pub use environment::{environment, instruction_sets};
pub use error::ReportError;
pub use record::Record;

/// File name of the report in a run's directory.
pub const REPORT: &str = "report.html";

/// Writes the report of the run in `directory` to [`REPORT`] in the same directory and returns its path.
///
/// An existing report is replaced. The file is complete when it appears under its name.
///
/// # Errors
/// [`ReportError`] if the directory contains no run, a file of the run is damaged, or the report cannot be written.
pub fn write(directory: impl AsRef<Path>) -> Result<PathBuf, ReportError> {
    write_linked(directory, None)
}

/// Writes the report as [`write`](write()) does, with a link to a page that runs the network.
///
/// `web` is the address of that page, relative to the report's, as `ttq web` writes it.
///
/// # Errors
/// Those of [`write`](write()).
pub fn write_linked(directory: impl AsRef<Path>, web: Option<&str>) -> Result<PathBuf, ReportError> {
    let record = Record { web: web.map(Into::into), ..Record::read(directory.as_ref())? };
    let path = directory.as_ref().join(REPORT);
    write_text(&path, &page::render(&record))?;
    Ok(path)
}

/// Writes one page that compares the runs in `directories` to the file `out`.
///
/// An existing file is replaced. The file is complete when it appears under its name.
///
/// # Errors
/// [`ReportError`] if `directories` is empty, a directory contains no run, a file of a run is damaged, or the page
/// cannot be written.
pub fn compare<P: AsRef<Path>>(directories: &[P], out: impl AsRef<Path>) -> Result<(), ReportError> {
    if directories.is_empty() {
        return Err(ReportError::NothingToCompare);
    }
    let records =
        directories.iter().map(|directory| Record::read(directory.as_ref())).collect::<Result<Vec<_>, _>>()?;
    write_text(out.as_ref(), &page::render_comparison(&records))
}

/// Writes one page with the graph of a network to the file `out`.
///
/// An existing file is replaced. The file is complete when it appears under its name.
///
/// # Errors
/// [`ReportError::Write`] if the page cannot be written.
pub fn write_network(name: &str, network: &NetworkSummary, out: impl AsRef<Path>) -> Result<(), ReportError> {
    write_text(out.as_ref(), &page::render_network(name, network))
}

fn write_text(path: &Path, text: &str) -> Result<(), ReportError> {
    ttq_packed::file::write_atomically(path, |file| file.write_all(text.as_bytes()))
        .map_err(|cause| ReportError::Write { path: path.into(), cause })
}

/// Compiles the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
