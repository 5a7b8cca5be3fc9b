//! Comparisons, and masks as numbers.

use burn_backend::ops::{BoolTensorOps, FloatTensorOps};
use burn_backend::{Scalar, Shape};
use burn_flex::{Flex, FlexTensor};
use burn_std::{BoolDType, FloatDType};

use super::arithmetic::{broadcast, is_mask, is_recorded};
use super::layout::is_supported;
use crate::buffer::Buffer;
use crate::kernels::tape::Operation;
use crate::lazy::{map, mask, numbers, ready};

/// Defines comparisons of two tensors by the operation that gives 1 where they hold, and whether the operands are swapped.
macro_rules! comparisons {
    ($($name:ident = $operation:expr, $is_swapped:expr;)*) => {
        $(pub(crate) fn $name(lhs: FlexTensor, rhs: FlexTensor, dtype: BoolDType) -> FlexTensor {
            match recorded($operation, [&lhs, &rhs], $is_swapped, dtype) {
                Some(mask) => mask,
                None => <Flex as FloatTensorOps<Flex>>::$name(ready(lhs), ready(rhs), dtype),
            }
        })*
    };
}

/// Defines the same comparisons with a number.
macro_rules! comparisons_with_number {
    ($($name:ident = $operation:expr, $is_swapped:expr;)*) => {
        $(pub(crate) fn $name(lhs: FlexTensor, rhs: Scalar, dtype: BoolDType) -> FlexTensor {
            let number = constant(rhs.elem(), lhs.layout().shape().num_dims());
            match recorded($operation, [&lhs, &number], $is_swapped, dtype) {
                Some(mask) => mask,
                None => <Flex as FloatTensorOps<Flex>>::$name(ready(lhs), rhs, dtype),
            }
        })*
    };
}

comparisons! {
    float_equal = Operation::Equal, false;
    float_not_equal = Operation::NotEqual, false;
    float_greater = Operation::Greater, false;
    float_greater_equal = Operation::GreaterEqual, false;
    float_lower = Operation::Greater, true;
    float_lower_equal = Operation::GreaterEqual, true;
}

comparisons_with_number! {
    float_equal_elem = Operation::Equal, false;
    float_not_equal_elem = Operation::NotEqual, false;
    float_greater_elem = Operation::Greater, false;
    float_greater_equal_elem = Operation::GreaterEqual, false;
    float_lower_elem = Operation::Greater, true;
    float_lower_equal_elem = Operation::GreaterEqual, true;
}

/// Records a comparison. `None` if Flex computes it.
fn recorded(
    operation: Operation,
    operands: [&FlexTensor; 2],
    is_swapped: bool,
    dtype: BoolDType,
) -> Option<FlexTensor> {
    let shape = broadcast(&operands)?;
    let is_byte = matches!(dtype, BoolDType::Native | BoolDType::U8);
    if !is_byte || !operands.iter().all(|tensor| is_supported(tensor)) || !is_recorded(&shape, &operands) {
        return None;
    }
    let mut operands = operands.map(FlexTensor::clone).to_vec();
    if is_swapped {
        operands.reverse();
    }
    Some(mask(map(operation, operands, &shape), dtype.into()))
}

pub(crate) fn bool_into_float(tensor: FlexTensor, dtype: FloatDType) -> FlexTensor {
    let shape = tensor.layout().shape().to_vec();
    if dtype != FloatDType::F32 || !is_mask(&tensor) || !is_recorded(&shape, &[]) {
        return <Flex as BoolTensorOps<Flex>>::bool_into_float(tensor, dtype);
    }
    match numbers(&tensor) {
        Some(numbers) => numbers,
        None => map(Operation::Fill(1.0), vec![tensor, constant(0.0, shape.len())], &shape),
    }
}

/// A tensor with one element and `rank` axes.
fn constant(value: f32, rank: usize) -> FlexTensor {
    // SAFETY: there is one element.
    unsafe {
        Buffer::filled(Shape::from(vec![1; rank]), |floats| {
            floats.iter_mut().for_each(|float| {
                float.write(value);
            });
        })
    }
}
