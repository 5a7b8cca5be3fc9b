//! CIFAR-10 with ternary weights: `cargo run --release --example cifar`. `-- --help` lists the options.

use std::process::ExitCode;

use clap::builder::EnumValueParser;
use clap::{Arg, ValueEnum};
use ttq_examples::{Job, Options, Recipe, data, exit};

/// A set of defaults.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum RecipeName {
    /// Long cosine schedules and distillation: the defaults that this help shows.
    Accurate,
    /// The same with 9 + 9 epochs.
    Fast,
    /// That of the paper, but for its method (--method ttq-paper --initial-scales ones): 160 + 160 epochs, --schedule steps
    /// --lr 0.1 --weight-decay 2e-4 --threshold max:0.05 --distill 0 --checkpoint best --reestimate-batch-norm 0
    /// --validation 5000.
    Paper,
}

impl RecipeName {
    fn recipe(self) -> Recipe {
        match self {
            Self::Accurate => Recipe::cifar(),
            Self::Fast => Recipe::cifar_fast(),
            Self::Paper => Recipe::cifar_paper(),
        }
    }
}

fn main() -> ExitCode {
    let recipe = Arg::new("recipe")
        .long("recipe")
        .value_name("RECIPE")
        .help("Defaults of the other options")
        .value_parser(EnumValueParser::<RecipeName>::new())
        .default_value("accurate");
    let depth = Arg::new("depth")
        .long("depth")
        .value_name("DEPTH")
        .help("Depth of the ResNet")
        .value_parser(["20", "32", "44", "56"])
        .default_value("20");
    let (mut options, matches) = Options::parse(&Recipe::cifar(), |command| command.arg(recipe).arg(depth));
    let recipe = matches.get_one::<RecipeName>("recipe").map_or_else(Recipe::cifar, |name| name.recipe());
    options.depth = matches.get_one::<String>("depth").and_then(|depth| depth.parse().ok());
    exit(|| {
        let job = Job::prepare(&recipe, &options, data::cifar10)?;
        if job.backend().is_gpu() { ttq_examples_gpu::run(job) } else { ttq_examples_cpu::run(job) }
    })
}
