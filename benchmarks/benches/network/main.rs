//! Whole networks without Burn, compared with ONNX Runtime and OpenVINO: `cargo xtask bench network --json FILE`.
//!
//! Each network is a Burn module with random ternary weights, captured as a graph. The peers get the same numbers as an ONNX
//! model; for int8, ONNX Runtime's own tool quantizes it. Every implementation runs in a process of its own, and the processes
//! take turns. Before it is timed, its result for one item is compared with the definition of the graph.

mod networks;
mod serve;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Serialize;
use tempfile::TempDir;
use ttq_benchmarks::measure::{self, Candidate, Report, Row};
use ttq_benchmarks::process::Process;
use ttq_onnx::ExportOptions;
use ttq_packed::Coding;
use ttq_packed::network::Graph;

use crate::networks::NETWORKS;
use crate::serve::{Ready, serve};

/// The peers' script.
const SCRIPT: &str = include_str!("../../network_peer.py");

#[derive(Parser)]
#[command(about = "Whole networks without Burn, compared with ONNX Runtime and OpenVINO")]
struct Options {
    /// Write the results to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Take little time and small batches, to test whether the suite runs.
    #[arg(long)]
    quick: bool,
    /// Python with numpy, onnx, onnxruntime and openvino. Peers that it does not have are skipped.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// Numbers of threads.
    #[arg(long, value_delimiter = ',', default_values_t = measure::one_and_all_threads())]
    threads: Vec<usize>,
    /// Batch sizes.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 100])]
    batches: Vec<usize>,
    /// Run only networks whose title contains this text, such as `ResNet`.
    #[arg(long, default_value = "")]
    filter: String,
    /// Set by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
    /// Runs a network of this file instead, and answers requests.
    #[arg(long, hide = true)]
    serve: Option<PathBuf>,
    /// Serves the network in int8.
    #[arg(long, hide = true)]
    int8: bool,
}

/// An implementation of a network.
#[derive(Clone, Copy)]
struct Peer {
    name: &'static str,
    /// The script's name of the runtime; `None` for the network of this project.
    runtime: Option<&'static str>,
    int8: bool,
}

/// The first one is what the others are compared with.
const PEERS: [Peer; 6] = [
    Peer { name: "ONNX Runtime float32", runtime: Some("onnxruntime"), int8: false },
    Peer { name: "OpenVINO float32", runtime: Some("openvino"), int8: false },
    Peer { name: "ttq float32", runtime: None, int8: false },
    Peer { name: "ONNX Runtime int8", runtime: Some("onnxruntime"), int8: true },
    Peer { name: "OpenVINO int8", runtime: Some("openvino"), int8: true },
    Peer { name: "ttq int8", runtime: None, int8: true },
];

/// Start of a process.
#[derive(Serialize)]
struct Start {
    network: String,
    candidate: &'static str,
    version: String,
    threads: usize,
    /// Seconds from the file to a network that can run, without the start of the process.
    load_s: f64,
    /// Largest difference of a result for one item from its definition in float64, divided by the largest result.
    difference: f64,
    /// Growth of the resident set while the network is loaded and runs one item, at its peak, in bytes.
    memory: Option<u64>,
}

#[derive(Serialize)]
struct Settings {
    starts: Vec<Start>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(file) = &options.serve {
        return serve(file, options.int8, options.threads.first().copied().unwrap_or(1));
    }
    let (mut starts, mut rows) = (Vec::new(), Vec::new());
    for network in NETWORKS.iter().filter(|network| network.title.contains(&options.filter)) {
        let graph = (network.graph)().with_context(|| format!("{} cannot be captured", network.title))?;
        let files = Files::write(&graph, &options.python)?;
        for pool in measure::thread_pools(&options.threads)? {
            let (new_starts, new_rows) = pool.install(|| compare(network.title, &graph, &files, &options))?;
            starts.extend(new_starts);
            rows.extend(new_rows);
        }
    }
    Report::new("network", options.quick, Settings { starts }, rows).write(options.json.as_deref())
}

/// Compares the implementations of a network on the threads of the current pool.
fn compare(title: &str, graph: &Graph, files: &Files, options: &Options) -> Result<(Vec<Start>, Vec<Row>)> {
    let threads = rayon::current_num_threads();
    let item: Vec<f32> = serve::item(graph.shape(graph.input()).dims.iter().product());
    let expected = graph.evaluate(&item)?;
    let (mut starts, mut processes) = (Vec::new(), Vec::new());
    for peer in PEERS {
        let Some(mut command) = files.command(peer, options, threads)? else { continue };
        let (process, ready) = match Process::start::<Ready>(&mut command) {
            Ok(started) => started,
            Err(error) if peer.runtime.is_some() => {
                eprintln!("continuing without {}: {error:#}", peer.name);
                continue;
            }
            Err(error) => return Err(error.context(peer.name)),
        };
        let difference = difference(&ready.output, &expected);
        ensure!(peer.int8 || difference < 1e-3, "{title} in {}: results differ by {difference:e}", peer.name);
        let Ready { version, load_s, memory, .. } = ready;
        println!(
            "{title}, {} ({version}): results differ by {difference:.1e}; loads in {:.1} ms, {:.1} MB",
            peer.name,
            1e3 * load_s,
            memory.unwrap_or_default() as f64 / 1e6
        );
        starts.push(Start {
            network: title.into(),
            candidate: peer.name,
            version,
            threads,
            load_s,
            difference,
            memory,
        });
        processes.push((peer.name, process));
    }
    let budget = Duration::from_millis(if options.quick { 20 } else { 2000 });
    let mut rows = Vec::new();
    for &batch in options.batches.iter().filter(|batch| !options.quick || **batch <= 8) {
        let candidates = processes.iter_mut().map(|(name, process)| {
            Candidate::self_timed(*name, move |calls| process.ask(format_args!("{batch} {calls}")))
        });
        rows.extend(measure::compare(&format!("{title}, batch {batch}"), budget, candidates.collect())?);
    }
    Ok((starts, rows))
}

/// Returns the largest difference, divided by the largest expected magnitude; infinite if the numbers of results differ.
fn difference(found: &[f64], expected: &[f64]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let largest = expected.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
    found.iter().zip(expected).fold(0.0_f64, |worst, (a, b)| worst.max((a - b).abs())) / largest
}

/// A network in files of a temporary directory.
struct Files {
    directory: TempDir,
    has_int8: bool,
}

impl Files {
    fn write(graph: &Graph, python: &Path) -> Result<Self> {
        let directory = tempfile::tempdir().context("cannot create a temporary directory")?;
        let mut files = Self { directory, has_int8: false };
        graph.save(files.path("network.safetensors"), Coding::Plain, None)?;
        std::fs::write(files.path("float32.onnx"), ttq_onnx::export(graph, &ExportOptions::default())?)?;
        let mut command = Command::new(python);
        command.args(["-c", SCRIPT, "quantize"]).arg(files.path("float32.onnx")).arg(files.path("int8.onnx"));
        match Process::start::<bool>(&mut command) {
            Ok(_) => files.has_int8 = true,
            Err(error) => eprintln!("continuing without int8 in ONNX Runtime and OpenVINO: {error:#}"),
        }
        Ok(files)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns the command that starts a process for a peer; `None` if there is no file for it.
    fn command(&self, peer: Peer, options: &Options, threads: usize) -> Result<Option<Command>> {
        let threads = threads.to_string();
        let Some(runtime) = peer.runtime else {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("--serve").arg(self.path("network.safetensors")).args(["--threads", &threads]);
            command.args(peer.int8.then_some("--int8"));
            return Ok(Some(command));
        };
        if peer.int8 && !self.has_int8 {
            return Ok(None);
        }
        let mut command = Command::new(&options.python);
        command.args(["-c", SCRIPT, runtime]).arg(self.path(if peer.int8 { "int8.onnx" } else { "float32.onnx" }));
        command.arg(threads);
        Ok(Some(command))
    }
}
