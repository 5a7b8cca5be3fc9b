//! Structs that have a backend as their argument, from one backend to the other: their tensors are the same.

use burn_backend::ops::{
    DeformConv2dBackward, InterpolateBackward, MaxPool1dBackward, MaxPool1dWithIndices, MaxPool2dBackward,
    MaxPool2dWithIndices, TransactionPrimitive,
};
use burn_backend::quantization::QuantizationParametersPrimitive;
use burn_backend::{Backend, TensorPrimitive};

use crate::{Autocast, Half};

/// The same for the other backend.
pub(crate) trait Across<Other> {
    fn across(self) -> Other;
}

/// Structs that the inner backend returns.
macro_rules! from_inner {
    ($($name:ident { $($field:ident),* })*) => {$(
        impl<B: Backend, P: Half> Across<$name<Autocast<B, P>>> for $name<B> {
            fn across(self) -> $name<Autocast<B, P>> {
                $name { $($field: self.$field),* }
            }
        }
    )*};
}

from_inner! {
    DeformConv2dBackward { x_grad, offset_grad, weight_grad, mask_grad, bias_grad }
    InterpolateBackward { x_grad }
    MaxPool1dBackward { x_grad }
    MaxPool1dWithIndices { output, indices }
    MaxPool2dBackward { x_grad }
    MaxPool2dWithIndices { output, indices }
}

impl<B: Backend, P: Half> Across<TensorPrimitive<Autocast<B, P>>> for TensorPrimitive<B> {
    fn across(self) -> TensorPrimitive<Autocast<B, P>> {
        match self {
            Self::Float(tensor) => TensorPrimitive::Float(tensor),
            Self::QFloat(tensor) => TensorPrimitive::QFloat(tensor),
        }
    }
}

impl<B: Backend, P: Half> Across<TensorPrimitive<B>> for TensorPrimitive<Autocast<B, P>> {
    fn across(self) -> TensorPrimitive<B> {
        match self {
            Self::Float(tensor) => TensorPrimitive::Float(tensor),
            Self::QFloat(tensor) => TensorPrimitive::QFloat(tensor),
        }
    }
}

impl<B: Backend, P: Half> Across<QuantizationParametersPrimitive<B>>
    for QuantizationParametersPrimitive<Autocast<B, P>>
{
    fn across(self) -> QuantizationParametersPrimitive<B> {
        QuantizationParametersPrimitive { scales: self.scales }
    }
}

impl<B: Backend, P: Half> Across<TransactionPrimitive<B>> for TransactionPrimitive<Autocast<B, P>> {
    fn across(self) -> TransactionPrimitive<B> {
        TransactionPrimitive::new(self.read_floats, self.read_qfloats, self.read_ints, self.read_bools)
    }
}
