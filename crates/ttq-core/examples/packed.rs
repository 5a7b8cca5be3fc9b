//! Loads a packed file into a module on packed and on dense weights, compiles the module to a network that runs without
//! Burn, and compares the results.
//!
//! FILE is the packed file that the example `checkpoint` writes. Without FILE the program trains the same model with
//! ternary weights first and packs it. The data are images of stripes in noise; their direction is the class.
//!
//! ```sh
//! cargo run --release -p ttq-core --example packed -- [FILE]
//! ```

use std::error::Error;
use std::f32::consts::{FRAC_PI_4, TAU};
use std::path::{Path, PathBuf};

use burn::backend::{Autodiff, Flex};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d, loss::CrossEntropyLossConfig};
use burn::optim::{AdamConfig, GradientsParams, Optimizer};
use burn::prelude::*;
use burn::tensor::activation::relu;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use ttq_compile::{CompileOptions, Network, capture};
use ttq_core::packed::{Coding, PackedModel, pack};
use ttq_core::prelude::*;
use ttq_inference::{Packed, load};
use ttq_packed::network::{Arena, RangeRule};

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
        self.classes.forward(relu(self.hidden.forward(x.flatten::<2>(1, 3))))
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

/// Trains `Net` with ternary weights and writes a packed file.
fn train(path: PathBuf, steps: u64) -> Result<PathBuf, Box<dyn Error>> {
    let device = Default::default();
    Autodiff::<Flex>::seed(&device, 1);
    let mut ternary = Ternary::new(Net::<Autodiff<Flex>>::new(&device), &TernaryConfig::new())?;
    let mut optimizer = AdamConfig::new().init();
    for step in 0..steps {
        let (images, classes) = batch(64, step);
        let loss = CrossEntropyLossConfig::new().init(&device).forward(ternary.view().forward(images), classes);
        let grads = GradientsParams::from_grads(loss.backward(), &ternary);
        ternary = optimizer.step(1e-3, ternary, grads).after_step();
    }
    // [pack]
    pack(&ternary)?.save(&path, Coding::Plain)?; // 2 bits per ternary weight, all other parameters unchanged
    // [/pack]
    Ok(path)
}

/// Returns the largest difference of the logits of the packed and the compiled network from those of dense weights, and the
/// accuracy in percent.
pub fn run(file: Option<PathBuf>, directory: &Path, steps: u64) -> Result<(f32, f64), Box<dyn Error>> {
    let path = file.map_or_else(|| train(directory.join("ttq-packed.safetensors"), steps), Ok)?;
    let device = Default::default();
    let (images, classes) = batch::<Packed<Flex>>(1000, u64::MAX); // not in the training data
    // [deploy]
    let file = PackedModel::load(&path)?;
    let packed = load(Net::<Packed<Flex>>::new(&device), &file)?; // its weights stay packed
    let logits = packed.forward(images.clone());
    let dense = load(Net::<Flex>::new(&device), &file)?; // the same weights in float32
    // [/deploy]
    let pixels = images.to_data().to_vec::<f32>()?;
    let mut compiled = vec![0.0; 1000 * 4];
    // [compile]
    let mut graph = capture(&packed, images.clone(), |net, images| net.forward(images))?;
    graph.calibrate(&pixels, RangeRule::MinMax)?; // for int8 only: ranges of values on typical inputs
    graph.save(directory.join("network.safetensors"), Coding::Plain, None)?;
    let network = Network::compile(&graph, &CompileOptions::default())?; // or `Network::load`: no Burn from here on
    network.run(&mut Arena::new(), &pixels, &mut compiled)?;
    // [/compile]
    let expected = dense.forward(Tensor::from_data(images.into_data(), &device)).into_data().to_vec::<f32>()?;
    let worst = |found: &[f32]| found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).max_by(f32::total_cmp).unwrap();
    let difference = worst(&logits.to_data().to_vec::<f32>()?).max(worst(&compiled));
    let accuracy = 100.0 * logits.argmax(1).squeeze_dim::<1>(1).equal(classes).float().mean().into_scalar();
    println!("accuracy: {accuracy:.1} %, difference from the logits of dense weights: at most {difference:.1e}");
    println!("{}: {} bytes, float32 {}", path.display(), path.metadata()?.len(), 4 * dense.num_params());
    Ok((difference, f64::from(accuracy)))
}

fn main() -> Result<(), Box<dyn Error>> {
    run(std::env::args().nth(1).map(PathBuf::from), &std::env::temp_dir(), 200).map(drop)
}
