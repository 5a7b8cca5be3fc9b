//! MNIST with ternary weights: `cargo run --release --example mnist`. `-- --help` lists the options.

use std::process::ExitCode;

use ttq_examples::{Job, Options, Recipe, data, exit};

fn main() -> ExitCode {
    let recipe = Recipe::mnist();
    let (options, _) = Options::parse(&recipe, |command| command);
    exit(|| {
        let job = Job::prepare(&recipe, &options, data::mnist)?;
        if job.backend().is_gpu() { ttq_examples_gpu::run(job) } else { ttq_examples_cpu::run(job) }
    })
}
