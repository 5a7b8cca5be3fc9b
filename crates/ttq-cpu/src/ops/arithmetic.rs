//! Element-wise operations of two or three tensors, with broadcasting.

use std::sync::LazyLock;

use burn_backend::DType;
use burn_backend::ops::FloatTensorOps;
use burn_backend::{Scalar, TensorMetadata};
use burn_flex::{Flex, FlexTensor};

use super::layout::is_supported;
use crate::kernels::tape::Operation;
use crate::lazy::{Node, map, numbers, ready};

/// Results with fewer elements are computed at once by Flex, unless an operand is pending: recording takes longer.
/// Tests set `TTQ_CPU_MIN_RECORDED` to 1, so that operations of small tensors are recorded too.
static MIN_RECORDED: LazyLock<usize> = LazyLock::new(|| {
    let set = std::env::var("TTQ_CPU_MIN_RECORDED").ok().and_then(|value| value.parse().ok());
    set.unwrap_or(1 << 10)
});

type Binary = fn(FlexTensor, FlexTensor) -> FlexTensor;

pub(crate) fn float_add(lhs: FlexTensor, rhs: FlexTensor) -> FlexTensor {
    combine(Operation::Add, lhs, rhs, <Flex as FloatTensorOps<Flex>>::float_add)
}

pub(crate) fn float_sub(lhs: FlexTensor, rhs: FlexTensor) -> FlexTensor {
    combine(Operation::Sub, lhs, rhs, <Flex as FloatTensorOps<Flex>>::float_sub)
}

pub(crate) fn float_mul(lhs: FlexTensor, rhs: FlexTensor) -> FlexTensor {
    combine(Operation::Mul, lhs, rhs, <Flex as FloatTensorOps<Flex>>::float_mul)
}

pub(crate) fn float_div(lhs: FlexTensor, rhs: FlexTensor) -> FlexTensor {
    combine(Operation::Div, lhs, rhs, <Flex as FloatTensorOps<Flex>>::float_div)
}

/// Records `operation` of each pair of elements; axes of size 1 are broadcast. `flex` computes small results, and inputs
/// that cannot be recorded.
pub(super) fn combine(operation: Operation, lhs: FlexTensor, rhs: FlexTensor, flex: Binary) -> FlexTensor {
    match broadcast(&[&lhs, &rhs]) {
        Some(shape) if is_supported(&lhs) && is_supported(&rhs) && is_recorded(&shape, &[&lhs, &rhs]) => {
            map(operation, vec![lhs, rhs], &shape)
        }
        _ => flex(ready(lhs), ready(rhs)),
    }
}

/// Returns whether an operation with a result of `shape` is recorded.
pub(super) fn is_recorded(shape: &[usize], operands: &[&FlexTensor]) -> bool {
    shape.iter().product::<usize>() >= *MIN_RECORDED || operands.iter().any(|tensor| Node::pending(tensor).is_some())
}

/// Shape of the result; `None` if the shapes cannot be broadcast.
pub(super) fn broadcast(tensors: &[&FlexTensor]) -> Option<Vec<usize>> {
    let mut shape = tensors[0].layout().shape().to_vec();
    for tensor in &tensors[1..] {
        let other = tensor.layout().shape();
        if other.num_dims() != shape.len() {
            return None;
        }
        for (size, other) in shape.iter_mut().zip(other.iter()) {
            match (*size, *other) {
                (own, other) if own == other || other == 1 => {}
                (1, other) => *size = other,
                _ => return None,
            }
        }
    }
    Some(shape)
}

pub(crate) fn float_mask_where(tensor: FlexTensor, mask: FlexTensor, value: FlexTensor) -> FlexTensor {
    match broadcast(&[&mask, &value, &tensor]) {
        Some(shape)
            if is_supported(&tensor)
                && is_supported(&value)
                && is_mask(&mask)
                && is_recorded(&shape, &[&tensor, &value]) =>
        {
            map(Operation::Select, vec![selector(mask), value, tensor], &shape)
        }
        _ => <Flex as FloatTensorOps<Flex>>::float_mask_where(ready(tensor), mask, ready(value)),
    }
}

pub(crate) fn float_mask_fill(tensor: FlexTensor, mask: FlexTensor, value: Scalar) -> FlexTensor {
    match broadcast(&[&mask, &tensor]) {
        Some(shape) if is_supported(&tensor) && is_mask(&mask) && is_recorded(&shape, &[&tensor]) => {
            map(Operation::Fill(value.elem()), vec![selector(mask), tensor], &shape)
        }
        _ => <Flex as FloatTensorOps<Flex>>::float_mask_fill(ready(tensor), mask, value),
    }
}

/// Returns the tensor that is read in place of a mask.
fn selector(mask: FlexTensor) -> FlexTensor {
    numbers(&mask).unwrap_or(mask)
}

/// Returns whether the kernels read the elements: bytes that are 0 or 1.
pub(super) fn is_mask(tensor: &FlexTensor) -> bool {
    use burn_std::BoolStore::{Native, U8};
    matches!(tensor.dtype(), DType::Bool(Native | U8)) && tensor.shape().num_elements() > 0
}
