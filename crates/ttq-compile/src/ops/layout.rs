//! Operations that move elements.

use burn::prelude::*;
use burn::tensor::Slice;
use burn_backend::tensor::{BoolTensor, Device, FloatTensor, IntTensor};
use burn_backend::{Shape, TensorMetadata};
use ttq_packed::network::Operation;

use super::{Boolean, Float, Integer, chain, finish, one, record};
use crate::call::Call;
use crate::constant::{operand, read};
use crate::tape::{Operand, Origin, Step, Tracked, dims};

macro_rules! of_kind {
    ($tensor:ident $primitive:ident: $device:ident $to_device:ident $reshape:ident $permute:ident $swap_dims:ident
        $transpose:ident $slice:ident $expand:ident $repeat_dim:ident) => {
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
                let call = Call::new(concat!(stringify!($slice), " with a negative step"));
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

        /// Copies along the axes that grow.
        pub(crate) fn $expand<B: Backend>(tensor: $tensor<B>, shape: Shape) -> $tensor<B> {
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
            chain(steps, tensor, |tensor| B::$expand(tensor, shape))
        }

        pub(crate) fn $repeat_dim<B: Backend>(tensor: $tensor<B>, dim: usize, times: usize) -> $tensor<B> {
            let mut dims = tensor.dims();
            dims[dim] *= times;
            let steps = if times == 1 { Vec::new() } else { vec![(Operation::Concatenate(dim), times, dims)] };
            chain(steps, tensor, |tensor| B::$repeat_dim(tensor, dim, times))
        }
    };
}

of_kind!(Float FloatTensor: float_device float_to_device float_reshape float_permute float_swap_dims float_transpose
    float_slice float_expand float_repeat_dim);
of_kind!(Integer IntTensor: int_device int_to_device int_reshape int_permute int_swap_dims int_transpose int_slice
    int_expand int_repeat_dim);
of_kind!(Boolean BoolTensor: bool_device bool_to_device bool_reshape bool_permute bool_swap_dims bool_transpose
    bool_slice bool_expand bool_repeat_dim);

pub(crate) fn float_cat<B: Backend>(tensors: Vec<Float<B>>, dim: usize) -> Float<B> {
    let recorded = record::<B>(&tensors);
    let inner = B::float_cat(tensors.into_iter().map(|tensor| tensor.inner).collect(), dim);
    finish(Operation::Concatenate(dim), recorded, inner)
}

/// The base where `keep` is 1, and elsewhere, where it is 0, `value`, which is padded to its size. If the base has one value
/// everywhere, as in a padding, `value` is padded with that.
pub(crate) fn float_slice_assign<B: Backend>(base: Float<B>, slices: &[Slice], value: Float<B>) -> Float<B> {
    let whole = slices.iter().all(|slice| slice.step == 1);
    if (base.is_constant() && value.is_constant()) || !whole {
        let call = Call::new(if whole { "float_slice_assign" } else { "float_slice_assign with a step" });
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
    let inner = B::float_slice_assign(base.inner.clone(), slices, value.inner.clone());
    let recorded = record::<B>(&[keep, base.clone(), pad(value, 0.0)]);
    finish(Operation::Where, recorded, inner)
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
