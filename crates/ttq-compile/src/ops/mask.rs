//! Comparisons, and choices by masks: a mask is a value of ones and zeros.

use burn::prelude::*;
use burn::tensor::Element;
use burn_backend::tensor::{BoolTensor, FloatTensor, IntTensor};
use burn_backend::{BoolDType, FloatDType, IntDType, Scalar, TensorMetadata};
use ttq_packed::network::{Binary, Operation};

use super::{Boolean, Float, Integer, finish, float_sub, one, record};
use crate::constant::scalar;
use crate::tape::{Operand, Origin, Step, Tracked};

/// Returns a tensor as numbers, with the same origin.
fn numbers<B: Backend, T: Clone>(tensor: &Tracked<T>, convert: impl Fn(T) -> FloatTensor<B>) -> Float<B> {
    Tracked { inner: convert(tensor.inner.clone()), origin: tensor.origin.clone() }
}

fn of_float<B: Backend>(tensor: FloatTensor<B>) -> FloatTensor<B> {
    tensor
}

fn of_int<B: Backend>(tensor: IntTensor<B>) -> FloatTensor<B> {
    B::int_into_float(tensor, FloatDType::F32)
}

fn of_bool<B: Backend>(tensor: BoolTensor<B>) -> FloatTensor<B> {
    B::bool_into_float(tensor, FloatDType::F32)
}

/// An operation on numbers whose result is a mask.
fn compare<B: Backend>(
    function: Binary,
    operands: [Float<B>; 2],
    compute: impl FnOnce() -> BoolTensor<B>,
) -> Boolean<B> {
    finish(Operation::Binary(function), record::<B>(&operands), compute())
}

/// An operation on numbers and one number, in this order or reversed.
fn compare_with<B: Backend>(
    function: Binary,
    reversed: bool,
    tensor: Float<B>,
    value: Scalar,
    compute: impl FnOnce() -> BoolTensor<B>,
) -> Boolean<B> {
    let recorded = record::<B>(&[tensor]).map(|(tape, mut operands)| {
        operands.insert(usize::from(!reversed), scalar(value));
        (tape, operands)
    });
    finish(Operation::Binary(function), recorded, compute())
}

/// The opposite of a mask, which has the elements `inner`.
fn opposite<T: TensorMetadata>(mask: Origin, inner: T) -> Tracked<T> {
    let origin = match mask {
        Origin::Value(tape, index) => {
            let operands = vec![Operand::Value(index), scalar(0_f32.into())];
            tape.push(Step::Known(Operation::Binary(Binary::Equal)), operands, crate::tape::dims(&inner))
        }
        constant => constant,
    };
    Tracked { inner, origin }
}

macro_rules! comparisons {
    ($tensor:ident $convert:ident: $($method:ident $with_scalar:ident $function:ident $reversed:literal)*) => {$(
        pub(crate) fn $method<B: Backend>(lhs: $tensor<B>, rhs: $tensor<B>, dtype: BoolDType) -> Boolean<B> {
            let (a, b) = (numbers::<B, _>(&lhs, $convert::<B>), numbers::<B, _>(&rhs, $convert::<B>));
            let operands = if $reversed { [b, a] } else { [a, b] };
            compare::<B>(Binary::$function, operands, || B::$method(lhs.inner, rhs.inner, dtype))
        }

        pub(crate) fn $with_scalar<B: Backend>(lhs: $tensor<B>, rhs: Scalar, dtype: BoolDType) -> Boolean<B> {
            let a = numbers::<B, _>(&lhs, $convert::<B>);
            compare_with::<B>(Binary::$function, $reversed, a, rhs, || B::$with_scalar(lhs.inner, rhs, dtype))
        }
    )*};
}

comparisons! {
    Float of_float:
    float_equal float_equal_elem Equal false
    float_lower float_lower_elem Less false
    float_lower_equal float_lower_equal_elem LessOrEqual false
    float_greater float_greater_elem Less true
    float_greater_equal float_greater_equal_elem LessOrEqual true
}

comparisons! {
    Integer of_int:
    int_equal int_equal_elem Equal false
    int_lower int_lower_elem Less false
    int_lower_equal int_lower_equal_elem LessOrEqual false
    int_greater int_greater_elem Less true
    int_greater_equal int_greater_equal_elem LessOrEqual true
}

macro_rules! differences {
    ($tensor:ident: $($method:ident $with_scalar:ident $equal:ident $equal_with_scalar:ident)*) => {$(
        pub(crate) fn $method<B: Backend>(lhs: $tensor<B>, rhs: $tensor<B>, dtype: BoolDType) -> Boolean<B> {
            let inner = B::$method(lhs.inner.clone(), rhs.inner.clone(), dtype);
            opposite($equal::<B>(lhs, rhs, dtype).origin, inner)
        }

        pub(crate) fn $with_scalar<B: Backend>(lhs: $tensor<B>, rhs: Scalar, dtype: BoolDType) -> Boolean<B> {
            let inner = B::$with_scalar(lhs.inner.clone(), rhs, dtype);
            opposite($equal_with_scalar::<B>(lhs, rhs, dtype).origin, inner)
        }
    )*};
}

differences! { Float: float_not_equal float_not_equal_elem float_equal float_equal_elem }
differences! { Integer: int_not_equal int_not_equal_elem int_equal int_equal_elem }

/// `(0 < x) - (x < 0)`
pub(crate) fn float_sign<B: Backend>(tensor: Float<B>) -> Float<B> {
    let dtype: FloatDType = tensor.dtype().into();
    let masks: BoolDType = B::BoolElem::dtype().into();
    let positive = float_greater_elem::<B>(tensor.clone(), 0_f32.into(), masks);
    let negative = float_lower_elem::<B>(tensor, 0_f32.into(), masks);
    float_sub::<B>(bool_into_float::<B>(positive, dtype), bool_into_float::<B>(negative, dtype))
}

pub(crate) fn bool_into_float<B: Backend>(tensor: Boolean<B>, dtype: FloatDType) -> Float<B> {
    one(None, tensor, |tensor| B::bool_into_float(tensor, dtype))
}

pub(crate) fn bool_into_int<B: Backend>(tensor: Boolean<B>, dtype: IntDType) -> Integer<B> {
    one(None, tensor, |tensor| B::bool_into_int(tensor, dtype))
}

pub(crate) fn bool_not<B: Backend>(tensor: Boolean<B>) -> Boolean<B> {
    opposite(tensor.origin, B::bool_not(tensor.inner))
}

macro_rules! logic {
    ($($method:ident $function:ident)*) => {$(
        pub(crate) fn $method<B: Backend>(lhs: Boolean<B>, rhs: Boolean<B>) -> Boolean<B> {
            let operands = [numbers::<B, _>(&lhs, of_bool::<B>), numbers::<B, _>(&rhs, of_bool::<B>)];
            compare::<B>(Binary::$function, operands, || B::$method(lhs.inner, rhs.inner))
        }
    )*};
}

logic! {
    bool_and Minimum
    bool_or Maximum
    bool_equal Equal
}

pub(crate) fn bool_not_equal<B: Backend>(lhs: Boolean<B>, rhs: Boolean<B>) -> Boolean<B> {
    bool_not::<B>(bool_equal::<B>(lhs, rhs))
}

pub(crate) fn float_mask_fill<B: Backend>(tensor: Float<B>, mask: Boolean<B>, value: Scalar) -> Float<B> {
    let recorded = record::<B>(&[numbers::<B, _>(&mask, of_bool::<B>), tensor.clone()]).map(|(tape, mut operands)| {
        operands.insert(1, scalar(value));
        (tape, operands)
    });
    finish(Operation::Where, recorded, B::float_mask_fill(tensor.inner, mask.inner, value))
}

pub(crate) fn float_mask_where<B: Backend>(tensor: Float<B>, mask: Boolean<B>, value: Float<B>) -> Float<B> {
    let recorded = record::<B>(&[numbers::<B, _>(&mask, of_bool::<B>), value.clone(), tensor.clone()]);
    finish(Operation::Where, recorded, B::float_mask_where(tensor.inner, mask.inner, value.inner))
}
