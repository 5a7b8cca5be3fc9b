//! Time of a training step of a ResNet in full precision and with ternary weights, on the backends of this project, on
//! Flex and in PyTorch, all in one run: `cargo xtask bench train --json FILE`. Steps in full precision and with ternary
//! weights alternate.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use burn::backend::{Autodiff, Flex};
use burn::optim::SgdConfig;
use burn::optim::lr_scheduler::constant::ConstantLr;
use burn::optim::momentum::MomentumConfig;
use burn::prelude::*;
use burn::tensor::Distribution;
use burn::tensor::backend::AutodiffBackend;
use burn::train::Learner;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
#[cfg(all(feature = "autocast", feature = "cuda"))]
use ttq_autocast::{Autocast, Bf16, F16};
use ttq_core::{Ternary, TernaryConfig};
use ttq_cpu::Cpu;
use ttq_examples::model::{Batch, Classifier, ResNet};
use ttq_train::{Phase, TernaryOptimizer, TernaryStep};

use crate::measure::{self, Report, Spread, median};

/// Options of [`measure_steps`].
#[derive(Debug, Clone, Args)]
pub struct StepOptions {
    /// Write the results to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Use a small network and few steps, to test whether the suite runs.
    #[arg(long)]
    quick: bool,
    /// Depth of the ResNet: 6 n + 2.
    #[arg(long, default_value_t = 20)]
    depth: usize,
    /// Batch sizes.
    #[arg(long, value_delimiter = ',', default_values_t = [128])]
    batch: Vec<usize>,
    /// Number of timed steps of each kind, after two untimed ones.
    #[arg(long, default_value_t = 11)]
    steps: usize,
    /// Numbers of threads.
    #[arg(long, value_delimiter = ',', default_values_t = measure::one_and_all_threads())]
    threads: Vec<usize>,
    /// Implementations to measure. Those that are not available are skipped. PyTorch uses the GPU if another of them
    /// does.
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Peer::Cpu, Peer::Flex, Peer::Pytorch])]
    peers: Vec<Peer>,
    /// Python interpreter for PyTorch.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
}

impl StepOptions {
    /// Returns whether one of the peers of this project uses a GPU.
    fn on_gpu(&self) -> bool {
        self.peers.iter().any(|peer| peer.is_from_this_project() && *peer != Peer::Cpu)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Peer {
    /// ttq-cpu, the CPU backend of this project.
    Cpu,
    /// Flex, a CPU backend of Burn.
    Flex,
    /// CUDA on an NVIDIA GPU.
    #[cfg(feature = "cuda")]
    Cuda,
    /// CUDA with products in bfloat16.
    #[cfg(all(feature = "autocast", feature = "cuda"))]
    CudaBf16,
    /// CUDA with products in float16.
    #[cfg(all(feature = "autocast", feature = "cuda"))]
    CudaF16,
    /// PyTorch with one autograd function per ternary layer.
    Pytorch,
    /// PyTorch as in the port: a loop over the ternary layers after the backward pass, and three optimizers.
    PytorchLoop,
    /// PyTorch with products in bfloat16 and the memory format channels last.
    PytorchAmp,
}

impl Peer {
    /// Returns whether the peer is a backend of this project. Burn's CUDA backend counts, with the kernels of
    /// ttq-cubecl.
    fn is_from_this_project(self) -> bool {
        match self {
            Self::Cpu => true,
            #[cfg(feature = "cuda")]
            Self::Cuda => true,
            #[cfg(all(feature = "autocast", feature = "cuda"))]
            Self::CudaBf16 | Self::CudaF16 => true,
            Self::Flex | Self::Pytorch | Self::PytorchLoop | Self::PytorchAmp => false,
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
    }
}

#[derive(Serialize)]
struct Settings {
    depth: usize,
    steps: usize,
    pytorch: Option<String>,
}

#[derive(Serialize)]
struct Row {
    peer: Peer,
    batch: usize,
    threads: usize,
    full_precision: Spread,
    ternary: Spread,
    /// Median of the ratios of consecutive steps, ternary over full precision.
    ratio: f64,
    /// Time of the step in full precision, divided by that of this project's first peer with the same number of threads
    /// and batch size.
    times_ours: Option<f64>,
}

/// Seconds of each step.
#[derive(Deserialize)]
struct Steps {
    full_precision: Vec<f64>,
    ternary: Vec<f64>,
    torch: Option<String>,
}

/// Measures training steps, prints the results and writes them to the JSON file of the options.
///
/// # Errors
/// Returns an error if a GPU is requested and not available, or if the JSON file cannot be written.
pub fn measure_steps(mut options: StepOptions) -> Result<()> {
    if options.on_gpu() {
        ttq_examples::select(ttq_examples::BackendChoice::Cuda, 1)?;
    }
    if options.quick {
        (options.depth, options.batch, options.steps) = (8, vec![16], 3);
    }
    let settings = Settings { depth: options.depth, steps: options.steps, pytorch: None };
    let mut results = Results { settings, rows: Vec::new() };
    println!("ResNet-{}, seconds per step: median (fastest to slowest)", options.depth);
    println!(
        "{:12} {:>6} {:>7}  {:30} {:30} {:>7} {:>10}",
        "", "batch", "threads", "full precision", "ternary", "ratio", "vs ttq"
    );
    for batch in options.batch.iter().copied() {
        for threads in options.threads.iter().copied() {
            for peer in options.peers.iter().copied() {
                match steps_of(peer, &options, batch, threads) {
                    Ok(steps) => results.add(peer, batch, threads, steps),
                    Err(error) => println!("{:12} {batch:>6} {threads:>7}  not measured: {error:#}", peer.name()),
                }
            }
        }
    }
    Report::new("train", options.quick, results.settings, results.rows).write(options.json.as_deref())
}

fn steps_of(peer: Peer, options: &StepOptions, batch: usize, threads: usize) -> Result<Steps> {
    match peer {
        Peer::Cpu => in_pool::<Autodiff<Cpu>>(options, batch, threads),
        Peer::Flex => in_pool::<Autodiff<Flex>>(options, batch, threads),
        #[cfg(feature = "cuda")]
        Peer::Cuda => in_pool::<Autodiff<burn::backend::Cuda>>(options, batch, threads),
        #[cfg(all(feature = "autocast", feature = "cuda"))]
        Peer::CudaBf16 => in_pool::<Autodiff<Autocast<burn::backend::Cuda, Bf16>>>(options, batch, threads),
        #[cfg(all(feature = "autocast", feature = "cuda"))]
        Peer::CudaF16 => in_pool::<Autodiff<Autocast<burn::backend::Cuda, F16>>>(options, batch, threads),
        Peer::Pytorch => pytorch(options, batch, threads, &[]),
        Peer::PytorchLoop => pytorch(options, batch, threads, &["--loop"]),
        Peer::PytorchAmp => pytorch(options, batch, threads, &["--amp", "--channels-last"]),
    }
}

struct Results {
    settings: Settings,
    rows: Vec<Row>,
}

impl Results {
    /// Adds and prints a row.
    fn add(&mut self, peer: Peer, batch: usize, threads: usize, steps: Steps) {
        let ratios = steps.ternary.iter().zip(&steps.full_precision).map(|(ternary, fp)| ternary / fp).collect();
        let (full_precision, ternary) = (Spread::of(&steps.full_precision), Spread::of(&steps.ternary));
        let ours = self
            .rows
            .iter()
            .find(|row| row.peer.is_from_this_project() && row.threads == threads && row.batch == batch);
        let times_ours = ours.map(|ours| full_precision.median_s / ours.full_precision.median_s);
        self.settings.pytorch = self.settings.pytorch.take().or(steps.torch);
        let row = Row { peer, batch, threads, full_precision, ternary, ratio: median(ratios), times_ours };
        let text = |spread: &Spread| format!("{:.4} ({:.4} to {:.4})", spread.median_s, spread.min_s, spread.max_s);
        println!(
            "{:12} {batch:>6} {threads:>7}  {:30} {:30} {:>7.3} {:>10}",
            peer.name(),
            text(&row.full_precision),
            text(&row.ternary),
            row.ratio,
            times_ours.map_or("1".into(), |times| format!("{times:.2}")),
        );
        self.rows.push(row);
    }
}

/// Script for the steps of PyTorch. It is part of the program, which also runs on machines without the repository.
const SCRIPT: &str = include_str!("../train_torch.py");

fn pytorch(options: &StepOptions, batch: usize, threads: usize, flags: &[&str]) -> Result<Steps> {
    let numbers = [("--depth", options.depth), ("--batch", batch), ("--steps", options.steps)];
    let output = Command::new(&options.python)
        .args(["-c", SCRIPT])
        .args(numbers.iter().flat_map(|(name, number)| [(*name).to_owned(), number.to_string()]))
        .args(["--threads", &threads.to_string()])
        .args(["--device", if options.on_gpu() { "cuda" } else { "cpu" }])
        .args(flags)
        .output()
        .with_context(|| format!("cannot start {}", options.python.display()))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{}", error.lines().last().unwrap_or("Python failed"));
    }
    serde_json::from_slice(&output.stdout).context("the script printed no results")
}

fn in_pool<B: AutodiffBackend>(options: &StepOptions, batch: usize, threads: usize) -> Result<Steps> {
    let pools = measure::thread_pools(&[threads])?;
    Ok(pools[0].install(|| steps::<B>(options, batch)))
}

fn steps<B: AutodiffBackend>(options: &StepOptions, batch: usize) -> Steps {
    let device = B::Device::default();
    B::seed(&device, 1);
    let model = Classifier::new(ResNet::<B>::new(options.depth, 10, &device));
    let ternary =
        Ternary::new(model, &TernaryConfig::default()).expect("the default selection finds weights in a ResNet");
    let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
    let mut learners = [Phase::FullPrecision, Phase::Ternary].map(|phase| {
        let optimizer = SgdConfig::new().with_momentum(Some(momentum.clone())).init();
        let step = TernaryStep::new(ternary.clone()).with_phase(phase);
        Learner::new(step, TernaryOptimizer::uniform(optimizer).with_weight_decay(2e-4), ConstantLr::new(0.01))
    });
    let batch = Batch {
        images: Tensor::<B, 4>::random([batch, 3, 32, 32], Distribution::Normal(0.0, 1.0), &device),
        targets: Tensor::<B, 1, Int>::from_ints(vec![3; batch].as_slice(), &device),
    };
    let mut seconds = [vec![], vec![]];
    for step in 0..options.steps + 2 {
        for (learner, seconds) in learners.iter_mut().zip(&mut seconds) {
            let start = Instant::now();
            learner.lr_step();
            let output = learner.train_step(batch.clone());
            learner.optimizer_step(output.grads);
            let _ = burn::train::ItemLazy::sync(output.item);
            B::sync(&device).expect("the device must not fail during the benchmark");
            // The first two steps are for warm-up.
            if step >= 2 {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
    }
    let [full_precision, ternary] = seconds;
    Steps { full_precision, ternary, torch: None }
}
