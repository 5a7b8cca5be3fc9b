//! Trains a user's own model with burn-train and `ttq-train`: in full precision, then with ternary weights.
//!
//! The data are images of stripes in noise; their direction is the class. The program writes logs and checkpoints to
//! DIRECTORY, where an interrupted run continues, or to a temporary directory.
//!
//! ```sh
//! cargo run --release -p ttq-train --example learner -- [DIRECTORY]
//! ```

use std::error::Error;
use std::f32::consts::{FRAC_PI_4, TAU};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use burn::backend::{Autodiff, Flex};
use burn::data::dataloader::batcher::Batcher;
use burn::data::dataset::InMemDataset;
use burn::nn::{Linear, LinearConfig, loss::CrossEntropyLossConfig};
use burn::optim::{SgdConfig, momentum::MomentumConfig};
use burn::prelude::*;
use burn::tensor::{activation::relu, backend::AutodiffBackend};
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{ClassificationOutput, ExecutionStrategy, InferenceStep, TrainOutput, TrainStep};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use ttq_core::prelude::*;
use ttq_train::prelude::*;

type A = Autodiff<Flex>;
type Item = ([f32; 64], i32);
type Batch<B> = (Tensor<B, 2>, Tensor<B, 1, Int>);

/// An ordinary Burn model with the two steps that burn-train calls.
#[derive(Module, Debug)]
struct Net<B: Backend> {
    first: Linear<B>,
    hidden: Linear<B>,
    classes: Linear<B>,
}

impl<B: Backend> InferenceStep for Net<B> {
    type Input = Batch<B>;
    type Output = ClassificationOutput<B>;

    fn step(&self, (images, classes): Batch<B>) -> ClassificationOutput<B> {
        let x = relu(self.first.forward(images));
        let logits = self.classes.forward(relu(self.hidden.forward(x)));
        let loss = CrossEntropyLossConfig::new().init(&logits.device()).forward(logits.clone(), classes.clone());
        ClassificationOutput::new(loss, logits, classes)
    }
}

impl<B: AutodiffBackend> TrainStep for Net<B> {
    type Input = Batch<B>;
    type Output = ClassificationOutput<B>;

    fn step(&self, batch: Batch<B>) -> TrainOutput<ClassificationOutput<B>> {
        let output = InferenceStep::step(self, batch);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

/// Draws an image of 8 × 8 pixels and its class. The index is the seed.
fn stripes(index: u64) -> Item {
    let mut rng = StdRng::seed_from_u64(index);
    let (class, phase) = (rng.random_range(0..4), rng.random_range(0.0..TAU));
    let (sin, cos) = (class as f32 * FRAC_PI_4).sin_cos();
    let pixel = |i| ((i % 8) as f32 * cos + (i / 8) as f32 * sin + phase).sin() + rng.random_range(-2.0..2.0);
    (std::array::from_fn(pixel), class)
}

struct Stripes;

impl<B: Backend> Batcher<B, Item, Batch<B>> for Stripes {
    fn batch(&self, items: Vec<Item>, device: &B::Device) -> Batch<B> {
        let (images, classes): (Vec<_>, Vec<_>) = items.into_iter().unzip();
        let images = TensorData::new(images.concat(), [classes.len(), 64]);
        (Tensor::from_data(images, device), Tensor::from_ints(classes.as_slice(), device))
    }
}

/// Creates a loader of a Burn dataset. Its batches are a function of seed and epoch, so that training resumes exactly.
fn loader<B: Backend>(indices: Range<u64>) -> ReproducibleLoader<B, Item, Batch<B>> {
    let dataset = InMemDataset::new(indices.map(stripes).collect());
    ReproducibleLoader::from_dataset(Arc::new(dataset), Arc::new(Stripes), 64, Default::default())
}

/// Trains `epochs` epochs in full precision and as many with ternary weights. Returns both accuracies in percent.
pub fn run(directory: &Path, epochs: usize) -> Result<[f64; 2], Box<dyn Error>> {
    let device = Default::default();
    A::seed(&device, 1);
    let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).init(&device);
    let model: Net<A> = Net { first: linear(64, 128), hidden: linear(128, 128), classes: linear(128, 4) };
    let mut accuracies = Vec::new();
    // [learner]
    let mut step = TernaryStep::new(Ternary::new(model, &TernaryConfig::new())?);
    for phase in [Phase::FullPrecision, Phase::Ternary] {
        let sgd = SgdConfig::new().with_momentum(Some(MomentumConfig::new())).init();
        let optimizer = TernaryOptimizer::uniform(sgd);
        let data = PhaseData::new(loader(0..8000).shuffle(1), loader(8000..9000));
        let config = PhaseConfig::new(phase, epochs, 0.05, MetricGoal::maximize("Accuracy"));
        let directory = directory.join(phase.to_string()); // logs and checkpoints
        let training = PhaseTraining::new(&directory, config, ExecutionStrategy::SingleDevice(device));
        let outcome = training
            .run(step, optimizer, data, |training| training.metrics((AccuracyMetric::new(), LossMetric::new())))?;
        let PhaseOutcome::Completed { model, metrics, .. } = outcome else { return Err("interrupted".into()) };
        accuracies.push(metrics.valid["Accuracy"]);
        step = model; // the ternary phase fits the scales to its weights
    }
    // [/learner]
    let [float, ternary] = accuracies[..] else { unreachable!("two phases") };
    println!("{}\naccuracy: {float:.1} % in full precision, {ternary:.1} % ternary", step.ternary().stats());
    Ok([float, ternary])
}

fn main() -> Result<(), Box<dyn Error>> {
    let (directory, argument) = (tempfile::tempdir()?, std::env::args().nth(1));
    run(argument.as_deref().map_or(directory.path(), Path::new), 4).map(drop)
}
