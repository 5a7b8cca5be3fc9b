//! Time and memory of training steps in full precision and with ternary weights, on the backends of this project, on
//! Flex and in PyTorch, all in one run: `cargo xtask bench train --json FILE`.
//!
//! Each implementation has a process of its own, which is idle except in its turn. In each round, every process makes a
//! few steps, full precision and ternary alternating. The speed of a machine drifts, so the ratio of two
//! implementations is the median over the rounds of the ratio within a round.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::measure::{self, Report, Spread, median};
use crate::peer::{Peer, Python};
use crate::process::Process;
use crate::worker::{NetworkName, Ready, Training, Turn};

/// Options of [`measure_steps`].
#[derive(Debug, Clone, Args)]
pub struct StepOptions {
    /// Write the results to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Use small networks and few steps, to test whether the suite runs.
    #[arg(long)]
    quick: bool,
    /// Networks.
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = NetworkName::value_variants().to_vec())]
    network: Vec<NetworkName>,
    /// Depth of the ResNet: 6 n + 2.
    #[arg(long, default_value_t = 20)]
    depth: usize,
    /// Batch sizes [default: 128 for the ResNet and the MLP, 32 for the transformer, 16 for the GPT].
    #[arg(long, value_delimiter = ',')]
    batch: Vec<usize>,
    /// Number of rounds.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Minimum number of timed steps of each kind in a round. Short steps are repeated for a fifth of a second.
    #[arg(long, default_value_t = 2)]
    steps: usize,
    /// Numbers of threads.
    #[arg(long, value_delimiter = ',', default_values_t = measure::one_and_all_threads())]
    threads: Vec<usize>,
    /// Implementations to measure [default: cpu and pytorch; except with `--quick` also pytorch-channels-last and
    /// pytorch-compile]. Those that are not available are skipped. PyTorch uses the GPU if another of them does.
    #[arg(long, value_delimiter = ',', value_enum)]
    peers: Vec<Peer>,
    /// Measure the time of the processor, which other load on the machine lengthens less than that of the clock. Only
    /// useful with one thread.
    #[arg(long)]
    processor_time: bool,
    /// Python interpreter for PyTorch.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// Train on the first peer and answer requests on the standard input. The suite starts itself with this option.
    #[arg(long, hide = true)]
    worker: bool,
}

impl StepOptions {
    /// Returns whether one of the peers of this project uses a GPU.
    fn on_gpu(&self) -> bool {
        self.peers.iter().any(|peer| peer.is_from_this_project() && *peer != Peer::Cpu)
    }

    fn trainings(&self, network: NetworkName) -> Vec<Training> {
        let layers = match network {
            NetworkName::Resnet => self.depth,
            _ if self.quick => 1,
            NetworkName::Mlp => 3,
            NetworkName::Transformer => 4,
            NetworkName::Gpt => 6,
        };
        let batch = match network {
            NetworkName::Resnet | NetworkName::Mlp => 128,
            NetworkName::Transformer => 32,
            NetworkName::Gpt => 16,
        };
        let batches = if self.batch.is_empty() { vec![batch] } else { self.batch.clone() };
        let processor_time = self.processor_time;
        batches.into_iter().map(|batch| Training { network, batch, layers, processor_time }).collect()
    }

    /// Returns the command that starts this program as a worker. `subcommand` is the part of the command line before
    /// the options.
    fn own_worker(&self, subcommand: &[&str], peer: Peer, training: Training, threads: usize) -> Result<Command> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(program);
        command.args(subcommand).args(["--worker", "--network", &training.network.name(), "--peers", &peer.name()]);
        for (name, number) in [("--batch", training.batch), ("--depth", self.depth), ("--threads", threads)] {
            command.args([name, &number.to_string()]);
        }
        command.args(self.quick.then_some("--quick")).args(self.processor_time.then_some("--processor-time"));
        Ok(command)
    }
}

#[derive(Serialize)]
struct Settings {
    depth: usize,
    rounds: usize,
    steps: usize,
    pytorch: Option<String>,
}

/// Results of a peer.
#[derive(Serialize)]
struct Row {
    network: NetworkName,
    peer: Peer,
    batch: usize,
    threads: usize,
    parameters: usize,
    ternary_weights: usize,
    full_precision: Spread,
    ternary: Spread,
    /// Median of the ratios of consecutive steps, ternary over full precision.
    ratio: f64,
    /// Time of the step in full precision, divided by that of this project's first peer: median over the rounds.
    times_ours: Option<f64>,
    /// The same for the ternary step.
    ternary_times_ours: Option<f64>,
    /// Largest resident set of the process after the warm-up, in bytes.
    peak_memory: Option<u64>,
}

/// Measures training steps, prints the results and writes them to the JSON file of the options. The program starts
/// itself: `subcommand` is the part of its command line before the options.
///
/// # Errors
/// Returns an error if a GPU is requested and not available, or if the JSON file cannot be written.
pub fn measure_steps(mut options: StepOptions, subcommand: &[&str]) -> Result<()> {
    if options.quick {
        (options.depth, options.rounds, options.steps) = (8, 2, 1);
        options.batch = options.batch.first().map_or(vec![4], |batch| vec![*batch]);
    }
    if options.peers.is_empty() {
        options.peers = vec![Peer::Cpu, Peer::Pytorch];
        // Compilation takes a minute.
        options.peers.extend([Peer::PytorchChannelsLast, Peer::PytorchCompile].iter().filter(|_| !options.quick));
    }
    if options.worker {
        return work(&options);
    }
    let python = Python { interpreter: options.python.clone(), device: if options.on_gpu() { "cuda" } else { "cpu" } };
    let mut settings = Settings { depth: options.depth, rounds: options.rounds, steps: options.steps, pytorch: None };
    let mut rows = Vec::new();
    println!("seconds per step: median (fastest to slowest)");
    for training in options.network.iter().flat_map(|network| options.trainings(*network)) {
        for threads in options.threads.iter().copied() {
            let runners = start(&options, &python, subcommand, training, threads);
            settings.pytorch =
                settings.pytorch.take().or_else(|| runners.iter().find_map(|runner| runner.ready.torch.clone()));
            let runners = run(runners, &options);
            Row::print_header(training, threads, runners.first());
            for runner in &runners {
                let ours = runners.iter().find(|runner| runner.peer.is_from_this_project());
                let row = Row::new(training, threads, runner, ours);
                row.print();
                rows.push(row);
            }
        }
    }
    Report::new("train", options.quick, settings, rows).write(options.json.as_deref())
}

fn work(options: &StepOptions) -> Result<()> {
    if options.on_gpu() {
        ttq_examples::select(ttq_examples::BackendChoice::Cuda, 1)?;
    }
    let network = *options.network.first().context("there is a network")?;
    let training = *options.trainings(network).first().context("there is a batch size")?;
    let (peer, threads) = (options.peers.first().context("there is a peer")?, options.threads.first());
    peer.serve(training, *threads.context("there is a number of threads")?)
}

/// A process that trains, and what it has measured.
struct Runner {
    peer: Peer,
    process: Process,
    ready: Ready,
    turns: Vec<Turn>,
}

/// Approximate duration of the steps of each kind in a turn, in seconds.
const TURN_SECONDS: f64 = 0.2;

impl Runner {
    fn start(mut command: Command, peer: Peer) -> Result<Self> {
        let (process, ready) = Process::start(&mut command)?;
        Ok(Self { peer, process, ready, turns: Vec::new() })
    }

    fn turn(&mut self, min_steps: usize) -> Result<()> {
        let estimate = self.turns.last().map_or(f64::INFINITY, |turn| median(turn.full_precision.clone()));
        let steps = ((TURN_SECONDS / estimate) as usize).clamp(min_steps, min_steps.max(50));
        let turn: Turn = self.process.ask(steps)?;
        ensure!(turn.full_precision.len() == steps && turn.ternary.len() == steps, "steps are missing");
        self.turns.push(turn);
        Ok(())
    }

    /// Seconds of all steps: in full precision, and ternary.
    fn seconds(&self) -> [Vec<f64>; 2] {
        let all = |seconds: fn(&Turn) -> &Vec<f64>| self.turns.iter().flat_map(seconds).copied().collect();
        [all(|turn| &turn.full_precision), all(|turn| &turn.ternary)]
    }

    /// Median over the rounds of the time of a step, divided by that of `ours`.
    fn times(&self, ours: &Self, seconds: fn(&Turn) -> &Vec<f64>) -> f64 {
        let rounds = self.turns.iter().zip(&ours.turns);
        median(rounds.map(|(own, ours)| median(seconds(own).clone()) / median(seconds(ours).clone())).collect())
    }
}

/// Starts a process for each peer, one after the other.
fn start(
    options: &StepOptions,
    python: &Python,
    subcommand: &[&str],
    training: Training,
    threads: usize,
) -> Vec<Runner> {
    let mut runners: Vec<Runner> = Vec::new();
    for peer in options.peers.iter().copied().filter(|peer| peer.applies_to(training.network)) {
        let command = match peer.pytorch(python, training, threads) {
            Some(command) => Ok(command),
            None => options.own_worker(subcommand, peer, training, threads),
        };
        let runner = command.and_then(|command| Runner::start(command, peer)).and_then(|runner| {
            let size = |runner: &Runner| (runner.ready.parameters, runner.ready.ternary_weights);
            if let Some(first) = runners.first() {
                let (first, other) = (size(first), size(&runner));
                ensure!(first == other, "the networks differ: {first:?} and {other:?} parameters and ternary weights");
            }
            Ok(runner)
        });
        match runner {
            Ok(runner) => runners.push(runner),
            Err(error) => println!("{:22} not measured: {error:#}", peer.name()),
        }
    }
    runners
}

/// Lets the processes train in turns. Returns those that answered in every round.
fn run(mut runners: Vec<Runner>, options: &StepOptions) -> Vec<Runner> {
    for _ in 0..options.rounds {
        runners.retain_mut(|runner| {
            let turn = runner.turn(options.steps);
            turn.inspect_err(|error| println!("{:22} not measured: {error:#}", runner.peer.name())).is_ok()
        });
    }
    runners
}

impl Row {
    fn new(training: Training, threads: usize, runner: &Runner, ours: Option<&Runner>) -> Self {
        let [full_precision, ternary] = runner.seconds();
        let ratios = ternary.iter().zip(&full_precision).map(|(ternary, full_precision)| ternary / full_precision);
        Self {
            network: training.network,
            peer: runner.peer,
            batch: training.batch,
            threads,
            parameters: runner.ready.parameters,
            ternary_weights: runner.ready.ternary_weights,
            ratio: median(ratios.collect()),
            full_precision: Spread::of(&full_precision),
            ternary: Spread::of(&ternary),
            times_ours: ours.map(|ours| runner.times(ours, |turn| &turn.full_precision)),
            ternary_times_ours: ours.map(|ours| runner.times(ours, |turn| &turn.ternary)),
            peak_memory: runner.turns.iter().filter_map(|turn| turn.peak_memory).max(),
        }
    }

    fn print_header(training: Training, threads: usize, runner: Option<&Runner>) {
        let parameters = runner.map_or(0, |runner| runner.ready.parameters);
        println!(
            "\n{}, {parameters} parameters, batch {}, threads: {threads}",
            training.network.name(),
            training.batch
        );
        println!(
            "  {:22} {:26} {:26} {:>8} {:>8} {:>8} {:>8}",
            "", "full precision", "ternary", "ratio", "vs ttq", "ternary", "MiB"
        );
    }

    fn print(&self) {
        let text = |spread: &Spread| format!("{:.4} ({:.4} to {:.4})", spread.median_s, spread.min_s, spread.max_s);
        let times = |times: Option<f64>| times.map_or(String::new(), |times| format!("{times:.3}"));
        println!(
            "  {:22} {:26} {:26} {:>8.3} {:>8} {:>8} {:>8}",
            self.peer.name(),
            text(&self.full_precision),
            text(&self.ternary),
            self.ratio,
            times(self.times_ours),
            times(self.ternary_times_ours),
            self.peak_memory.map_or(String::new(), |bytes| (bytes >> 20).to_string()),
        );
    }
}
