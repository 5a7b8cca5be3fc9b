//! Data, benchmarks and training in one program, for a machine with a GPU. `cargo xtask gpu bundle` builds it.
//!
//! The machine needs a CUDA driver, NVRTC and the CUDA headers. A Python installation with PyTorch contains the last
//! two (docs/gpu.md), and the benchmarks then include PyTorch.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use ttq_benchmarks::{ProductOptions, StepOptions, measure_products, measure_steps, mosaic};
use ttq_examples::{Job, Options, Recipe, data, exit};

#[derive(Parser)]
#[command(name = "gpu", about = "Data, benchmarks and training on a machine with a GPU")]
enum Command {
    /// Compresses the six files of CIFAR-10 without loss, to about 20 MB each.
    Mosaics {
        /// Directory of the data [default: $TTQ_DATA, else the user's cache].
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// Directory of the compressed files.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Restores CIFAR-10 from the compressed files.
    Restore {
        /// Directory of the six compressed files.
        #[arg(long, value_name = "DIR")]
        mosaics: PathBuf,
        /// Directory of the restored data, to be used with --data.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Measures products with packed weights like the task `packed`, with other sizes or on another backend.
    Packed(ProductOptions),
    /// Measures training steps like the task `steps`, with other networks or on another backend.
    Steps(StepOptions),
    /// Executes tasks until they are done or the time is over. Repeat the command to continue.
    Run(Run),
}

#[derive(clap::Args)]
struct Run {
    /// Tasks, in this order.
    #[arg(value_enum, required = true)]
    tasks: Vec<Task>,
    /// Directory of the results. Finished tasks are skipped.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Time limit in minutes.
    #[arg(long, value_name = "N", default_value_t = 9.0)]
    minutes: f64,
    /// Directory of the data [default: $TTQ_DATA, else the user's cache, else a download].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Python interpreter for PyTorch.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// Further arguments of the example `cifar`, such as `-- --fp-epochs 160 --epochs 120`. Repeat them in every call: a run
    /// that continues refuses others.
    #[arg(last = true)]
    cifar_arguments: Vec<OsString>,
}

/// A task, which writes a file or a directory of results.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Task {
    /// Products with packed weights, compared with cuBLAS and Burn: packed.json.
    Packed,
    /// Seconds per training step, compared with PyTorch: train.json.
    Steps,
    /// Training of ResNet-20 on CIFAR-10: cifar/.
    Cifar,
}

/// The command line of `steps` before its options.
const STEPS: [&str; 1] = ["steps"];

impl Task {
    /// Returns the minimum time in which the task is started, unless it is the first one.
    fn min_time(self) -> Duration {
        let minutes = match self {
            // These tasks run to completion.
            Self::Packed | Self::Steps => 5,
            Self::Cifar => 0,
        };
        Duration::from_secs(60 * minutes + 1)
    }
}

fn main() -> ExitCode {
    let command = Command::parse();
    exit(|| match command {
        Command::Mosaics { data, out } => Ok(mosaic::cifar10_to_mosaics(data.as_deref(), &out)?),
        Command::Restore { mosaics, out } => Ok(mosaic::cifar10_from_mosaics(&mosaics, &out)?),
        Command::Packed(options) => measure_products(&options),
        Command::Steps(options) => measure_steps(options, &STEPS),
        Command::Run(run) => run.run(),
    })
}

impl Run {
    fn run(&self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs_f64(60.0 * self.minutes);
        std::fs::create_dir_all(&self.out)
            .with_context(|| format!("cannot create directory {}", self.out.display()))?;
        for (index, task) in self.tasks.iter().enumerate() {
            let left = end.saturating_duration_since(Instant::now());
            if left < task.min_time() && index > 0 {
                println!("the time is over: repeat the command to continue");
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
        let arguments = "steps --network resnet --threads 1 --batch 128,1024 --rounds 5 --steps 10 --peers \
                         cuda,cuda-bf16,pytorch,pytorch-loop,pytorch-amp";
        measure_steps(Steps::try_parse_from(self.arguments(arguments, json))?.options, &STEPS)
    }

    fn packed(&self, json: &Path) -> Result<()> {
        if json.is_file() {
            return Ok(());
        }
        measure_products(&Products::try_parse_from(self.arguments("packed", json))?.options)
    }

    /// Returns the arguments of a benchmark, with the Python interpreter and the file of the results.
    fn arguments<'a>(&'a self, arguments: &'a str, json: &'a Path) -> impl Iterator<Item = OsString> + 'a {
        let paths = ["--python".into(), self.python.clone().into(), "--json".into(), json.into()];
        arguments.split(' ').map(OsString::from).chain(paths)
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
        arguments.extend(self.cifar_arguments.iter().cloned());
        let (mut options, _) = Options::parse_from(&recipe, |command| command, arguments);
        options.depth = Some(20);
        ttq_examples_gpu::run(Job::prepare(&recipe, &options, data::cifar10)?)
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
