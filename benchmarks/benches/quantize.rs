//! Forward and backward pass of the quantizer, compared with a copy of the weight: `cargo xtask bench quantize --json
//! FILE`.
//!
//! The copy reads and writes each float once, into allocated memory. So would an ideal `ternarize` with a known
//! threshold; the maximum or mean in the threshold takes another read. `gradients` reads the gradient and the ternary
//! weight and writes one gradient.

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use burn::prelude::*;
use burn::tensor::Distribution;
use clap::Parser;
use serde::Serialize;
use ttq_benchmarks::measure::{self, Candidate, Report, Row};
use ttq_core::{QuantizerConfig, TernaryQuantizer};
use ttq_cpu::Cpu;

#[derive(Parser)]
#[command(about = "Forward and backward pass of the quantizer, compared with a copy of the weight")]
struct Options {
    /// Write the results to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Use small sizes, to test whether the suite runs.
    #[arg(long)]
    quick: bool,
    /// Numbers of threads.
    #[arg(long, value_delimiter = ',', default_values_t = measure::one_and_all_threads())]
    threads: Vec<usize>,
    /// Set by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Serialize)]
struct Settings {
    backend: String,
    quantizer: QuantizerConfig,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let config = QuantizerConfig::ttq();
    let quantizer: TernaryQuantizer<Cpu> = config.init()?;
    let budget = Duration::from_millis(if options.quick { 20 } else { 500 });
    let mut rows = Vec::new();
    for pool in measure::thread_pools(&options.threads)? {
        rows.extend(pool.install(|| compare_all(&quantizer, budget, options.quick))?);
    }
    let settings = Settings { backend: Cpu::name(&Default::default()), quantizer: config };
    Report::new("quantize", options.quick, settings, rows).write(options.json.as_deref())
}

/// Measures the sizes of the layers of ResNet-20, and a large linear layer.
fn compare_all(quantizer: &TernaryQuantizer<Cpu>, budget: Duration, quick: bool) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for shape in [[16, 16, 3, 3], [64, 32, 1, 1], [32, 32, 3, 3], [64, 64, 3, 3]] {
        rows.extend(compare(quantizer, "convolution", shape, 0, budget)?);
    }
    let size = if quick { 512 } else { 4096 };
    rows.extend(compare(quantizer, "linear", [size, size], 1, budget)?);
    Ok(rows)
}

fn compare<const D: usize>(
    quantizer: &TernaryQuantizer<Cpu>,
    kind: &str,
    shape: [usize; D],
    channel_axis: usize,
    budget: Duration,
) -> Result<Vec<Row>> {
    let device = Default::default();
    let random = || Tensor::<Cpu, D>::random(shape, Distribution::Normal(0.0, 0.05), &device);
    let (latent, gradient) = (random(), random());
    let scales = quantizer.initial_scales(latent.clone(), channel_axis);
    let values: Vec<f32> = latent.to_data().iter().collect();
    let bytes = size_of::<f32>() * values.len();
    let mut target = values.clone();
    let copy = Candidate::new("copy", || {
        target.copy_from_slice(black_box(&values));
        black_box(&target);
    });
    let ternarize = Candidate::new("ternarize", || {
        black_box(quantizer.ternarize(latent.clone(), scales.clone(), channel_axis).into_data());
    });
    let ternary = quantizer.ternarize(latent.clone(), scales.clone(), channel_axis);
    let ternary = Tensor::<Cpu, D>::from_data(ternary.into_data(), &device);
    let gradients = Candidate::new("gradients", || {
        let gradients = quantizer.gradients(gradient.clone(), ternary.clone(), scales.clone(), channel_axis);
        black_box((gradients.scales.into_data(), gradients.latent.into_data()));
    });
    let candidates = vec![
        copy.with_bytes(2 * bytes, None),
        ternarize.with_bytes(2 * bytes, None),
        gradients.with_bytes(3 * bytes, None),
    ];
    let dimensions = shape.map(|size| size.to_string()).join(" × ");
    measure::compare(&format!("{kind} {dimensions}"), budget, candidates)
}
