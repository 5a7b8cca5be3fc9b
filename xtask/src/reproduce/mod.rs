//! `cargo xtask reproduce`: trains every method from the same networks in full precision, over several seeds, and
//! writes one table.

mod figures;
mod plan;
mod results;
mod runner;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use regex::Regex;

use figures::Figures;
pub(crate) use figures::read;
use plan::{FULL_PRECISION, Plan};
use results::Results;
pub(crate) use runner::{Program, Runner};

/// An example whose results are reproduced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Example {
    /// A small convolutional network on MNIST.
    Mnist,
    /// ResNet-20 on CIFAR-10.
    Cifar,
}

impl Example {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mnist => "mnist",
            Self::Cifar => "cifar",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Mnist => "MNIST, a network of two convolutions and two linear layers",
            Self::Cifar => "CIFAR-10, ResNet-20",
        }
    }

    /// Arguments of every run, or of those with ternary weights: the recipe of the paper, which has no additions.
    fn arguments(self, study: bool, ternary: bool) -> &'static [&'static str] {
        match (self, study, ternary) {
            (Self::Mnist, ..) => &[],
            (Self::Cifar, false, _) => &["--recipe", "paper"],
            (Self::Cifar, true, false) => &["--recipe", "paper", "--schedule", "cosine", "--lr", "0.1"],
            (Self::Cifar, true, true) => &["--recipe", "paper", "--schedule", "cosine", "--lr", "0.05"],
        }
    }

    /// Number of epochs of a phase in the example's recipe.
    fn epochs(self) -> usize {
        match self {
            Self::Mnist => 3,
            Self::Cifar => 160,
        }
    }
}

/// Options of `cargo xtask reproduce`.
#[derive(Debug, Args)]
pub(crate) struct Reproduce {
    /// Example to reproduce.
    example: Example,
    /// Train every combination of slope, start of the scales, granularity and addition, instead of the methods.
    #[arg(long)]
    study: bool,
    /// With every seed, train only the rows whose name matches this regular expression; the others with the first seed
    /// only (a row's name is that of its directory).
    #[arg(long, value_name = "REGEX")]
    repeat: Option<Regex>,
    /// Seeds; each has its own network in full precision.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    seeds: Vec<u64>,
    /// Number of epochs in full precision [default: that of the recipe].
    #[arg(long, value_name = "N")]
    fp_epochs: Option<usize>,
    /// Number of epochs with ternary weights [default: that of the recipe].
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Train on the first N training images only.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Directory of the runs. Finished runs are not repeated, and an interrupted run is resumed
    /// [default: runs/reproduce-EXAMPLE].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Directory of table.md and results.json [default: the directory of the runs].
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
    #[command(flatten)]
    program: Program,
}

impl Reproduce {
    pub(crate) fn run(&self) -> Result<()> {
        let mut seeds = self.seeds.clone();
        seeds.sort_unstable();
        seeds.dedup();
        if seeds.len() < self.seeds.len() {
            bail!("--seeds {:?} contains a seed twice: list each seed once", self.seeds);
        }
        let (fp_epochs, epochs) = (self.fp_epochs(), self.epochs());
        if fp_epochs == 0 || epochs == 0 {
            bail!("--fp-epochs {fp_epochs} --epochs {epochs}: both phases need at least one epoch");
        }
        let plan = if self.study { Plan::study() } else { Plan::methods() };
        let name = if self.study {
            format!("study-{}", self.example.name())
        } else {
            format!("reproduce-{}", self.example.name())
        };
        let out = self.out.clone().unwrap_or_else(|| crate::root().join("runs").join(name));
        let runner = Runner::new(self.example, &self.program)?;

        let is_run = |seed: u64, name: &str| {
            seed == self.seeds[0]
                || name == FULL_PRECISION
                || self.repeat.as_ref().is_none_or(|rows| rows.is_match(name))
        };
        let runs = self.seeds.iter().flat_map(|seed| (0..plan.variants.len()).map(move |column| (*seed, column)));
        let runs: Vec<_> = runs.filter(|(seed, column)| is_run(*seed, &plan.variants[*column].name)).collect();
        let mut all: Vec<Vec<Figures>> = plan.variants.iter().map(|_| Vec::new()).collect();
        for (index, (seed, column)) in runs.iter().enumerate() {
            let variant = &plan.variants[*column];
            let directory = out.join(format!("seed-{seed}"));
            let checkpoint = directory.join(FULL_PRECISION).join("full-precision.safetensors");
            let base =
                self.example.arguments(self.study, variant.is_ternary()).iter().map(|argument| (*argument).to_owned());
            let mut arguments: Vec<String> = base.chain(variant.arguments(fp_epochs, epochs)).collect();
            arguments.extend(["--seed".into(), seed.to_string()]);
            if let Some(limit) = self.limit {
                arguments.extend(["--limit".into(), limit.to_string()]);
            }
            let init = variant.starts_from_checkpoint().then_some(checkpoint.as_path());
            let run = directory.join(&variant.name);
            println!("[{}/{}] seed {seed}, {}", index + 1, runs.len(), variant.title);
            runner.run(&run, &arguments, init)?;
            let figures = Figures::of_run(&run)?;
            println!("        test accuracy {:.2} %, {}", figures.test, seconds(figures.seconds));
            all[*column].push(figures);
        }
        self.write(&Results::new(self, plan, all), self.results.as_ref().unwrap_or(&out))
    }

    /// Writes and prints the results.
    fn write(&self, results: &Results, directory: &Path) -> Result<()> {
        let table = results.table();
        let json = serde_json::to_string_pretty(&results.json())? + "\n";
        fs::create_dir_all(directory)
            .and_then(|()| fs::write(directory.join("table.md"), &table))
            .and_then(|()| fs::write(directory.join("results.json"), json))
            .with_context(|| format!("cannot write the results to {}", directory.display()))?;
        println!("\n{table}\n{0}/table.md\n{0}/results.json", directory.display());
        Ok(())
    }

    fn fp_epochs(&self) -> usize {
        self.fp_epochs.unwrap_or(self.example.epochs())
    }

    fn epochs(&self) -> usize {
        self.epochs.unwrap_or(self.example.epochs())
    }

    /// Returns the command that reproduces the results.
    fn command(&self) -> String {
        let seeds: Vec<String> = self.seeds.iter().map(u64::to_string).collect();
        let mut command =
            format!("cargo xtask reproduce {} --data DIR --seeds {}", self.example.name(), seeds.join(","));
        command += if self.study { " --study" } else { "" };
        command += &self.repeat.as_ref().map(|rows| format!(" --repeat '{rows}'")).unwrap_or_default();
        let numbers = [("--fp-epochs", self.fp_epochs), ("--epochs", self.epochs), ("--limit", self.limit)];
        for (option, number) in numbers {
            command += &number.map(|number| format!(" {option} {number}")).unwrap_or_default();
        }
        command += &self.program.backend.as_ref().map(|backend| format!(" --backend {backend}")).unwrap_or_default();
        match std::env::var("RAYON_NUM_THREADS") {
            Ok(threads) => format!("RAYON_NUM_THREADS={threads} {command}"),
            Err(_) => command,
        }
    }
}

fn seconds(seconds: f64) -> String {
    format!("{:?}", Duration::from_secs(seconds.round() as u64))
}
