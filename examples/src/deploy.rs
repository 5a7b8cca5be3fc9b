//! A trained network in packed form: its file, its accuracy, its speed.

use std::fmt;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use burn::nn::Linear;
use burn::nn::conv::Conv2d;
use burn::prelude::*;
use serde::{Deserialize, Serialize};
use ttq_core::Ternary;
use ttq_core::packed::{self, Int8, PackedConv2d, PackedLinear};
use ttq_packed::{Coding, PackedModel};

use crate::RunConfig;
use crate::data::{self, Images};
use crate::evaluate;
use crate::model::{Classifier, MnistNet, Network, ResNet};
use crate::out::{Out, write_json};
use crate::weights;

/// Images in a batch of the evaluation, and of the measurement of throughput.
const BATCH: usize = 100;

/// What belongs to a packed network beside its weights: enough to classify an image.
#[derive(Debug, Serialize, Deserialize)]
struct PackedConfig {
    /// Which network: the name of the example.
    network: String,
    /// Depth of a ResNet.
    depth: Option<usize>,
    classes: Vec<String>,
    /// Pixels between 0 and 1 less `mean`, over `std`, for each channel.
    mean: Vec<f32>,
    std: Vec<f32>,
}

/// Writes a trained network with two bits for each ternary weight.
pub(crate) fn pack_network<B: Backend, N: Network<B>>(
    ternary: &Ternary<B, Classifier<B, N>>,
    run: &RunConfig,
    images: &Images,
    path: &Path,
) -> Result<()>
where
    Classifier<B, N>: Module<B>,
{
    let packed = packed::pack(ternary)?;
    // Without the classifier around the network.
    let inner = |name: String| name.strip_prefix("network.").map_or(name.clone(), String::from);
    let config = PackedConfig {
        network: run.example.clone(),
        depth: run.depth,
        classes: images.class_names.clone(),
        mean: images.mean.clone(),
        std: images.std.clone(),
    };
    let network = PackedModel {
        weights: packed.weights.into_iter().map(|(name, weight)| (inner(name), weight)).collect(),
        tensors: packed.tensors.into_iter().map(|(name, tensor)| (inner(name), tensor)).collect(),
        config: Some(serde_json::to_string(&config)?),
    };
    network.save(path, Coding::Plain).with_context(|| format!("cannot write the packed network to {}", path.display()))
}

/// What the comparison came to; `deploy.json` in the run's directory. Ratios are dense over packed: above 1, packed is better.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// Name of the backend.
    pub backend: String,
    /// Threads it may use.
    pub threads: usize,
    /// Test images.
    pub images: usize,
    /// Percent of the test images that the dense ternary network gets right.
    pub dense_accuracy: f64,
    /// The same of the packed network, activations in float32.
    pub packed_accuracy: f64,
    /// The same of the packed network, activations in int8.
    pub packed_int8_accuracy: f64,
    /// Test images on which the dense and the packed network name different classes.
    pub different_predictions: usize,
    /// Largest difference of a logit between the dense and the packed network.
    pub max_logit_difference: f64,
    /// Largest magnitude of a logit.
    pub max_logit: f64,
    /// The same difference with int8 activations.
    pub max_logit_difference_int8: f64,
    /// Bytes of the file with floats.
    pub float_bytes: u64,
    /// Bytes of the file with two bits a ternary weight.
    pub packed_bytes: u64,
    /// Bytes of the file with entropy-coded weights.
    pub archive_bytes: usize,
    /// Milliseconds for one image: median of dense, packed, packed with int8 activations.
    pub latency_ms: [f64; 3],
    /// Images in a second, in batches of 100: median of dense, packed, packed with int8 activations.
    pub images_per_second: [f64; 3],
    /// Dense over packed.
    pub latency_ratio: f64,
    /// Dense over packed with int8 activations.
    pub latency_ratio_int8: f64,
    /// Dense time over packed time, in batches.
    pub throughput_ratio: f64,
    /// Dense time over packed time with int8 activations, in batches.
    pub throughput_ratio_int8: f64,
}

/// The network of a run in one of its forms.
type Forward<B> = Box<dyn Fn(Tensor<B, 4>) -> Tensor<B, 2>>;

/// Compares the network of a run on packed weights with the same on dense ones; prints the figures and writes `deploy.json`.
///
/// # Errors
/// A directory without a packed network, a file that is damaged or of another network, data that cannot be had.
pub fn deploy<B: Backend>(run: &Path, data: Option<&Path>, repeats: usize) -> Result<()> {
    let (out, config) = Out::ended(run)?;
    let path = out.packed_network();
    if !path.is_file() {
        bail!(
            "there is no packed network {} (training writes it at its end): make it with `ttq pack {} -o {}`",
            path.display(),
            out.ternary_network().display(),
            path.display()
        );
    }
    let packed = PackedModel::load(&path).with_context(|| format!("cannot load {}", path.display()))?;
    let images = match config.example.as_str() {
        "mnist" => data::mnist(data)?,
        "cifar" => data::cifar10(data)?,
        other => bail!("{} holds a run of `{other}`: runs of mnist and cifar can be deployed", run.display()),
    };
    let forms = forms::<B>(&config, images.classes, &packed)
        .with_context(|| format!("{} does not hold the network of this run", path.display()))?;

    println!("{} test images of {}, {}", images.test.len(), images.name, B::name(&Default::default()));
    let logits = forms.each_ref().map(|form| logits(form, &images));
    let accuracies = logits.each_ref().map(|logits| accuracy(logits, &images));
    let [latency, throughput] = [1, BATCH.min(images.test.len())].map(|batch| seconds(&forms, &images, batch, repeats));
    let file_bytes = |path: &Path| -> Result<u64> {
        Ok(std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len())
    };
    let difference = |form: usize| largest(logits[0].iter().zip(&logits[form]).map(|(dense, other)| dense - other));
    let classes = |logits: &[f32]| logits.chunks(images.classes).map(first).collect::<Vec<usize>>();
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
        max_logit: largest(logits[0].iter().copied()),
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
    println!("{deployment}\n{}", path.display());
    Ok(())
}

/// Evaluates a packed file with a dense network and with one of packed layers, and prints both and on how many images they differ.
///
/// # Errors
/// A file that is damaged or of another network.
pub fn compare_packed<B: Backend, D, P>(mut dense: D, mut packed: P, file: &Path, images: &Images) -> Result<()>
where
    D: Network<B> + 'static,
    P: Network<B> + 'static,
{
    weights::load(&mut dense, file)?;
    weights::load(&mut packed, file)?;
    let forms: [(&str, Forward<B>); 2] =
        [("dense", Box::new(move |x| dense.forward(x))), ("packed", Box::new(move |x| packed.forward(x)))];
    let mut classes = Vec::new();
    for (name, form) in &forms {
        let start = Instant::now();
        let logits = logits(form, images);
        let (top1, top5) = (accuracy(&logits, images), top5(&logits, images));
        let rate = images.test.len() as f64 / start.elapsed().as_secs_f64();
        println!("{name:8} top-1 {top1:.2} %, top-5 {top5:.2} %, {rate:.0} images a second");
        classes.push(logits.chunks(images.classes).map(first).collect::<Vec<usize>>());
    }
    let different = classes[0].iter().zip(&classes[1]).filter(|(dense, packed)| dense != packed).count();
    println!("{different} of {} predictions differ", images.test.len());
    Ok(())
}

/// Dense, packed, packed with int8 activations.
fn forms<B: Backend>(run: &RunConfig, classes: usize, packed: &PackedModel) -> Result<[Forward<B>; 3]> {
    fn filled<B: Backend, N: Network<B> + 'static>(network: N, packed: &PackedModel) -> Result<Forward<B>> {
        let network = packed::load(network, packed).map_err(|error| anyhow!("{error}"))?;
        Ok(Box::new(move |images| network.forward(images)))
    }
    let device = &Default::default();
    if run.example == "mnist" {
        return Ok([
            filled(MnistNet::<B, Conv2d<B>, Linear<B>>::new(classes, device), packed)?,
            filled(MnistNet::<B, PackedConv2d<B>, PackedLinear<B>>::new(classes, device), packed)?,
            filled(MnistNet::<B, PackedConv2d<B, Int8>, PackedLinear<B, Int8>>::new(classes, device), packed)?,
        ]);
    }
    let depth = run.depth.unwrap_or(20);
    Ok([
        filled(ResNet::<B, Conv2d<B>>::new(depth, classes, device), packed)?,
        filled(ResNet::<B, PackedConv2d<B>>::new(depth, classes, device), packed)?,
        filled(ResNet::<B, PackedConv2d<B, Int8>>::new(depth, classes, device), packed)?,
    ])
}

fn input<B: Backend>(images: &Images, start: usize, n: usize) -> Tensor<B, 4> {
    let indices = start..(start + n).min(images.test.len());
    evaluate::batch(&images.test, images, indices, &Default::default()).images
}

/// Logits of all test images, row after row.
fn logits<B: Backend>(form: &Forward<B>, images: &Images) -> Vec<f32> {
    (0..images.test.len())
        .step_by(BATCH)
        .flat_map(|start| form(input(images, start, BATCH)).into_data().iter::<f32>().collect::<Vec<_>>())
        .collect()
}

/// Percent of the images whose class has the first of the highest logits.
fn accuracy(logits: &[f32], images: &Images) -> f64 {
    let rows = logits.chunks(images.classes).enumerate();
    let right = rows.filter(|(index, row)| first(row) == usize::from(images.test.label(*index))).count();
    100.0 * right as f64 / images.test.len() as f64
}

/// Percent of the images whose class is among the five highest logits.
fn top5(logits: &[f32], images: &Images) -> f64 {
    let rows = logits.chunks(images.classes).enumerate();
    let among = |(index, row): &(usize, &[f32])| evaluate::rank(row, usize::from(images.test.label(*index))) < 5;
    100.0 * rows.filter(among).count() as f64 / images.test.len() as f64
}

/// The first of the highest.
fn first(row: &[f32]) -> usize {
    (0..row.len()).rev().max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap_or(0)
}

fn largest(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|value| f64::from(value.abs())).fold(0.0, f64::max)
}

/// Median seconds of each form for a batch; the forms take turns.
fn seconds<B: Backend>(forms: &[Forward<B>; 3], images: &Images, batch: usize, repeats: usize) -> [f64; 3] {
    let input = input::<B>(images, 0, batch);
    let mut times: [Vec<f64>; 3] = Default::default();
    for repeat in 0..repeats.max(1) + 2 {
        for (form, times) in forms.iter().zip(&mut times) {
            let start = Instant::now();
            let output = form(input.clone());
            let _ = output.into_data();
            // The first two warm up.
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
        row("bytes of the file", [self.float_bytes.to_string(), packed, format!("({})", self.archive_bytes)])?;
        row("one image, ms", self.latency_ms.map(|ms| format!("{ms:.3}")))?;
        row("images a second", self.images_per_second.map(|rate| format!("{rate:.0}")))?;
        let times = |ratio: f64| format!("{ratio:.2} x");
        row("one image, times faster", ["1".into(), times(self.latency_ratio), times(self.latency_ratio_int8)])?;
        row("batches, times faster", ["1".into(), times(self.throughput_ratio), times(self.throughput_ratio_int8)])?;
        write!(
            f,
            "{} of {} predictions differ; in brackets the file with entropy-coded weights; {} threads, {}",
            self.different_predictions, self.images, self.threads, self.backend
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_is_the_first_of_the_highest_logits() {
        assert_eq!([first(&[0.0, 2.0, 2.0]), first(&[3.0, 2.0]), first(&[-1.0])], [1, 0, 0]);
    }
}
