//! ResNet for 32×32 images (He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", section 4.2).

use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Initializer, Linear, LinearConfig, PaddingConfig2d};
use burn::prelude::*;
use burn::tensor::activation::relu;

use super::{Network, output_size};
use crate::data::Images;

/// ResNet-20/32/44/56: a stem, three stages of (depth - 2) / 6 blocks with 16, 32 and 64 channels, a linear layer.
#[derive(Module, Debug)]
pub struct ResNet<B: Backend> {
    stem: Conv2d<B>,
    norm: BatchNorm<B>,
    blocks: Vec<Block<B>>,
    pool: AdaptiveAvgPool2d,
    classes: Linear<B>,
}

/// Two 3×3 convolutions around which the input is passed, through a 1×1 convolution where the shape changes.
#[derive(Module, Debug)]
struct Block<B: Backend> {
    conv1: Conv2d<B>,
    norm1: BatchNorm<B>,
    conv2: Conv2d<B>,
    norm2: BatchNorm<B>,
    shortcut: Option<Conv2d<B>>,
}

impl<B: Backend> ResNet<B> {
    /// Depths that exist: 6 n + 2.
    pub const DEPTHS: [usize; 4] = [20, 32, 44, 56];

    /// A network of `depth` layers, one of [`ResNet::DEPTHS`] (any 6 n + 2 with n > 0 will do), for `classes` classes.
    ///
    /// # Panics
    /// Where `depth` is not 6 n + 2.
    pub fn new(depth: usize, classes: usize, device: &B::Device) -> Self {
        assert!(depth > 2 && (depth - 2).is_multiple_of(6), "ResNet: the depth must be 6 n + 2, found {depth}");
        let per_stage = (depth - 2) / 6;
        let mut blocks = Vec::new();
        let mut channels = 16;
        for (stage, out) in [16, 32, 64].into_iter().enumerate() {
            for index in 0..per_stage {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                blocks.push(Block::new([channels, out], stride, device));
                channels = out;
            }
        }
        Self {
            stem: conv3x3([3, 16], 1).init(device),
            norm: BatchNormConfig::new(16).init(device),
            blocks,
            pool: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            classes: LinearConfig::new(channels, classes).init(device),
        }
    }
}

impl<B: Backend> Network<B> for ResNet<B> {
    type Task = Images;

    fn forward(&self, images: Tensor<B, 4>) -> Tensor<B, 2> {
        let x = relu(self.norm.forward(self.stem.forward(images)));
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        self.classes.forward(self.pool.forward(x).flatten(1, 3))
    }

    fn positions(&self, image: [usize; 2]) -> Vec<(String, usize)> {
        let mut size = output_size(&self.stem, image);
        let mut positions = vec![("stem.weight".to_owned(), size)];
        for (index, block) in self.blocks.iter().enumerate() {
            size = output_size(&block.conv1, size);
            let layers = ["conv1", "conv2"].into_iter().chain(block.shortcut.as_ref().map(|_| "shortcut"));
            positions.extend(layers.map(|layer| (format!("blocks.{index}.{layer}.weight"), size)));
        }
        positions.push(("classes.weight".to_owned(), [1, 1]));
        positions.into_iter().map(|(path, [height, width])| (path, height * width)).collect()
    }
}

impl<B: Backend> Block<B> {
    fn new([input, output]: [usize; 2], stride: usize, device: &B::Device) -> Self {
        let shortcut = (stride != 1 || input != output).then(|| {
            let config = Conv2dConfig::new([input, output], [1, 1]).with_stride([stride, stride]);
            config.with_bias(false).with_initializer(HE).init(device)
        });
        Self {
            conv1: conv3x3([input, output], stride).init(device),
            norm1: BatchNormConfig::new(output).init(device),
            conv2: conv3x3([output, output], 1).init(device),
            norm2: BatchNormConfig::new(output).init(device),
            shortcut,
        }
    }

    fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let y = relu(self.norm1.forward(self.conv1.forward(x.clone())));
        let y = self.norm2.forward(self.conv2.forward(y));
        let x = match &self.shortcut {
            Some(shortcut) => shortcut.forward(x),
            None => x,
        };
        relu(y + x)
    }
}

const HE: Initializer = Initializer::KaimingNormal { gain: std::f64::consts::SQRT_2, fan_out_only: true };

fn conv3x3(channels: [usize; 2], stride: usize) -> Conv2dConfig {
    Conv2dConfig::new(channels, [3, 3])
        .with_stride([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
        .with_bias(false)
        .with_initializer(HE)
}
