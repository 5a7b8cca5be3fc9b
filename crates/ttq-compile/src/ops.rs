//! The operations that a graph has.

use burn::prelude::*;
use burn::tensor::Slice;
use burn_backend::ops::{AttentionModuleOptions, ConvOptions, attention};
use burn_backend::tensor::{BoolTensor, Device, FloatTensor, IntTensor};
use burn_backend::{FloatDType, IntDType, Scalar, Shape, TensorMetadata};
use ttq_packed::kernels::ConvolutionOptions;
use ttq_packed::network::{Binary, Operation, Reduction, Unary, Window};

use crate::Capture;
use crate::call::Call;
use crate::constant::{operand, read, scalar};
use crate::tape::{Operand, Origin, Step, Tape, Tracked, dims};

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
    finish::<B>(operation, recorded, inner)
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

fn finish<B: Backend>(
    operation: Operation,
    recorded: Result<(Tape, Vec<Operand>), Origin>,
    inner: FloatTensor<B>,
) -> Float<B> {
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
        operands.push(scalar(value.elem()));
        (tape, operands)
    });
    finish::<B>(Operation::Binary(binary), recorded, compute(tensor.inner, value))
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

macro_rules! of_kind {
    ($tensor:ident $primitive:ident: $device:ident $to_device:ident $reshape:ident $permute:ident $swap_dims:ident
        $transpose:ident $slice:ident) => {
        pub(crate) fn $device<B: Backend>(tensor: &$tensor<B>) -> Device<B> {
            B::$device(&tensor.inner)
        }

        pub(crate) fn $to_device<B: Backend>(tensor: $tensor<B>, device: &Device<B>) -> $tensor<B> {
            one(None, tensor, |tensor| B::$to_device(tensor, device))
        }

        pub(crate) fn $reshape<B: Backend>(tensor: $tensor<B>, shape: Shape) -> $tensor<B> {
            one(Some(Operation::Reshape(Vec::new())), tensor, |tensor| B::$reshape(tensor, shape))
        }

        pub(crate) fn $permute<B: Backend>(tensor: $tensor<B>, axes: &[usize]) -> $tensor<B> {
            one(Some(Operation::Permute(axes.into())), tensor, |tensor| B::$permute(tensor, axes))
        }

        pub(crate) fn $swap_dims<B: Backend>(tensor: $tensor<B>, dim1: usize, dim2: usize) -> $tensor<B> {
            let mut axes: Vec<usize> = (0..tensor.dims().len()).collect();
            axes.swap(dim1, dim2);
            one(Some(Operation::Permute(axes)), tensor, |tensor| B::$swap_dims(tensor, dim1, dim2))
        }

        pub(crate) fn $transpose<B: Backend>(tensor: $tensor<B>) -> $tensor<B> {
            match tensor.dims().len() {
                rank @ 2.. => $swap_dims::<B>(tensor, rank - 2, rank - 1),
                _ => tensor,
            }
        }

        pub(crate) fn $slice<B: Backend>(tensor: $tensor<B>, slices: &[Slice]) -> $tensor<B> {
            if slices.iter().any(|slice| slice.step < 1) {
                let call = Call::new(stringify!($slice));
                let result: $primitive<B> = B::$slice(call.argument(tensor), slices);
                return call.result(result);
            }
            let mut dims = tensor.dims();
            let mut steps = Vec::new();
            for (axis, slice) in slices.iter().enumerate() {
                let (range, step) = slice.to_range_and_step(dims[axis]);
                let (start, end, step) = (range.start, range.end, step.unsigned_abs());
                if start > 0 || end < dims[axis] || step > 1 {
                    dims[axis] = end.saturating_sub(start).div_ceil(step);
                    steps.push((Operation::Slice { axis, start, end, step }, 1, dims.clone()));
                }
            }
            chain(steps, tensor, |tensor| B::$slice(tensor, slices))
        }
    };
}

of_kind!(Float FloatTensor: float_device float_to_device float_reshape float_permute float_swap_dims float_transpose float_slice);
of_kind!(Integer IntTensor: int_device int_to_device int_reshape int_permute int_swap_dims int_transpose int_slice);

pub(crate) fn bool_device<B: Backend>(tensor: &Boolean<B>) -> Device<B> {
    B::bool_device(&tensor.inner)
}

pub(crate) fn bool_to_device<B: Backend>(tensor: Boolean<B>, device: &Device<B>) -> Boolean<B> {
    one(None, tensor, |tensor| B::bool_to_device(tensor, device))
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

pub(crate) fn int_cast<B: Backend>(tensor: Integer<B>, dtype: IntDType) -> Integer<B> {
    one(None, tensor, |tensor| B::int_cast(tensor, dtype))
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
    let operation = Operation::Unary(Unary::Clamp([min.elem(), max.elem()]));
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

/// A product with a constant matrix is a linear layer.
pub(crate) fn float_matmul<B: Backend>(lhs: Float<B>, rhs: Float<B>) -> Float<B> {
    let dims = rhs.dims();
    let [leading @ .., rows, columns] = &*dims else {
        return many::<B, 2>(Operation::MatrixProduct, [lhs, rhs], |[lhs, rhs]| B::float_matmul(lhs, rhs));
    };
    let is_matrix = !lhs.is_constant() && rhs.is_constant() && leading.iter().all(|size| *size == 1);
    if !is_matrix {
        return many::<B, 2>(Operation::MatrixProduct, [lhs, rhs], |[lhs, rhs]| B::float_matmul(lhs, rhs));
    }
    let matrix = float_reshape::<B>(rhs.clone(), Shape::new([*rows, *columns]));
    many::<B, 2>(Operation::Linear, [lhs, matrix], |[lhs, _]| B::float_matmul(lhs, rhs.inner))
}

pub(crate) fn linear<B: Backend>(x: Float<B>, weight: Float<B>, bias: Option<Float<B>>) -> Float<B> {
    let constants = weight.is_constant() && bias.as_ref().is_none_or(Tracked::is_constant);
    match bias {
        _ if !constants => {
            let call = Call::new("linear");
            let bias = call.argument(bias);
            call.result(B::linear(call.argument(x), call.argument(weight), bias))
        }
        Some(bias) => many::<B, 3>(Operation::Linear, [x, weight, bias], |[x, weight, bias]| {
            B::linear(x, weight, Some(bias))
        }),
        None => many::<B, 2>(Operation::Linear, [x, weight], |[x, weight]| B::linear(x, weight, None)),
    }
}

pub(crate) fn conv2d<B: Backend>(
    x: Float<B>,
    weight: Float<B>,
    bias: Option<Float<B>>,
    options: ConvOptions<2>,
) -> Float<B> {
    let ConvOptions { stride, padding, dilation, groups } = options.clone();
    let padding = padding.map(|padding| [padding; 2]);
    let operation = Operation::Convolution(ConvolutionOptions { stride, padding, dilation, groups });
    match bias {
        Some(bias) => many::<B, 3>(operation, [x, weight, bias], |[x, weight, bias]| {
            B::conv2d(x, weight, Some(bias), options)
        }),
        None => many::<B, 2>(operation, [x, weight], |[x, weight]| B::conv2d(x, weight, None, options)),
    }
}

/// Returns the window of a pooling operation. Where Burn rounds the size of the output up, it has more padding at the end.
fn window(x: &[usize], output: &[usize], size: [usize; 2], stride: [usize; 2], padding: [usize; 2]) -> Window {
    let [height, width] = [0, 1].map(|i| {
        let (x, output) = (x[x.len() - 2 + i], output[output.len() - 2 + i]);
        let reach = (output.saturating_sub(1) * stride[i] + size[i]).saturating_sub(x + padding[i]);
        [padding[i], reach.max(padding[i])]
    });
    Window { size, stride, padding: [height, width] }
}

pub(crate) fn max_pool2d<B: Backend>(
    x: Float<B>,
    size: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
    ceil_mode: bool,
) -> Float<B> {
    let compute = |x| B::max_pool2d(x, size, stride, padding, dilation, ceil_mode);
    if dilation != [1, 1] {
        let call = Call::new("max_pool2d with dilation");
        return call.result(compute(call.argument(x)));
    }
    pool::<B>(x, compute, |x, output| Some(Operation::MaxPool(window(x, output, size, stride, padding))))
}

pub(crate) fn avg_pool2d<B: Backend>(
    x: Float<B>,
    size: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    count_padding: bool,
    ceil_mode: bool,
) -> Float<B> {
    let compute = |x| B::avg_pool2d(x, size, stride, padding, count_padding, ceil_mode);
    pool::<B>(x, compute, |x, output| {
        let window = window(x, output, size, stride, padding);
        // Burn counts the padding, but not what rounding adds to it.
        let symmetric = window.padding.iter().all(|[before, after]| before == after);
        (symmetric || !count_padding).then_some(Operation::AveragePool { window, count_padding })
    })
}

/// A pooling operation; the operation of a graph, if there is one, depends on the shapes of input and output.
fn pool<B: Backend>(
    x: Float<B>,
    compute: impl FnOnce(FloatTensor<B>) -> FloatTensor<B>,
    operation: impl FnOnce(&[usize], &[usize]) -> Option<Operation>,
) -> Float<B> {
    let input = x.dims();
    let inner = compute(x.inner);
    let dims = dims(&inner);
    let origin = match x.origin {
        Origin::Value(tape, index) => {
            let step = operation(&input, &dims).map_or(Step::Unknown("pooling with ceil_mode"), Step::Known);
            tape.push(step, vec![Operand::Value(index)], dims)
        }
        constant => constant,
    };
    Tracked { inner, origin }
}

pub(crate) fn adaptive_avg_pool2d<B: Backend>(x: Float<B>, size: [usize; 2]) -> Float<B> {
    one(Some(Operation::AdaptiveAveragePool(size)), x, |x| B::adaptive_avg_pool2d(x, size))
}

pub(crate) fn attention<B: Backend>(
    query: Float<B>,
    key: Float<B>,
    value: Float<B>,
    mask: Option<Boolean<B>>,
    bias: Option<Float<B>>,
    options: AttentionModuleOptions,
) -> Float<B> {
    attention::attention_fallback::<Capture<B>>(query, key, value, mask, bias, options)
}

/// Copies along the axes that grow.
pub(crate) fn float_expand<B: Backend>(tensor: Float<B>, shape: Shape) -> Float<B> {
    let target: Vec<usize> = shape.iter().copied().collect();
    let mut dims = tensor.dims();
    let mut steps = Vec::new();
    if target.len() > dims.len() {
        dims = [vec![1; target.len() - dims.len()], dims].concat();
        steps.push((Operation::Reshape(Vec::new()), 1, dims.clone()));
    }
    for (axis, size) in target.into_iter().enumerate() {
        if dims[axis] == 1 && size > 1 {
            dims[axis] = size;
            steps.push((Operation::Concatenate(axis), size, dims.clone()));
        }
    }
    chain(steps, tensor, |tensor| B::float_expand(tensor, shape))
}

pub(crate) fn float_repeat_dim<B: Backend>(tensor: Float<B>, dim: usize, times: usize) -> Float<B> {
    let mut dims = tensor.dims();
    dims[dim] *= times;
    let steps = if times == 1 { Vec::new() } else { vec![(Operation::Concatenate(dim), times, dims)] };
    chain(steps, tensor, |tensor| B::float_repeat_dim(tensor, dim, times))
}

pub(crate) fn float_cat<B: Backend>(tensors: Vec<Float<B>>, dim: usize) -> Float<B> {
    let recorded = record::<B>(&tensors);
    let inner = B::float_cat(tensors.into_iter().map(|tensor| tensor.inner).collect(), dim);
    finish::<B>(Operation::Concatenate(dim), recorded, inner)
}

/// `base keep + value`, where `value` is padded with zeros and `keep` is 0 there and 1 elsewhere. If the base has one value
/// everywhere, as in a padding, `value` is padded with it.
pub(crate) fn float_slice_assign<B: Backend>(base: Float<B>, slices: &[Slice], value: Float<B>) -> Float<B> {
    let whole = slices.iter().all(|slice| slice.step == 1);
    if (base.is_constant() && value.is_constant()) || !whole {
        let call = Call::new("float_slice_assign");
        let base = call.argument(base);
        return call.result(B::float_slice_assign(base, slices, call.argument(value)));
    }
    let dims = base.dims();
    let padding = |(axis, size): (usize, &usize)| {
        let range = slices.get(axis).map_or(0..*size, |slice| slice.to_range(*size));
        [range.start, size - range.end]
    };
    let padding: Vec<[usize; 2]> = dims.iter().enumerate().map(padding).collect();
    let pad = |value: Float<B>, with: f32| {
        let outer = B::float_zeros(base.shape(), &B::float_device(&base.inner), base.dtype().into());
        let outer = B::float_add_scalar(outer, with.into());
        let compute = |value| B::float_slice_assign(outer, slices, value);
        one(Some(Operation::Pad { padding: padding.clone(), value: with }), value, compute)
    };
    if base.is_constant()
        && let [first, others @ ..] = &*read::<B>(&base.inner).values()
        && others.iter().all(|value| value == first)
    {
        return pad(value, *first);
    }
    let ones = B::float_ones(base.shape(), &B::float_device(&base.inner), base.dtype().into());
    let zeros = B::float_zeros(value.shape(), &B::float_device(&base.inner), base.dtype().into());
    let keep = Tracked::constant(B::float_slice_assign(ones, slices, zeros));
    let value = pad(value, 0.0);
    float_add::<B>(float_mul::<B>(base, keep), value)
}

pub(crate) fn float_select<B: Backend>(tensor: Float<B>, dim: usize, indices: Integer<B>) -> Float<B> {
    match (tensor.is_constant(), indices.is_constant()) {
        // Rows of a table.
        (true, false) if dim == 0 => {
            let Origin::Value(tape, index) = indices.origin else { unreachable!("it is no constant") };
            let operands = vec![operand::<B>(&tensor, &tape), Operand::Value(index)];
            let inner = B::float_select(tensor.inner, dim, indices.inner);
            let origin = tape.push(Step::Known(Operation::Gather), operands, dims(&inner));
            Tracked { inner, origin }
        }
        (false, true) => {
            let rank = tensor.dims().len();
            let numbers = B::int_into_float(indices.inner.clone(), tensor.dtype().into());
            let front: Vec<usize> = std::iter::once(dim).chain((0..rank).filter(|axis| *axis != dim)).collect();
            let rows = float_permute::<B>(tensor, &front);
            let Origin::Value(tape, index) = rows.origin else { unreachable!("it is no constant") };
            let inner = B::float_select(rows.inner, 0, indices.inner);
            let operands = vec![Operand::Value(index), operand::<B>(&Tracked::constant(numbers), &tape)];
            let origin = tape.push(Step::Known(Operation::Gather), operands, dims(&inner));
            let back: Vec<usize> = (1..=dim).chain([0]).chain(dim + 1..rank).collect();
            float_permute::<B>(Tracked { inner, origin }, &back)
        }
        _ => {
            let call = Call::new("float_select");
            let tensor = call.argument(tensor);
            call.result(B::float_select(tensor, dim, call.argument(indices)))
        }
    }
}

/// Returns 1 where a mask that does not depend on the input is true, and 0 elsewhere.
fn indicator<B: Backend>(mask: BoolTensor<B>, dtype: FloatDType) -> Float<B> {
    Tracked::constant(B::bool_into_float(mask, dtype))
}

/// `x (1 - m) + value m` with the mask m; an infinite value is a minimum or maximum.
pub(crate) fn float_mask_fill<B: Backend>(tensor: Float<B>, mask: Boolean<B>, value: Scalar) -> Float<B> {
    let number = value.elem::<f32>();
    if tensor.is_constant() || !mask.is_constant() || number.is_nan() {
        let call = Call::new("float_mask_fill");
        let tensor = call.argument(tensor);
        return call.result(B::float_mask_fill(tensor, call.argument(mask), value));
    }
    let dtype = tensor.dtype().into();
    if number.is_infinite() {
        let binary = if number < 0.0 { Binary::Minimum } else { Binary::Maximum };
        let neutral = B::float_zeros(mask.shape(), &B::float_device(&tensor.inner), dtype);
        let neutral = B::float_add_scalar(neutral, (-number).into());
        let limit = Tracked::constant(B::float_mask_fill(neutral, mask.inner.clone(), value));
        let compute = |[tensor, _]: [_; 2]| B::float_mask_fill(tensor, mask.inner, value);
        return many::<B, 2>(Operation::Binary(binary), [tensor, limit], compute);
    }
    let masked = indicator::<B>(mask.inner, dtype);
    let keep = float_add_scalar::<B>(float_neg::<B>(masked.clone()), 1_f32.into());
    float_add::<B>(float_mul::<B>(tensor, keep), float_mul_scalar::<B>(masked, value))
}

/// `x (1 - m) + value m` with the mask m.
pub(crate) fn float_mask_where<B: Backend>(tensor: Float<B>, mask: Boolean<B>, value: Float<B>) -> Float<B> {
    if (tensor.is_constant() && value.is_constant()) || !mask.is_constant() {
        let call = Call::new("float_mask_where");
        let (tensor, mask) = (call.argument(tensor), call.argument(mask));
        return call.result(B::float_mask_where(tensor, mask, call.argument(value)));
    }
    let masked = indicator::<B>(mask.inner, tensor.dtype().into());
    let keep = float_add_scalar::<B>(float_neg::<B>(masked.clone()), 1_f32.into());
    float_add::<B>(float_mul::<B>(tensor, keep), float_mul::<B>(value, masked))
}
