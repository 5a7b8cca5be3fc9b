//! The process that runs a network of this project. `network_peer.py` is its counterpart.

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::StandardNormal;
use serde::{Deserialize, Serialize};
use ttq_benchmarks::{measure, usage};
use ttq_packed::network::{Arena, CompileOptions, Int8, Network};

/// First answer of a process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// Name and version of the implementation.
    pub(crate) version: String,
    /// Result for the [`item`].
    pub(crate) output: Vec<f64>,
    /// Seconds from the file to a network that can run.
    pub(crate) load_s: f64,
    /// Growth of the resident set while the network is loaded and runs one item, at its peak, in bytes.
    pub(crate) memory: Option<u64>,
}

/// Returns the elements of the item by which results are compared, as in the script.
pub(crate) fn item(elements: usize) -> Vec<f32> {
    (0..elements).map(|i| (i as f64).sin() as f32).collect()
}

/// Runs the network of a file, and answers requests until the standard input ends.
pub(crate) fn serve(file: &Path, int8: bool, threads: usize) -> Result<()> {
    let pools = measure::thread_pools(&[threads])?;
    pools.first().context("there is one pool")?.install(|| run(file, int8))
}

fn run(file: &Path, int8: bool) -> Result<()> {
    let options = CompileOptions::default().with_int8(if int8 { Int8::All } else { Int8::Off });
    let before = usage::memory();
    usage::reset_peak_memory();
    let start = Instant::now();
    let network = Network::load(file, &options)?;
    let load_s = start.elapsed().as_secs_f64();
    let [input, outputs] = [network.input_dims(), network.output_dims()].map(|dims| dims.iter().product::<usize>());
    let mut arena = Arena::new();
    let mut output = vec![0.0; outputs];
    network.run(&mut arena, &item(input), &mut output)?;
    let memory = usage::peak_memory().zip(before).map(|(peak, before)| peak.saturating_sub(before));
    let version = format!("ttq {}", env!("CARGO_PKG_VERSION"));
    let output = output.into_iter().map(f64::from).collect();
    answer(&Ready { version, output, load_s, memory })?;
    let mut rng = StdRng::seed_from_u64(0);
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for request in std::io::stdin().lock().lines() {
        let request = request?;
        let numbers = request.split_once(' ').map(|(batch, calls)| (batch.parse::<usize>(), calls.parse::<usize>()));
        let Some((Ok(batch), Ok(calls))) = numbers else { anyhow::bail!("`{request}` is not BATCH CALLS") };
        if x.len() != batch * input {
            x = (0..batch * input).map(|_| rng.sample(StandardNormal)).collect();
            y.resize(batch * outputs, 0.0);
        }
        let mut seconds = Vec::with_capacity(calls);
        for _ in 0..calls {
            let start = Instant::now();
            network.run(&mut arena, &x, &mut y)?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        answer(&seconds)?;
    }
    Ok(())
}

fn answer(value: &impl Serialize) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{}", serde_json::to_string(value)?)?;
    Ok(output.flush()?)
}
