//! A trained network on packed weights: `cargo run --release --example deploy -- RUN`, where `RUN` is the directory of a run of `mnist` or
//! `cifar`.
//!
//! Evaluates the test set with the dense ternary network, with the packed one and with the packed one on int8 activations, and compares
//! accuracy, logits, bytes and time.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use ttq_examples::{Cpu, deploy, exit};

#[derive(Parser)]
#[command(about = "Compares a trained network on packed weights with the same network on dense ones")]
struct Options {
    /// Directory of a run of `mnist` or `cifar`.
    run: PathBuf,
    /// Directory of the data [default: $TTQ_DATA, else the user's cache, else a download].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How often each time is taken.
    #[arg(long, value_name = "N", default_value_t = 51)]
    repeats: usize,
}

fn main() -> ExitCode {
    let options = Options::parse();
    exit(|| deploy::<Cpu>(&options.run, options.data.as_deref(), options.repeats))
}
