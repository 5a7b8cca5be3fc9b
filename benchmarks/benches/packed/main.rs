//! Products with packed weights, compared with dense and other quantized products, all in one run:
//! `cargo xtask bench packed --json FILE`.
//!
//! The times include everything that a call does: building tables, quantizing activations, gathering windows. For
//! convolutions they include the allocation of the result, as for the tensor operations that they are compared with.
//! The result of each kernel is compared with that of the reference before it is timed.

mod convolution;
mod limits;
mod peers;
mod product;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::Parser;
use fastrand::Rng;
use serde::Serialize;
use ttq_benchmarks::measure::{self, Report, Row};
use ttq_packed::kernels::Level;

use crate::convolution::Layer;
use crate::limits::Limits;
use crate::peers::Version;

/// W_p and W_n. They differ, so that no kernel uses its special case for equal scales.
const SCALES: [f32; 2] = [0.7, 0.4];

#[derive(Parser)]
#[command(about = "Products with packed weights, compared with dense and other quantized products")]
struct Options {
    /// Write the results to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Use small sizes, to test whether the suite runs.
    #[arg(long)]
    quick: bool,
    /// Instruction sets: `best`, `all`, or names such as `avx512`, `avxvnni`, `avx2`, `portable`. Those that the
    /// machine does not have are skipped.
    #[arg(long, value_delimiter = ',', default_values = ["best", "avx2"])]
    levels: Vec<String>,
    /// Numbers of threads.
    #[arg(long, value_delimiter = ',', default_values_t = measure::one_and_all_threads())]
    threads: Vec<usize>,
    /// Path of the built program of `benchmarks/candle`. Without it, candle is skipped.
    #[arg(long, value_name = "PROGRAM")]
    candle: Option<PathBuf>,
    /// Python with numpy, and torch, or onnx and onnxruntime. Libraries that it does not have are skipped.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// Run only comparisons whose title contains this text, such as `linear`, `3×3` or `batch 32`.
    #[arg(long, default_value = "")]
    filter: String,
    /// Set by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Settings of all comparisons.
struct Suite {
    /// Time per candidate.
    budget: Duration,
    levels: Vec<Level>,
    candle: Option<PathBuf>,
    python: PathBuf,
    filter: String,
}

#[derive(Serialize)]
struct Settings {
    levels: Vec<String>,
    peers: Vec<Version>,
    limits: Vec<Limits>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let suite = Suite {
        budget: Duration::from_millis(if options.quick { 20 } else { 400 }),
        levels: levels(&options.levels)?,
        candle: options.candle,
        python: options.python,
        filter: options.filter,
    };
    let available: Vec<Level> = Level::available().collect();
    let (mut limits, mut peers, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for (index, pool) in measure::thread_pools(&options.threads)?.into_iter().enumerate() {
        let (own, (versions, measured)) = pool.install(|| {
            let limits = Limits::measure(&available, options.quick);
            limits.print();
            run(&suite, &limits, options.quick, index == 0).map(|measured| (limits, measured))
        })?;
        limits.push(own);
        peers.extend(versions);
        rows.extend(measured);
    }
    let levels = suite.levels.iter().map(|level| format!("{level:?}")).collect();
    let settings = Settings { levels, peers, limits };
    Report::new("packed", options.quick, settings, rows).write(options.json.as_deref())
}

/// Returns the requested instruction sets that the machine has, best first.
fn levels(names: &[String]) -> Result<Vec<Level>> {
    let named = |level: Level| format!("{level:?}").to_lowercase();
    for name in names {
        let known = [Level::Avx512, Level::AvxVnni, Level::Avx2, Level::Portable].map(named);
        if !known.contains(name) && !["best", "all"].contains(&name.as_str()) {
            bail!("unknown instruction set `{name}`: use best, all, {}", known.join(", "));
        }
    }
    let is_requested = |level: &Level| {
        let best = *level == Level::best();
        names.iter().any(|name| name == "all" || name == "best" && best || *name == named(*level))
    };
    Ok(Level::available().filter(is_requested).collect())
}

/// Runs all comparisons on the current threads. Other shares of zeros are measured for the first number of threads
/// only.
fn run(suite: &Suite, limits: &Limits, quick: bool, first: bool) -> Result<(Vec<Version>, Vec<Row>)> {
    let (size, batches): (_, &[usize]) = if quick { (1024, &[1, 64]) } else { (4096, &[1, 2, 4, 8, 16, 64]) };
    let (versions, mut rows) = product::compare(suite, limits, [size, size], batches)?;
    for images in if quick { vec![1] } else { vec![1, 32] } {
        for layer in Layer::of_resnet20(images).into_iter().filter(|layer| !quick || layer.size == 16) {
            rows.extend(convolution::compare(suite, limits, layer, 0.5)?);
        }
        for zeros in [0.1, 0.8] {
            if first && !quick {
                rows.extend(convolution::compare(suite, limits, Layer::middle(images), zeros)?);
            }
        }
    }
    Ok((versions, rows))
}

/// Returns `n` random values in [-1, 1).
fn floats(rng: &mut Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| 2.0 * rng.f32() - 1.0).collect()
}

/// Returns `n` random ternary values with a share of zeros.
fn ternary(rng: &mut Rng, n: usize, zeros: f32) -> Vec<i8> {
    (0..n).map(|_| if rng.f32() < zeros { 0 } else { 2 * rng.i8(0..2) - 1 }).collect()
}

/// Returns the weight of a ternary value.
fn weight(value: i8) -> f32 {
    match value {
        1 => SCALES[0],
        -1 => -SCALES[1],
        _ => 0.0,
    }
}

/// Returns an error if the largest deviation from `expected` exceeds `tolerance` times the largest expected magnitude.
fn check_result(candidate: &str, found: &[f32], expected: &[f32], tolerance: f32) -> Result<()> {
    let largest =
        |values: &mut dyn Iterator<Item = f32>| values.fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let off = largest(&mut found.iter().zip(expected).map(|(found, expected)| found - expected));
    let limit = tolerance * largest(&mut expected.iter().copied());
    ensure!(
        found.len() == expected.len() && off <= limit,
        "the result of {candidate} deviates by {off}, more than {limit}"
    );
    Ok(())
}
