//! The operations that are computed in 16 bits.

use burn_backend::ops::{ConvOptions, ConvTransposeOptions};
use burn_backend::tensor::FloatTensor;
use burn_backend::{Backend, Shape, TensorMetadata};

use crate::Half;
use crate::product::{is_cast, product, to_half};

pub(crate) fn float_matmul<B: Backend, P: Half>(lhs: FloatTensor<B>, rhs: FloatTensor<B>) -> FloatTensor<B> {
    if !is_cast::<B>(&lhs, &rhs) {
        return B::float_matmul(lhs, rhs);
    }
    let shape = lhs.shape();
    let terms = shape[shape.num_dims() - 1];
    product::<B, P>(lhs, rhs, terms, B::float_matmul)
}

/// Defines a convolution and its gradients.
macro_rules! convolution {
    ($axes:literal, $forward:ident, $x_backward:ident, $weight_backward:ident) => {
        pub(crate) fn $forward<B: Backend, P: Half>(
            x: FloatTensor<B>,
            weight: FloatTensor<B>,
            bias: Option<FloatTensor<B>>,
            options: ConvOptions<$axes>,
        ) -> FloatTensor<B> {
            if !is_cast::<B>(&x, &weight) {
                return B::$forward(x, weight, bias, options);
            }
            let terms = elements_without::<B>(&weight, 0);
            let y = product::<B, P>(x, weight, terms, |x, weight| B::$forward(x, weight, None, options));
            with_bias::<B>(y, bias)
        }

        pub(crate) fn $x_backward<B: Backend, P: Half>(
            x: FloatTensor<B>,
            weight: FloatTensor<B>,
            output_grad: FloatTensor<B>,
            options: ConvOptions<$axes>,
        ) -> FloatTensor<B> {
            if !is_cast::<B>(&weight, &output_grad) {
                return B::$x_backward(x, weight, output_grad, options);
            }
            let terms = elements_without::<B>(&weight, 1);
            // `x` is only used for its shape.
            product::<B, P>(weight, output_grad, terms, |weight, grad| B::$x_backward(x, weight, grad, options))
        }

        pub(crate) fn $weight_backward<B: Backend, P: Half>(
            x: FloatTensor<B>,
            weight: FloatTensor<B>,
            output_grad: FloatTensor<B>,
            options: ConvOptions<$axes>,
        ) -> FloatTensor<B> {
            if !is_cast::<B>(&x, &output_grad) {
                return B::$weight_backward(x, weight, output_grad, options);
            }
            let terms = elements_without::<B>(&output_grad, 1);
            // `weight` is only used for its shape and, with several groups, for its type.
            let weight = to_half::<B, P>(weight);
            product::<B, P>(x, output_grad, terms, |x, grad| B::$weight_backward(x, weight, grad, options))
        }
    };
}

convolution!(1, conv1d, conv1d_x_backward, conv1d_weight_backward);
convolution!(2, conv2d, conv2d_x_backward, conv2d_weight_backward);
convolution!(3, conv3d, conv3d_x_backward, conv3d_weight_backward);

/// Defines a transposed convolution. Burn computes its gradients with convolutions.
macro_rules! transposed_convolution {
    ($axes:literal, $forward:ident) => {
        pub(crate) fn $forward<B: Backend, P: Half>(
            x: FloatTensor<B>,
            weight: FloatTensor<B>,
            bias: Option<FloatTensor<B>>,
            options: ConvTransposeOptions<$axes>,
        ) -> FloatTensor<B> {
            if !is_cast::<B>(&x, &weight) {
                return B::$forward(x, weight, bias, options);
            }
            let terms = elements_without::<B>(&weight, 1);
            let y = product::<B, P>(x, weight, terms, |x, weight| B::$forward(x, weight, None, options));
            with_bias::<B>(y, bias)
        }
    };
}

transposed_convolution!(1, conv_transpose1d);
transposed_convolution!(2, conv_transpose2d);
transposed_convolution!(3, conv_transpose3d);

/// Number of elements for one index of an axis.
fn elements_without<B: Backend>(tensor: &FloatTensor<B>, axis: usize) -> usize {
    let shape = tensor.shape();
    shape.num_elements() / shape[axis].max(1)
}

/// Adds a bias `[channels]` to `y`, whose axis 1 holds the channels.
fn with_bias<B: Backend>(y: FloatTensor<B>, bias: Option<FloatTensor<B>>) -> FloatTensor<B> {
    let Some(bias) = bias else { return y };
    let mut shape = vec![1; y.shape().num_dims()];
    shape[1] = bias.shape()[0];
    B::float_add(y, B::float_reshape(bias, Shape::from(shape)))
}
