#![doc = include_str!("../README.md")]

mod checkpoint;
mod inspect;
mod output;
mod pack;
mod pytorch;
mod recognition;
mod report;
mod summary;
mod table;
mod unpack;
mod verify;

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use serde::Serialize;

/// Packed files of ternary networks: made from checkpoints, shown, checked, and turned back.
#[derive(Debug, Parser)]
#[command(
    name = "ttq",
    version,
    after_help = "Exit code: 0, or 1 with one sentence on the standard error, or 2 for wrong arguments."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Answer in JSON; of an error {"error": "sentence"}.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what a file consists of: zeros, scales, bits and bytes of each weight, totals, warnings.
    Inspect(inspect::Inspect),
    /// Pack a checkpoint whose weights take three values already; what is not ternary stays as it is.
    Pack(pack::Pack),
    /// Turn a packed file into float tensors, or into integer codes and scales.
    Unpack(unpack::Unpack),
    /// Check a packed file: structure, checksum, codes and scales.
    Verify(verify::Verify),
    /// Write the page of a training run, report.html, anew.
    Report(report::Report),
    /// Write one page about several training runs.
    Compare(report::Compare),
}

impl Command {
    fn answer(&self, json: bool) -> Result<String> {
        match self {
            Self::Inspect(inspect) => render(&inspect.run()?, json),
            Self::Pack(pack) => render(&pack.run()?, json),
            Self::Unpack(unpack) => render(&unpack.run()?, json),
            Self::Verify(verify) => render(&verify.run()?, json),
            Self::Report(report) => render(&report.run()?, json),
            Self::Compare(compare) => render(&compare.run()?, json),
        }
    }
}

fn render(answer: &(impl Display + Serialize), json: bool) -> Result<String> {
    Ok(if json { serde_json::to_string_pretty(answer)? + "\n" } else { answer.to_string() })
}

fn main() -> ExitCode {
    let Arguments { command, json } = Arguments::parse();
    let (text, code) = match command.answer(json) {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(error) => {
            let sentence = format!("{error:#}");
            eprintln!("error: {sentence}");
            let text = if json { format!("{}\n", serde_json::json!({ "error": sentence })) } else { String::new() };
            (text, ExitCode::FAILURE)
        }
    };
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough: `ttq inspect FILE | head`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => code,
        Err(error) => {
            eprintln!("error: cannot write to the standard output: {error}");
            ExitCode::FAILURE
        }
        Ok(()) => code,
    }
}
