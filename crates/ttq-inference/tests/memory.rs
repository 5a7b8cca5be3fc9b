//! Memory of packed weights, measured with an allocator that counts.

use std::alloc::System;

use burn::backend::Flex;
use burn::nn::conv::Conv2dConfig;
use burn::nn::{Initializer, LinearConfig, PaddingConfig2d};
use burn::prelude::*;
use cap::Cap;
use ttq_cpu::Cpu;
use ttq_inference::{ActivationType, Float32, Int8, Packed, load};
use ttq_packed::{Codes, PackedModel, TernaryWeight};

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// Returns the bits per weight that a module takes after a forward pass. Half of its weight, of shape `shape`, is zero.
fn bits<M>(shape: &[usize], axis: usize, load: impl Fn(&PackedModel) -> M, forward: impl Fn(&M)) -> f64 {
    let n: usize = shape.iter().product();
    // Two bits of a linear congruential generator; 0 and 1 stand for a zero.
    let mut state = 1_u64;
    let mut code = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        [0, 0, 1, -1][(state >> 62) as usize]
    };
    let codes = Codes::pack(&(0..n).map(|_| code()).collect::<Vec<i8>>()).unwrap();
    let scales: Vec<[f32; 2]> = (0..shape[axis]).map(|channel| [0.5 + channel as f32, 0.25]).collect();
    let mut file = PackedModel::default();
    file.weights.insert("weight".into(), TernaryWeight::new(codes, scales, shape, axis).unwrap());
    let module = load(&file);
    forward(&module);
    let with_module = MEMORY.allocated();
    drop(module);
    8.0 * (with_module - MEMORY.allocated()) as f64 / n as f64
}

fn linear_bits<B: Backend, A: ActivationType>(size: usize) -> f64 {
    let device = Default::default();
    let config = LinearConfig::new(size, size).with_bias(false).with_initializer(Initializer::Zeros);
    bits(
        &[size, size],
        1,
        |file| load(config.init::<Packed<B, A>>(&device), file).unwrap(),
        |layer| drop(layer.forward(Tensor::<Packed<B, A>, 2>::ones([1, size], &device)).into_data()),
    )
}

fn convolution_bits<A: ActivationType>() -> f64 {
    let device = Default::default();
    let config =
        Conv2dConfig::new([256, 256], [3, 3]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1)).with_bias(false);
    bits(
        &[256, 256, 3, 3],
        0,
        |file| load(config.init::<Packed<Flex, A>>(&device), file).unwrap(),
        |layer| drop(layer.forward(Tensor::<Packed<Flex, A>, 4>::ones([1, 256, 8, 8], &device)).into_data()),
    )
}

/// A single test: the allocator counts what all threads allocate.
#[test]
fn a_weight_takes_two_bits_after_the_first_call_or_eight_per_nonzero_weight_of_a_sparse_convolution() {
    let linear =
        [linear_bits::<Flex, Float32>(4096), linear_bits::<Flex, Int8>(4096), linear_bits::<Cpu, Float32>(4096)];
    let convolutions = [convolution_bits::<Float32>(), convolution_bits::<Int8>()];
    println!("bits per weight: linear {linear:.3?}, convolution {convolutions:.3?}");
    assert!((2.0..2.1).contains(&linear[0]) && linear.iter().all(|bits| (2.0..2.3).contains(bits)), "{linear:?}");
    assert!((2.0..2.2).contains(&convolutions[1]), "{convolutions:?}");
    // Half of the weights are zero, so the faster kernel reads lists of the others.
    assert!((4.0..5.0).contains(&convolutions[0]), "{convolutions:?}");
}
