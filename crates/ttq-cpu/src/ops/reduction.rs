//! Sums, means, maxima and minima.

use burn_backend::ops::FloatTensorOps;
use burn_backend::{Shape, TensorMetadata};
use burn_flex::{Flex, FlexTensor, Layout};

use super::arithmetic::is_recorded;
use super::layout::{contiguous, is_supported};
use super::scalar::{float_abs, float_neg};
use crate::kernels::tape::Reduction;
use crate::lazy::{ready, reduce};

pub(crate) fn float_sum(tensor: FlexTensor) -> FlexTensor {
    over_all(tensor, Reduction::Sum, false, <Flex as FloatTensorOps<Flex>>::float_sum)
}

pub(crate) fn float_mean(tensor: FlexTensor) -> FlexTensor {
    over_all(tensor, Reduction::Sum, true, <Flex as FloatTensorOps<Flex>>::float_mean)
}

pub(crate) fn float_max(tensor: FlexTensor) -> FlexTensor {
    over_all(tensor, Reduction::Max, false, <Flex as FloatTensorOps<Flex>>::float_max)
}

pub(crate) fn float_min(tensor: FlexTensor) -> FlexTensor {
    float_neg(float_max(float_neg(tensor)))
}

pub(crate) fn float_max_abs(tensor: FlexTensor) -> FlexTensor {
    float_max(float_abs(tensor))
}

pub(crate) fn float_sum_dim(tensor: FlexTensor, dim: usize) -> FlexTensor {
    over_axis(tensor, dim, Reduction::Sum, false, <Flex as FloatTensorOps<Flex>>::float_sum_dim)
}

pub(crate) fn float_mean_dim(tensor: FlexTensor, dim: usize) -> FlexTensor {
    over_axis(tensor, dim, Reduction::Sum, true, <Flex as FloatTensorOps<Flex>>::float_mean_dim)
}

pub(crate) fn float_max_dim(tensor: FlexTensor, dim: usize) -> FlexTensor {
    over_axis(tensor, dim, Reduction::Max, false, <Flex as FloatTensorOps<Flex>>::float_max_dim)
}

/// Records a reduction to a tensor of shape `[1]`.
fn over_all(tensor: FlexTensor, reduction: Reduction, is_mean: bool, flex: fn(FlexTensor) -> FlexTensor) -> FlexTensor {
    let shape = tensor.shape();
    if !records(&tensor, reduction) {
        // Flex reduces the memory of a view that has as many elements.
        return flex(contiguous(tensor));
    }
    let axes: Vec<usize> = (0..shape.num_dims()).collect();
    let result = reduce(tensor, &axes, reduction, factor(is_mean, shape.num_elements()));
    let start = result.layout().start_offset();
    result.with_layout(Layout::new(Shape::from([1]), vec![1], start))
}

/// Records a reduction over one axis.
fn over_axis(
    tensor: FlexTensor,
    dim: usize,
    reduction: Reduction,
    is_mean: bool,
    flex: fn(FlexTensor, usize) -> FlexTensor,
) -> FlexTensor {
    let shape = tensor.shape();
    if dim >= shape.num_dims() || !records(&tensor, reduction) {
        return flex(ready(tensor), dim);
    }
    let n = shape[dim];
    reduce(tensor, &[dim], reduction, factor(is_mean, n))
}

/// Returns whether a reduction is recorded: maxima of any size, since Flex drops NaN.
fn records(tensor: &FlexTensor, reduction: Reduction) -> bool {
    let is_recorded = reduction == Reduction::Max || is_recorded(&tensor.shape(), &[tensor]);
    is_recorded && is_supported(tensor) && !has_negative_strides(tensor)
}

fn factor(is_mean: bool, n: usize) -> f64 {
    if is_mean { 1.0 / n as f64 } else { 1.0 }
}

fn has_negative_strides(tensor: &FlexTensor) -> bool {
    tensor.layout().strides().iter().any(|stride| *stride < 0)
}
