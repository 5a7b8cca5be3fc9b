//! Modules in enums, tuples, vectors, options and arrays, and one module at two places.

use burn::nn::conv::{Conv1d, Conv1dConfig};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::prelude::*;
use burn::tensor::activation::tanh;
use ttq_testing::{normal, tensor};

use crate::harness::Stranger;

fn points<B: Backend>() -> Tensor<B, 2> {
    tensor(&normal(&[5, 6], 6))
}

/// A layer that the configuration of a model chooses.
#[derive(Module, Debug)]
enum Mixer<B: Backend> {
    Dense(Linear<B>),
    Local(Conv1d<B>),
}

impl<B: Backend> Mixer<B> {
    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        match self {
            Self::Dense(layer) => layer.forward(x),
            Self::Local(layer) => layer.forward(x.unsqueeze_dim(1)).squeeze_dim(1),
        }
    }
}

#[derive(Module, Debug)]
pub(crate) struct Containers<B: Backend> {
    pair: (Linear<B>, LayerNorm<B>),
    mixers: Vec<Mixer<B>>,
    gate: Option<Linear<B>>,
    absent: Option<Linear<B>>,
    heads: [Linear<B>; 2],
    nested: Vec<(Option<Linear<B>>, [Linear<B>; 1])>,
    head: Linear<B>,
}

impl<B: Backend> Containers<B> {
    pub(crate) fn new(device: &B::Device) -> Self {
        let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).init(device);
        Self {
            pair: (linear(6, 7), LayerNormConfig::new(7).init(device)),
            mixers: vec![Mixer::Dense(linear(7, 7)), Mixer::Local(Conv1dConfig::new(1, 1, 3).init(device))],
            gate: Some(linear(5, 5)),
            absent: None,
            heads: [linear(5, 4), linear(5, 4)],
            nested: vec![(Some(linear(4, 5)), [linear(5, 4)]), (None, [linear(4, 6)])],
            head: linear(6, 2),
        }
    }
}

impl<B: Backend> Stranger<B> for Containers<B> {
    type Input = Tensor<B, 2>;

    fn input() -> Tensor<B, 2> {
        points()
    }

    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let x = self.pair.1.forward(self.pair.0.forward(x));
        let x = self.mixers.iter().fold(x, |x, mixer| tanh(mixer.forward(x)));
        let x = match &self.gate {
            Some(gate) => x.clone() * tanh(gate.forward(x)),
            None => x,
        };
        assert!(self.absent.is_none());
        let x = tanh(self.heads[0].forward(x.clone()) + self.heads[1].forward(x));
        let x = self.nested.iter().fold(x, |x, (first, [second])| {
            let x = match first {
                Some(first) => tanh(first.forward(x)),
                None => x,
            };
            tanh(second.forward(x))
        });
        self.head.forward(x)
    }
}

crate::train_step!(Containers);

#[derive(Module, Debug)]
struct Branch<B: Backend> {
    first: Linear<B>,
    second: Linear<B>,
}

impl<B: Backend> Branch<B> {
    fn new(device: &B::Device) -> Self {
        Self { first: LinearConfig::new(6, 7).init(device), second: LinearConfig::new(7, 6).init(device) }
    }

    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.second.forward(tanh(self.first.forward(x)))
    }
}

/// Two submodules of the same type, each with parameters of its own.
#[derive(Module, Debug)]
pub(crate) struct Twins<B: Backend> {
    left: Branch<B>,
    right: Branch<B>,
    head: Linear<B>,
}

impl<B: Backend> Twins<B> {
    pub(crate) fn new(device: &B::Device) -> Self {
        Self { left: Branch::new(device), right: Branch::new(device), head: LinearConfig::new(6, 2).init(device) }
    }
}

impl<B: Backend> Stranger<B> for Twins<B> {
    type Input = Tensor<B, 2>;

    fn input() -> Tensor<B, 2> {
        points()
    }

    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.head.forward(tanh(self.left.forward(x.clone()) - self.right.forward(x)))
    }
}

crate::train_step!(Twins);

/// One block that runs twice, as clones that have the same parameters.
#[derive(Module, Debug)]
pub(crate) struct Repeated<B: Backend> {
    blocks: Vec<Branch<B>>,
    head: Linear<B>,
}

impl<B: Backend> Repeated<B> {
    pub(crate) fn new(device: &B::Device) -> Self {
        let block = Branch::new(device);
        block.first.weight.val();
        block.second.weight.val();
        Self { blocks: vec![block; 2], head: LinearConfig::new(6, 2).init(device) }
    }
}

impl<B: Backend> Stranger<B> for Repeated<B> {
    type Input = Tensor<B, 2>;

    fn input() -> Tensor<B, 2> {
        points()
    }

    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.head.forward(self.blocks.iter().fold(x, |x, block| x.clone() + tanh(block.forward(x))))
    }
}

crate::train_step!(Repeated);

/// The same block twice, by reference.
#[derive(Module, Debug)]
pub(crate) struct Looped<B: Backend> {
    block: Branch<B>,
    head: Linear<B>,
}

impl<B: Backend> Looped<B> {
    pub(crate) fn new(device: &B::Device) -> Self {
        Self { block: Branch::new(device), head: LinearConfig::new(6, 2).init(device) }
    }
}

impl<B: Backend> Stranger<B> for Looped<B> {
    type Input = Tensor<B, 2>;

    fn input() -> Tensor<B, 2> {
        points()
    }

    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.head.forward((0..2).fold(x, |x, _| x.clone() + tanh(self.block.forward(x))))
    }
}

crate::train_step!(Looped);
