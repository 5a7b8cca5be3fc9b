//! The operations that this crate implements, as functions over tensors. Each runs the kernels for the inputs that they
//! support and passes all other inputs (other element types, empty tensors, mismatched shapes) to Flex, including those
//! for which Flex reports an error.

mod activation;
mod arithmetic;
mod convolution;
mod layout;
mod reduction;
mod scalar;

pub(crate) use activation::{relu, relu_backward};
pub(crate) use arithmetic::{float_add, float_div, float_mul, float_sub};
pub(crate) use convolution::{conv2d, conv2d_weight_backward, conv2d_x_backward};
pub(crate) use layout::{float_ones, float_reshape};
pub(crate) use reduction::{float_mean, float_mean_dim, float_sum, float_sum_dim};
pub(crate) use scalar::{float_add_scalar, float_div_scalar, float_mul_scalar, float_neg, float_sub_scalar};
