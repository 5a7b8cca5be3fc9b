//! Modules drawn at random: nesting, kinds of layers, shapes and frozen parts.

use burn::module::{Initializer, Param};
use burn::nn::conv::{Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, ConvTranspose1d, ConvTranspose1dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, Gru, GruConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig, Lstm, LstmConfig,
    PaddingConfig1d,
};
use burn::prelude::*;
use burn::tensor::activation::tanh;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use ttq_testing::{normal, tensor};

use crate::harness::Stranger;

/// A layer from features `[n, in]` to features `[n, out]`.
#[derive(Module, Debug)]
enum Layer<B: Backend> {
    Linear(Linear<B>),
    Matrix(Param<Tensor<B, 2>>),
    Conv1d(Conv1d<B>),
    Conv2d(Conv2d<B>),
    ConvTranspose1d(ConvTranspose1d<B>),
    BatchNorm(BatchNorm<B>),
    LayerNorm(LayerNorm<B>),
    Gru(Gru<B>),
    Lstm(Lstm<B>),
}

impl<B: Backend> Layer<B> {
    /// Draws a layer with `inputs` features; returns it and its number of outputs.
    fn draw(rng: &mut StdRng, inputs: usize, device: &B::Device) -> (Self, usize) {
        let outputs = rng.random_range(2..8);
        let bias = rng.random_range(0..2) == 0;
        match rng.random_range(0..9) {
            0 => (Self::Linear(LinearConfig::new(inputs, outputs).with_bias(bias).init(device)), outputs),
            1 => {
                let uniform = Initializer::Uniform { min: -0.5, max: 0.5 };
                (Self::Matrix(uniform.init([inputs, outputs], device)), outputs)
            }
            2 => {
                let config = Conv1dConfig::new(inputs, outputs, 3).with_padding(PaddingConfig1d::Same);
                (Self::Conv1d(config.with_bias(bias).init(device)), outputs)
            }
            3 if inputs > 2 => {
                let config = Conv2dConfig::new([1, 2], [1, 2]).with_bias(bias);
                (Self::Conv2d(config.init(device)), 2 * (inputs - 1))
            }
            4 => (Self::ConvTranspose1d(ConvTranspose1dConfig::new([1, 1], 3).init(device)), inputs + 2),
            5 => (Self::BatchNorm(BatchNormConfig::new(inputs).init(device)), inputs),
            6 => (Self::LayerNorm(LayerNormConfig::new(inputs).init(device)), inputs),
            7 => (Self::Gru(GruConfig::new(inputs, outputs, bias).init(device)), outputs),
            _ => (Self::Lstm(LstmConfig::new(inputs, outputs, bias).init(device)), outputs),
        }
    }

    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        match self {
            Self::Linear(layer) => layer.forward(x),
            Self::Matrix(matrix) => x.matmul(matrix.val()),
            Self::Conv1d(layer) => layer.forward(x.unsqueeze_dim(2)).squeeze_dim(2),
            Self::Conv2d(layer) => layer.forward(x.unsqueeze_dims(&[1, 1])).flatten(1, 3),
            Self::ConvTranspose1d(layer) => layer.forward(x.unsqueeze_dim(1)).squeeze_dim(1),
            Self::BatchNorm(layer) => layer.forward(x),
            Self::LayerNorm(layer) => layer.forward(x),
            // Sequences of two equal steps.
            Self::Gru(layer) => layer.forward(x.unsqueeze_dim(1).repeat_dim(1, 2), None).narrow(1, 1, 1).squeeze_dim(1),
            Self::Lstm(layer) => layer.forward(x.unsqueeze_dim(1).repeat_dim(1, 2), None).1.hidden,
        }
    }
}

/// Layers in a container.
#[derive(Module, Debug)]
enum Group<B: Backend> {
    One(Layer<B>),
    Pair((Layer<B>, Layer<B>)),
    List(Vec<Layer<B>>),
    Array([Layer<B>; 2]),
    Maybe(Option<Layer<B>>),
    Deep(Vec<(Option<Layer<B>>, [Layer<B>; 1])>),
}

impl<B: Backend> Group<B> {
    fn draw(rng: &mut StdRng, inputs: usize, device: &B::Device) -> (Self, usize) {
        let mut features = inputs;
        let kind = rng.random_range(0..6);
        let length = rng.random_range(1..3);
        let absent = rng.random_range(0..3) == 0;
        let mut layer = || {
            let (layer, outputs) = Layer::draw(rng, features, device);
            features = outputs;
            layer
        };
        let group = match kind {
            0 => Self::One(layer()),
            1 => Self::Pair((layer(), layer())),
            2 => Self::List((0..length).map(|_| layer()).collect()),
            3 => Self::Array([layer(), layer()]),
            4 => Self::Maybe((!absent).then(layer)),
            _ => Self::Deep((0..length).map(|_| ((!absent).then(&mut layer), [layer()])).collect()),
        };
        (group, features)
    }

    fn layers(&self) -> Vec<&Layer<B>> {
        match self {
            Self::One(layer) => vec![layer],
            Self::Pair((first, second)) => vec![first, second],
            Self::List(layers) => layers.iter().collect(),
            Self::Array(layers) => layers.iter().collect(),
            Self::Maybe(layer) => layer.iter().collect(),
            Self::Deep(groups) => groups.iter().flat_map(|(first, [second])| first.iter().chain([second])).collect(),
        }
    }
}

#[derive(Module, Debug)]
pub(crate) struct RandomNet<B: Backend> {
    entry: Linear<B>,
    groups: Vec<Group<B>>,
    head: Linear<B>,
}

impl<B: Backend> RandomNet<B> {
    /// Draws a network; equal seeds give networks of equal structure.
    pub(crate) fn new(seed: u64, device: &B::Device) -> Self {
        let rng = &mut StdRng::seed_from_u64(seed);
        let entry = LinearConfig::new(3, 5).init(device);
        let mut features = 5;
        let groups = (0..rng.random_range(1..4)).map(|_| {
            let (group, outputs) = Group::draw(rng, features, device);
            features = outputs;
            if rng.random_range(0..4) == 0 { group.no_grad() } else { group }
        });
        let groups = groups.collect();
        Self { entry, groups, head: LinearConfig::new(features, 2).init(device) }
    }

    /// Returns the patterns and channel axes of the weights that Burn's layers do not tell.
    pub(crate) fn axes(&self) -> Vec<(&'static str, usize)> {
        let has = |kind: fn(&Layer<B>) -> bool| self.groups.iter().flat_map(Group::layers).any(kind);
        let mut axes = Vec::new();
        if has(|layer| matches!(layer, Layer::Matrix(_))) {
            axes.push(("Matrix$", 1));
        }
        if has(|layer| matches!(layer, Layer::ConvTranspose1d(_))) {
            axes.push(("ConvTranspose1d.weight$", 1));
        }
        axes
    }
}

impl<B: Backend> Stranger<B> for RandomNet<B> {
    type Input = Tensor<B, 2>;

    fn input() -> Tensor<B, 2> {
        tensor(&normal(&[5, 3], 8))
    }

    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let layers = self.groups.iter().flat_map(Group::layers);
        self.head.forward(layers.fold(self.entry.forward(x), |x, layer| tanh(layer.forward(x))))
    }
}

crate::train_step!(RandomNet);
