//! Element-wise arithmetic of two tensors, with broadcasting.

use burn_backend::Shape;
use burn_backend::ops::FloatTensorOps;
use burn_flex::{Flex, FlexTensor, Layout};

use super::layout::{contiguous, is_supported};
use crate::buffer::Buffer;
use crate::kernels::elementwise;
use crate::kernels::strides::Runs;

type Binary = fn(FlexTensor, FlexTensor) -> FlexTensor;

pub(crate) fn float_add(lhs: FlexTensor, rhs: FlexTensor) -> FlexTensor {
    combine(lhs, rhs, |l, r| l + r, <Flex as FloatTensorOps<Flex>>::float_add)
}

pub(crate) fn float_sub(lhs: FlexTensor, rhs: FlexTensor) -> FlexTensor {
    combine(lhs, rhs, |l, r| l - r, <Flex as FloatTensorOps<Flex>>::float_sub)
}

pub(crate) fn float_mul(lhs: FlexTensor, rhs: FlexTensor) -> FlexTensor {
    combine(lhs, rhs, |l, r| l * r, <Flex as FloatTensorOps<Flex>>::float_mul)
}

pub(crate) fn float_div(lhs: FlexTensor, rhs: FlexTensor) -> FlexTensor {
    combine(lhs, rhs, |l, r| l / r, <Flex as FloatTensorOps<Flex>>::float_div)
}

/// Computes `f` of each pair of elements; axes of size 1 are broadcast. The result reuses the memory of an operand that
/// has the result's shape and is not shared. `flex` computes inputs that the kernels do not support.
pub(super) fn combine(
    lhs: FlexTensor,
    rhs: FlexTensor,
    f: impl Fn(f32, f32) -> f32 + Sync,
    flex: Binary,
) -> FlexTensor {
    let shape = match broadcast(&lhs, &rhs) {
        Some(shape) if is_supported(&lhs) && is_supported(&rhs) => shape,
        _ => return flex(lhs, rhs),
    };
    let [l_strides, r_strides] = [&lhs, &rhs].map(|tensor| broadcast_strides(tensor, &shape));
    // Where both operands are constant along an axis, so is the result: it is computed once and expanded.
    let distinct: Vec<usize> = (0..shape.len())
        .map(|axis| if l_strides[axis] == 0 && r_strides[axis] == 0 { 1 } else { shape[axis] })
        .collect();
    let result = combine_views(view(lhs, &distinct, l_strides), view(rhs, &distinct, r_strides), &distinct, f);
    if distinct == shape {
        return result;
    }
    let strides = result.layout().strides().iter().zip(distinct.iter().zip(&shape));
    let strides = strides.map(|(stride, (distinct, size))| if distinct == size { *stride } else { 0 }).collect();
    let start = result.layout().start_offset();
    result.with_layout(Layout::new(Shape::from(shape), strides, start))
}

/// Shape of the result; `None` if the shapes cannot be broadcast.
fn broadcast(lhs: &FlexTensor, rhs: &FlexTensor) -> Option<Vec<usize>> {
    let (l, r) = (lhs.layout().shape(), rhs.layout().shape());
    if l.num_dims() != r.num_dims() {
        return None;
    }
    l.iter().zip(r.iter()).map(|(l, r)| (l == r || *l == 1 || *r == 1).then_some(*l.max(r))).collect()
}

/// Strides of a tensor in the shape that it is broadcast to: 0 along axes of size 1 in either shape.
fn broadcast_strides(tensor: &FlexTensor, shape: &[usize]) -> Vec<isize> {
    let own = tensor.layout().shape().iter().zip(tensor.layout().strides());
    own.zip(shape).map(|((size, stride), target)| if *size == 1 || *target == 1 { 0 } else { *stride }).collect()
}

fn view(tensor: FlexTensor, shape: &[usize], strides: Vec<isize>) -> FlexTensor {
    // A tensor of this shape keeps its layout, so that the result can reuse its memory.
    if tensor.layout().shape().to_vec() == shape {
        return tensor;
    }
    let start = tensor.layout().start_offset();
    tensor.with_layout(Layout::new(Shape::from(shape.to_vec()), strides, start))
}

/// Combines two views that have the shape of the result.
fn combine_views(lhs: FlexTensor, rhs: FlexTensor, shape: &[usize], f: impl Fn(f32, f32) -> f32 + Sync) -> FlexTensor {
    let runs = Runs::new(shape, [lhs.layout().strides(), rhs.layout().strides()], starts(&lhs, &rhs));
    if let Some(strided) = runs.steps.iter().position(|step| !matches!(step, 0 | 1)) {
        // An operand with strided runs is copied first.
        return match strided {
            0 => combine_views(contiguous(lhs), rhs, shape, f),
            _ => combine_views(lhs, contiguous(rhs), shape, f),
        };
    }
    if is_reusable(&lhs) {
        return combine_in_place(lhs, &rhs, shape, f);
    }
    if is_reusable(&rhs) {
        return combine_in_place(rhs, &lhs, shape, |r, l| f(l, r));
    }
    let runs = runs.cut(elementwise::CUT);
    // SAFETY: the runs cover the shape.
    unsafe {
        Buffer::filled(Shape::from(shape.to_vec()), |out| {
            elementwise::combine(&runs, lhs.storage(), rhs.storage(), out, f);
        })
    }
}

fn starts(lhs: &FlexTensor, rhs: &FlexTensor) -> [usize; 2] {
    [lhs, rhs].map(|tensor| tensor.layout().start_offset())
}

/// Returns whether the result can be written over the tensor's memory.
fn is_reusable(tensor: &FlexTensor) -> bool {
    tensor.is_unique() && matches!(tensor.layout().contiguous_offsets(), Some((0, _)))
}

fn combine_in_place(
    mut target: FlexTensor,
    other: &FlexTensor,
    shape: &[usize],
    f: impl Fn(f32, f32) -> f32 + Sync,
) -> FlexTensor {
    let runs = Runs::new(shape, [other.layout().strides()], [other.layout().start_offset()]).cut(elementwise::CUT);
    let n = target.layout().num_elements();
    elementwise::combine_in_place(&runs, &mut target.storage_mut()[..n], other.storage(), f);
    target
}
