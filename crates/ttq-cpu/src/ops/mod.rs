//! The operations that this crate implements, as functions over tensors. Each runs the kernels for the inputs that they
//! support and passes all other inputs (other element types, empty tensors, mismatched shapes) to Flex, including those
//! for which Flex reports an error.

mod activation;
mod arithmetic;
mod comparison;
mod convolution;
mod layout;
mod product;
mod reduction;
mod scalar;

pub(crate) use activation::{gelu, gelu_backward, relu, relu_backward, sigmoid, sigmoid_backward};
pub(crate) use arithmetic::{float_add, float_div, float_mask_fill, float_mask_where, float_mul, float_sub};
pub(crate) use comparison::{
    bool_into_float, float_equal, float_equal_elem, float_greater, float_greater_elem, float_greater_equal,
    float_greater_equal_elem, float_lower, float_lower_elem, float_lower_equal, float_lower_equal_elem,
    float_not_equal, float_not_equal_elem,
};
pub(crate) use convolution::{conv1d, conv1d_weight_backward, conv1d_x_backward};
pub(crate) use convolution::{conv2d, conv2d_weight_backward, conv2d_x_backward};
pub(crate) use layout::{float_ones, float_reshape};
pub(crate) use product::{float_matmul, linear, linear_bias_backward, linear_weight_backward, linear_x_backward};
pub(crate) use reduction::{
    float_max, float_max_abs, float_max_dim, float_mean, float_mean_dim, float_min, float_sum, float_sum_dim,
};
pub(crate) use scalar::{
    float_abs, float_add_scalar, float_clamp, float_clamp_max, float_clamp_min, float_div_scalar, float_erf, float_exp,
    float_log, float_log1p, float_mul_scalar, float_neg, float_powf_scalar, float_powi_scalar, float_recip, float_sqrt,
    float_sub_scalar, float_tanh,
};

pub(crate) use crate::lazy::ready;
