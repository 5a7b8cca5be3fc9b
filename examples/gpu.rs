//! What is carried to a GPU machine as one program: data, benchmarks and training. `cargo xtask gpu bundle` makes it.
//!
//! It needs a driver there, and NVRTC and CUDA's headers, which a Python with PyTorch has too (docs/gpu.md); with that Python it compares itself
//! with PyTorch.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use ttq_examples::model::ResNet;
use ttq_examples::{
    Job, Options, ProductOptions, Recipe, StepOptions, data, exit, measure_products, measure_steps, on_backend,
};

#[derive(Parser)]
#[command(name = "gpu", about = "Data, benchmarks and training on a GPU machine")]
enum Command {
    /// Writes CIFAR-10 smaller, without loss, a file of 20 MB for each of its six.
    Mosaics {
        /// Directory of the data [default: $TTQ_DATA, else the user's cache].
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// Where to write.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Restores CIFAR-10 from those files.
    Restore {
        /// Directory of the six files.
        #[arg(long, value_name = "DIR")]
        mosaics: PathBuf,
        /// Directory of the data, as --data takes it.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Products with packed weights, as the task `packed` measures them, by other sizes or on another backend.
    Packed(ProductOptions),
    /// Does tasks until they are done or the minutes are over; the same command goes on.
    Run(Run),
}

#[derive(clap::Args)]
struct Run {
    /// What to do, in this order.
    #[arg(value_enum, required = true)]
    tasks: Vec<Task>,
    /// Directory of the results. What is there already is not done again.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Minutes of one call.
    #[arg(long, value_name = "N", default_value_t = 9.0)]
    minutes: f64,
    /// Directory of the data [default: $TTQ_DATA, else the user's cache, else a download].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The Python to look for PyTorch in.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// More arguments of the example `cifar`, such as `-- --fp-epochs 160 --epochs 120`. They count when training starts.
    #[arg(last = true)]
    more: Vec<OsString>,
}

/// Each is a file or a directory of results.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Task {
    /// Products with packed weights beside cuBLAS's and Burn's: packed.json.
    Packed,
    /// Seconds per training step beside PyTorch's: train.json.
    Steps,
    /// ResNet-20 on CIFAR-10: cifar/.
    Cifar,
}

impl Task {
    /// What it takes at least to begin.
    fn shortest(self) -> Duration {
        let minutes = match self {
            // Once begun they go to their end.
            Self::Packed | Self::Steps => 5,
            Self::Cifar => 0,
        };
        Duration::from_secs(60 * minutes + 1)
    }
}

fn main() -> ExitCode {
    let command = Command::parse();
    exit(|| match command {
        Command::Mosaics { data, out } => Ok(data::cifar10_to_mosaics(data.as_deref(), &out)?),
        Command::Restore { mosaics, out } => Ok(data::cifar10_from_mosaics(&mosaics, &out)?),
        Command::Packed(options) => measure_products(&options),
        Command::Run(run) => run.run(),
    })
}

impl Run {
    fn run(&self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs_f64(60.0 * self.minutes);
        std::fs::create_dir_all(&self.out).with_context(|| format!("cannot make {}", self.out.display()))?;
        for (index, task) in self.tasks.iter().enumerate() {
            let left = end.saturating_duration_since(Instant::now());
            if left < task.shortest() && index > 0 {
                println!("the minutes are over: the same command goes on");
                return Ok(());
            }
            match task {
                Task::Packed => self.packed(&self.out.join("packed.json"))?,
                Task::Steps => self.steps(&self.out.join("train.json"))?,
                Task::Cifar => self.cifar(&self.out.join("cifar"), left)?,
            }
        }
        Ok(())
    }

    fn steps(&self, json: &Path) -> Result<()> {
        if json.is_file() {
            return Ok(());
        }
        let arguments =
            "steps --threads 1 --batch 128,1024 --steps 51 --peers cuda,cuda-bf16,pytorch,pytorch-loop,pytorch-amp";
        measure_steps(Steps::try_parse_from(self.measuring(arguments, json))?.options)
    }

    fn packed(&self, json: &Path) -> Result<()> {
        if json.is_file() {
            return Ok(());
        }
        measure_products(&Products::try_parse_from(self.measuring("packed", json))?.options)
    }

    /// Arguments of a benchmark that writes this file.
    fn measuring<'a>(&'a self, arguments: &'a str, json: &'a Path) -> impl Iterator<Item = OsString> + 'a {
        let more = ["--python".into(), self.python.clone().into(), "--json".into(), json.into()];
        arguments.split(' ').map(OsString::from).chain(more)
    }

    fn cifar(&self, run: &Path, left: Duration) -> Result<()> {
        if run.join("summary.json").is_file() {
            return Ok(());
        }
        let recipe = Recipe::cifar();
        let minutes = (left.as_secs_f64() / 60.0).to_string();
        let mut arguments: Vec<OsString> =
            ["cifar", "--backend", "cuda", "--no-tui", "--minutes"].map(Into::into).into();
        arguments.extend([minutes.into(), "--out".into(), run.into()]);
        if run.join("config.json").is_file() {
            arguments.push("--resume".into());
        }
        if let Some(data) = &self.data {
            arguments.extend(["--data".into(), data.into()]);
        }
        arguments.extend(self.more.iter().cloned());
        let (mut options, _) = Options::parse_from(&recipe, |command| command, arguments);
        options.depth = Some(20);
        let job = Job::prepare(&recipe, &options, data::cifar10)?;
        on_backend!(job, |B, classes, device| ResNet::<B>::new(20, classes, device))
    }
}

#[derive(Parser)]
struct Steps {
    #[command(flatten)]
    options: StepOptions,
}

#[derive(Parser)]
struct Products {
    #[command(flatten)]
    options: ProductOptions,
}
