//! Traits for networks that train with dense layers and run with packed layers.

use burn::module::ModuleDisplay;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::prelude::*;

use super::geometry::Geometry;
use super::{ActivationType, PackedConv2d, PackedLinear};

/// A convolution in two dimensions: Burn's [`Conv2d`] or [`PackedConv2d`].
pub trait Convolution<B: Backend>: Module<B> + ModuleDisplay {
    /// Creates the layer. A packed layer is all zeros; [`load`](super::load) fills it.
    fn init(config: &Conv2dConfig, device: &B::Device) -> Self;

    /// Applies the convolution.
    ///
    /// # Shapes
    /// - input: `[n, in, h, w]`
    /// - output: `[n, out, h', w']`, with the size of [`output_size`](Self::output_size)
    ///
    /// # Panics
    /// Panics if the number of input channels differs, or if the kernel does not fit into the padded input.
    fn forward(&self, input: Tensor<B, 4>) -> Tensor<B, 4>;

    /// Computes height and width of the output for an input of height and width `input`:
    ///
    /// ```text
    /// floor((size + padding - dilation (kernel - 1) - 1) / stride) + 1
    /// ```
    ///
    /// `padding` is the sum over both sides. For `PaddingConfig2d::Same` it is the number of zeros with which a kernel
    /// without dilation gives `ceil(size / stride)` outputs. With a dilation Burn's layer adds as many zeros, and the
    /// output is smaller.
    ///
    /// # Panics
    /// Panics if the kernel does not fit into the padded input.
    fn output_size(&self, input: [usize; 2]) -> [usize; 2];
}

/// A linear layer: Burn's [`Linear`] or [`PackedLinear`].
pub trait LinearLayer<B: Backend>: Module<B> + ModuleDisplay {
    /// Creates the layer. A packed layer is all zeros; [`load`](super::load) fills it.
    fn init(config: &LinearConfig, device: &B::Device) -> Self;

    /// Applies the layer.
    ///
    /// # Shapes
    /// - input: `[.., in]`
    /// - output: `[.., out]`
    fn forward<const D: usize>(&self, input: Tensor<B, D>) -> Tensor<B, D>;
}

impl<B: Backend> Convolution<B> for Conv2d<B> {
    fn init(config: &Conv2dConfig, device: &B::Device) -> Self {
        config.init(device)
    }

    fn forward(&self, input: Tensor<B, 4>) -> Tensor<B, 4> {
        let [_, _, height, width] = input.dims();
        // Panics with the numbers if the kernel does not fit.
        self.output_size([height, width]);
        Self::forward(self, input)
    }

    fn output_size(&self, input: [usize; 2]) -> [usize; 2] {
        let Self { kernel_size: kernel, stride, dilation, padding, .. } = self;
        Geometry { kernel: *kernel, stride: *stride, dilation: *dilation, padding }.output_size(input)
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
        Geometry::of(self.config()).output_size(input)
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
