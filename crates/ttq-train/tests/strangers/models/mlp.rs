//! Perceptrons: of several layers, of one, with the head declared first, and with a layer in column-major layout.

use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig, LinearLayout};
use burn::prelude::*;
use burn::tensor::activation::{gelu, tanh};
use ttq_testing::{normal, tensor};

use crate::harness::Stranger;

fn points<B: Backend>(features: usize) -> Tensor<B, 2> {
    tensor(&normal(&[6, features], 3))
}

#[derive(Module, Debug)]
pub(crate) struct Mlp<B: Backend> {
    first: Linear<B>,
    hidden: Linear<B>,
    head: Linear<B>,
}

impl<B: Backend> Mlp<B> {
    pub(crate) fn new(device: &B::Device) -> Self {
        Self {
            first: LinearConfig::new(5, 8).init(device),
            hidden: LinearConfig::new(8, 7).init(device),
            head: LinearConfig::new(7, 3).init(device),
        }
    }

    /// Only the head trains.
    pub(crate) fn frozen_body(device: &B::Device) -> Self {
        let Self { first, hidden, head } = Self::new(device);
        Self { first: first.no_grad(), hidden: hidden.no_grad(), head }
    }

    /// Nothing trains.
    pub(crate) fn frozen(device: &B::Device) -> Self {
        Self::new(device).no_grad()
    }
}

impl<B: Backend> Stranger<B> for Mlp<B> {
    type Input = Tensor<B, 2>;

    fn input() -> Tensor<B, 2> {
        points(5)
    }

    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.head.forward(tanh(self.hidden.forward(tanh(self.first.forward(x)))))
    }
}

crate::train_step!(Mlp);

#[derive(Module, Debug)]
pub(crate) struct OneLayer<B: Backend> {
    layer: Linear<B>,
}

impl<B: Backend> OneLayer<B> {
    pub(crate) fn new(device: &B::Device) -> Self {
        Self { layer: LinearConfig::new(9, 4).with_bias(false).init(device) }
    }
}

impl<B: Backend> Stranger<B> for OneLayer<B> {
    type Input = Tensor<B, 2>;

    fn input() -> Tensor<B, 2> {
        points(9)
    }

    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.layer.forward(x)
    }
}

crate::train_step!(OneLayer);

/// The struct declares the head before the layers that run before it.
#[derive(Module, Debug)]
pub(crate) struct HeadFirst<B: Backend> {
    head: Linear<B>,
    norm: LayerNorm<B>,
    body: Linear<B>,
    entry: Linear<B>,
}

impl<B: Backend> HeadFirst<B> {
    pub(crate) fn new(device: &B::Device) -> Self {
        Self {
            head: LinearConfig::new(6, 2).init(device),
            norm: LayerNormConfig::new(6).init(device),
            body: LinearConfig::new(8, 6).init(device),
            entry: LinearConfig::new(5, 8).init(device),
        }
    }
}

impl<B: Backend> Stranger<B> for HeadFirst<B> {
    type Input = Tensor<B, 2>;

    fn input() -> Tensor<B, 2> {
        points(5)
    }

    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.head.forward(self.norm.forward(self.body.forward(gelu(self.entry.forward(x)))))
    }
}

crate::train_step!(HeadFirst);

/// Burn stores the weights of these layers transposed.
#[derive(Module, Debug)]
pub(crate) struct Columns<B: Backend> {
    wide: Linear<B>,
    narrow: Linear<B>,
    head: Linear<B>,
}

impl<B: Backend> Columns<B> {
    pub(crate) fn new(device: &B::Device) -> Self {
        let columns = |inputs, outputs| LinearConfig::new(inputs, outputs).with_layout(LinearLayout::Col).init(device);
        Self { wide: columns(4, 9), narrow: columns(9, 5), head: columns(5, 3) }
    }
}

impl<B: Backend> Stranger<B> for Columns<B> {
    type Input = Tensor<B, 2>;

    fn input() -> Tensor<B, 2> {
        points(4)
    }

    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.head.forward(tanh(self.narrow.forward(tanh(self.wide.forward(x)))))
    }
}

crate::train_step!(Columns);
