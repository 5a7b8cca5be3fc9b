//! What sums over processes cost: `mpirun -np 2 ranks`. docs/mpi.md has the figures.

use anyhow::Result;
use clap::Parser;
use ttq_benchmarks::{RankOptions, measure_ranks};

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    options: RankOptions,
}

fn main() -> Result<()> {
    measure_ranks(&Command::parse().options)
}
