//! What a network is generic over to train dense and run packed.

use burn::module::ModuleDisplay;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d};
use burn::prelude::*;

use super::{ActivationType, PackedConv2d, PackedLinear};

/// A convolution in two dimensions: Burn's, or a packed one.
pub trait Convolution<B: Backend>: Module<B> + ModuleDisplay {
    /// The layer of this configuration. A packed one has no weights yet: [`load`](super::load) fills it.
    fn init(config: &Conv2dConfig, device: &B::Device) -> Self;

    /// `[n, in, h, w]` to `[n, out, h', w']`.
    fn forward(&self, input: Tensor<B, 4>) -> Tensor<B, 4>;

    /// Height and width of the output for an input of this height and width:
    ///
    /// ```text
    /// floor((size + padding - dilation (kernel - 1) - 1) / stride) + 1
    /// ```
    ///
    /// # Panics
    /// Where the kernel does not fit into the padded input.
    fn output_size(&self, input: [usize; 2]) -> [usize; 2];
}

/// A linear layer: Burn's, or a packed one.
pub trait LinearLayer<B: Backend>: Module<B> + ModuleDisplay {
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

    fn output_size(&self, input: [usize; 2]) -> [usize; 2] {
        output_size(self.kernel_size, self.stride, self.dilation, &self.padding, input)
    }
}

impl<B: Backend, A: ActivationType> Convolution<B> for PackedConv2d<B, A> {
    fn init(config: &Conv2dConfig, device: &B::Device) -> Self {
        Self::new(config, device)
    }

    fn forward(&self, input: Tensor<B, 4>) -> Tensor<B, 4> {
        Self::forward(self, input)
    }

    fn output_size(&self, input: [usize; 2]) -> [usize; 2] {
        let Conv2dConfig { kernel_size, stride, dilation, padding, .. } = self.config();
        output_size(*kernel_size, *stride, *dilation, padding, input)
    }
}

impl<B: Backend> LinearLayer<B> for Linear<B> {
    fn init(config: &LinearConfig, device: &B::Device) -> Self {
        config.init(device)
    }

    fn forward<const D: usize>(&self, input: Tensor<B, D>) -> Tensor<B, D> {
        Self::forward(self, input)
    }
}

impl<B: Backend, A: ActivationType> LinearLayer<B> for PackedLinear<B, A> {
    fn init(config: &LinearConfig, device: &B::Device) -> Self {
        Self::new(config, device)
    }

    fn forward<const D: usize>(&self, input: Tensor<B, D>) -> Tensor<B, D> {
        Self::forward(self, input)
    }
}

fn output_size(
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    padding: &PaddingConfig2d,
    input: [usize; 2],
) -> [usize; 2] {
    let padding = match *padding {
        PaddingConfig2d::Valid => [0, 0],
        PaddingConfig2d::Explicit(top, left, bottom, right) => [top + bottom, left + right],
        PaddingConfig2d::Same => return [0, 1].map(|axis| input[axis].div_ceil(stride[axis])),
    };
    [0, 1].map(|axis| {
        let reach = dilation[axis] * (kernel[axis] - 1) + 1;
        (input[axis] + padding[axis] - reach) / stride[axis] + 1
    })
}
