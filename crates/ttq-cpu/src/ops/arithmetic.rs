//! Arithmetic of two tensors, with broadcasting.

use burn_backend::Shape;
use burn_backend::ops::FloatTensorOps;
use burn_flex::{Flex, FlexTensor, Layout};

use super::layout::{contiguous, is_ours};
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

/// `f` of each pair of elements; an axis of size 1 counts as often as the other tensor's. In the memory of an operand that
/// nobody else holds, if it has the result's shape.
pub(super) fn combine(
    lhs: FlexTensor,
    rhs: FlexTensor,
    f: impl Fn(f32, f32) -> f32 + Sync,
    flex: Binary,
) -> FlexTensor {
    let shape = match broadcast(&lhs, &rhs) {
        Some(shape) if is_ours(&lhs) && is_ours(&rhs) => shape,
        _ => return flex(lhs, rhs),
    };
    let [l_strides, r_strides] = [&lhs, &rhs].map(|tensor| expanded(tensor, &shape));
    // What is the same along an axis for both operands is the same along it in the result.
    let core: Vec<usize> = (0..shape.len())
        .map(|axis| if l_strides[axis] == 0 && r_strides[axis] == 0 { 1 } else { shape[axis] })
        .collect();
    let result = whole(view(lhs, &core, l_strides), view(rhs, &core, r_strides), &core, f);
    if core == shape {
        return result;
    }
    let strides = result.layout().strides().iter().zip(core.iter().zip(&shape));
    let strides = strides.map(|(stride, (core, size))| if core == size { *stride } else { 0 }).collect();
    let start = result.layout().start_offset();
    result.with_layout(Layout::new(Shape::from(shape), strides, start))
}

/// The shape of the result, where both fit.
fn broadcast(lhs: &FlexTensor, rhs: &FlexTensor) -> Option<Vec<usize>> {
    let (l, r) = (lhs.layout().shape(), rhs.layout().shape());
    if l.num_dims() != r.num_dims() {
        return None;
    }
    l.iter().zip(r.iter()).map(|(l, r)| (l == r || *l == 1 || *r == 1).then_some(*l.max(r))).collect()
}

/// A tensor's strides in a shape that it is broadcast to: 0 along axes that it lacks or that count once.
fn expanded(tensor: &FlexTensor, shape: &[usize]) -> Vec<isize> {
    let own = tensor.layout().shape().iter().zip(tensor.layout().strides());
    own.zip(shape).map(|((size, stride), target)| if *size == 1 || *target == 1 { 0 } else { *stride }).collect()
}

fn view(tensor: FlexTensor, shape: &[usize], strides: Vec<isize>) -> FlexTensor {
    // A tensor of just this shape keeps its layout: it may lend its memory to the result.
    if tensor.layout().shape().to_vec() == shape {
        return tensor;
    }
    let start = tensor.layout().start_offset();
    tensor.with_layout(Layout::new(Shape::from(shape.to_vec()), strides, start))
}

/// The result for operands that are views of its shape.
fn whole(lhs: FlexTensor, rhs: FlexTensor, shape: &[usize], f: impl Fn(f32, f32) -> f32 + Sync) -> FlexTensor {
    let runs = Runs::new(shape, [lhs.layout().strides(), rhs.layout().strides()], starts(&lhs, &rhs));
    if let Some(strided) = runs.steps.iter().position(|step| !matches!(step, 0 | 1)) {
        // A strided run is gathered first.
        return match strided {
            0 => whole(contiguous(lhs), rhs, shape, f),
            _ => whole(lhs, contiguous(rhs), shape, f),
        };
    }
    if lends(&lhs) {
        return in_place(lhs, &rhs, shape, f);
    }
    if lends(&rhs) {
        return in_place(rhs, &lhs, shape, |r, l| f(l, r));
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

/// May its memory be written over?
fn lends(tensor: &FlexTensor) -> bool {
    tensor.is_unique() && matches!(tensor.layout().contiguous_offsets(), Some((0, _)))
}

fn in_place(
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
