//! A trained network with packed weights, compared with the dense one: `cargo run --release --example deploy -- RUN`,
//! where `RUN` is the directory of a run of `mnist` or `cifar`.
//!
//! Evaluates the test images with the dense ternary network, with the packed network and with the packed network and
//! int8 activations, and compares accuracy, logits, file sizes and time.

mod comparison;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use ttq_examples::{Cpu, exit};

use crate::comparison::compare;

#[derive(Parser)]
#[command(about = "Compares a trained network with packed weights to the same network with dense weights")]
struct Options {
    /// Directory of a run of `mnist` or `cifar`.
    run: PathBuf,
    /// Directory of the data [default: $TTQ_DATA, else the user's cache, else a download].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Backend of the dense network, and inside of that of the packed one.
    #[arg(long, value_enum, default_value = "cpu")]
    backend: Backend,
    /// Number of measurements of each time.
    #[arg(long, value_name = "N", default_value_t = 51)]
    repeats: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Backend {
    /// ttq-cpu, the CPU backend of this project.
    Cpu,
    /// Flex, a CPU backend of Burn.
    #[cfg(feature = "flex")]
    Flex,
}

fn main() -> ExitCode {
    let Options { run, data, backend, repeats } = Options::parse();
    exit(|| match backend {
        Backend::Cpu => compare::<Cpu>(&run, data.as_deref(), repeats),
        #[cfg(feature = "flex")]
        Backend::Flex => compare::<burn::backend::Flex>(&run, data.as_deref(), repeats),
    })
}
