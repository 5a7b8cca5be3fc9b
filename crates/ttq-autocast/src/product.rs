//! Products of two float32 tensors, computed in a 16-bit type.

use burn_backend::tensor::FloatTensor;
use burn_backend::{Backend, DType, FloatDType, Shape, TensorMetadata};

use crate::Half;

/// Largest magnitude of a scaled sum: half the range of float16, so that rounding errors do not overflow.
const MAX_SUM: f64 = 32768.0;

/// Returns whether the product of these tensors is computed in 16 bits: both are float32.
pub(crate) fn is_cast<B: Backend>(left: &FloatTensor<B>, right: &FloatTensor<B>) -> bool {
    left.dtype() == DType::F32 && right.dtype() == DType::F32
}

/// Computes `multiply(left, right)` in the type `P` and returns it as float32.
///
/// `multiply` must be linear in both arguments. `terms` is the maximum number of products that are summed for one
/// element of the result. If `P` needs scaling, with `s_l` and `s_r` as computed by [`scale`]:
///
/// ```text
/// product = s_r · (s_l · float32(multiply(P(left / s_l), P(right / s_r))))
/// ```
pub(crate) fn product<B: Backend, P: Half>(
    left: FloatTensor<B>,
    right: FloatTensor<B>,
    terms: usize,
    multiply: impl FnOnce(FloatTensor<B>, FloatTensor<B>) -> FloatTensor<B>,
) -> FloatTensor<B> {
    let empty = left.shape().num_elements() == 0 || right.shape().num_elements() == 0;
    if !P::NEEDS_SCALING || empty {
        return to_float32::<B>(multiply(to_half::<B, P>(left), to_half::<B, P>(right)));
    }
    // The reduction that keeps the sum in range is split evenly between the factors, which minimizes underflow in
    // either of them.
    let headroom = (terms as f64 / MAX_SUM).max(1.0).sqrt();
    let (left_scale, right_scale) = (scale::<B>(&left, headroom), scale::<B>(&right, headroom));
    let left = B::float_div(left, left_scale.clone());
    let right = B::float_div(right, right_scale.clone());
    let product = to_float32::<B>(multiply(to_half::<B, P>(left), to_half::<B, P>(right)));
    // Two multiplications, since the product of the scales can overflow float32.
    B::float_mul(B::float_mul(product, left_scale), right_scale)
}

/// Casts a tensor to the type `P`.
pub(crate) fn to_half<B: Backend, P: Half>(tensor: FloatTensor<B>) -> FloatTensor<B> {
    B::float_cast(tensor, P::DTYPE)
}

fn to_float32<B: Backend>(tensor: FloatTensor<B>) -> FloatTensor<B> {
    B::float_cast(tensor, FloatDType::F32)
}

/// Returns `headroom · max|x|`, at least the smallest normal float32, with the shape `[1, .., 1]` of the tensor's rank.
fn scale<B: Backend>(tensor: &FloatTensor<B>, headroom: f64) -> FloatTensor<B> {
    let axes = tensor.shape().num_dims();
    let largest = B::float_reshape(B::float_max_abs(tensor.clone()), Shape::from(vec![1; axes]));
    B::float_clamp_min(B::float_mul_scalar(largest, headroom.into()), f32::MIN_POSITIVE.into())
}
