//! The next bytes of a GPT, dense and with packed weights on `ttq-cpu`, compared with PyTorch:
//! `cargo xtask bench generate --json FILE`.
//!
//! The network is that of the example `text`, of Burn's own modules. It reads one byte after 32 others, whose keys and
//! values are kept, or 32 bytes at once. Results on packed weights are compared with those of the dense ternary network before
//! they are timed.

use std::hint::black_box;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use burn::prelude::*;
use clap::Parser;
use serde::{Deserialize, Serialize};
use ttq_benchmarks::measure::{self, Candidate, Report, Row};
use ttq_benchmarks::process::Process;
use ttq_core::{Ternary, TernaryConfig, packed};
use ttq_cpu::Cpu;
use ttq_examples::model::{Gpt, GptConfig};
use ttq_inference::{Int8, Packed, load};

/// The script for PyTorch.
const SCRIPT: &str = include_str!("../generate_torch.py");

/// Precisions of the script, and names of the candidates.
const PYTORCH: [(&str, &str); 3] =
    [("float32", "PyTorch float32"), ("bfloat16", "PyTorch bfloat16"), ("int8", "PyTorch int8")];

/// Bytes that were read before, and bytes to read.
const READS: [[usize; 2]; 2] = [[32, 1], [0, 32]];

#[derive(Parser)]
#[command(about = "The next bytes of a GPT with packed weights, compared with dense ones and with PyTorch")]
struct Options {
    /// Write the results to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Use a small network, to test whether the suite runs.
    #[arg(long)]
    quick: bool,
    /// Python with torch. Without it, PyTorch is skipped.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// Numbers of threads.
    #[arg(long, value_delimiter = ',', default_values_t = measure::one_and_all_threads())]
    threads: Vec<usize>,
    /// Set by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Serialize)]
struct Settings {
    layers: usize,
    pytorch: Option<String>,
}

/// First answer of a process of PyTorch.
#[derive(Deserialize)]
struct Ready {
    version: String,
    parameters: usize,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let layers = if options.quick { 1 } else { 6 };
    let sizes: &[[usize; 2]] = if options.quick { &[[64, 2]] } else { &[[256, 8], [1024, 16]] };
    let (mut pytorch, mut rows) = (None, Vec::new());
    for &[width, heads] in sizes {
        let config = GptConfig { layers, width, heads, context: 128 };
        let networks = Networks::new(&config)?;
        for pool in measure::thread_pools(&options.threads)? {
            rows.extend(pool.install(|| compare(&config, &networks, &options, &mut pytorch))?);
        }
    }
    Report::new("generate", options.quick, Settings { layers, pytorch }, rows).write(options.json.as_deref())
}

/// A ternary network with dense weights and with packed ones.
struct Networks {
    dense: Gpt<Cpu>,
    packed: Gpt<Packed<Cpu>>,
    int8: Gpt<Packed<Cpu, Int8>>,
}

impl Networks {
    fn new(config: &GptConfig) -> Result<Self> {
        let device = Default::default();
        Cpu::seed(&device, 1);
        let ternary = Ternary::new(Gpt::<Cpu>::new(config, &device), &TernaryConfig::default())?;
        let model = packed::pack(&ternary)?;
        let dense = ternary.materialize();
        let packed = load(Gpt::<Packed<Cpu>>::new(config, &device), &model)?;
        let int8 = load(Gpt::<Packed<Cpu, Int8>>::new(config, &device), &model)?;
        let expected = read(&dense, [0, 32])();
        for (found, limit) in [(read(&packed, [0, 32])(), 1e-4), (read(&int8, [0, 32])(), 0.1)] {
            let difference = difference(&found, &expected);
            ensure!(difference < limit, "logits on packed weights differ by {difference:e}, more than {limit}");
        }
        Ok(Self { dense, packed, int8 })
    }
}

/// Compares the implementations on the threads of the current pool.
fn compare(
    config: &GptConfig,
    networks: &Networks,
    options: &Options,
    pytorch: &mut Option<String>,
) -> Result<Vec<Row>> {
    let GptConfig { layers, width, heads, context } = *config;
    let mut processes = Vec::new();
    for (precision, name) in PYTORCH {
        let mut command = Command::new(&options.python);
        command.args(["-W", "ignore", "-c", SCRIPT, precision]);
        command.args([layers, width, heads, context, rayon::current_num_threads()].map(|number| number.to_string()));
        match Process::start::<Ready>(&mut command) {
            Ok((process, ready)) => {
                let own = networks.dense.num_params();
                ensure!(ready.parameters == own, "PyTorch's network has {} parameters, not {own}", ready.parameters);
                *pytorch = Some(ready.version);
                processes.push((name, process));
            }
            Err(error) => eprintln!("continuing without {name}: {error:#}"),
        }
    }
    let mut rows = Vec::new();
    for [before, new] in READS {
        let mut candidates: Vec<Candidate<'_>> = Vec::new();
        for (name, process) in &mut processes {
            candidates
                .push(Candidate::self_timed(*name, move |calls| process.ask(format_args!("{before} {new} {calls}"))));
        }
        candidates.push(candidate("ttq-cpu, dense", read(&networks.dense, [before, new])));
        candidates.push(candidate("packed float32", read(&networks.packed, [before, new])));
        candidates.push(candidate("packed int8", read(&networks.int8, [before, new])));
        let budget = Duration::from_millis(if options.quick { 20 } else { 2000 });
        let bytes = if new == 1 { "1 byte".into() } else { format!("{new} bytes") };
        rows.extend(measure::compare(&format!("GPT, {width} features, {bytes}"), budget, candidates)?);
    }
    Ok(rows)
}

fn candidate<'a>(name: &str, read: impl Fn() -> Vec<f32> + 'a) -> Candidate<'a> {
    Candidate::new(name, move || {
        black_box(read());
    })
}

/// Returns a function that reads `new` bytes after `before` others and returns the logits.
fn read<B: Backend>(network: &Gpt<B>, [before, new]: [usize; 2]) -> impl Fn() -> Vec<f32> + '_ {
    let bytes = |bytes: std::ops::Range<usize>| {
        Tensor::<B, 1, Int>::arange(bytes.start as i64..bytes.end as i64, &Default::default()).unsqueeze::<2>()
    };
    let mut cache = network.cache();
    if before > 0 {
        let _ = network.read(bytes(0..before), &mut cache);
    }
    let bytes = bytes(before..before + new);
    move || network.read(bytes.clone(), &mut cache.clone()).into_data().iter().collect()
}

/// Returns the largest difference, divided by the largest expected magnitude.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    let largest = expected.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    found.iter().zip(expected).fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs())) / largest
}
