//! Element-wise functions of one tensor, and arithmetic of a tensor and a scalar.

use burn_backend::Scalar;
use burn_backend::ops::FloatTensorOps;
use burn_flex::{Flex, FlexTensor};

use super::arithmetic::{float_mul, is_recorded};
use super::layout::is_supported;
use crate::kernels::tape::Operation;
use crate::lazy::{map, ready};

/// Functions of one tensor.
macro_rules! functions {
    ($($name:ident = $operation:expr;)*) => {$(
        pub(crate) fn $name(tensor: FlexTensor) -> FlexTensor {
            each($operation, tensor, <Flex as FloatTensorOps<Flex>>::$name)
        }
    )*};
}

/// Arithmetic of a tensor and a scalar.
macro_rules! functions_of_a_scalar {
    ($($name:ident = $operation:expr;)*) => {$(
        pub(crate) fn $name(lhs: FlexTensor, rhs: Scalar) -> FlexTensor {
            each($operation(rhs.elem()), lhs, |lhs| <Flex as FloatTensorOps<Flex>>::$name(lhs, rhs))
        }
    )*};
}

functions! {
    float_neg = Operation::Neg;
    float_abs = Operation::Abs;
    float_recip = Operation::Recip;
    float_sqrt = Operation::Sqrt;
    float_exp = Operation::Exp;
    float_log = Operation::Log;
    float_log1p = Operation::Log1p;
    float_tanh = Operation::Tanh;
    float_erf = Operation::Erf;
}

functions_of_a_scalar! {
    float_add_scalar = Operation::AddScalar;
    float_sub_scalar = Operation::SubScalar;
    float_mul_scalar = Operation::MulScalar;
    float_div_scalar = Operation::DivScalar;
    float_clamp_min = Operation::ClampMin;
    float_clamp_max = Operation::ClampMax;
}

pub(crate) fn float_clamp(tensor: FlexTensor, min: Scalar, max: Scalar) -> FlexTensor {
    float_clamp_max(float_clamp_min(tensor, min), max)
}

/// Powers with small integer exponents are products. `powf` computes the others.
pub(crate) fn float_powi_scalar(lhs: FlexTensor, rhs: Scalar) -> FlexTensor {
    power(lhs, rhs, |lhs| <Flex as FloatTensorOps<Flex>>::float_powi_scalar(lhs, rhs))
}

pub(crate) fn float_powf_scalar(lhs: FlexTensor, rhs: Scalar) -> FlexTensor {
    power(lhs, rhs, |lhs| <Flex as FloatTensorOps<Flex>>::float_powf_scalar(lhs, rhs))
}

fn power(lhs: FlexTensor, exponent: Scalar, flex: impl FnOnce(FlexTensor) -> FlexTensor) -> FlexTensor {
    let square = |tensor: &FlexTensor| float_mul(tensor.clone(), tensor.clone());
    match exponent.elem::<f64>() {
        _ if !is_supported(&lhs) => flex(ready(lhs)),
        1.0 => lhs,
        2.0 => square(&lhs),
        3.0 => float_mul(square(&lhs), lhs),
        4.0 => square(&square(&lhs)),
        -1.0 => float_recip(lhs),
        -2.0 => float_recip(square(&lhs)),
        0.5 => float_sqrt(lhs),
        -0.5 => float_recip(float_sqrt(lhs)),
        _ => flex(ready(lhs)),
    }
}

/// Records `operation` of each element. `flex` computes small tensors, and those that cannot be recorded. NaN does not depend
/// on which.
pub(super) fn each(
    operation: Operation,
    tensor: FlexTensor,
    flex: impl FnOnce(FlexTensor) -> FlexTensor,
) -> FlexTensor {
    let shape = tensor.layout().shape().to_vec();
    // Flex drops NaN in these, by `max` and `min`.
    let keeps_nan = matches!(operation, Operation::Relu | Operation::ClampMin(_) | Operation::ClampMax(_));
    match is_supported(&tensor) && (keeps_nan || is_recorded(&shape, &[&tensor])) {
        true => map(operation, vec![tensor], &shape),
        false => flex(ready(tensor)),
    }
}
