//! The networks of the examples in ordinary Burn code, and the training step around them.

mod classifier;
mod convolution;
mod densenet;
mod gpt;
mod mnist;
mod resnet;
mod squeezenet;

pub use classifier::{Batch, Classifier, Inputs, Network, PytorchName, TrainableNetwork};
pub use densenet::{DenseNet, DenseNetConfig};
pub use gpt::{Cache, Gpt, GptConfig};
pub use mnist::MnistNet;
pub use resnet::ResNet;
pub use squeezenet::SqueezeNet;

use burn::nn::PaddingConfig2d;
use burn::nn::conv::Conv2d;
use burn::tensor::backend::Backend;
use burn::tensor::ops::conv::calculate_conv_output_size;

/// Returns height and width of the output of a convolution with valid or symmetric padding.
fn output_size<B: Backend>(convolution: &Conv2d<B>, input: [usize; 2]) -> [usize; 2] {
    let Conv2d { kernel_size, stride, dilation, padding, .. } = convolution;
    let padding = match *padding {
        PaddingConfig2d::Explicit(top, left, ..) => [top, left],
        _ => [0, 0],
    };
    [0, 1].map(|axis| {
        calculate_conv_output_size(kernel_size[axis], stride[axis], padding[axis], dilation[axis], input[axis])
    })
}
