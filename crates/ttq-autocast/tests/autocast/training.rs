//! A network with ternary weights trains as in float32, and records load on both backends.

use burn::backend::{Autodiff, Flex};
use burn::module::{AutodiffModule, Module};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::optim::lr_scheduler::constant::ConstantLr;
use burn::prelude::*;
use burn::record::{BinBytesRecorder, FullPrecisionSettings, Recorder};
use burn::tensor::DType;
use burn::tensor::backend::AutodiffBackend;
use burn::train::{ItemLazy, Learner};
use ttq_autocast::{Bf16, F16, Half};
use ttq_core::{Ternary, TernaryConfig};
use ttq_testing::{reproducible, tensor, uniform};
use ttq_train::{TernaryOptimizer, TernaryStep};

use crate::On;

#[derive(Module, Debug)]
struct Net<B: Backend> {
    first: Conv2d<B>,
    second: Conv2d<B>,
    norm: BatchNorm<B>,
    hidden: Linear<B>,
    last: Linear<B>,
}

impl<B: Backend> Net<B> {
    fn new() -> Self {
        let device = Default::default();
        Self {
            first: Conv2dConfig::new([1, 6], [3, 3]).init(&device),
            second: Conv2dConfig::new([6, 8], [3, 3]).with_bias(false).init(&device),
            norm: BatchNormConfig::new(8).init(&device),
            hidden: LinearConfig::new(32, 16).init(&device),
            last: LinearConfig::new(16, 3).init(&device),
        }
    }

    fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 2> {
        let x = self.norm.forward(self.second.forward(self.first.forward(x).tanh())).tanh();
        self.last.forward(self.hidden.forward(x.flatten::<2>(1, 3)).tanh())
    }
}

type Batch<B> = (Tensor<B, 4>, Tensor<B, 1, Int>);

ttq_testing::classifier!(Net, 4);

/// Noisy images whose class is the position of their bright columns.
fn batch<B: Backend>() -> Batch<B> {
    let noise: Vec<f32> = uniform(&[30, 1, 6, 6], 7).iter::<f32>().collect();
    let pixel = |(index, noise): (usize, f32)| noise + f32::from(u8::from(index % 6 / 2 == index / 36 % 3));
    let pixels: Vec<f32> = noise.into_iter().enumerate().map(pixel).collect();
    let targets: Vec<i32> = (0..30).map(|image| image % 3).collect();
    (tensor(&TensorData::new(pixels, [30, 1, 6, 6])), Tensor::from_ints(targets.as_slice(), &Default::default()))
}

fn recorder() -> BinBytesRecorder<FullPrecisionSettings> {
    BinBytesRecorder::default()
}

/// Trains the same network on any backend. Returns the loss of every step and the network.
fn train<B: AutodiffBackend>() -> (Vec<f32>, Ternary<B, Net<B>>) {
    let ternary = Ternary::new(reproducible(Net::<B>::new(), 1), &TernaryConfig::default()).expect("a selection");
    let optimizer = TernaryOptimizer::uniform(SgdConfig::new().init());
    let mut learner = Learner::new(TernaryStep::new(ternary), optimizer, ConstantLr::new(0.1));
    let mut losses = Vec::new();
    for _ in 0..40 {
        learner.lr_step();
        let output = learner.train_step(batch());
        losses.extend(output.item.sync().output.loss.into_data().iter::<f32>());
        learner.optimizer_step(output.grads);
    }
    (losses, learner.model().into_ternary())
}

fn trains_as_in_float32<P: Half>() {
    let (expected, _) = train::<Autodiff<Flex>>();
    let (found, ternary) = train::<Autodiff<On<P>>>();
    assert!((found[0] - expected[0]).abs() < 0.02, "initial loss {}, in float32 {}", found[0], expected[0]);
    let (last, reference) = (found[39], expected[39]);
    assert!(reference < 0.4 * expected[0], "the loss only falls from {} to {reference}", expected[0]);
    assert!((last - reference).abs() < 0.1 * expected[0], "{}: final loss {last}, in float32 {reference}", P::NAME);
    let latent = ternary.latent();
    assert_eq!([latent.second.weight.val().dtype(), latent.hidden.weight.val().dtype()], [DType::F32; 2]);
    assert!(ternary.scales().iter().all(|scales| scales.val().dtype() == DType::F32));
}

#[test]
fn ternary_weights_train_in_bfloat16_as_in_float32() {
    trains_as_in_float32::<Bf16>();
}

#[test]
fn ternary_weights_train_in_float16_as_in_float32() {
    trains_as_in_float32::<F16>();
}

#[test]
fn a_record_loads_on_both_backends() {
    let trained = train::<Autodiff<On<Bf16>>>().1;
    let (images, _) = batch::<On<Bf16>>();
    let expected = trained.latent().valid().forward(images.clone()).into_data();
    let bytes =
        Recorder::<On<Bf16>>::record(&recorder(), trained.latent().valid().into_record(), ()).expect("a record");
    let record = Recorder::<Flex>::load(&recorder(), bytes.clone(), &Default::default()).expect("a record");
    let on_flex = Net::<Flex>::new().load_record(record);
    assert_eq!(on_flex.second.weight.to_data(), trained.latent().second.weight.to_data());
    let record = Recorder::<On<Bf16>>::load(&recorder(), bytes, &Default::default()).expect("a record");
    assert_eq!(Net::<On<Bf16>>::new().load_record(record).forward(images).into_data(), expected);
}
