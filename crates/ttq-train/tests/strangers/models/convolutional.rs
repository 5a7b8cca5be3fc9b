//! Networks of convolutions: a U-Net, one and three dimensions, grouped, dilated and transposed convolutions.

use burn::nn::conv::{
    Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Conv3d, Conv3dConfig, ConvTranspose1d, ConvTranspose1dConfig,
    ConvTranspose2d, ConvTranspose2dConfig, ConvTranspose3d, ConvTranspose3dConfig,
};
use burn::nn::{
    BatchNorm, BatchNormConfig, GroupNorm, GroupNormConfig, Linear, LinearConfig, PaddingConfig1d, PaddingConfig2d,
    PaddingConfig3d,
};
use burn::prelude::*;
use burn::tensor::activation::{silu, tanh};
use ttq_testing::{normal, tensor};

use crate::harness::Stranger;

fn input<B: Backend, const D: usize>(shape: [usize; D]) -> Tensor<B, D> {
    tensor(&normal(&shape, 5))
}

/// The mean over all positions of `[n, channels, ..]`.
fn pool<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, 2> {
    x.flatten::<3>(2, D - 1).mean_dim(2).squeeze_dim(2)
}

/// Convolutions down and up, with skip connections between levels of the same size.
#[derive(Module, Debug)]
pub(crate) struct UNet<B: Backend> {
    enter: Conv2d<B>,
    down: Conv2d<B>,
    bottom: Conv2d<B>,
    bottom_norm: BatchNorm<B>,
    up: ConvTranspose2d<B>,
    merge: Conv2d<B>,
    merge_norm: GroupNorm<B>,
    out: Conv2d<B>,
}

impl<B: Backend> UNet<B> {
    pub(crate) fn new(device: &B::Device) -> Self {
        let same = |channels: [usize; 2]| Conv2dConfig::new(channels, [3, 3]).with_padding(PaddingConfig2d::Same);
        Self {
            enter: same([1, 3]).init(device),
            down: Conv2dConfig::new([3, 4], [2, 2]).with_stride([2, 2]).init(device),
            bottom: same([4, 4]).with_bias(false).init(device),
            bottom_norm: BatchNormConfig::new(4).init(device),
            up: ConvTranspose2dConfig::new([4, 3], [2, 2]).with_stride([2, 2]).init(device),
            merge: same([6, 4]).with_bias(false).init(device),
            merge_norm: GroupNormConfig::new(2, 4).init(device),
            out: Conv2dConfig::new([4, 2], [1, 1]).init(device),
        }
    }
}

impl<B: Backend> Stranger<B> for UNet<B> {
    type Input = Tensor<B, 4>;

    fn input() -> Tensor<B, 4> {
        input([2, 1, 4, 4])
    }

    /// Returns a map of two classes, `[n, 2, h, w]`, flattened.
    fn forward(&self, images: Tensor<B, 4>) -> Tensor<B, 2> {
        let level_1 = silu(self.enter.forward(images));
        let level_2 = silu(self.down.forward(level_1.clone()));
        let level_2 = silu(self.bottom_norm.forward(self.bottom.forward(level_2)));
        let merged = Tensor::cat(vec![level_1, self.up.forward(level_2)], 1);
        self.out.forward(silu(self.merge_norm.forward(self.merge.forward(merged)))).flatten(1, 3)
    }
}

crate::train_step!(UNet);

/// A classifier of signals.
#[derive(Module, Debug)]
pub(crate) struct Signal<B: Backend> {
    stem: Conv1d<B>,
    body: Conv1d<B>,
    head: Linear<B>,
}

impl<B: Backend> Signal<B> {
    pub(crate) fn new(device: &B::Device) -> Self {
        Self {
            stem: Conv1dConfig::new(2, 4, 3).with_padding(PaddingConfig1d::Same).init(device),
            body: Conv1dConfig::new(4, 5, 3).with_stride(2).init(device),
            head: LinearConfig::new(5, 3).init(device),
        }
    }
}

impl<B: Backend> Stranger<B> for Signal<B> {
    type Input = Tensor<B, 3>;

    fn input() -> Tensor<B, 3> {
        input([3, 2, 9])
    }

    fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 2> {
        self.head.forward(pool(tanh(self.body.forward(tanh(self.stem.forward(x))))))
    }
}

crate::train_step!(Signal);

/// A classifier of volumes.
#[derive(Module, Debug)]
pub(crate) struct Volume<B: Backend> {
    stem: Conv3d<B>,
    body: Conv3d<B>,
    head: Linear<B>,
}

impl<B: Backend> Volume<B> {
    pub(crate) fn new(device: &B::Device) -> Self {
        Self {
            stem: Conv3dConfig::new([1, 3], [2, 2, 2]).init(device),
            body: Conv3dConfig::new([3, 4], [2, 1, 2]).with_padding(PaddingConfig3d::Explicit(1, 0, 1)).init(device),
            head: LinearConfig::new(4, 3).init(device),
        }
    }
}

impl<B: Backend> Stranger<B> for Volume<B> {
    type Input = Tensor<B, 5>;

    fn input() -> Tensor<B, 5> {
        input([3, 1, 3, 3, 3])
    }

    fn forward(&self, x: Tensor<B, 5>) -> Tensor<B, 2> {
        self.head.forward(pool(tanh(self.body.forward(tanh(self.stem.forward(x))))))
    }
}

crate::train_step!(Volume);

/// A depthwise and a pointwise convolution, then a dilated and grouped one.
#[derive(Module, Debug)]
pub(crate) struct Separable<B: Backend> {
    stem: Conv2d<B>,
    depthwise: Conv2d<B>,
    pointwise: Conv2d<B>,
    dilated: Conv2d<B>,
    head: Linear<B>,
}

impl<B: Backend> Separable<B> {
    pub(crate) fn new(device: &B::Device) -> Self {
        let padding = PaddingConfig2d::Explicit(1, 1, 1, 1);
        Self {
            stem: Conv2dConfig::new([3, 4], [3, 3]).with_padding(padding.clone()).init(device),
            depthwise: Conv2dConfig::new([4, 4], [3, 3]).with_padding(padding).with_groups(4).init(device),
            pointwise: Conv2dConfig::new([4, 6], [1, 1]).init(device),
            dilated: Conv2dConfig::new([6, 4], [3, 2]).with_groups(2).with_dilation([2, 1]).init(device),
            head: LinearConfig::new(4, 2).init(device),
        }
    }
}

impl<B: Backend> Stranger<B> for Separable<B> {
    type Input = Tensor<B, 4>;

    fn input() -> Tensor<B, 4> {
        input([2, 3, 6, 5])
    }

    fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 2> {
        let x = tanh(self.stem.forward(x));
        let x = tanh(self.pointwise.forward(self.depthwise.forward(x)));
        self.head.forward(pool(tanh(self.dilated.forward(x))))
    }
}

crate::train_step!(Separable);

/// Generators with transposed convolutions in one, two and three dimensions. Their weights are `[in, out / groups,
/// k..]`.
#[derive(Module, Debug)]
pub(crate) struct Transposed<B: Backend> {
    line: ConvTranspose1d<B>,
    plane: ConvTranspose2d<B>,
    plane_of_groups: ConvTranspose2d<B>,
    space: ConvTranspose3d<B>,
}

impl<B: Backend> Transposed<B> {
    pub(crate) fn new(device: &B::Device) -> Self {
        Self {
            line: ConvTranspose1dConfig::new([3, 4], 3).with_stride(2).init(device),
            plane: ConvTranspose2dConfig::new([4, 6], [2, 3]).with_padding([0, 1]).init(device),
            plane_of_groups: ConvTranspose2dConfig::new([6, 4], [2, 2]).with_groups(2).init(device),
            space: ConvTranspose3dConfig::new([2, 3], [2, 1, 2]).init(device),
        }
    }
}

impl<B: Backend> Stranger<B> for Transposed<B> {
    type Input = Tensor<B, 3>;

    fn input() -> Tensor<B, 3> {
        input([2, 3, 4])
    }

    fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 2> {
        let n = x.dims()[0];
        // [n, 4, 9], seen as [n, 4, 3, 3]
        let line = tanh(self.line.forward(x));
        let plane = tanh(self.plane_of_groups.forward(tanh(self.plane.forward(line.reshape([n, 4, 3, 3])))));
        // [n, 4, 5, 4], seen as [n, 2, 2, 5, 4]
        self.space.forward(plane.reshape([n, 2, 2, 5, 4])).flatten(1, 4)
    }
}

crate::train_step!(Transposed);

/// A convolution before batch normalization, a linear layer before layer normalization, the head declared first.
#[derive(Module, Debug)]
pub(crate) struct Normalized<B: Backend> {
    head: Linear<B>,
    stem: Conv2d<B>,
    stem_norm: BatchNorm<B>,
    body: Conv2d<B>,
    body_norm: BatchNorm<B>,
}

impl<B: Backend> Normalized<B> {
    pub(crate) fn new(device: &B::Device) -> Self {
        let conv = |channels: [usize; 2]| Conv2dConfig::new(channels, [3, 3]).with_bias(false).init(device);
        Self {
            head: LinearConfig::new(5, 3).init(device),
            stem: conv([1, 4]),
            stem_norm: BatchNormConfig::new(4).init(device),
            body: conv([4, 5]),
            body_norm: BatchNormConfig::new(5).init(device),
        }
    }
}

impl<B: Backend> Stranger<B> for Normalized<B> {
    type Input = Tensor<B, 4>;

    fn input() -> Tensor<B, 4> {
        input([4, 1, 6, 6])
    }

    fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 2> {
        let x = silu(self.stem_norm.forward(self.stem.forward(x)));
        self.head.forward(pool(silu(self.body_norm.forward(self.body.forward(x)))))
    }
}

crate::train_step!(Normalized);
