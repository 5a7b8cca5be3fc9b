//! A product of two float32 tensors, computed in a type of 16 bits.

use burn_backend::tensor::FloatTensor;
use burn_backend::{Backend, DType, FloatDType, Shape, TensorMetadata};

use crate::Half;

/// What float16 holds with a factor of two to spare for roundings.
const LARGEST_SUM: f64 = 32768.0;

/// Are these tensors to be cast?
pub(crate) fn is_cast<B: Backend>(left: &FloatTensor<B>, right: &FloatTensor<B>) -> bool {
    left.dtype() == DType::F32 && right.dtype() == DType::F32
}

/// `multiply(left, right)` in the type `P`, as float32. It is linear in both, and `terms` is how many products at most are
/// added up for one element of the result.
pub(crate) fn product<B: Backend, P: Half>(
    left: FloatTensor<B>,
    right: FloatTensor<B>,
    terms: usize,
    multiply: impl FnOnce(FloatTensor<B>, FloatTensor<B>) -> FloatTensor<B>,
) -> FloatTensor<B> {
    let empty = left.shape().num_elements() == 0 || right.shape().num_elements() == 0;
    if !P::NARROW || empty {
        return widen::<B>(multiply(narrow::<B, P>(left), narrow::<B, P>(right)));
    }
    // Both factors share the room that the sum needs, so that neither loses more small numbers than it must.
    let room = (terms as f64 / LARGEST_SUM).max(1.0).sqrt();
    let (left_unit, right_unit) = (unit::<B>(&left, room), unit::<B>(&right, room));
    let left = B::float_div(left, left_unit.clone());
    let right = B::float_div(right, right_unit.clone());
    let product = widen::<B>(multiply(narrow::<B, P>(left), narrow::<B, P>(right)));
    // One after the other: the product of two units may be more than float32 holds.
    B::float_mul(B::float_mul(product, left_unit), right_unit)
}

/// The tensor in the type `P`.
pub(crate) fn narrow<B: Backend, P: Half>(tensor: FloatTensor<B>) -> FloatTensor<B> {
    B::float_cast(tensor, P::DTYPE)
}

fn widen<B: Backend>(tensor: FloatTensor<B>) -> FloatTensor<B> {
    B::float_cast(tensor, FloatDType::F32)
}

/// The largest magnitude times `room`, with as many axes as the tensor has. Of zeros it is a number that can be divided by.
fn unit<B: Backend>(tensor: &FloatTensor<B>, room: f64) -> FloatTensor<B> {
    let axes = tensor.shape().num_dims();
    let largest = B::float_reshape(B::float_max_abs(tensor.clone()), Shape::from(vec![1; axes]));
    B::float_clamp_min(B::float_mul_scalar(largest, room.into()), f32::MIN_POSITIVE.into())
}
