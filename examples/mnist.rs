//! MNIST with ternary weights: `cargo run --release --example mnist`, `-- --help` for what can be changed.

use std::process::ExitCode;

use ttq_examples::model::MnistNet;
use ttq_examples::{Job, Options, Recipe, data, exit, on_backend};

fn main() -> ExitCode {
    let recipe = Recipe::mnist();
    let (options, _) = Options::parse(&recipe, |command| command);
    exit(|| {
        let job = Job::prepare(&recipe, &options, data::mnist)?;
        on_backend!(job, |B, classes, device| MnistNet::<B>::new(classes, device))
    })
}
