//! Products of other libraries, each computed by a process of its own: PyTorch and ONNX Runtime in Python
//! (`linear_peer.py`), candle in the program of `benchmarks/candle`, because as a dependency it would change the features of
//! crates that the workspace compiles.

use std::io::Write as _;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use ttq_benchmarks::measure::Candidate;
use ttq_benchmarks::process::Process;

use crate::Suite;

/// The script for Python.
const SCRIPT: &str = include_str!("../../linear_peer.py");

/// A kind of product.
struct Kind {
    name: &'static str,
    /// Its name in the script or program.
    argument: &'static str,
    is_candle: bool,
    /// Bytes of 256 weights.
    bytes: usize,
    /// Largest difference from the result in float64, divided by the largest result.
    tolerance: f64,
}

const KINDS: [Kind; 7] = [
    Kind { name: "PyTorch float32", argument: "pytorch-float32", is_candle: false, bytes: 1024, tolerance: 1e-5 },
    Kind { name: "PyTorch bfloat16", argument: "pytorch-bfloat16", is_candle: false, bytes: 512, tolerance: 2e-2 },
    Kind { name: "PyTorch int8", argument: "pytorch-int8", is_candle: false, bytes: 256, tolerance: 5e-2 },
    Kind { name: "ONNX Runtime int8", argument: "onnxruntime-int8", is_candle: false, bytes: 256, tolerance: 5e-2 },
    // With a scale of four bytes for 128 weights.
    Kind { name: "ONNX Runtime 2-bit", argument: "onnxruntime-2bit", is_candle: false, bytes: 72, tolerance: 5e-2 },
    // A weight of its own, whose result is not compared.
    Kind { name: "candle Q4_0", argument: "q4_0", is_candle: true, bytes: 144, tolerance: 0.0 },
    Kind { name: "candle Q2K", argument: "q2k", is_candle: true, bytes: 84, tolerance: 0.0 },
];

/// First answer of a process.
#[derive(Deserialize)]
struct Ready {
    version: String,
    difference: f64,
}

/// A library and its version.
#[derive(Debug, Serialize)]
pub(crate) struct Version {
    candidate: &'static str,
    version: String,
    threads: usize,
}

/// Running processes for products with one weight.
pub(crate) struct Peers {
    processes: Vec<(&'static Kind, Process)>,
    pub(crate) versions: Vec<Version>,
    /// Bytes of the largest weight are in proportion to this number.
    weights: usize,
}

impl Peers {
    /// Starts the processes for a weight `[outputs, inputs]` of these ternary values, on as many threads as the current pool
    /// has. Those that are not available are skipped with a message.
    pub(crate) fn start(suite: &Suite, codes: &[i8], [outputs, inputs]: [usize; 2]) -> Result<Self> {
        let threads = rayon::current_num_threads();
        let mut file = NamedTempFile::new().context("cannot create a temporary file")?;
        file.write_all(&codes.iter().map(|code| code.cast_unsigned()).collect::<Vec<_>>())?;
        let mut peers = Self { processes: vec![], versions: vec![], weights: codes.len() };
        let sizes = [inputs, outputs].map(|size| size.to_string());
        for kind in &KINDS {
            let mut command = if kind.is_candle {
                let Some(program) = &suite.candle else { continue };
                let mut command = Command::new(program);
                command.arg(kind.argument).args(&sizes).env("RAYON_NUM_THREADS", threads.to_string());
                command
            } else {
                let mut command = Command::new(&suite.python);
                command.args(["-W", "ignore", "-c", SCRIPT, kind.argument]).args(&sizes);
                command.arg(file.path()).arg(threads.to_string());
                command
            };
            match Process::start::<Ready>(&mut command) {
                Ok((process, Ready { version, difference })) => {
                    ensure!(difference <= kind.tolerance, "{}: the result differs by {difference:e}", kind.name);
                    peers.processes.push((kind, process));
                    peers.versions.push(Version { candidate: kind.name, version, threads });
                }
                Err(error) => eprintln!("continuing without {}: {error:#}", kind.name),
            }
        }
        Ok(peers)
    }

    /// Returns a candidate for each process, for products of `rows` rows, with the bytes of its weight.
    pub(crate) fn candidates(&mut self, rows: usize) -> impl Iterator<Item = (Candidate<'_>, usize)> {
        let weights = self.weights;
        self.processes.iter_mut().map(move |(kind, process)| {
            let candidate = Candidate::self_timed(kind.name, move |calls| process.ask(format_args!("{rows} {calls}")));
            (candidate, weights * kind.bytes / 256)
        })
    }
}
