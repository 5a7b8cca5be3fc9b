//! Products with packed weights on a GPU, against Burn's dense and quantized ones and PyTorch's in half precision, all in one run:
//! `gpu packed --json FILE`.
//!
//! Weights are taken in turn from as many copies as no cache holds, so that bytes come from memory and their share of its bandwidth means
//! something. Calls are timed one by one, each until the device has finished, and many in a row: the difference is what starting a call and
//! waiting for its end cost. The smallest size is that cost alone.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use burn::nn::LinearConfig;
use burn::prelude::*;
use burn::tensor::quantization::{QuantScheme, QuantValue};
use burn::tensor::{DType, Distribution, FloatDType};
use clap::Args;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use ttq_core::packed::{ActivationType, Int8, PackedLinear};
use ttq_packed::{Codes, TernaryWeight};

use crate::backend::select;
use crate::measure::{self, Candidate, Report, Row, Spread};
use crate::torch::Torch;
use crate::{BackendChoice, Backends};

/// W_p and W_n: different, so that no kernel can take the shortcut for equal ones.
const SCALES: [f32; 2] = [0.7, 0.4];
/// Bytes of weights that calls take in turn.
const COLD: usize = 256 << 20;
/// Calls in a row.
const QUEUE: usize = 64;

/// What to measure.
#[derive(Debug, Clone, Args)]
pub struct ProductOptions {
    /// Write the figures to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Small sizes and little time: does it run?
    #[arg(long)]
    quick: bool,
    /// Inputs and outputs of the layers.
    #[arg(long, value_delimiter = ',', default_values_t = [64, 4096, 16384])]
    sizes: Vec<usize>,
    /// Rows of activations.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 32, 64])]
    batch: Vec<usize>,
    /// Where to compute: cuda, or wgpu.
    #[arg(long, value_enum, default_value = "cuda")]
    backend: BackendChoice,
    /// The Python to look for PyTorch in.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
}

#[derive(Serialize)]
struct Settings {
    backend: &'static str,
    /// PyTorch's version and device.
    pytorch: Option<String>,
    /// Bytes a second of a copy on the device.
    bandwidth: f64,
    /// Share of zeros.
    zeros: f64,
    /// Calls in a row.
    queue: usize,
}

/// Measures, prints, and writes the JSON that was asked for.
///
/// # Errors
/// A backend that is no GPU or not there, a device that fails, a file that cannot be written.
pub fn measure_products(options: &ProductOptions) -> Result<()> {
    let (backend, _) = select(options.backend, 1)?;
    match backend {
        #[cfg(feature = "cuda")]
        Backends::Cuda => products::<burn::backend::Cuda>(options, backend, "cuda"),
        #[cfg(feature = "wgpu")]
        Backends::Wgpu => products::<burn::backend::Wgpu>(options, backend, "cpu"),
        _ => bail!("{} is no GPU: take `--backend cuda`", backend.name()),
    }
}

fn products<B: Backend>(options: &ProductOptions, backend: Backends, torch: &str) -> Result<()> {
    let (sizes, batches) = match options.quick {
        true => (vec![64, 256], vec![1, 32]),
        false => (options.sizes.clone(), options.batch.clone()),
    };
    let device = B::Device::default();
    let mut torch = match Torch::start(&options.python, torch) {
        Ok(torch) => Some(torch),
        Err(error) => {
            println!("PyTorch is left out: {error:#}");
            None
        }
    };
    let mut suite = Suite::<B> {
        bandwidth: bandwidth::<B>(&device, if options.quick { 1 << 22 } else { COLD / 4 })?,
        device,
        budget: Duration::from_millis(if options.quick { 20 } else { 300 }),
    };
    println!("a copy on the device: {:.0} GB/s", suite.bandwidth / 1e9);
    let mut rows = Vec::new();
    for size in sizes {
        let weights = Weights::new(size, &suite.device);
        for batch in batches.iter().copied() {
            for queue in [1, QUEUE] {
                rows.extend(suite.compare(&weights, [size, batch], queue, torch.as_mut())?);
            }
        }
    }
    let pytorch = torch.as_ref().map(Torch::describe);
    let settings = Settings { backend: backend.name(), pytorch, bandwidth: suite.bandwidth, zeros: 0.5, queue: QUEUE };
    Report::new("packed", options.quick, settings, rows).write(options.json.as_deref())
}

/// Bytes a second of a copy of `n` numbers.
fn bandwidth<B: Backend>(device: &B::Device, n: usize) -> Result<f64> {
    let source = Tensor::<B, 1>::ones([n], device);
    let mut seconds = Vec::new();
    for _ in 0..12 {
        B::sync(device)?;
        let start = Instant::now();
        let copy = source.clone().add_scalar(1);
        B::sync(device)?;
        seconds.push(start.elapsed().as_secs_f64());
        drop(copy);
    }
    Ok((2 * 4 * n) as f64 / Spread::of(&seconds).min_s)
}

/// The same weight in every form, each in as many copies as no cache holds.
struct Weights<B: Backend> {
    float32: Vec<PackedLinear<B>>,
    int8: Vec<PackedLinear<B, Int8>>,
    /// `[in, out]`
    dense: Vec<Tensor<B, 2>>,
    half: Option<Vec<Tensor<B, 2>>>,
    /// Burn's own two bits, one scale.
    q2s: Vec<Tensor<B, 2>>,
}

impl<B: Backend> Weights<B> {
    /// A weight `[size, size]` with half of it zeros.
    fn new(size: usize, device: &B::Device) -> Self {
        let mut rng = StdRng::seed_from_u64(1);
        // Two random bits: 00 and 01 are zeros.
        let values: Vec<i8> = (0..size * size).map(|_| [0, 0, 1, -1][rng.random::<u8>() as usize % 4]).collect();
        let codes = Codes::pack(&values).unwrap_or_else(|error| unreachable!("{error}"));
        let packed =
            TernaryWeight::new(codes, [SCALES], [size, size], 1).unwrap_or_else(|error| unreachable!("{error}"));
        let floats: Vec<f32> =
            values.into_iter().map(|value| [-SCALES[1], 0.0, SCALES[0]][(value + 1) as usize]).collect();
        let dense = Tensor::<B, 2>::from_data(TensorData::new(floats, [size, size]), device);
        let scheme = QuantScheme::default().with_value(QuantValue::Q2S);
        let half = B::supports_dtype(device, DType::F16).then(|| dense.clone().cast(FloatDType::F16));
        let copy = |tensor: &Tensor<B, 2>| tensor.clone().mul_scalar(1);
        Self {
            float32: copies(size * size / 4, || linear(&packed, device)),
            int8: copies(size * size / 4, || linear(&packed, device)),
            half: half.map(|half| copies(2 * size * size, || copy(&half))),
            q2s: attempt(|| copies(size * size / 4, || dense.clone().quantize_dynamic(&scheme))).unwrap_or_default(),
            dense: copies(4 * size * size, || copy(&dense)),
        }
    }
}

/// So many that they fill what no cache holds.
fn copies<T>(bytes: usize, mut make: impl FnMut() -> T) -> Vec<T> {
    (0..(COLD / bytes).clamp(1, 64)).map(|_| make()).collect()
}

fn linear<B: Backend, A: ActivationType>(weight: &TernaryWeight, device: &B::Device) -> PackedLinear<B, A> {
    let [inputs, outputs] = [0, 1].map(|axis| weight.shape()[axis]);
    PackedLinear::new(&LinearConfig::new(inputs, outputs).with_bias(false), device).with_weight(weight)
}

struct Suite<B: Backend> {
    device: B::Device,
    bandwidth: f64,
    /// Time for each candidate.
    budget: Duration,
}

impl<B: Backend> Suite<B> {
    /// `[batch, size]` times `[size, size]` by all candidates.
    fn compare(
        &mut self,
        weights: &Weights<B>,
        [size, batch]: [usize; 2],
        queue: usize,
        torch: Option<&mut Torch>,
    ) -> Result<Vec<Row>> {
        let order = if queue == 1 { "one by one".to_owned() } else { format!("{queue} in a row") };
        let title = format!("linear {size} × {size}, batch {batch}, {order}");
        let x = Tensor::<B, 2>::random([batch, size], Distribution::Uniform(-1.0, 1.0), &self.device);
        let expected = x.clone().matmul(weights.dense[0].clone());
        // Bytes of a weight of `n / 4`, and of so many for an activation.
        let bytes =
            |of_weight: usize, of_activation: usize| of_weight * size * size / 4 + of_activation * 2 * batch * size;
        let mut candidates = Vec::new();
        if let Some(torch) = torch {
            let turn = move |turns| torch.turns([size, batch], queue, turns);
            candidates.push(self.declare(Candidate::timed("PyTorch float16", turn), bytes(8, 2), [size, batch]));
        }
        if let Some(half) = &weights.half {
            let x = x.clone().cast(FloatDType::F16);
            let call = move |index: usize| x.clone().matmul(half[index % half.len()].clone());
            check("Burn float16", call(0).cast(FloatDType::F32), &expected, 1e-2)?;
            candidates.push(self.declare(self.timed("Burn float16", queue, call), bytes(8, 2), [size, batch]));
        }
        let call = |index: usize| x.clone().matmul(weights.dense[index % weights.dense.len()].clone());
        candidates.push(self.declare(self.timed("Burn float32", queue, call), bytes(16, 4), [size, batch]));
        let call = |index: usize| x.clone().matmul(weights.q2s[index % weights.q2s.len()].clone());
        if !weights.q2s.is_empty() && attempt(|| B::sync(&self.device).map(|()| call(0).into_data())).is_some() {
            candidates.push(self.declare(self.timed("Burn Q2S", queue, call), bytes(1, 4), [size, batch]));
        }
        let call = |index: usize| weights.float32[index % weights.float32.len()].forward(x.clone());
        // (Burn's float32 may be TF32.)
        check("packed float32", call(0), &expected, 5e-3)?;
        candidates.push(self.declare(self.timed("packed float32", queue, call), bytes(1, 4), [size, batch]));
        let call = |index: usize| weights.int8[index % weights.int8.len()].forward(x.clone());
        check("packed int8", call(0), &expected, 2e-2)?;
        candidates.push(self.declare(self.timed("packed int8", queue, call), bytes(1, 4), [size, batch]));
        measure::compare(&title, self.budget, candidates)
    }

    /// Turns of so many calls in a row, each turn until the device has finished.
    fn timed<'a>(&'a self, name: &str, queue: usize, call: impl Fn(usize) -> Tensor<B, 2> + 'a) -> Candidate<'a> {
        let mut index = 0;
        let mut turn = move || -> Result<f64> {
            B::sync(&self.device)?;
            let start = Instant::now();
            for _ in 0..queue {
                call(index);
                index += 1;
            }
            B::sync(&self.device)?;
            Ok(start.elapsed().as_secs_f64() / queue as f64)
        };
        Candidate::timed(name, move |turns| (0..turns).map(|_| turn()).collect())
    }

    fn declare<'a>(&self, candidate: Candidate<'a>, bytes: usize, [size, batch]: [usize; 2]) -> Candidate<'a> {
        candidate.moving(bytes, Some(self.bandwidth)).doing(batch * size * size, None)
    }
}

/// Refuses a result that is off by more than a share of the largest magnitude.
fn check<B: Backend>(candidate: &str, found: Tensor<B, 2>, expected: &Tensor<B, 2>, tolerance: f32) -> Result<()> {
    let values = |tensor: Tensor<B, 2>| tensor.into_data().iter::<f32>().collect::<Vec<_>>();
    let (found, expected) = (values(found), values(expected.clone()));
    let largest = |values: &mut dyn Iterator<Item = f32>| values.map(f32::abs).fold(0.0, f32::max);
    let off = largest(&mut found.iter().zip(&expected).map(|(found, expected)| found - expected));
    let limit = tolerance * largest(&mut expected.iter().copied());
    ensure!(found.len() == expected.len() && off <= limit, "{candidate} is off by {off}, more than {limit}");
    Ok(())
}

/// What Burn's quantized tensors do is not the same on every device, and where they fail they panic.
fn attempt<T>(work: impl FnOnce() -> T) -> Option<T> {
    let message = |panic: Box<dyn Any + Send>| match panic.downcast::<String>() {
        Ok(text) => anyhow!(*text),
        Err(panic) => anyhow!(*panic.downcast::<&str>().unwrap_or_else(|_| Box::new("a panic"))),
    };
    let done = catch_unwind(AssertUnwindSafe(work)).map_err(message);
    done.inspect_err(|error| println!("Burn Q2S is left out: {error:#}")).ok()
}
