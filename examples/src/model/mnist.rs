//! A small convolutional network for 28×28 digits, sized so that a CPU trains it in a minute or two.

use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::prelude::*;
use burn::tensor::activation::relu;

use super::{Network, output_size};
use crate::data::Images;

/// Two convolutions with pooling, two linear layers. The second convolution and the first linear layer hold 97 % of the
/// weights and become ternary.
#[derive(Module, Debug)]
pub struct MnistNet<B: Backend> {
    conv1: Conv2d<B>,
    conv2: Conv2d<B>,
    pool: MaxPool2d,
    hidden: Linear<B>,
    norm: BatchNorm<B>,
    classes: Linear<B>,
}

impl<B: Backend> MnistNet<B> {
    /// A network for `classes` classes.
    pub fn new(classes: usize, device: &B::Device) -> Self {
        Self {
            conv1: Conv2dConfig::new([1, 16], [5, 5]).init(device),
            conv2: Conv2dConfig::new([16, 32], [5, 5]).init(device),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            hidden: LinearConfig::new(32 * 4 * 4, 128).with_bias(false).init(device),
            norm: BatchNormConfig::new(128).init(device),
            classes: LinearConfig::new(128, classes).init(device),
        }
    }
}

impl<B: Backend> Network<B> for MnistNet<B> {
    type Task = Images;

    /// Logits of images `[n, 1, 28, 28]`.
    fn forward(&self, images: Tensor<B, 4>) -> Tensor<B, 2> {
        let x = self.pool.forward(relu(self.conv1.forward(images)));
        let x = self.pool.forward(relu(self.conv2.forward(x)));
        let x = relu(self.norm.forward(self.hidden.forward(x.flatten::<2>(1, 3))));
        self.classes.forward(x)
    }

    fn positions(&self, image: [usize; 2]) -> Vec<(String, usize)> {
        let pooled = |[height, width]: [usize; 2]| [height / 2, width / 2];
        let first = output_size(&self.conv1, image);
        let second = output_size(&self.conv2, pooled(first));
        let positions = [("conv1", first), ("conv2", second), ("hidden", [1, 1]), ("classes", [1, 1])];
        positions.map(|(layer, [height, width])| (format!("{layer}.weight"), height * width)).to_vec()
    }
}
