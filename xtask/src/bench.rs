//! `cargo xtask bench`: benchmark suites, each a bench target of the examples' package.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

/// A benchmark suite.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Suite {
    /// Seconds per training step: full precision against ternary.
    Train,
}

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// The suite.
    suite: Suite,
    /// Write the figures to this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A small size: does it run?
    #[arg(long)]
    quick: bool,
    /// More arguments of the suite, after `--`; `-- --help` lists them.
    #[arg(last = true)]
    more: Vec<String>,
}

impl Bench {
    pub(crate) fn run(&self) -> Result<()> {
        let suite = match self.suite {
            Suite::Train => "train",
        };
        // The same packages as in a plain build, so that Burn is compiled once, with one set of features.
        let mut command = Command::new("cargo");
        command.current_dir(crate::root()).args(["bench", "--workspace", "--bench", suite, "--"]);
        if let Some(json) = &self.json {
            command.arg("--json").arg(std::path::absolute(json)?);
        }
        if self.quick {
            command.arg("--quick");
        }
        let status = command.args(&self.more).status().context("cannot start cargo")?;
        if !status.success() {
            bail!("the suite `{suite}` failed: its message is above");
        }
        Ok(())
    }
}
