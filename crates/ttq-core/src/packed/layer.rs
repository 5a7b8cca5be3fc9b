//! What a network is generic over to train dense and run packed.

use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::prelude::*;

use super::{Activations, PackedConv2d, PackedLinear};

/// A convolution in two dimensions: Burn's, or a packed one.
pub trait Convolution<B: Backend>: Module<B> {
    /// The layer of this configuration. A packed one has no weights yet: [`load`](super::load) fills it.
    fn init(config: &Conv2dConfig, device: &B::Device) -> Self;

    /// `[n, in, h, w]` to `[n, out, h', w']`.
    fn forward(&self, input: Tensor<B, 4>) -> Tensor<B, 4>;
}

/// A linear layer: Burn's, or a packed one.
pub trait Projection<B: Backend>: Module<B> {
    /// The layer of this configuration. A packed one has no weights yet: [`load`](super::load) fills it.
    fn init(config: &LinearConfig, device: &B::Device) -> Self;

    /// `[.., in]` to `[.., out]`.
    fn forward<const D: usize>(&self, input: Tensor<B, D>) -> Tensor<B, D>;
}

impl<B: Backend> Convolution<B> for Conv2d<B> {
    fn init(config: &Conv2dConfig, device: &B::Device) -> Self {
        config.init(device)
    }

    fn forward(&self, input: Tensor<B, 4>) -> Tensor<B, 4> {
        Self::forward(self, input)
    }
}

impl<B: Backend, A: Activations> Convolution<B> for PackedConv2d<B, A> {
    fn init(config: &Conv2dConfig, device: &B::Device) -> Self {
        Self::new(config, device)
    }

    fn forward(&self, input: Tensor<B, 4>) -> Tensor<B, 4> {
        Self::forward(self, input)
    }
}

impl<B: Backend> Projection<B> for Linear<B> {
    fn init(config: &LinearConfig, device: &B::Device) -> Self {
        config.init(device)
    }

    fn forward<const D: usize>(&self, input: Tensor<B, D>) -> Tensor<B, D> {
        Self::forward(self, input)
    }
}

impl<B: Backend, A: Activations> Projection<B> for PackedLinear<B, A> {
    fn init(config: &LinearConfig, device: &B::Device) -> Self {
        Self::new(config, device)
    }

    fn forward<const D: usize>(&self, input: Tensor<B, D>) -> Tensor<B, D> {
        Self::forward(self, input)
    }
}
