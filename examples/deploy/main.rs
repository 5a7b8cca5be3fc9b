//! The forms in which a trained network is used: `cargo run --release --example deploy -- RUN`, where `RUN` is the directory
//! of a run of `mnist` or `cifar`.
//!
//! Writes the network as one file that runs without Burn, `network.safetensors`. Evaluates the test images with the ternary
//! network as a Burn module with dense weights, with packed weights, and compiled, each of the latter two also with int8
//! activations; compares accuracy, logits, file sizes and time.

mod comparison;

use std::alloc::System;
use std::path::PathBuf;
use std::process::ExitCode;

use cap::Cap;
use clap::{Parser, ValueEnum};
use ttq_examples::{Cpu, exit};

use crate::comparison::compare;

/// Counts the memory that each form of the network takes.
#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

#[derive(Parser)]
#[command(
    about = "Writes a trained network as a file that runs without Burn, and compares its forms: dense, packed and compiled"
)]
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
