//! A trained network on packed weights: `cargo run --release --example deploy -- RUN`, where `RUN` is the directory of a run of `mnist` or
//! `cifar`.
//!
//! Evaluates the test set with the dense ternary network, with the packed one and with the packed one on int8 activations, and compares
//! accuracy, logits, bytes and time.

use std::path::PathBuf;
use std::process::ExitCode;

use burn::backend::Flex;
use clap::{Parser, ValueEnum};
use ttq_examples::{Cpu, deploy, exit};

#[derive(Parser)]
#[command(about = "Compares a trained network on packed weights with the same network on dense ones")]
struct Options {
    /// Directory of a run of `mnist` or `cifar`.
    run: PathBuf,
    /// Directory of the data [default: $TTQ_DATA, else the user's cache, else a download].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// What runs the dense network, and all that is not packed.
    #[arg(long, value_enum, default_value = "cpu")]
    backend: Backend,
    /// How often each time is taken.
    #[arg(long, value_name = "N", default_value_t = 51)]
    repeats: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Backend {
    /// This project's CPU backend.
    Cpu,
    /// Burn's.
    Flex,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let Options { run, data, backend, repeats } = options;
    exit(|| match backend {
        Backend::Cpu => deploy::<Cpu>(&run, data.as_deref(), repeats),
        Backend::Flex => deploy::<Flex>(&run, data.as_deref(), repeats),
    })
}
