//! Products with packed weights on a GPU, compared with dense and quantized products of Burn and with products of
//! PyTorch in float16, all in one run: `gpu packed --json FILE`.
//!
//! Successive calls use different copies of the weight, which together are larger than the caches. Weights are
//! therefore read from memory, and the share of the memory bandwidth is meaningful. Single calls are timed until the
//! device has finished, and so are many calls in a row. The difference is the cost of launch and synchronization. The
//! time of the smallest size consists of this cost only.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use burn::prelude::*;
use burn::tensor::quantization::{QuantScheme, QuantValue};
use burn::tensor::{DType, Distribution, FloatDType};
use clap::Args;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use ttq_examples::{BackendChoice, RunBackend, select};
use ttq_inference::{Int8, Packed, tensor};
use ttq_packed::{Codes, TernaryWeight};

use crate::measure::{self, Candidate, Report, Row, Spread};
use crate::torch::Torch;

/// W_p and W_n. They differ, so that no kernel uses its special case for equal scales.
const SCALES: [f32; 2] = [0.7, 0.4];
/// Total bytes of the copies of a weight, larger than the caches.
const COLD_BYTES: usize = 256 << 20;
/// Number of calls in a row.
const QUEUED_CALLS: usize = 64;

/// Options of [`measure_products`].
#[derive(Debug, Clone, Args)]
pub struct ProductOptions {
    /// Write the results to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Use small sizes, to test whether the suite runs.
    #[arg(long)]
    quick: bool,
    /// Numbers of inputs of the layers, equal to their numbers of outputs.
    #[arg(long, value_delimiter = ',', default_values_t = [64, 4096, 16384])]
    sizes: Vec<usize>,
    /// Batch sizes.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 32, 64])]
    batch: Vec<usize>,
    /// Backend: cuda or wgpu.
    #[arg(long, value_enum, default_value = "cuda")]
    backend: BackendChoice,
    /// Python interpreter for PyTorch.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
}

#[derive(Serialize)]
struct Settings {
    backend: &'static str,
    /// Version and device of PyTorch.
    pytorch: Option<String>,
    /// Bytes per second of a copy on the device.
    bandwidth: f64,
    /// Share of zeros among the weights.
    zeros: f64,
    /// Number of calls in a row.
    queue: usize,
}

/// Measures products, prints the results and writes them to the JSON file of the options.
///
/// # Errors
/// Returns an error if the backend is missing or not a GPU, if the device fails, or if the file cannot be written.
pub fn measure_products(options: &ProductOptions) -> Result<()> {
    let (backend, _) = select(options.backend, 1)?;
    match backend {
        #[cfg(feature = "cuda")]
        RunBackend::Cuda => products::<burn::backend::Cuda>(options, backend, "cuda"),
        #[cfg(feature = "wgpu")]
        RunBackend::Wgpu => products::<burn::backend::Wgpu>(options, backend, "cpu"),
        _ => bail!("the backend {} is not a GPU: use `--backend cuda`", backend.name()),
    }
}

fn products<B: Backend>(options: &ProductOptions, backend: RunBackend, torch_device: &str) -> Result<()> {
    let (sizes, batches) = match options.quick {
        true => (vec![64, 256], vec![1, 32]),
        false => (options.sizes.clone(), options.batch.clone()),
    };
    let device = B::Device::default();
    let mut torch = match Torch::start(&options.python, torch_device) {
        Ok(torch) => Some(torch),
        Err(error) => {
            println!("continuing without PyTorch: {error:#}");
            None
        }
    };
    let mut suite = Suite::<B> {
        bandwidth: bandwidth::<B>(&device, if options.quick { 1 << 22 } else { COLD_BYTES / 4 })?,
        device,
        budget: Duration::from_millis(if options.quick { 20 } else { 300 }),
    };
    println!("bandwidth of a copy on the device: {:.0} GB/s", suite.bandwidth / 1e9);
    let mut rows = Vec::new();
    for size in sizes {
        let weights = Weights::new(size, &suite.device);
        for batch in batches.iter().copied() {
            for queue in [1, QUEUED_CALLS] {
                rows.extend(suite.compare(&weights, [size, batch], queue, torch.as_mut())?);
            }
        }
    }
    let pytorch = torch.as_ref().map(Torch::describe);
    let settings =
        Settings { backend: backend.name(), pytorch, bandwidth: suite.bandwidth, zeros: 0.5, queue: QUEUED_CALLS };
    Report::new("packed", options.quick, settings, rows).write(options.json.as_deref())
}

/// Measures the bytes per second of a copy of `n` float32 numbers.
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

/// A weight in every format, with copies that are together larger than the caches.
struct Weights<B: Backend> {
    /// `[in, out]`, like those below.
    float32: Vec<Tensor<Packed<B>, 2>>,
    int8: Vec<Tensor<Packed<B, Int8>, 2>>,
    dense: Vec<Tensor<B, 2>>,
    half: Option<Vec<Tensor<B, 2>>>,
    /// Burn's Q2S: two bits and one scale.
    q2s: Vec<Tensor<B, 2>>,
}

impl<B: Backend> Weights<B> {
    /// Creates a random weight `[size, size]`, half of it zeros.
    fn new(size: usize, device: &B::Device) -> Self {
        let mut rng = StdRng::seed_from_u64(1);
        // Two random bits; 0 and 1 stand for a zero.
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
            float32: copies(size * size / 4, || tensor(&packed, device)),
            int8: copies(size * size / 4, || tensor(&packed, device)),
            half: half.map(|half| copies(2 * size * size, || copy(&half))),
            q2s: catch_panic(|| copies(size * size / 4, || dense.clone().quantize_dynamic(&scheme)))
                .unwrap_or_default(),
            dense: copies(4 * size * size, || copy(&dense)),
        }
    }
}

/// Creates copies of `bytes` bytes each, [`COLD_BYTES`] together, at most 64.
fn copies<T>(bytes: usize, mut make: impl FnMut() -> T) -> Vec<T> {
    (0..(COLD_BYTES / bytes).clamp(1, 64)).map(|_| make()).collect()
}

struct Suite<B: Backend> {
    device: B::Device,
    bandwidth: f64,
    /// Time per candidate.
    budget: Duration,
}

impl<B: Backend> Suite<B> {
    /// Compares all candidates for the product of `[batch, size]` and `[size, size]`.
    fn compare(
        &mut self,
        weights: &Weights<B>,
        [size, batch]: [usize; 2],
        queue: usize,
        torch: Option<&mut Torch>,
    ) -> Result<Vec<Row>> {
        let calls = if queue == 1 { "one by one".to_owned() } else { format!("{queue} in a row") };
        let title = format!("linear {size} × {size}, batch {batch}, {calls}");
        let x = Tensor::<B, 2>::random([batch, size], Distribution::Uniform(-1.0, 1.0), &self.device);
        let expected = x.clone().matmul(weights.dense[0].clone());
        // Bytes of a product, from the bytes of four weights and of one activation.
        let bytes =
            |four_weights: usize, activation: usize| four_weights * size * size / 4 + activation * 2 * batch * size;
        let mut candidates = Vec::new();
        if let Some(torch) = torch {
            let measure = move |calls| torch.measure([size, batch], queue, calls);
            candidates.push(self.declare(
                Candidate::self_timed("PyTorch float16", measure),
                bytes(8, 2),
                [size, batch],
            ));
        }
        if let Some(half) = &weights.half {
            let x = x.clone().cast(FloatDType::F16);
            let call = move |index: usize| x.clone().matmul(half[index % half.len()].clone());
            check_result("Burn float16", call(0).cast(FloatDType::F32), &expected, 1e-2)?;
            candidates.push(self.declare(self.timed("Burn float16", queue, call), bytes(8, 2), [size, batch]));
        }
        let call = |index: usize| x.clone().matmul(weights.dense[index % weights.dense.len()].clone());
        candidates.push(self.declare(self.timed("Burn float32", queue, call), bytes(16, 4), [size, batch]));
        let call = |index: usize| x.clone().matmul(weights.q2s[index % weights.q2s.len()].clone());
        if !weights.q2s.is_empty() && catch_panic(|| B::sync(&self.device).map(|()| call(0).into_data())).is_some() {
            candidates.push(self.declare(self.timed("Burn Q2S", queue, call), bytes(1, 4), [size, batch]));
        }
        let packed_x = Tensor::<Packed<B>, 2>::from_data(x.to_data(), &self.device);
        let call = move |index: usize| packed_x.clone().matmul(weights.float32[index % weights.float32.len()].clone());
        // Burn may compute float32 products in TF32.
        check_result("packed float32", call(0), &expected, 5e-3)?;
        candidates.push(self.declare(self.timed("packed float32", queue, call), bytes(1, 4), [size, batch]));
        let packed_x = Tensor::<Packed<B, Int8>, 2>::from_data(x.to_data(), &self.device);
        let call = move |index: usize| packed_x.clone().matmul(weights.int8[index % weights.int8.len()].clone());
        check_result("packed int8", call(0), &expected, 2e-2)?;
        candidates.push(self.declare(self.timed("packed int8", queue, call), bytes(1, 4), [size, batch]));
        measure::compare(&title, self.budget, candidates)
    }

    /// Creates a candidate whose time is that of `queue` calls in a row, until the device has finished, divided by
    /// `queue`.
    fn timed<'a, O>(&'a self, name: &str, queue: usize, call: impl Fn(usize) -> O + 'a) -> Candidate<'a> {
        let mut index = 0;
        let mut measure_once = move || -> Result<f64> {
            B::sync(&self.device)?;
            let start = Instant::now();
            for _ in 0..queue {
                call(index);
                index += 1;
            }
            B::sync(&self.device)?;
            Ok(start.elapsed().as_secs_f64() / queue as f64)
        };
        Candidate::self_timed(name, move |times| (0..times).map(|_| measure_once()).collect())
    }

    fn declare<'a>(&self, candidate: Candidate<'a>, bytes: usize, [size, batch]: [usize; 2]) -> Candidate<'a> {
        candidate.with_bytes(bytes, Some(self.bandwidth)).with_operations(batch * size * size, None)
    }
}

/// Returns an error if the largest deviation from `expected` exceeds `tolerance` times the largest expected magnitude.
fn check_result<B: Backend, O: Backend>(
    candidate: &str,
    found: Tensor<O, 2>,
    expected: &Tensor<B, 2>,
    tolerance: f32,
) -> Result<()> {
    let values = |data: TensorData| data.iter::<f32>().collect::<Vec<_>>();
    let (found, expected) = (values(found.into_data()), values(expected.to_data()));
    let largest =
        |values: &mut dyn Iterator<Item = f32>| values.map(f32::abs).max_by(|a, b| a.total_cmp(b)).unwrap_or_default();
    let off = largest(&mut found.iter().zip(&expected).map(|(found, expected)| found - expected));
    let limit = tolerance * largest(&mut expected.iter().copied());
    ensure!(
        found.len() == expected.len() && off <= limit,
        "the result of {candidate} deviates by {off}, more than {limit}"
    );
    Ok(())
}

/// Runs `work`; prints a message and returns `None` if it panics. Some devices do not support Burn's quantized tensors,
/// which panic then.
fn catch_panic<T>(work: impl FnOnce() -> T) -> Option<T> {
    let message = |panic: Box<dyn Any + Send>| match panic.downcast::<String>() {
        Ok(text) => anyhow!(*text),
        Err(panic) => anyhow!(*panic.downcast::<&str>().unwrap_or_else(|_| Box::new("a panic"))),
    };
    let result = catch_unwind(AssertUnwindSafe(work)).map_err(message);
    result.inspect_err(|error| println!("continuing without Burn Q2S: {error:#}")).ok()
}
