//! SqueezeNet for 56×56 images (Iandola et al., "SqueezeNet", 2016), with the changes of the PyTorch port of TTQ
//! (github.com/TropComplique/trained-ternary-quantization): batch normalization before every convolution except the
//! first and the last one, and residual connections around fire modules with equal numbers of input and output
//! channels.

use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Initializer};
use burn::prelude::*;
use burn::tensor::activation::relu;

use super::convolution::convolution;
use super::{Network, PytorchName};
use crate::data::Images;

/// A 3×3 convolution, eight fire modules with three max poolings, and a 1×1 convolution to the logits.
#[derive(Module, Debug)]
pub struct SqueezeNet<B: Backend> {
    stem: Conv2d<B>,
    norm: BatchNorm<B>,
    pool: MaxPool2d,
    fires: Vec<Fire<B>>,
    dropout: Dropout,
    classes: Conv2d<B>,
    average: AdaptiveAvgPool2d,
}

/// A 1×1 convolution to few channels, followed by parallel 1×1 and 3×3 convolutions whose outputs are concatenated.
/// With `residual`, the input is added.
#[derive(Module, Debug)]
struct Fire<B: Backend> {
    squeeze_norm: BatchNorm<B>,
    squeeze: Conv2d<B>,
    expand1x1_norm: BatchNorm<B>,
    expand1x1: Conv2d<B>,
    expand3x3_norm: BatchNorm<B>,
    expand3x3: Conv2d<B>,
    residual: bool,
}

/// Channels of each fire module: after the first convolution, and after each of the two parallel ones.
const FIRES: [[usize; 2]; 8] = [[16, 64], [16, 64], [32, 128], [32, 128], [48, 192], [48, 192], [64, 256], [64, 256]];
/// Indices of the fire modules with a max pooling before them.
const POOLED: [usize; 3] = [0, 2, 4];
/// Indices of the fire modules in the `Sequential` of the port.
const PORT_INDICES: [usize; 8] = [4, 5, 7, 8, 10, 11, 12, 13];

impl<B: Backend> SqueezeNet<B> {
    /// Creates a network for `classes` classes. Input `[n, 3, 56, 56]`, output `[n, classes]`.
    pub fn new(classes: usize, device: &B::Device) -> Self {
        let mut channels = 64;
        let fires = FIRES.map(|[squeezed, expanded]| {
            let fire = Fire::new(channels, squeezed, expanded, device);
            channels = 2 * expanded;
            fire
        });
        Self {
            stem: convolution([3, 64], 3).init(device),
            norm: BatchNormConfig::new(64).init(device),
            pool: MaxPool2dConfig::new([3, 3]).with_strides([2, 2]).with_ceil_mode(true).init(),
            fires: fires.into(),
            dropout: DropoutConfig::new(0.6).init(),
            classes: Conv2dConfig::new([channels, classes], [1, 1])
                .with_initializer(Initializer::Normal { mean: 0.0, std: 0.01 })
                .init(device),
            average: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
        }
    }
}

impl<B: Backend> Network<B> for SqueezeNet<B> {
    type Task = Images;

    fn forward(&self, images: Tensor<B, 4>) -> Tensor<B, 2> {
        let mut x = relu(self.norm.forward(self.stem.forward(images)));
        for (index, fire) in self.fires.iter().enumerate() {
            if POOLED.contains(&index) {
                x = self.pool.forward(x);
            }
            x = fire.forward(x);
        }
        let x = relu(self.classes.forward(self.dropout.forward(x)));
        self.average.forward(x).flatten(1, 3)
    }

    fn pytorch_names() -> Vec<PytorchName> {
        let fires = PORT_INDICES.iter().enumerate();
        let fires = fires
            .map(|(index, port)| (format!(r"^features\.{port}\.(\w+)_bn\."), format!("fires.{index}.${{1}}_norm.")));
        let convolutions = PORT_INDICES.iter().enumerate();
        let convolutions =
            convolutions.map(|(index, port)| (format!(r"^features\.{port}\."), format!("fires.{index}.")));
        let ends = [(r"^features\.0\.", "stem."), (r"^features\.1\.", "norm."), (r"^classifier\.1\.", "classes.")];
        fires.chain(convolutions).chain(ends.map(|(port, here)| (port.into(), here.into()))).collect()
    }
}

impl<B: Backend> Fire<B> {
    fn new(input: usize, squeezed: usize, expanded: usize, device: &B::Device) -> Self {
        Self {
            squeeze_norm: BatchNormConfig::new(input).init(device),
            squeeze: convolution([input, squeezed], 1).init(device),
            expand1x1_norm: BatchNormConfig::new(squeezed).init(device),
            expand1x1: convolution([squeezed, expanded], 1).init(device),
            expand3x3_norm: BatchNormConfig::new(squeezed).init(device),
            expand3x3: convolution([squeezed, expanded], 3).init(device),
            residual: input == 2 * expanded,
        }
    }

    fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let y = self.squeeze.forward(relu(self.squeeze_norm.forward(x.clone())));
        let narrow = self.expand1x1.forward(relu(self.expand1x1_norm.forward(y.clone())));
        let wide = self.expand3x3.forward(relu(self.expand3x3_norm.forward(y)));
        let y = Tensor::cat(vec![narrow, wide], 1);
        if self.residual { y + x } else { y }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cpu;

    #[test]
    fn it_has_as_many_parameters_as_in_the_port_and_a_logit_per_class() {
        let network = SqueezeNet::<Cpu>::new(200, &Default::default());
        // 827,784 in the table of the port. Burn also counts the running means and variances of batch normalization.
        let running_statistics: usize = 2 * (64 + FIRES.iter().map(|[squeezed, _]| 2 * squeezed).sum::<usize>())
            + 2 * [64, 128, 128, 256, 256, 384, 384, 512].iter().sum::<usize>();
        assert_eq!(Module::num_params(&network), 827_784 + running_statistics);
        let logits = network.forward(Tensor::zeros([2, 3, 56, 56], &Default::default()));
        assert_eq!(logits.dims(), [2, 200]);
    }

    #[test]
    fn three_poolings_reduce_56_pixels_to_7() {
        let network = SqueezeNet::<Cpu>::new(5, &Default::default());
        let pooled =
            |side| network.pool.forward(Tensor::<Cpu, 4>::zeros([1, 1, side, side], &Default::default())).dims()[2];
        assert_eq!([56, 28, 14].map(pooled), [28, 14, 7]);
    }
}
