//! Element-wise functions of one tensor, and arithmetic of a tensor and a scalar.

use burn_backend::ops::FloatTensorOps;
use burn_backend::{Scalar, Shape};
use burn_flex::{Flex, FlexTensor, Layout};

use super::layout::{contiguous, floats, is_supported};
use crate::buffer::Buffer;
use crate::kernels::elementwise;

pub(crate) fn float_add_scalar(lhs: FlexTensor, rhs: Scalar) -> FlexTensor {
    let scalar = rhs.elem::<f32>();
    map(lhs, |x| x + scalar, |lhs| <Flex as FloatTensorOps<Flex>>::float_add_scalar(lhs, rhs))
}

pub(crate) fn float_sub_scalar(lhs: FlexTensor, rhs: Scalar) -> FlexTensor {
    let scalar = rhs.elem::<f32>();
    map(lhs, |x| x - scalar, |lhs| <Flex as FloatTensorOps<Flex>>::float_sub_scalar(lhs, rhs))
}

pub(crate) fn float_mul_scalar(lhs: FlexTensor, rhs: Scalar) -> FlexTensor {
    let scalar = rhs.elem::<f32>();
    map(lhs, |x| x * scalar, |lhs| <Flex as FloatTensorOps<Flex>>::float_mul_scalar(lhs, rhs))
}

pub(crate) fn float_div_scalar(lhs: FlexTensor, rhs: Scalar) -> FlexTensor {
    let scalar = rhs.elem::<f32>();
    map(lhs, |x| x / scalar, |lhs| <Flex as FloatTensorOps<Flex>>::float_div_scalar(lhs, rhs))
}

pub(crate) fn float_neg(tensor: FlexTensor) -> FlexTensor {
    map(tensor, |x| -x, <Flex as FloatTensorOps<Flex>>::float_neg)
}

/// Computes `f` of each element, in place if the tensor is not shared. `flex` computes inputs that the kernels do not
/// support.
pub(super) fn map(
    tensor: FlexTensor,
    f: impl Fn(f32) -> f32 + Sync,
    flex: impl FnOnce(FlexTensor) -> FlexTensor,
) -> FlexTensor {
    if !is_supported(&tensor) {
        return flex(tensor);
    }
    let (shape, strides) = (tensor.layout().shape().clone(), tensor.layout().strides().to_vec());
    let is_expanded = |axis: usize| strides[axis] == 0 && shape[axis] > 1;
    if !(0..shape.num_dims()).any(is_expanded) {
        return map_contiguous(contiguous(tensor), f);
    }
    // The result is constant along expanded axes: it is computed once and expanded.
    let distinct: Vec<usize> =
        (0..shape.num_dims()).map(|axis| if is_expanded(axis) { 1 } else { shape[axis] }).collect();
    let start = tensor.layout().start_offset();
    let once = tensor.with_layout(Layout::new(Shape::from(distinct), strides.clone(), start));
    let result = map_contiguous(contiguous(once), f);
    let expanded =
        (0..shape.num_dims()).map(|axis| if is_expanded(axis) { 0 } else { result.layout().strides()[axis] });
    let layout = Layout::new(shape.clone(), expanded.collect(), result.layout().start_offset());
    result.with_layout(layout)
}

fn map_contiguous(mut tensor: FlexTensor, f: impl Fn(f32) -> f32 + Sync) -> FlexTensor {
    if tensor.is_unique()
        && let Some((0, n)) = tensor.layout().contiguous_offsets()
    {
        elementwise::map_in_place(&mut tensor.storage_mut()[..n], f);
        return tensor;
    }
    let shape = tensor.layout().shape().clone();
    // SAFETY: the kernel writes as many elements as it reads.
    unsafe { Buffer::filled(shape, |out| elementwise::map(floats(&tensor), out, f)) }
}
