//! Time of a training step in full precision and with ternary weights: `cargo xtask bench train --json FILE`.

use anyhow::Result;
use clap::Parser;
use ttq_benchmarks::{StepOptions, measure_steps};

#[derive(Parser)]
#[command(about = "Time of a training step in full precision and with ternary weights")]
struct Options {
    #[command(flatten)]
    steps: StepOptions,
    /// Set by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    measure_steps(Options::parse().steps, &[])
}
