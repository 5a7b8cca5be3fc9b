//! CIFAR-10 with ternary weights: `cargo run --release --example cifar`. `-- --help` lists the options.

use std::process::ExitCode;

use clap::Arg;
use ttq_examples::{Job, Options, Recipe, data, exit};

fn main() -> ExitCode {
    let recipe = Recipe::cifar();
    let depth = Arg::new("depth")
        .long("depth")
        .help("Depth of the ResNet")
        .value_parser(["20", "32", "44", "56"])
        .default_value("20");
    let (mut options, matches) = Options::parse(&recipe, |command| command.arg(depth));
    options.depth = matches.get_one::<String>("depth").and_then(|depth| depth.parse().ok());
    exit(|| {
        let job = Job::prepare(&recipe, &options, data::cifar10)?;
        if job.backend().is_gpu() { ttq_examples_gpu::run(job) } else { ttq_examples_cpu::run(job) }
    })
}
