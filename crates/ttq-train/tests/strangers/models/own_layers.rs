//! Layers that are not Burn's: a `Linear` in PyTorch's layout, and matrices without a layer.

use burn::module::{Initializer, Param};
use burn::nn::LinearConfig;
use burn::prelude::*;
use burn::tensor::activation::tanh;
use ttq_testing::{normal, tensor};

use crate::harness::Stranger;

fn points<B: Backend>() -> Tensor<B, 2> {
    tensor(&normal(&[5, 6], 7))
}

/// A layer with the name of Burn's. Its weight is `[out, in]`.
#[derive(Module, Debug)]
pub(crate) struct Linear<B: Backend> {
    weight: Param<Tensor<B, 2>>,
    bias: Option<Param<Tensor<B, 1>>>,
}

impl<B: Backend> Linear<B> {
    fn new(inputs: usize, outputs: usize, device: &B::Device) -> Self {
        let uniform = Initializer::Uniform { min: -0.3, max: 0.3 };
        Self { weight: uniform.init([outputs, inputs], device), bias: Some(uniform.init([outputs], device)) }
    }

    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let y = x.matmul(self.weight.val().transpose());
        match &self.bias {
            Some(bias) => y + bias.val().unsqueeze(),
            None => y,
        }
    }
}

#[derive(Module, Debug)]
pub(crate) struct OwnLinear<B: Backend> {
    first: Linear<B>,
    second: Linear<B>,
    head: burn::nn::Linear<B>,
}

impl<B: Backend> OwnLinear<B> {
    pub(crate) fn new(device: &B::Device) -> Self {
        Self {
            first: Linear::new(6, 8, device),
            second: Linear::new(8, 5, device),
            head: LinearConfig::new(5, 2).init(device),
        }
    }
}

impl<B: Backend> Stranger<B> for OwnLinear<B> {
    type Input = Tensor<B, 2>;

    fn input() -> Tensor<B, 2> {
        points()
    }

    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.head.forward(tanh(self.second.forward(tanh(self.first.forward(x)))))
    }
}

crate::train_step!(OwnLinear);

/// Parameters that are used as matrices, of rank 2 and of rank 3.
#[derive(Module, Debug)]
pub(crate) struct RawMatrices<B: Backend> {
    project: Param<Tensor<B, 2>>,
    experts: Param<Tensor<B, 3>>,
    head: burn::nn::Linear<B>,
}

impl<B: Backend> RawMatrices<B> {
    pub(crate) fn new(device: &B::Device) -> Self {
        let uniform = Initializer::Uniform { min: -0.3, max: 0.3 };
        Self {
            project: uniform.init([6, 7], device),
            experts: uniform.init([3, 7, 4], device),
            head: LinearConfig::new(4, 2).init(device),
        }
    }
}

impl<B: Backend> Stranger<B> for RawMatrices<B> {
    type Input = Tensor<B, 2>;

    fn input() -> Tensor<B, 2> {
        points()
    }

    fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let n = x.dims()[0];
        let x = tanh(x.matmul(self.project.val()));
        let experts = x.unsqueeze::<3>().expand([3, n, 7]).matmul(self.experts.val());
        self.head.forward(tanh(experts.mean_dim(0).squeeze_dim(0)))
    }
}

crate::train_step!(RawMatrices);
