//! Random numbers that are the same in every run.

use burn::prelude::*;
use burn::tensor::TensorData;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal, Uniform};

fn draw(distribution: impl Distribution<f32>, shape: &[usize], seed: u64) -> TensorData {
    let n: usize = shape.iter().product();
    let values: Vec<f32> = distribution.sample_iter(StdRng::seed_from_u64(seed)).take(n).collect();
    TensorData::new(values, shape)
}

/// Float32 numbers between -1 and 1.
pub fn uniform(shape: &[usize], seed: u64) -> TensorData {
    draw(Uniform::new(-1.0, 1.0).expect("an interval"), shape, seed)
}

/// Float32 numbers of mean 0 and deviation 1.
pub fn normal(shape: &[usize], seed: u64) -> TensorData {
    draw(StandardNormal, shape, seed)
}

/// On the default device of a backend.
pub fn tensor<B: Backend, const D: usize>(data: &TensorData) -> Tensor<B, D> {
    Tensor::from_data(data.clone(), &Default::default())
}
