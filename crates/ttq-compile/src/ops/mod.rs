//! The operations that a graph has.

mod layout;
mod mask;
mod product;

use burn::prelude::*;
use burn_backend::tensor::{BoolTensor, FloatTensor, IntTensor};
use burn_backend::{DType, FloatDType, IntDType, Scalar, TensorMetadata};
use ttq_packed::network::{Binary, Operation, Reduction, Unary};

use crate::call::Call;
use crate::constant::{narrowed, operand, scalar};
use crate::tape::{Operand, Origin, Step, Tape, Tracked, dims};

pub(crate) use layout::*;
pub(crate) use mask::*;
pub(crate) use product::*;

type Float<B> = Tracked<FloatTensor<B>>;
type Integer<B> = Tracked<IntTensor<B>>;
type Boolean<B> = Tracked<BoolTensor<B>>;

/// An operation on one tensor; none if the graph has the same value before and after.
fn one<T, U: TensorMetadata>(
    operation: Option<Operation>,
    tensor: Tracked<T>,
    compute: impl FnOnce(T) -> U,
) -> Tracked<U> {
    let result = compute(tensor.inner);
    let origin = match (tensor.origin, operation) {
        (Origin::Value(tape, index), Some(operation)) => {
            tape.push(Step::Known(operation), vec![Operand::Value(index)], dims(&result))
        }
        (origin, _) => origin,
    };
    Tracked { inner: result, origin }
}

/// Several operations on one tensor, which are one of Burn. Each has the tensor as its operand a number of times.
fn chain<T: TensorMetadata>(
    steps: Vec<(Operation, usize, Vec<usize>)>,
    tensor: Tracked<T>,
    compute: impl FnOnce(T) -> T,
) -> Tracked<T> {
    let origin = steps.into_iter().fold(tensor.origin, |origin, (operation, copies, dims)| match origin {
        Origin::Value(tape, index) => tape.push(Step::Known(operation), vec![Operand::Value(index); copies], dims),
        constant => constant,
    });
    Tracked { inner: compute(tensor.inner), origin }
}

/// An operation on float tensors.
fn many<B: Backend, const N: usize>(
    operation: Operation,
    tensors: [Float<B>; N],
    compute: impl FnOnce([FloatTensor<B>; N]) -> FloatTensor<B>,
) -> Float<B> {
    let recorded = record::<B>(&tensors);
    let inner = compute(tensors.map(|tensor| tensor.inner));
    finish(operation, recorded, inner)
}

/// Operands of an operation on the input, or the path of the first parameter.
fn record<B: Backend>(tensors: &[Float<B>]) -> Result<(Tape, Vec<Operand>), Origin> {
    let tape = tensors.iter().find_map(|tensor| match &tensor.origin {
        Origin::Value(tape, _) => Some(tape.clone()),
        Origin::Constant(_) => None,
    });
    let path = tensors.iter().find_map(|tensor| match &tensor.origin {
        Origin::Constant(path) => path.clone(),
        Origin::Value(..) => None,
    });
    let tape = tape.ok_or(Origin::Constant(path))?;
    let operands = tensors.iter().map(|tensor| operand::<B>(tensor, &tape)).collect();
    Ok((tape, operands))
}

fn finish<T: TensorMetadata>(
    operation: Operation,
    recorded: Result<(Tape, Vec<Operand>), Origin>,
    inner: T,
) -> Tracked<T> {
    let origin = match recorded {
        Ok((tape, operands)) => tape.push(Step::Known(operation), operands, dims(&inner)),
        Err(constant) => constant,
    };
    Tracked { inner, origin }
}

/// An operation on a tensor and a number.
fn with_scalar<B: Backend>(
    binary: Binary,
    tensor: Float<B>,
    value: Scalar,
    compute: impl FnOnce(FloatTensor<B>, Scalar) -> FloatTensor<B>,
) -> Float<B> {
    let recorded = record::<B>(std::slice::from_ref(&tensor)).map(|(tape, mut operands)| {
        operands.push(scalar(value));
        (tape, operands)
    });
    finish(Operation::Binary(binary), recorded, compute(tensor.inner, value))
}

macro_rules! unary {
    ($($method:ident $function:ident)*) => {$(
        pub(crate) fn $method<B: Backend>(tensor: Float<B>) -> Float<B> {
            one(Some(Operation::Unary(Unary::$function)), tensor, B::$method)
        }
    )*};
}

unary! {
    float_neg Negate
    float_recip Reciprocal
    float_exp Exp
    float_log Log
    float_sqrt Sqrt
    float_abs Abs
    float_tanh Tanh
    float_erf Erf
    relu Relu
    gelu Gelu
    sigmoid Sigmoid
}

macro_rules! binary {
    ($($method:ident $with_scalar:ident $function:ident)*) => {$(
        pub(crate) fn $method<B: Backend>(lhs: Float<B>, rhs: Float<B>) -> Float<B> {
            many::<B, 2>(Operation::Binary(Binary::$function), [lhs, rhs], |[lhs, rhs]| B::$method(lhs, rhs))
        }

        pub(crate) fn $with_scalar<B: Backend>(lhs: Float<B>, rhs: Scalar) -> Float<B> {
            with_scalar::<B>(Binary::$function, lhs, rhs, B::$with_scalar)
        }
    )*};
}

binary! {
    float_add float_add_scalar Add
    float_sub float_sub_scalar Subtract
    float_mul float_mul_scalar Multiply
    float_div float_div_scalar Divide
}

macro_rules! reductions {
    ($($method:ident $function:ident)*) => {$(
        pub(crate) fn $method<B: Backend>(tensor: Float<B>, dim: usize) -> Float<B> {
            let operation = Operation::Reduce { function: Reduction::$function, axes: vec![dim] };
            one(Some(operation), tensor, |tensor| B::$method(tensor, dim))
        }
    )*};
}

reductions! {
    float_sum_dim Sum
    float_mean_dim Mean
    float_max_dim Max
    float_min_dim Min
}

/// The elements are zeros: uninitialized ones would differ between the runs.
pub(crate) fn float_empty<B: Backend>(shape: Shape, device: &B::Device, dtype: FloatDType) -> Float<B> {
    Tracked::constant(B::float_zeros(shape, device, dtype))
}

pub(crate) fn float_detach<B: Backend>(tensor: Float<B>) -> Float<B> {
    one(None, tensor, B::float_detach)
}

pub(crate) fn float_set_require_grad<B: Backend>(tensor: Float<B>, require_grad: bool) -> Float<B> {
    one(None, tensor, |tensor| B::float_set_require_grad(tensor, require_grad))
}

pub(crate) fn float_is_require_grad<B: Backend>(tensor: &Float<B>) -> bool {
    B::float_is_require_grad(&tensor.inner)
}

/// All values of a graph are numbers in float32.
pub(crate) fn float_cast<B: Backend>(tensor: Float<B>, dtype: FloatDType) -> Float<B> {
    one(None, tensor, |tensor| B::float_cast(tensor, dtype))
}

/// A cast to a type that lacks values of the other one changes them, and a graph has no operation for that. (Values beyond 32
/// bits are not exact in float32 anyway.)
pub(crate) fn int_cast<B: Backend>(tensor: Integer<B>, dtype: IntDType) -> Integer<B> {
    let (from, to): (DType, DType) = (tensor.inner.dtype(), dtype.into());
    let is_unsigned = |dtype: DType| matches!(dtype, DType::U8 | DType::U16 | DType::U32 | DType::U64);
    let bits = |dtype: DType| if is_unsigned(dtype) { 8 * dtype.size() } else { 8 * dtype.size() - 1 };
    let keeps_sign = is_unsigned(from) || !is_unsigned(to);
    if keeps_sign && bits(to) >= bits(from).min(31) {
        return one(None, tensor, |tensor| B::int_cast(tensor, dtype));
    }
    let call = Call::new("int_cast to a smaller type");
    let tensor = call.argument(tensor);
    call.result(B::int_cast(tensor, dtype))
}

pub(crate) fn int_into_float<B: Backend>(tensor: Integer<B>, dtype: FloatDType) -> Float<B> {
    one(None, tensor, |tensor| B::int_into_float(tensor, dtype))
}

/// The positions of elements have a shape that depends on the elements.
pub(crate) fn bool_argwhere<B: Backend>(
    tensor: Boolean<B>,
    dtype: IntDType,
) -> impl Future<Output = Integer<B>> + 'static + Send {
    let call = Call::new("bool_argwhere");
    let future = B::bool_argwhere(call.taken(tensor), dtype);
    async move { Tracked::constant(future.await) }
}

pub(crate) fn float_powf<B: Backend>(lhs: Float<B>, rhs: Float<B>) -> Float<B> {
    many::<B, 2>(Operation::Binary(Binary::Power), [lhs, rhs], |[lhs, rhs]| B::float_powf(lhs, rhs))
}

pub(crate) fn float_powf_scalar<B: Backend>(tensor: Float<B>, value: Scalar) -> Float<B> {
    match value.elem::<f64>() {
        1.0 => tensor,
        2.0 => float_mul::<B>(tensor.clone(), tensor),
        0.5 => float_sqrt::<B>(tensor),
        -1.0 => float_recip::<B>(tensor),
        _ => with_scalar::<B>(Binary::Power, tensor, value, B::float_powf_scalar),
    }
}

pub(crate) fn float_powi_scalar<B: Backend>(tensor: Float<B>, value: Scalar) -> Float<B> {
    float_powf_scalar::<B>(tensor, value)
}

pub(crate) fn float_clamp_min<B: Backend>(tensor: Float<B>, min: Scalar) -> Float<B> {
    with_scalar::<B>(Binary::Maximum, tensor, min, B::float_clamp_min)
}

pub(crate) fn float_clamp_max<B: Backend>(tensor: Float<B>, max: Scalar) -> Float<B> {
    with_scalar::<B>(Binary::Minimum, tensor, max, B::float_clamp_max)
}

pub(crate) fn float_clamp<B: Backend>(tensor: Float<B>, min: Scalar, max: Scalar) -> Float<B> {
    let operation = Operation::Unary(Unary::Clamp([min, max].map(|limit| narrowed(limit.elem()))));
    one(Some(operation), tensor, |tensor| B::float_clamp(tensor, min, max))
}

pub(crate) fn float_log1p<B: Backend>(tensor: Float<B>) -> Float<B> {
    float_log::<B>(float_add_scalar::<B>(tensor, 1_f32.into()))
}

pub(crate) fn leaky_relu<B: Backend>(tensor: Float<B>, slope: Scalar) -> Float<B> {
    let operation = Operation::Unary(Unary::LeakyRelu(slope.elem()));
    one(Some(operation), tensor, |tensor| B::leaky_relu(tensor, slope))
}

/// `max(x, 0) + alpha min(x, 0)`
pub(crate) fn prelu<B: Backend>(tensor: Float<B>, alpha: Float<B>) -> Float<B> {
    let negative = float_clamp_max::<B>(tensor.clone(), 0_f32.into());
    float_add::<B>(relu::<B>(tensor), float_mul::<B>(negative, alpha))
}

/// `min(x, 0) - log(1 + exp(-|x|))`
pub(crate) fn log_sigmoid<B: Backend>(tensor: Float<B>) -> Float<B> {
    let tail = float_exp::<B>(float_neg::<B>(float_abs::<B>(tensor.clone())));
    float_sub::<B>(float_clamp_max::<B>(tensor, 0_f32.into()), float_log1p::<B>(tail))
}

pub(crate) fn softmax<B: Backend>(tensor: Float<B>, dim: usize) -> Float<B> {
    one(Some(Operation::Softmax(dim)), tensor, |tensor| B::softmax(tensor, dim))
}
