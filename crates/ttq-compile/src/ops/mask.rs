//! Masks that do not depend on the input.

use burn::prelude::*;
use burn_backend::tensor::BoolTensor;
use burn_backend::{FloatDType, Scalar, TensorMetadata};
use ttq_packed::network::{Binary, Operation};

use super::{Boolean, Float, float_add, float_add_scalar, float_mul, float_mul_scalar, float_neg, many};
use crate::call::Call;
use crate::tape::Tracked;

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
