//! Training steps in full precision and with ternary weights: `cargo xtask bench train --json FILE`.

use anyhow::Result;
use clap::Parser;
use ttq_examples::{StepOptions, measure_steps};

#[derive(Parser)]
#[command(about = "Training steps in full precision and with ternary weights")]
struct Options {
    #[command(flatten)]
    steps: StepOptions,
    /// Set by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    measure_steps(Options::parse().steps)
}
