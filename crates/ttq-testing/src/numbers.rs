//! Random numbers that are the same in every run.

use burn::prelude::*;
use burn::tensor::TensorData;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal, Uniform};

/// Draws numbers from a generator with this seed.
fn draw(distribution: impl Distribution<f32>, shape: &[usize], seed: u64) -> TensorData {
    let n: usize = shape.iter().product();
    let values: Vec<f32> = distribution.sample_iter(StdRng::seed_from_u64(seed)).take(n).collect();
    TensorData::new(values, shape)
}

/// Returns float32 numbers of the given shape, uniform between -1 and 1.
pub fn uniform(shape: &[usize], seed: u64) -> TensorData {
    draw(Uniform::new(-1.0, 1.0).expect("the bounds are an interval"), shape, seed)
}

/// Returns float32 numbers of the given shape, normal with mean 0 and standard deviation 1.
pub fn normal(shape: &[usize], seed: u64) -> TensorData {
    draw(StandardNormal, shape, seed)
}

/// Creates a tensor on the default device of a backend.
///
/// # Panics
/// Panics if the rank of `data` is not `D`.
pub fn tensor<B: Backend, const D: usize>(data: &TensorData) -> Tensor<B, D> {
    Tensor::from_data(data.clone(), &Default::default())
}
