//! Comparison of the forms of a trained network: accuracy, logits, file sizes and time.

use std::cell::RefCell;
use std::fmt;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use burn::module::HasAutodiffModule;
use burn::prelude::*;
use serde::{Deserialize, Serialize};
use ttq_compile::{Capture, CompileOptions, Graph, Network as Compiled, capture};
use ttq_examples::data::{self, ImageSet, Images};
use ttq_examples::model::{MnistNet, Network, ResNet};
use ttq_examples::{Out, RunConfig, batch, print_line, to_bytes, write_json};
use ttq_inference::{Int8, Packed, load};
use ttq_packed::network::{Arena, Int8 as Products, RangeRule};
use ttq_packed::{Coding, PackedModel};

use crate::MEMORY;

/// Batch size of the evaluation and of the throughput measurement.
const BATCH: usize = 100;
/// Number of training images by which ranges of activations are measured.
const CALIBRATION: usize = 512;

/// Results of the comparison, `deploy.json` in the directory of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Deployment {
    /// Name of the backend.
    pub backend: String,
    /// Number of threads of the machine.
    pub threads: usize,
    /// Number of test images.
    pub images: usize,
    /// Largest magnitude of a logit.
    pub max_logit: f64,
    /// Size of a file with floats in bytes.
    pub float_bytes: usize,
    /// Size of the packed file, with two bits per ternary weight, in bytes.
    pub packed_bytes: u64,
    /// Size of the packed file with entropy-coded weights in bytes.
    pub archive_bytes: usize,
    /// Size of the packed file with the graph in bytes.
    pub network_bytes: u64,
    /// Each form of the network, the first one with dense weights.
    pub forms: Vec<Form>,
}

/// Results of the network in one form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Form {
    /// Name of the form.
    pub name: String,
    /// Test accuracy in percent.
    pub accuracy: f64,
    /// Number of test images for which the dense network predicts another class.
    pub different_predictions: usize,
    /// Memory that the network has allocated and keeps after its first image, without buffers that all networks share, in bytes.
    pub memory_bytes: usize,
    /// Largest magnitude of the difference of a logit from that of the dense network.
    pub max_logit_difference: f64,
    /// Median milliseconds for one image.
    pub latency_ms: f64,
    /// Median images per second in batches of 100.
    pub images_per_second: f64,
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
    let graph = graph::<B>(&config, &images, &packed);
    let graph = graph.with_context(|| format!("{} does not contain the network of this run", path.display()))?;
    let network = out.network();
    graph.save(&network, Coding::Plain, packed.config.as_deref())?;
    let image = image_batch::<B>(&images.test, &images, 0, 1);
    let create = |network: &dyn Fn() -> Result<Forward>| -> Result<(Forward, usize)> {
        let before = MEMORY.allocated();
        let network = network()?;
        let _ = network(image.clone());
        Ok((network, MEMORY.allocated().saturating_sub(before)))
    };
    let forms: [(&str, &dyn Fn() -> Result<Forward>); 5] = [
        ("dense", &|| module::<B>(&config, images.classes, &packed)),
        ("packed", &|| module::<Packed<B>>(&config, images.classes, &packed)),
        ("packed, int8", &|| module::<Packed<B, Int8>>(&config, images.classes, &packed)),
        ("compiled", &|| compiled(&graph, Products::Off)),
        ("compiled, int8", &|| compiled(&graph, Products::Inner)),
    ];
    // The first calls start threads and allocate buffers that all networks share.
    for (_, form) in forms {
        drop(create(form)?);
    }
    let (mut networks, mut memory) = (Vec::new(), Vec::new());
    for (name, form) in forms {
        let (network, bytes) = create(form)?;
        networks.push((name, network));
        memory.push(bytes);
    }
    let forms = networks;

    print_line(format_args!("{} test images of {}, {}", images.test.len(), images.name, B::name(&Default::default())));
    let logits: Vec<_> = forms.iter().map(|(_, network)| logits::<B>(network, &images)).collect();
    let batch = BATCH.min(images.test.len());
    let [latency, throughput] = [1, batch].map(|batch| median_seconds::<B>(&forms, &images, batch, repeats));
    let file_bytes = |path: &Path| -> Result<u64> {
        Ok(std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len())
    };
    let classes: Vec<Vec<usize>> =
        logits.iter().map(|logits| logits.chunks(images.classes).map(argmax).collect()).collect();
    let forms = forms.iter().enumerate().map(|(i, (name, _))| Form {
        name: (*name).into(),
        accuracy: accuracy(&classes[i], &images),
        different_predictions: classes[0].iter().zip(&classes[i]).filter(|(dense, other)| dense != other).count(),
        memory_bytes: memory[i],
        max_logit_difference: max_magnitude(logits[0].iter().zip(&logits[i]).map(|(dense, other)| dense - other)),
        latency_ms: 1e3 * latency[i],
        images_per_second: batch as f64 / throughput[i],
    });
    let deployment = Deployment {
        backend: B::name(&Default::default()),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        images: images.test.len(),
        max_logit: max_magnitude(logits[0].iter().copied()),
        float_bytes: float_bytes::<B>(&config, images.classes, &packed)?,
        packed_bytes: file_bytes(&path)?,
        archive_bytes: packed.write(Coding::Archive)?.len(),
        network_bytes: file_bytes(&network)?,
        forms: forms.collect(),
    };
    let path = run.join("deploy.json");
    write_json(&path, &deployment)?;
    print_line(format_args!("{deployment}\n{}\n{}", path.display(), network.display()));
    Ok(())
}

/// Calls a function with the network of a run on a backend.
macro_rules! with_network {
    ($run:expr, $classes:expr, $backend:ty, |$network:ident| $call:expr) => {
        match $run.example.as_str() {
            "mnist" => {
                let $network = MnistNet::<$backend>::new($classes, &Default::default());
                $call
            }
            _ => {
                let $network = ResNet::<$backend>::new($run.depth.unwrap_or(20), $classes, &Default::default());
                $call
            }
        }
    };
}

/// Creates the network of a run on a backend.
fn module<B: Backend>(run: &RunConfig, classes: usize, packed: &PackedModel) -> Result<Forward> {
    fn loaded<B: Backend, N: Network<B, Task = Images> + 'static>(network: N, packed: &PackedModel) -> Result<Forward> {
        let network = load(network, packed).map_err(|error| anyhow!("{error}"))?;
        Ok(Box::new(move |images| network.forward(Tensor::from_data(images, &Default::default())).into_data()))
    }
    with_network!(run, classes, B, |network| loaded(network, packed))
}

/// Returns the size of the network's file with floats.
fn float_bytes<B: Backend>(run: &RunConfig, classes: usize, packed: &PackedModel) -> Result<usize> {
    fn bytes<B: Backend, N: Network<B>>(network: N, packed: &PackedModel) -> Result<usize> {
        Ok(to_bytes(&load(network, packed).map_err(|error| anyhow!("{error}"))?)?.len())
    }
    with_network!(run, classes, B, |network| bytes(network, packed))
}

/// Captures the network of a run, with ternary weights, and the ranges of its activations.
fn graph<B: Backend>(run: &RunConfig, images: &Images, packed: &PackedModel) -> Result<Graph> {
    fn captured<B, N>(network: N, images: &Images, packed: &PackedModel) -> Result<Graph>
    where
        B: Backend,
        N: Network<B> + HasAutodiffModule<Capture<B>, TrainModule: Network<Capture<B>, Task = Images>>,
    {
        let network = load(network, packed).map_err(|error| anyhow!("{error}"))?;
        let example = Tensor::<B, 4>::from_data(image_batch::<B>(&images.train, images, 0, 1), &Default::default());
        Ok(capture(&network, example, |network, images| network.forward(images))?)
    }
    let mut graph =
        with_network!(run, images.classes, Packed<B>, |network| captured::<Packed<B>, _>(network, images, packed))?;
    let typical = image_batch::<B>(&images.train, images, 0, CALIBRATION);
    graph.calibrate(typical.as_slice().map_err(|error| anyhow!("{error:?}"))?, RangeRule::MinMax)?;
    Ok(graph)
}

/// Compiles a network.
fn compiled(graph: &Graph, int8: Products) -> Result<Forward> {
    let network = Compiled::compile(graph, &CompileOptions::default().with_int8(int8))?;
    let arena = RefCell::new(Arena::new());
    Ok(Box::new(move |images| {
        let shape = [images.shape[0], network.output_dims()[0]];
        let mut logits = vec![0.0; shape[0] * shape[1]];
        network.run(&mut arena.borrow_mut(), images.as_slice().expect("float32"), &mut logits).expect("whole images");
        TensorData::new(logits, shape)
    }))
}

/// Returns `n` images from the index `start` on, fewer at the end of the set.
fn image_batch<B: Backend>(set: &ImageSet, images: &Images, start: usize, n: usize) -> TensorData {
    let indices = start..(start + n).min(set.len());
    batch::<B>(set, images, indices, &Default::default()).inputs.into_data()
}

/// Returns the logits of all test images, `[n, classes]` in row-major order.
fn logits<B: Backend>(network: &Forward, images: &Images) -> Vec<f32> {
    (0..images.test.len())
        .step_by(BATCH)
        .flat_map(|start| {
            network(image_batch::<B>(&images.test, images, start, BATCH)).iter::<f32>().collect::<Vec<_>>()
        })
        .collect()
}

/// Returns the share of test images with the correct prediction, in percent.
fn accuracy(classes: &[usize], images: &Images) -> f64 {
    let right = classes.iter().enumerate().filter(|(index, class)| **class == usize::from(images.test.label(*index)));
    100.0 * right.count() as f64 / images.test.len() as f64
}

/// Returns the index of the maximum, the first one if there are several.
fn argmax(row: &[f32]) -> usize {
    (0..row.len()).rev().max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap_or(0)
}

/// Returns the largest magnitude; NaN if there is one.
fn max_magnitude(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|value| f64::from(value.abs())).max_by(|a, b| a.total_cmp(b)).unwrap_or_default()
}

/// Measures the median seconds of each network for a batch. The networks alternate.
fn median_seconds<B: Backend>(forms: &[(&str, Forward)], images: &Images, batch: usize, repeats: usize) -> Vec<f64> {
    let input = image_batch::<B>(&images.test, images, 0, batch);
    let mut times = vec![Vec::new(); forms.len()];
    for repeat in 0..repeats.max(1) + 2 {
        for ((_, network), times) in forms.iter().zip(&mut times) {
            let input = input.clone();
            let start = Instant::now();
            let _ = network(input);
            // The first two passes are for warm-up.
            if repeat >= 2 {
                times.push(start.elapsed().as_secs_f64());
            }
        }
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    times.into_iter().map(median).collect()
}

impl fmt::Display for Deployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, cells: [&str; 9]| {
            let [name, accuracy, different, logits, memory, latency, faster, rate, more] = cells;
            writeln!(
                f,
                "{name:15} {accuracy:>8} {different:>11} {logits:>11} {memory:>9} {latency:>9} {faster:>7} {rate:>9} {more:>7}"
            )
        };
        row(f, ["", "accuracy", "other class", "logits +-", "memory", "ms/image", "faster", "images/s", "faster"])?;
        for form in &self.forms {
            let dense = &self.forms[0];
            row(
                f,
                [
                    &form.name,
                    &format!("{:.2} %", form.accuracy),
                    &form.different_predictions.to_string(),
                    &format!("{:.1e}", form.max_logit_difference),
                    &format!("{:.0} kB", form.memory_bytes as f64 / 1e3),
                    &format!("{:.3}", form.latency_ms),
                    &format!("{:.2} x", dense.latency_ms / form.latency_ms),
                    &format!("{:.0}", form.images_per_second),
                    &format!("{:.2} x", form.images_per_second / dense.images_per_second),
                ],
            )?;
        }
        writeln!(
            f,
            "{} test images, {} threads, {}; one image at a time, and in batches of 100; dense weights are 1 x; \
             memory is what the network keeps after its first image",
            self.images, self.threads, self.backend
        )?;
        write!(
            f,
            "files: {} bytes with floats, {} packed, {} as an archive, {} with the graph for `ttq run`",
            self.float_bytes, self.packed_bytes, self.archive_bytes, self.network_bytes
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
