//! `ttq report` and `ttq compare`: write HTML pages about training runs.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

/// Arguments of `ttq report`.
#[derive(Debug, Args)]
pub(crate) struct Report {
    /// Directory of a run.
    run: PathBuf,
    /// Link a page that `ttq web` wrote: its address, relative to the report.
    #[arg(long, value_name = "PAGE")]
    web: Option<String>,
}

/// Arguments of `ttq compare`.
#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// Directories of runs.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// File to write; an existing file is replaced.
    #[arg(short, long, value_name = "FILE", default_value = "comparison.html")]
    output: PathBuf,
}

/// Output of both commands: the path of the page.
#[derive(Debug, Serialize)]
pub(crate) struct Page {
    page: String,
}

impl Page {
    fn new(page: &Path) -> Self {
        Self { page: page.display().to_string() }
    }
}

impl Report {
    pub(crate) fn run(&self) -> Result<Page> {
        Ok(Page::new(&ttq_report::write_linked(&self.run, self.web.as_deref())?))
    }
}

impl Compare {
    pub(crate) fn run(&self) -> Result<Page> {
        ttq_report::compare(&self.runs, &self.output)?;
        Ok(Page::new(&self.output))
    }
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.page)
    }
}
