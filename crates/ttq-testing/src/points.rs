//! Points around three centres, and a small network that classifies them.

use burn::data::dataloader::batcher::Batcher;
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::prelude::*;
use burn::tensor::TensorData;

/// A point and its class, 0 to 2.
pub type Point = ([f32; 6], i32);

/// Points `[n, 6]` and their classes `[n]`.
pub type Batch<B> = (Tensor<B, 2>, Tensor<B, 1, Int>);

/// Returns the point at `index` with noise that depends on the epoch: an augmentation that a resumed training must
/// repeat.
pub fn point(index: usize, epoch: usize) -> Point {
    let class = index % 3;
    let noise = |k: usize| ((index * 31 + epoch * 17 + k * 7) as f32 * 12.9898).sin();
    (std::array::from_fn(|k| f32::from(u8::from(k % 3 == class)) + 0.6 * noise(k)), class as i32)
}

/// Combines points to a [`Batch`].
#[derive(Debug, Clone, Copy)]
pub struct PointBatcher;

impl<B: Backend> Batcher<B, Point, Batch<B>> for PointBatcher {
    fn batch(&self, points: Vec<Point>, device: &B::Device) -> Batch<B> {
        let n = points.len();
        let (points, classes): (Vec<_>, Vec<_>) = points.into_iter().unzip();
        (
            Tensor::from_data(TensorData::new(points.concat(), [n, 6]), device),
            Tensor::from_ints(classes.as_slice(), device),
        )
    }
}

/// A user's model with its training step, in ordinary Burn code without ternary weights.
#[derive(Module, Debug)]
pub struct Net<B: Backend> {
    /// Linear layer from 6 to 16.
    pub first: Linear<B>,
    /// Batch normalization of the 16 features.
    pub norm: Option<BatchNorm<B>>,
    /// Linear layer from 16 to 12.
    pub second: Linear<B>,
    /// Linear layer from 12 to 3.
    pub last: Linear<B>,
}

impl<B: Backend> Net<B> {
    /// Creates the network, with batch normalization or without. Its weights are the same in every run.
    pub fn new(norm: bool) -> Self {
        let device = Default::default();
        let net = Self {
            first: LinearConfig::new(6, 16).init(&device),
            norm: norm.then(|| BatchNormConfig::new(16).init(&device)),
            second: LinearConfig::new(16, 12).init(&device),
            last: LinearConfig::new(12, 3).init(&device),
        };
        crate::reproducible(net, 1)
    }

    /// Logits `[n, 3]` of points `[n, 6]`.
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let x = self.first.forward(x);
        let x = match &self.norm {
            Some(norm) => norm.forward(x),
            None => x,
        };
        self.last.forward(self.second.forward(x.tanh()).tanh())
    }
}

crate::classifier!(Net, 2);
