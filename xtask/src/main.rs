//! The project's own commands: `cargo xtask --help`.

mod arm;
mod bench;
mod burn_tests;
mod ci;
mod delegate;
mod gpu;
mod mcu;
mod mpi;
mod reproduce;
mod results;
mod rules;
mod sign;
mod snippets;
mod tables;
mod toolchain;
mod web;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own commands")]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Checks everything: house rules, generated files and tables, format, packages, clippy, documentation, tests, tests on
    /// several devices, and those for AArch64, for a microcontroller and in a browser if their tools are installed.
    Ci,
    /// Runs the tests of ttq-packed for AArch64 under QEMU.
    Arm,
    /// Runs the example for a microcontroller in QEMU, and checks its results, flash and RAM.
    Mcu,
    /// Checks the rules that every file of the repository must follow.
    Rules,
    /// Generates the delegated operations of the backends of this workspace from the traits of Burn.
    Delegate(delegate::Delegate),
    /// Runs benchmark suites.
    Bench(bench::Bench),
    /// Runs the backend tests of Burn's repository on ttq-cpu and on Flex.
    BurnTests(burn_tests::BurnTests),
    /// Prepares work on a machine with a GPU.
    #[command(subcommand)]
    Gpu(gpu::Gpu),
    /// Trains every method from the same networks over several seeds and writes a table of the results.
    Reproduce(reproduce::Reproduce),
    /// Trains single layers of the MNIST network with both signs of the gradient of W_n and draws their scales.
    Sign(sign::Sign),
    /// Writes the code blocks of the READMEs from regions of the examples.
    Snippets,
    /// Writes the tables of README.md and benchmarks/README.md from the newest results under benchmarks/.
    Tables(tables::Tables),
    /// Builds the WebAssembly modules and the page of the MNIST network; tests and measures it.
    Web(web::Web),
}

fn main() -> ExitCode {
    let result = match Options::parse().command {
        Command::Ci => ci::run(),
        Command::Arm => arm::run(),
        Command::Mcu => mcu::run(),
        Command::Rules => rules::run(),
        Command::Delegate(delegate) => delegate.run(),
        Command::Bench(bench) => bench.run(),
        Command::BurnTests(tests) => tests.run(),
        Command::Gpu(gpu) => gpu.run(),
        Command::Reproduce(reproduce) => reproduce.run(),
        Command::Sign(sign) => sign.run(),
        Command::Snippets => snippets::run(),
        Command::Tables(tables) => tables.run(),
        Command::Web(web) => web.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the root directory of the workspace.
fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_path_buf()
}
