#![doc = include_str!("../README.md")]

mod bench;
mod burnpack;
mod checkpoint;
mod convert;
mod export;
mod inspect;
mod items;
mod memory;
mod network;
mod npy;
mod output;
mod pack;
mod picture;
mod recognition;
mod report;
mod run;
mod summary;
mod table;
mod terminal;
mod unpack;
mod unpacked;
mod verify;
mod web;

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use serde::Serialize;

/// Pack, inspect, verify, unpack, convert, run and export ternary networks, and write reports of training runs.
#[derive(Debug, Parser)]
#[command(
    name = "ttq",
    version,
    after_help = "Exit code: 0 on success, 1 on an error (one message on standard error), 2 for invalid arguments."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Print the result as a JSON object; on an error, {"error": "message"}.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the contents of a file: sparsity, scales, bits and bytes of each ternary weight, totals and warnings.
    Inspect(inspect::Inspect),
    /// Pack the ternary weights of a checkpoint; all other tensors are stored unchanged.
    Pack(pack::Pack),
    /// Convert a packed file to float32 tensors, or to integer codes and scales.
    Unpack(unpack::Unpack),
    /// Write a float checkpoint of PyTorch or a burnpack file as safetensors, in float32.
    Convert(convert::Convert),
    /// Check a packed file: structure, checksum, codes and scales.
    Verify(verify::Verify),
    /// Compute the outputs of a network: of an array, or of pictures.
    Run(run::Run),
    /// Measure the latency and the throughput of a network, and the time of each of its layers.
    Bench(bench::Bench),
    /// Write a network as an ONNX model, in float32 or int8.
    Export(export::Export),
    /// Write a page that runs a network in a browser.
    Web(web::Web),
    /// Write the report of a training run to report.html in its directory.
    Report(report::Report),
    /// Write one page that compares several training runs.
    Compare(report::Compare),
}

impl Command {
    fn run(&self, json: bool) -> Result<String> {
        match self {
            Self::Inspect(inspect) => render(&inspect.run()?, json),
            Self::Pack(pack) => render(&pack.run()?, json),
            Self::Unpack(unpack) => render(&unpack.run()?, json),
            Self::Convert(convert) => render(&convert.run()?, json),
            Self::Verify(verify) => render(&verify.run()?, json),
            Self::Run(run) => render(&run.run()?, json),
            Self::Bench(bench) => render(&bench.run()?, json),
            Self::Export(export) => render(&export.run()?, json),
            Self::Web(web) => render(&web.run()?, json),
            Self::Report(report) => render(&report.run()?, json),
            Self::Compare(compare) => render(&compare.run()?, json),
        }
    }
}

fn render(output: &(impl Display + Serialize), json: bool) -> Result<String> {
    Ok(if json {
        terminal::json(&(serde_json::to_string_pretty(output)? + "\n"))
    } else {
        terminal::lines(&output.to_string())
    })
}

fn main() -> ExitCode {
    let Arguments { command, json } = Arguments::parse();
    let (text, code) = match command.run(json) {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(error) => {
            let message = ttq_pytorch::Escaped(&format!("{error:#}")).to_string();
            eprintln!("error: {message}");
            let text = if json { format!("{}\n", serde_json::json!({ "error": message })) } else { String::new() };
            (text, ExitCode::FAILURE)
        }
    };
    match io::stdout().write_all(text.as_bytes()) {
        // The reader closed the pipe, as in `ttq inspect FILE | head`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => code,
        Err(error) => {
            eprintln!("error: cannot write to standard output: {error}");
            ExitCode::FAILURE
        }
        Ok(()) => code,
    }
}
