//! Loading of packed files, plain and archive-coded, into modules, compared with safetensors files of the same network
//! as floats: `cargo xtask bench load --json FILE`.
//!
//! The files are in the cache of the operating system, and every call creates a module. Packed weights are arranged for
//! the kernels on first use, so the time to the first output is measured as well, and that of the first call alone. Rates are bytes of the
//! file per second.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use burn::nn::{Linear, LinearConfig};
use burn::prelude::*;
use burn_store::{ModuleSnapshot, SafetensorsStore};
use clap::Parser;
use serde::Serialize;
use tempfile::TempDir;
use ttq_benchmarks::measure::{self, Candidate, Report, Row};
use ttq_core::{SelectionConfig, Ternary, TernaryConfig, packed};
use ttq_cpu::Cpu;
use ttq_examples::model::{Network, ResNet};
use ttq_inference::{Packed, load};
use ttq_packed::{Coding, PackedModel};

#[derive(Parser)]
#[command(about = "Loading of packed files, compared with safetensors files of floats")]
struct Options {
    /// Write the results to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Use small sizes, to test whether the suite runs.
    #[arg(long)]
    quick: bool,
    /// Set by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Serialize)]
struct Settings {
    backend: String,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let device = Default::default();
    let budget = Duration::from_millis(if options.quick { 50 } else { 2000 });
    let mut rows = Vec::new();

    let resnet = || ResNet::<Cpu>::new(20, 10, &device);
    let files = Files::write(resnet(), TernaryConfig::default(), resnet)?;
    rows.extend(compare(
        "ResNet-20",
        budget,
        &files,
        resnet,
        || ResNet::<Packed<Cpu>>::new(20, 10, &device),
        |network| network.forward(Tensor::ones([1, 3, 32, 32], &device)).into_data(),
        |network| network.forward(Tensor::ones([1, 3, 32, 32], &device)).into_data(),
    )?);

    let size = if options.quick { 256 } else { 4096 };
    let linear = || Stack::<Cpu>::new(size, &device);
    let selection = SelectionConfig { keep_last_layer: false, ..Default::default() };
    let files = Files::write(linear(), TernaryConfig { selection, ..Default::default() }, linear)?;
    rows.extend(compare(
        &format!("{LAYERS} linear layers {size} × {size}"),
        budget,
        &files,
        linear,
        || Stack::<Packed<Cpu>>::new(size, &device),
        |layers| layers.forward(Tensor::ones([1, size], &device)).into_data(),
        |layers| layers.forward(Tensor::ones([1, size], &device)).into_data(),
    )?);
    let settings = Settings { backend: Cpu::name(&device) };
    Report::new("load", options.quick, settings, rows).write(options.json.as_deref())
}

/// Number of layers of a [`Stack`].
const LAYERS: usize = 8;

/// Large linear layers, one after the other.
#[derive(Module, Debug)]
struct Stack<B: Backend> {
    layers: Vec<Linear<B>>,
}

impl<B: Backend> Stack<B> {
    fn new(size: usize, device: &B::Device) -> Self {
        Self { layers: (0..LAYERS).map(|_| LinearConfig::new(size, size).init(device)).collect() }
    }

    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.layers.iter().fold(x, |x, layer| layer.forward(x))
    }
}

/// A network in three files, in a temporary directory.
struct Files {
    directory: TempDir,
}

impl Files {
    const FLOAT: &str = "float.safetensors";
    const PLAIN: &str = "plain.safetensors";
    const ARCHIVE: &str = "archive.safetensors";

    /// Makes `module` ternary and writes the files. `dense` creates a module of the same type, to verify that the files
    /// contain the same weights.
    fn write<M: Module<Cpu>>(module: M, config: TernaryConfig, dense: impl Fn() -> M) -> Result<Self> {
        let files = Self { directory: tempfile::tempdir()? };
        let ternary = Ternary::new(module, &config)?;
        let mut store = SafetensorsStore::from_file(files.path(Self::FLOAT));
        ternary.materialize().save_into(&mut store).map_err(|error| anyhow!("{error}"))?;
        let model = packed::pack(&ternary)?;
        model.save(files.path(Self::PLAIN), Coding::Plain)?;
        model.save(files.path(Self::ARCHIVE), Coding::Archive)?;
        let float = values(&float_module(dense(), &files.path(Self::FLOAT)));
        ensure!(!float.is_empty(), "the network has no parameters");
        for name in [Self::PLAIN, Self::ARCHIVE] {
            ensure!(
                values(&packed_module(dense(), &files.path(name))) == float,
                "{name} contains other weights than {}",
                Self::FLOAT
            );
        }
        Ok(files)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Creates a candidate that reads one of the files.
    fn reading<'a>(&self, name: &str, candidate: &str, call: impl Fn(&Path) + 'a) -> Result<Candidate<'a>> {
        let path = self.path(name);
        let bytes = std::fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?.len();
        Ok(Candidate::new(candidate, move || call(&path)).with_bytes(bytes as usize, None))
    }
}

/// Returns the values of all parameters, in the order of the module.
fn values<M: Module<Cpu>>(module: &M) -> Vec<TensorData> {
    module.collect(None, None, false).iter().filter_map(|snapshot| snapshot.to_data().ok()).collect()
}

fn float_module<M: Module<Cpu>>(mut module: M, path: &Path) -> M {
    module.load_from(&mut SafetensorsStore::from_file(path)).expect("the file was written for this module");
    module
}

fn packed_module<B: Backend, M: Module<B>>(module: M, path: &Path) -> M {
    let model = PackedModel::load(path).expect("the file was written by this program");
    load(module, &model).expect("the file was written for this module")
}

/// Compares the time to load the files, then the time to load them and compute an output.
fn compare<D: Module<Cpu>, P: Module<Packed<Cpu>>>(
    network: &str,
    budget: Duration,
    files: &Files,
    dense: impl Fn() -> D,
    packed: impl Fn() -> P,
    use_dense: impl Fn(&D) -> TensorData,
    use_packed: impl Fn(&P) -> TensorData,
) -> Result<Vec<Row>> {
    let float = |path: &Path| float_module(dense(), path);
    let to_floats = |path: &Path| drop(black_box(packed_module(dense(), path)));
    let mut rows = measure::compare(
        &format!("{network}, to a module of floats"),
        budget,
        vec![
            files.reading(Files::FLOAT, "safetensors float32", |path| drop(black_box(float(path))))?,
            files.reading(Files::PLAIN, "packed", to_floats)?,
            files.reading(Files::ARCHIVE, "packed, archive", to_floats)?,
        ],
    )?;
    let to_output = |path: &Path| drop(black_box(use_packed(&packed_module(packed(), path))));
    let plain = files.path(Files::PLAIN);
    let first_calls = |calls: usize| {
        let first_call = |_| {
            let module = packed_module(packed(), &plain);
            let start = Instant::now();
            black_box(use_packed(&module));
            start.elapsed().as_secs_f64()
        };
        Ok((0..calls).map(first_call).collect())
    };
    rows.extend(measure::compare(
        &format!("{network}, packed weights, to the first output"),
        budget,
        vec![
            files.reading(Files::FLOAT, "safetensors float32", |path| drop(black_box(use_dense(&float(path)))))?,
            files.reading(Files::PLAIN, "packed", to_output)?,
            files.reading(Files::ARCHIVE, "packed, archive", to_output)?,
            Candidate::self_timed("packed, the first call alone", first_calls),
        ],
    )?);
    Ok(rows)
}
