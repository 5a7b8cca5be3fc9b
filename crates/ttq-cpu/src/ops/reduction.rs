//! Sums and means.

use burn_backend::Shape;
use burn_backend::ops::FloatTensorOps;
use burn_flex::{Flex, FlexTensor};

use super::layout::{contiguous, floats, is_supported};
use crate::buffer::Buffer;
use crate::kernels::reduce;

pub(crate) fn float_sum(tensor: FlexTensor) -> FlexTensor {
    if !is_supported(&tensor) {
        return <Flex as FloatTensorOps<Flex>>::float_sum(tensor);
    }
    scalar(reduce::sum(floats(&contiguous(tensor))))
}

pub(crate) fn float_mean(tensor: FlexTensor) -> FlexTensor {
    if !is_supported(&tensor) {
        return <Flex as FloatTensorOps<Flex>>::float_mean(tensor);
    }
    let n = tensor.layout().num_elements();
    scalar(reduce::sum(floats(&contiguous(tensor))) / n as f32)
}

/// A tensor of shape `[1]`.
fn scalar(value: f32) -> FlexTensor {
    // SAFETY: the only float is written.
    unsafe {
        Buffer::filled(Shape::from([1]), |out| {
            out[0].write(value);
        })
    }
}

pub(crate) fn float_sum_dim(tensor: FlexTensor, dim: usize) -> FlexTensor {
    if !is_supported(&tensor) || dim >= tensor.layout().num_dims() {
        return <Flex as FloatTensorOps<Flex>>::float_sum_dim(tensor, dim);
    }
    sum_axis(tensor, dim, 1.0)
}

pub(crate) fn float_mean_dim(tensor: FlexTensor, dim: usize) -> FlexTensor {
    if !is_supported(&tensor) || dim >= tensor.layout().num_dims() {
        return <Flex as FloatTensorOps<Flex>>::float_mean_dim(tensor, dim);
    }
    let len = tensor.layout().shape()[dim];
    sum_axis(tensor, dim, 1.0 / len as f32)
}

fn sum_axis(tensor: FlexTensor, dim: usize, factor: f32) -> FlexTensor {
    let tensor = contiguous(tensor);
    let mut shape = tensor.layout().shape().to_vec();
    let (len, inner) = (shape[dim], shape[dim + 1..].iter().product());
    shape[dim] = 1;
    // SAFETY: the kernel writes one sum for each index of the other axes.
    unsafe { Buffer::filled(Shape::from(shape), |out| reduce::sum_axis(floats(&tensor), [len, inner], factor, out)) }
}
