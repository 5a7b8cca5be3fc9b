//! Makes a packed file with ternary weights from a float checkpoint: load, wrap, fine-tune, pack.
//!
//! CHECKPOINT is a safetensors file with the parameters of `Net`. Replace `Net` to load your own.
//! Without CHECKPOINT the program trains `Net` first. The data are images of stripes; their direction is the class.
//!
//! ```sh
//! cargo run --release -p ttq-core --example checkpoint -- [CHECKPOINT]
//! ```

use std::error::Error;
use std::f32::consts::{FRAC_PI_4, TAU};
use std::path::{Path, PathBuf};

use burn::backend::{Autodiff, Flex};
use burn::module::AutodiffModule;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d, loss::CrossEntropyLossConfig};
use burn::optim::{AdamConfig, GradientsParams, Optimizer};
use burn::prelude::*;
use burn::tensor::activation::relu;
use burn_store::{ModuleSnapshot, SafetensorsStore};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use ttq_core::packed::{Coding, pack};
use ttq_core::prelude::*;

/// An ordinary Burn model.
#[derive(Module, Debug)]
struct Net<B: Backend> {
    stem: Conv2d<B>,
    conv: Conv2d<B>,
    hidden: Linear<B>,
    classes: Linear<B>,
}

impl<B: Backend> Net<B> {
    fn new(device: &B::Device) -> Self {
        let conv = |channels| Conv2dConfig::new(channels, [3, 3]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1));
        Self {
            stem: conv([1, 16]).init(device),
            conv: conv([16, 32]).with_stride([2, 2]).init(device),
            hidden: LinearConfig::new(32 * 4 * 4, 64).init(device),
            classes: LinearConfig::new(64, 4).init(device),
        }
    }

    /// Returns the logits `[n, 4]` of images `[n, 1, 8, 8]`.
    fn forward(&self, images: Tensor<B, 4>) -> Tensor<B, 2> {
        let x = relu(self.conv.forward(relu(self.stem.forward(images))));
        self.classes.forward(relu(self.hidden.forward(x.flatten(1, 3))))
    }
}

/// Draws `n` images `[n, 1, 8, 8]` of 8 × 8 pixels and their classes `[n]`.
fn batch<B: Backend>(n: usize, seed: u64) -> (Tensor<B, 4>, Tensor<B, 1, Int>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut images, mut classes) = (Vec::new(), Vec::new());
    for _ in 0..n {
        let (class, phase) = (rng.random_range(0..4), rng.random_range(0.0..TAU));
        let (sin, cos) = (class as f32 * FRAC_PI_4).sin_cos();
        let pixel = |i| ((i % 8) as f32 * cos + (i / 8) as f32 * sin + phase).sin() + rng.random_range(-2.0..2.0);
        images.extend((0..64).map(pixel));
        classes.push(class);
    }
    let device = Default::default();
    (Tensor::from_data(TensorData::new(images, [n, 1, 8, 8]), &device), Tensor::from_ints(classes.as_slice(), &device))
}

/// Returns the accuracy in percent on images that are not in the training data.
fn accuracy<B: Backend>(model: Net<B>) -> f64 {
    let (images, classes) = batch(1000, u64::MAX);
    let correct = model.forward(images).argmax(1).squeeze_dim::<1>(1).equal(classes);
    100.0 * correct.float().mean().into_scalar().elem::<f64>()
}

/// Returns the cross-entropy on the images of a training step.
fn loss<B: Backend>(model: &Net<B>, step: u64) -> Tensor<B, 1> {
    let (images, classes) = batch(64, step);
    CrossEntropyLossConfig::new().init(&images.device()).forward(model.forward(images), classes)
}

/// Trains `Net` in full precision and writes a safetensors file.
fn train_float(path: PathBuf, steps: u64) -> Result<PathBuf, Box<dyn Error>> {
    let (mut model, mut optimizer) = (Net::<Autodiff<Flex>>::new(&Default::default()), AdamConfig::new().init());
    for step in 0..steps {
        let grads = GradientsParams::from_grads(loss(&model, step).backward(), &model);
        model = optimizer.step(1e-3, model, grads);
    }
    model.save_into(&mut SafetensorsStore::from_file(&path).overwrite(true))?;
    Ok(path)
}

/// Returns the accuracies in percent on other images: float, ternary before fine-tuning, ternary after it.
pub fn run(checkpoint: Option<PathBuf>, directory: &Path, steps: u64) -> Result<[f64; 3], Box<dyn Error>> {
    Autodiff::<Flex>::seed(&Default::default(), 1);
    let checkpoint = checkpoint.map_or_else(|| train_float(directory.join("ttq-float.safetensors"), steps), Ok)?;
    let file = directory.join("ttq-packed.safetensors");
    // [checkpoint]
    let mut model = Net::<Autodiff<Flex>>::new(&Default::default());
    // A PyTorch file: `ttq convert model.pt`, then an adapter for the layout of linear layers, see docs/questions.md.
    model.load_from(&mut SafetensorsStore::from_file(&checkpoint))?;
    let mut ternary = Ternary::new(model, &TernaryConfig::new())?; // the scales start from the loaded weights
    let [float, start] = [ternary.latent().valid(), ternary.valid().materialize()].map(accuracy); // without autodiff
    let mut optimizer = AdamConfig::new().init();
    for step in 0..steps / 4 {
        let grads = GradientsParams::from_grads(loss(&ternary.view(), step).backward(), &ternary);
        ternary = optimizer.step(1e-3, ternary, grads).after_step();
    }
    pack(&ternary)?.save(&file, Coding::Plain)?; // 2 bits per ternary weight
    // [/checkpoint]
    let end = accuracy(ternary.valid().materialize());
    println!("{}\naccuracy: {float:.1} % float, {start:.1} % ternary, {end:.1} % fine-tuned", ternary.stats());
    println!("{}: {} bytes, float {}", file.display(), file.metadata()?.len(), checkpoint.metadata()?.len());
    Ok([float, start, end])
}

fn main() -> Result<(), Box<dyn Error>> {
    run(std::env::args().nth(1).map(PathBuf::from), &std::env::temp_dir(), 400).map(drop)
}
