//! The networks of the examples `mnist` and `cifar`.

#![allow(unreachable_pub, dead_code, reason = "the examples export and call more")]

use burn::nn::PaddingConfig2d;
use burn::nn::conv::Conv2d;
use burn::prelude::*;
use burn::tensor::ops::conv::calculate_conv_output_size;

use crate::agreement::agrees;

#[path = "../../../../examples/src/model/mnist.rs"]
mod mnist;
#[path = "../../../../examples/src/model/resnet.rs"]
mod resnet;

/// The part of the trait of the examples that their networks implement.
pub(crate) trait Network<B: Backend>: Module<B> {
    fn forward(&self, images: Tensor<B, 4>) -> Tensor<B, 2>;

    fn positions(&self, image: [usize; 2]) -> Vec<(String, usize)>;
}

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

#[test]
fn resnet_20_agrees() {
    agrees(resnet::ResNet::new(20, 10, &Default::default()), [1, 3, 32, 32], |network, x| network.forward(x));
}

#[test]
fn the_network_for_digits_agrees() {
    agrees(mnist::MnistNet::new(10, &Default::default()), [1, 1, 28, 28], |network, x| network.forward(x));
}
