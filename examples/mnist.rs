//! MNIST with ternary weights: `cargo run --release --example mnist`. `-- --help` lists the options.

use std::process::ExitCode;

use ttq_examples::{Job, Options, Recipe, data, exit, run_network};

fn main() -> ExitCode {
    let recipe = Recipe::mnist();
    let (options, _) = Options::parse(&recipe, |command| command);
    exit(|| run_network(Job::prepare(&recipe, &options, data::mnist)?))
}
