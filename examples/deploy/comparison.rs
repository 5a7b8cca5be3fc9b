//! Comparison of a trained network in dense and packed form: accuracy, logits, file sizes and time.

use std::fmt;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use burn::prelude::*;
use serde::{Deserialize, Serialize};
use ttq_examples::data::{self, Images};
use ttq_examples::model::{MnistNet, Network, ResNet};
use ttq_examples::{Out, RunConfig, batch, print_line, write_json};
use ttq_inference::{Int8, Packed, load};
use ttq_packed::{Coding, PackedModel};

/// Batch size of the evaluation and of the throughput measurement.
const BATCH: usize = 100;

/// Results of the comparison, `deploy.json` in the directory of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Deployment {
    /// Name of the backend.
    pub backend: String,
    /// Number of threads of the machine.
    pub threads: usize,
    /// Number of test images.
    pub images: usize,
    /// Test accuracy of the dense ternary network in percent.
    pub dense_accuracy: f64,
    /// Test accuracy of the packed network with float32 activations in percent.
    pub packed_accuracy: f64,
    /// Test accuracy of the packed network with int8 activations in percent.
    pub packed_int8_accuracy: f64,
    /// Number of test images for which the dense and the packed network predict different classes.
    pub different_predictions: usize,
    /// Largest magnitude of the difference of a logit between the dense and the packed network.
    pub max_logit_difference: f64,
    /// Largest magnitude of a logit.
    pub max_logit: f64,
    /// The same between the dense network and the packed one with int8 activations.
    pub max_logit_difference_int8: f64,
    /// Size of the file with floats in bytes.
    pub float_bytes: u64,
    /// Size of the packed file, with two bits per ternary weight, in bytes.
    pub packed_bytes: u64,
    /// Size of the packed file with entropy-coded weights in bytes.
    pub archive_bytes: usize,
    /// Median milliseconds per image at batch size 1: dense, packed, packed with int8 activations.
    pub latency_ms: [f64; 3],
    /// Median images per second at batch size 100: dense, packed, packed with int8 activations.
    pub images_per_second: [f64; 3],
    /// Dense latency divided by packed latency: above 1, packed is faster.
    pub latency_ratio: f64,
    /// Dense latency divided by that of packed with int8 activations.
    pub latency_ratio_int8: f64,
    /// Dense time divided by packed time, at batch size 100.
    pub throughput_ratio: f64,
    /// Dense time divided by that of packed with int8 activations, at batch size 100.
    pub throughput_ratio_int8: f64,
}

/// The forward pass of a network, from images `[n, channels, height, width]` to logits `[n, classes]`.
type Forward = Box<dyn Fn(TensorData) -> TensorData>;

/// Compares the network of a run with packed and with dense weights; prints the results and writes `deploy.json`.
///
/// # Errors
/// Returns an error if the directory contains no packed network, if its file is damaged or belongs to another network,
/// or if the data cannot be loaded.
pub(crate) fn compare<B: Backend>(run: &Path, data: Option<&Path>, repeats: usize) -> Result<()> {
    let (out, config) = Out::ended(run)?;
    let path = out.packed_network();
    if !path.is_file() {
        bail!(
            "the packed network {} is missing (training writes it at its end): create it with `ttq pack {} -o {}`",
            path.display(),
            out.ternary_network().display(),
            path.display()
        );
    }
    let packed = PackedModel::load(&path).with_context(|| format!("cannot load {}", path.display()))?;
    let images = match config.example.as_str() {
        "mnist" => data::mnist(data)?,
        "cifar" => data::cifar10(data)?,
        other => bail!("{} is a run of the example `{other}`: use a run of mnist or cifar", run.display()),
    };
    let networks = networks::<B>(&config, images.classes, &packed)
        .with_context(|| format!("{} does not contain the network of this run", path.display()))?;

    print_line(format_args!("{} test images of {}, {}", images.test.len(), images.name, B::name(&Default::default())));
    let logits = networks.each_ref().map(|network| logits::<B>(network, &images));
    let accuracies = logits.each_ref().map(|logits| accuracy(logits, &images));
    let [latency, throughput] =
        [1, BATCH.min(images.test.len())].map(|batch| median_seconds::<B>(&networks, &images, batch, repeats));
    let file_bytes = |path: &Path| -> Result<u64> {
        Ok(std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len())
    };
    let difference =
        |other: usize| max_magnitude(logits[0].iter().zip(&logits[other]).map(|(dense, other)| dense - other));
    let classes = |logits: &[f32]| logits.chunks(images.classes).map(argmax).collect::<Vec<usize>>();
    let different = classes(&logits[0]).into_iter().zip(classes(&logits[1])).filter(|(dense, packed)| dense != packed);
    let deployment = Deployment {
        backend: B::name(&Default::default()),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        images: images.test.len(),
        dense_accuracy: accuracies[0],
        packed_accuracy: accuracies[1],
        packed_int8_accuracy: accuracies[2],
        different_predictions: different.count(),
        max_logit_difference: difference(1),
        max_logit: max_magnitude(logits[0].iter().copied()),
        max_logit_difference_int8: difference(2),
        float_bytes: file_bytes(&out.ternary_network())?,
        packed_bytes: file_bytes(&path)?,
        archive_bytes: packed.write(Coding::Archive)?.len(),
        latency_ms: latency.map(|seconds| 1e3 * seconds),
        images_per_second: throughput.map(|seconds| BATCH.min(images.test.len()) as f64 / seconds),
        latency_ratio: latency[0] / latency[1],
        latency_ratio_int8: latency[0] / latency[2],
        throughput_ratio: throughput[0] / throughput[1],
        throughput_ratio_int8: throughput[0] / throughput[2],
    };
    let path = run.join("deploy.json");
    write_json(&path, &deployment)?;
    print_line(format_args!("{deployment}\n{}", path.display()));
    Ok(())
}

/// Creates the dense network, the packed one and the packed one with int8 activations.
fn networks<B: Backend>(run: &RunConfig, classes: usize, packed: &PackedModel) -> Result<[Forward; 3]> {
    Ok([
        network::<B>(run, classes, packed)?,
        network::<Packed<B>>(run, classes, packed)?,
        network::<Packed<B, Int8>>(run, classes, packed)?,
    ])
}

/// Creates the network of a run on a backend.
fn network<B: Backend>(run: &RunConfig, classes: usize, packed: &PackedModel) -> Result<Forward> {
    fn loaded<B: Backend, N: Network<B, Task = Images> + 'static>(network: N, packed: &PackedModel) -> Result<Forward> {
        let network = load(network, packed).map_err(|error| anyhow!("{error}"))?;
        Ok(Box::new(move |images| network.forward(Tensor::from_data(images, &Default::default())).into_data()))
    }
    let device = Default::default();
    match run.example.as_str() {
        "mnist" => loaded(MnistNet::<B>::new(classes, &device), packed),
        _ => loaded(ResNet::<B>::new(run.depth.unwrap_or(20), classes, &device), packed),
    }
}

/// Returns `n` test images from the index `start` on, fewer at the end of the set.
fn image_batch<B: Backend>(images: &Images, start: usize, n: usize) -> TensorData {
    let indices = start..(start + n).min(images.test.len());
    batch::<B>(&images.test, images, indices, &Default::default()).inputs.into_data()
}

/// Returns the logits of all test images, `[n, classes]` in row-major order.
fn logits<B: Backend>(network: &Forward, images: &Images) -> Vec<f32> {
    (0..images.test.len())
        .step_by(BATCH)
        .flat_map(|start| network(image_batch::<B>(images, start, BATCH)).iter::<f32>().collect::<Vec<_>>())
        .collect()
}

/// Returns the share of test images with the correct prediction, in percent.
fn accuracy(logits: &[f32], images: &Images) -> f64 {
    let rows = logits.chunks(images.classes).enumerate();
    let right = rows.filter(|(index, row)| argmax(row) == usize::from(images.test.label(*index))).count();
    100.0 * right as f64 / images.test.len() as f64
}

/// Returns the index of the maximum, the first one if there are several.
fn argmax(row: &[f32]) -> usize {
    (0..row.len()).rev().max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap_or(0)
}

/// Returns the largest magnitude.
fn max_magnitude(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|value| f64::from(value.abs())).fold(0.0, f64::max)
}

/// Measures the median seconds of each network for a batch. The networks alternate.
fn median_seconds<B: Backend>(networks: &[Forward; 3], images: &Images, batch: usize, repeats: usize) -> [f64; 3] {
    let input = image_batch::<B>(images, 0, batch);
    let mut times: [Vec<f64>; 3] = Default::default();
    for repeat in 0..repeats.max(1) + 2 {
        for (network, times) in networks.iter().zip(&mut times) {
            let start = Instant::now();
            let _ = network(input.clone());
            // The first two passes are for warm-up.
            if repeat >= 2 {
                times.push(start.elapsed().as_secs_f64());
            }
        }
    }
    times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    })
}

impl fmt::Display for Deployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:28} {:>12} {:>12} {:>12}", "", "dense", "packed", "packed int8")?;
        let mut row = |name: &str, cells: [String; 3]| {
            writeln!(f, "{name:28} {:>12} {:>12} {:>12}", cells[0], cells[1], cells[2])
        };
        let accuracies = [self.dense_accuracy, self.packed_accuracy, self.packed_int8_accuracy];
        row("test accuracy", accuracies.map(|percent| format!("{percent:.2} %")))?;
        let difference = |value: f64| format!("{value:.2e}");
        row(
            "largest logit difference",
            ["-".into(), difference(self.max_logit_difference), difference(self.max_logit_difference_int8)],
        )?;
        let packed = self.packed_bytes.to_string();
        row("file size, bytes", [self.float_bytes.to_string(), packed, format!("({})", self.archive_bytes)])?;
        row("latency of one image, ms", self.latency_ms.map(|ms| format!("{ms:.3}")))?;
        row("images per second", self.images_per_second.map(|rate| format!("{rate:.0}")))?;
        let times = |ratio: f64| format!("{ratio:.2} x");
        row("speedup, one image", ["1".into(), times(self.latency_ratio), times(self.latency_ratio_int8)])?;
        row("speedup, batches of 100", ["1".into(), times(self.throughput_ratio), times(self.throughput_ratio_int8)])?;
        write!(
            f,
            "{} of {} predictions differ; in brackets: the packed file with entropy-coded weights; {} threads, {}",
            self.different_predictions, self.images, self.threads, self.backend
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argmax_returns_the_first_maximum() {
        assert_eq!([argmax(&[0.0, 2.0, 2.0]), argmax(&[3.0, 2.0]), argmax(&[-1.0])], [1, 0, 0]);
    }
}
