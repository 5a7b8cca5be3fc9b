//! Packed weights that several threads use.

use burn::backend::{Autodiff, Flex};
use burn::module::AutodiffModule;
use burn::nn::PaddingConfig2d;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{GradientsParams, Optimizer, SgdConfig};
use burn::prelude::*;
use burn::tensor::TensorData;
use rayon::prelude::*;
use ttq_cpu::Cpu;
use ttq_inference::{Packed, load};

use crate::ternary::{assert_close, file_for, packed_parameters, random};

/// A network that is large enough for kernels on several threads.
#[derive(Module, Debug)]
struct Net<B: Backend> {
    conv: Conv2d<B>,
    hidden: Linear<B>,
}

impl<B: Backend> Net<B> {
    fn new() -> Self {
        let device = Default::default();
        Self {
            conv: Conv2dConfig::new([16, 32], [3, 3]).with_padding(PaddingConfig2d::Same).init(&device),
            hidden: LinearConfig::new(32 * 64, 200).init(&device),
        }
    }

    fn forward(&self, seed: usize) -> TensorData {
        let images = random([8, 16, 8, 8], seed as u64);
        self.hidden.forward(self.conv.forward(images).flatten::<2>(1, 3)).into_data()
    }
}

fn parallel_equals_sequential<B: Backend>() {
    let file = file_for(&Net::<Flex>::new(), true);
    let load = || load(Net::<Packed<B>>::new(), &file).unwrap();
    let sequential = load();
    let expected: Vec<TensorData> = (0..4).map(|seed| sequential.forward(seed)).collect();
    // Kernels are built in one of the threads.
    let (in_threads, in_tasks) = (load(), load());
    let outputs: Vec<TensorData> = std::thread::scope(|scope| {
        let net = &in_threads;
        let threads: Vec<_> = (0..16).map(|index| scope.spawn(move || net.forward(index % 4))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let pool = rayon::ThreadPoolBuilder::new().num_threads(16).build().unwrap();
    let tasks: Vec<TensorData> =
        pool.install(|| (0..32).into_par_iter().map(|index| in_tasks.forward(index % 4)).collect());
    for outputs in [outputs, tasks] {
        assert!(outputs.iter().enumerate().all(|(index, output)| *output == expected[index % 4]));
    }
}

#[test]
fn parallel_forward_passes_of_sixteen_threads_give_the_sequential_results() {
    parallel_equals_sequential::<Flex>();
    parallel_equals_sequential::<Cpu>();
}

fn trained_bias_takes_part<B: Backend>() {
    type Training<B> = Autodiff<Packed<B>>;
    let device = Default::default();
    let config = LinearConfig::new(30, 20);
    let file = file_for(&config.init::<Flex>(&device_of::<Flex>()), false);
    let packed = load(config.init::<Packed<B>>(&device), &file).unwrap();
    let x = || random::<Training<B>, 2>([3, 30], 1);
    let mut layer: Linear<Training<B>> = Linear::from_inner(packed);
    layer.bias = layer.bias.map(|bias| bias.set_require_grad(true));
    let mut optimizer = SgdConfig::new().init();
    for _ in 0..3 {
        let before = layer.valid().forward(x().inner()).into_data();
        let old = layer.bias.as_ref().unwrap().val().inner();
        let gradients = layer.forward(x()).powi_scalar(2).sum().backward();
        let gradients = GradientsParams::from_grads(gradients, &layer);
        assert_eq!(gradients.len(), 1, "a packed weight has no gradient");
        layer = optimizer.step(0.01, layer, gradients);
        assert_eq!(packed_parameters(&layer.valid()), 1);
        let change = layer.bias.as_ref().unwrap().val().inner() - old;
        assert!(change.clone().abs().min().into_scalar().elem::<f32>() > 0.0);
        let expected = Tensor::<Packed<B>, 2>::from_data(before, &device) + change.unsqueeze();
        assert_close(&layer.valid().forward(x().inner()).into_data(), &expected.into_data(), 1e-5);
    }
}

fn device_of<B: Backend>() -> B::Device {
    Default::default()
}

#[test]
fn a_bias_that_is_trained_beside_a_packed_weight_takes_part_in_the_next_forward_pass() {
    trained_bias_takes_part::<Flex>();
    trained_bias_takes_part::<Cpu>();
}
