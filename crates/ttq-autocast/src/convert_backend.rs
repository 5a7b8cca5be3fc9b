//! Conversion of Burn's structs with a backend parameter between `B` and [`Autocast<B, P>`](Autocast). Both backends
//! have the same tensor types, so the fields are moved and no data is copied.

use burn_backend::ops::{
    DeformConv2dBackward, InterpolateBackward, MaxPool1dBackward, MaxPool1dWithIndices, MaxPool2dBackward,
    MaxPool2dWithIndices, TransactionPrimitive,
};
use burn_backend::quantization::QuantizationParametersPrimitive;
use burn_backend::{Backend, TensorPrimitive};

use crate::{Autocast, Half};

/// Conversion of a struct to the same struct of the other backend.
pub(crate) trait ConvertBackend<Converted> {
    fn convert_backend(self) -> Converted;
}

/// Implements [`ConvertBackend`] for structs that the inner backend returns.
macro_rules! from_inner {
    ($($name:ident { $($field:ident),* })*) => {$(
        impl<B: Backend, P: Half> ConvertBackend<$name<Autocast<B, P>>> for $name<B> {
            fn convert_backend(self) -> $name<Autocast<B, P>> {
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

impl<B: Backend, P: Half> ConvertBackend<TensorPrimitive<Autocast<B, P>>> for TensorPrimitive<B> {
    fn convert_backend(self) -> TensorPrimitive<Autocast<B, P>> {
        match self {
            Self::Float(tensor) => TensorPrimitive::Float(tensor),
            Self::QFloat(tensor) => TensorPrimitive::QFloat(tensor),
        }
    }
}

impl<B: Backend, P: Half> ConvertBackend<TensorPrimitive<B>> for TensorPrimitive<Autocast<B, P>> {
    fn convert_backend(self) -> TensorPrimitive<B> {
        match self {
            Self::Float(tensor) => TensorPrimitive::Float(tensor),
            Self::QFloat(tensor) => TensorPrimitive::QFloat(tensor),
        }
    }
}

impl<B: Backend, P: Half> ConvertBackend<QuantizationParametersPrimitive<B>>
    for QuantizationParametersPrimitive<Autocast<B, P>>
{
    fn convert_backend(self) -> QuantizationParametersPrimitive<B> {
        QuantizationParametersPrimitive { scales: self.scales }
    }
}

impl<B: Backend, P: Half> ConvertBackend<TransactionPrimitive<B>> for TransactionPrimitive<Autocast<B, P>> {
    fn convert_backend(self) -> TransactionPrimitive<B> {
        TransactionPrimitive::new(self.read_floats, self.read_qfloats, self.read_ints, self.read_bools)
    }
}
