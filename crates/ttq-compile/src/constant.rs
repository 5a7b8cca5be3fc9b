//! Constants of a graph, read from tensors.

use std::any::Any;
use std::sync::Arc;

use burn::prelude::*;
use burn::tensor::TensorPrimitive;
use burn_backend::tensor::FloatTensor;
use burn_backend::{Scalar, Shape, TensorMetadata};
use ttq_inference::PackedTensor;
use ttq_packed::network::Constant;

use crate::tape::{NamedConstant, Operand, Origin, Tape, Tracked, dims};

/// Returns a tensor as an operand of an operation of this run. A constant is read: ternary if it is packed, and otherwise in float32.
pub(crate) fn operand<B: Backend>(tensor: &Tracked<FloatTensor<B>>, tape: &Tape) -> Operand {
    match &tensor.origin {
        Origin::Value(other, index) => {
            tape.check(other);
            Operand::Value(*index)
        }
        Origin::Constant(path) => {
            let constant = read::<B>(&tensor.inner);
            Operand::Constant(Arc::new(NamedConstant { path: path.clone(), constant }))
        }
    }
}

/// Returns a number as an operand.
pub(crate) fn scalar(value: Scalar) -> Operand {
    let constant = Constant::float([], [narrowed(value.elem())]);
    Operand::Constant(Arc::new(NamedConstant { path: None, constant }))
}

/// Returns a number in float32. One that is finite stays so, and one that is not zero too: limits of float64 become those of
/// float32.
pub(crate) fn narrowed(value: f64) -> f32 {
    let narrow = value as f32;
    if value.is_finite() && narrow.is_infinite() {
        f32::MAX.copysign(narrow)
    } else if value != 0.0 && narrow == 0.0 {
        f32::MIN_POSITIVE.copysign(narrow)
    } else {
        narrow
    }
}

/// Reads a tensor.
pub(crate) fn read<B: Backend>(tensor: &FloatTensor<B>) -> Constant {
    let packed = (tensor as &dyn Any).downcast_ref::<PackedTensor>();
    if let Some(weight) = packed.and_then(PackedTensor::ternary) {
        return Constant::Ternary(weight);
    }
    let dims = dims(tensor);
    let flat = B::float_reshape(tensor.clone(), Shape::new([tensor.shape().num_elements()]));
    let flat = Tensor::<B, 1>::from_primitive(TensorPrimitive::Float(flat));
    Constant::float(dims, flat.into_data().iter::<f64>().map(narrowed).collect::<Vec<_>>())
}
