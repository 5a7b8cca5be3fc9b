//! Trains an ordinary Burn model with ternary weights in a hand-written training loop, on `ttq-core` alone.
//!
//! The data are images of stripes in noise; their direction is the class. The model trains in full precision first,
//! then with ternary weights that start from the trained ones. The program prints which layers are ternary, their
//! statistics, and both accuracies.
//!
//! ```sh
//! cargo run --release -p ttq-core --example own_model
//! ```

use std::error::Error;
use std::f32::consts::{FRAC_PI_4, TAU};

use burn::backend::{Autodiff, Flex};
use burn::module::AutodiffModule;
use burn::nn::{Linear, LinearConfig, loss::CrossEntropyLossConfig};
use burn::optim::{GradientsParams, Optimizer, SgdConfig, momentum::MomentumConfig};
use burn::prelude::*;
use burn::tensor::activation::relu;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use ttq_core::prelude::*;

/// An ordinary Burn model.
#[derive(Module, Debug)]
struct Net<B: Backend> {
    first: Linear<B>,
    hidden: Linear<B>,
    classes: Linear<B>,
}

impl<B: Backend> Net<B> {
    fn new(device: &B::Device) -> Self {
        let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).init(device);
        Self { first: linear(64, 128), hidden: linear(128, 128), classes: linear(128, 4) }
    }

    /// Returns the logits `[n, 4]` of images `[n, 64]`.
    fn forward(&self, images: Tensor<B, 2>) -> Tensor<B, 2> {
        let x = relu(self.first.forward(images));
        self.classes.forward(relu(self.hidden.forward(x)))
    }
}

/// Draws `n` images `[n, 64]` of 8 × 8 pixels and their classes `[n]`.
fn batch<B: Backend>(n: usize, seed: u64) -> (Tensor<B, 2>, Tensor<B, 1, Int>) {
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
    (Tensor::from_data(TensorData::new(images, [n, 64]), &device), Tensor::from_ints(classes.as_slice(), &device))
}

/// Returns the accuracy in percent on images that are not in the training data.
fn accuracy<B: Backend>(model: &Net<B>) -> f64 {
    let (images, classes) = batch(1000, u64::MAX);
    let correct = model.forward(images).argmax(1).squeeze_dim::<1>(1).equal(classes);
    100.0 * correct.float().mean().into_scalar().elem::<f64>()
}

/// Trains `steps` steps in full precision and as many with ternary weights. Returns both accuracies in percent.
pub fn run(steps: u64) -> Result<(f64, f64), Box<dyn Error>> {
    type B = Autodiff<Flex>;
    let device = Default::default();
    B::seed(&device, 1);
    let (cross_entropy, lr) = (CrossEntropyLossConfig::new().init(&device), 0.05);
    let sgd = SgdConfig::new().with_momentum(Some(MomentumConfig::new()));

    let mut model = Net::<B>::new(&device);
    let mut optimizer = sgd.init();
    for step in 0..steps {
        let (images, classes) = batch(64, step);
        let loss = cross_entropy.forward(model.forward(images), classes);
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(lr, model, grads);
    }
    let float_accuracy = accuracy(&model.valid());

    let mut optimizer = sgd.init();
    // [own-model]
    let mut ternary = Ternary::new(model, &TernaryConfig::new())?;
    for step in 0..steps {
        let (images, classes) = batch(64, step);
        let logits = ternary.view().forward(images); // a `Net` with ternary weights
        let loss = cross_entropy.forward(logits, classes);
        let grads = GradientsParams::from_grads(loss.backward(), &ternary); // of the weights and their scales
        ternary = optimizer.step(lr, ternary, grads).after_step();
    }
    println!("{}\n{}", ternary.selection(), ternary.stats());
    let plain = ternary.valid().materialize(); // a `Net`, whose selected weights take three values
    // [/own-model]

    let ternary_accuracy = accuracy(&plain);
    println!("accuracy: {float_accuracy:.1} % in full precision, {ternary_accuracy:.1} % ternary");
    Ok((float_accuracy, ternary_accuracy))
}

fn main() -> Result<(), Box<dyn Error>> {
    run(500).map(drop)
}
