//! MNIST with ternary weights: `cargo run --release --example mnist`, `-- --help` for what can be changed.

use std::process::ExitCode;

use ttq_examples::model::MnistNet;
use ttq_examples::{Options, Recipe, Run, data, exit, on_backend};

fn main() -> ExitCode {
    let recipe = Recipe::mnist();
    let (options, _) = Options::parse(&recipe, |command| command);
    exit(|| {
        let run = Run::prepare(&recipe, &options, data::mnist)?;
        on_backend!(run, |B, classes, device| MnistNet::<B>::new(classes, device))
    })
}
