//! Matrix products and linear layers.

use burn_backend::ops::{FloatTensorOps, ModuleOps};
use burn_backend::{DType, Shape};
use burn_flex::{Flex, FlexTensor};

use super::layout::{contiguous, float_reshape, floats, is_supported};
use super::reduction::float_sum_dim;
use crate::buffer::Buffer;
use crate::kernels::product::{Matrices, Product};
use crate::kernels::simd::Level;
use crate::lazy::ready;

pub(crate) fn float_matmul(lhs: FlexTensor, rhs: FlexTensor) -> FlexTensor {
    let (lhs, rhs) = (ready(lhs), ready(rhs));
    match multiply(&lhs, &rhs, None) {
        Some(product) => product,
        None => <Flex as FloatTensorOps<Flex>>::float_matmul(lhs, rhs),
    }
}

/// Computes `x · weight + bias` of `x` `[..., inputs]`, `weight` `[inputs, outputs]` and `bias` `[outputs]`.
pub(crate) fn linear(x: FlexTensor, weight: FlexTensor, bias: Option<FlexTensor>) -> FlexTensor {
    let (x, weight, bias) = (ready(x), ready(weight), bias.map(ready));
    match multiply(&x, &weight, bias.as_ref()) {
        Some(y) => y,
        None => <Flex as ModuleOps<Flex>>::linear(x, weight, bias),
    }
}

/// Computes the gradient of `x`, `output_grad · weightᵀ`.
pub(crate) fn linear_x_backward(weight: FlexTensor, output_grad: FlexTensor) -> FlexTensor {
    let (weight, output_grad) = (ready(weight), ready(output_grad));
    if weight.layout().num_dims() == 2
        && let Some(gradient) = multiply(&output_grad, &weight.transpose(0, 1), None)
    {
        return gradient;
    }
    <Flex as ModuleOps<Flex>>::linear_x_backward(weight, output_grad)
}

/// Computes the gradient of the weight, `xᵀ · output_grad`, with the sum over all leading axes.
pub(crate) fn linear_weight_backward(x: FlexTensor, output_grad: FlexTensor) -> FlexTensor {
    let (x_shape, shape) = (x.layout().shape().to_vec(), output_grad.layout().shape().to_vec());
    let axes = x_shape.len();
    let is_matched = axes > 1 && axes == shape.len() && x_shape[..axes - 1] == shape[..axes - 1];
    if !is_matched || !is_supported(&x) || !is_supported(&output_grad) {
        return <Flex as ModuleOps<Flex>>::linear_weight_backward(ready(x), ready(output_grad));
    }
    // One row for each index of the leading axes: a view where strides allow.
    float_matmul(rows(x).transpose(0, 1), rows(output_grad))
}

/// Computes the gradient of the bias, the sum of `output_grad` over all axes but the last.
pub(crate) fn linear_bias_backward(output_grad: FlexTensor) -> FlexTensor {
    let axes = output_grad.layout().num_dims();
    if axes < 2 || !is_supported(&output_grad) {
        return <Flex as ModuleOps<Flex>>::linear_bias_backward(ready(output_grad));
    }
    let outputs = output_grad.layout().shape()[axes - 1];
    float_reshape(float_sum_dim(rows(output_grad), 0), Shape::from([outputs]))
}

/// Reshapes a tensor that is not empty to a matrix with the same last axis.
fn rows(tensor: FlexTensor) -> FlexTensor {
    let columns = tensor.layout().shape().last().copied().unwrap_or(1);
    let shape = Shape::from([tensor.layout().num_elements() / columns, columns]);
    float_reshape(tensor, shape)
}

/// Computes the product of the last two axes, with the leading axes broadcast; `None` if the kernels do not support the
/// operands.
fn multiply(lhs: &FlexTensor, rhs: &FlexTensor, bias: Option<&FlexTensor>) -> Option<FlexTensor> {
    if !is_supported(lhs) || !is_supported(rhs) {
        return None;
    }
    let [l, r] = [lhs, rhs].map(|tensor| tensor.layout().shape().to_vec());
    let (l_leading, [m, k]) = l.split_last_chunk::<2>()?;
    let (r_leading, [inner, n]) = r.split_last_chunk::<2>()?;
    if k != inner || bias.is_some_and(|bias| bias.dtype() != DType::F32 || bias.layout().shape()[..] != [*n]) {
        return None;
    }
    let axes = l_leading.len().max(r_leading.len());
    let mut shape = Vec::with_capacity(axes + 2);
    let mut batch = Vec::with_capacity(axes);
    for axis in 0..axes {
        let size = |leading: &[usize]| (axis + leading.len()).checked_sub(axes).map_or(1, |axis| leading[axis]);
        let (l_size, r_size) = (size(l_leading), size(r_leading));
        if l_size != r_size && l_size != 1 && r_size != 1 {
            return None;
        }
        let stride = |tensor: &FlexTensor, leading: &[usize], size: usize| match size {
            1 => 0,
            _ => tensor.layout().strides()[axis + leading.len() - axes],
        };
        shape.push(l_size.max(r_size));
        batch.push((l_size.max(r_size), [stride(lhs, l_leading, l_size), stride(rhs, r_leading, r_size)]));
    }
    shape.extend([*m, *n]);
    let bias = bias.cloned().map(contiguous);
    let product = Product::new(batch, [*m, *k, *n], matrices(lhs), matrices(rhs), bias.as_ref().map(floats));
    // SAFETY: the kernel writes every element.
    Some(unsafe { Buffer::filled(Shape::from(shape), |out| product.compute(Level::best(), out)) })
}

/// The matrices of the last two axes.
fn matrices(tensor: &FlexTensor) -> Matrices<'_> {
    let strides = tensor.layout().strides();
    let strides = [strides[strides.len() - 2], strides[strides.len() - 1]];
    Matrices { floats: tensor.storage(), start: tensor.layout().start_offset(), strides }
}
