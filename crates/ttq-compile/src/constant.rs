//! Constants of a graph, read from tensors.

use std::any::Any;
use std::sync::Arc;

use burn::prelude::*;
use burn::tensor::TensorPrimitive;
use burn_backend::tensor::FloatTensor;
use burn_backend::{Shape, TensorMetadata};
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
pub(crate) fn scalar(value: f32) -> Operand {
    Operand::Constant(Arc::new(NamedConstant { path: None, constant: Constant::float([], [value]) }))
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
    Constant::float(dims, flat.into_data().iter::<f32>().collect::<Vec<_>>())
}
