//! Conversion of Burn's structs with a backend parameter between `B` and [`Packed<B, A>`](Packed).

use burn_backend::ops::{
    DeformConv2dBackward, InterpolateBackward, MaxPool1dBackward, MaxPool1dWithIndices, MaxPool2dBackward,
    MaxPool2dWithIndices, TransactionPrimitive,
};
use burn_backend::quantization::QuantizationParametersPrimitive;
use burn_backend::{Backend, TensorPrimitive};

use crate::tensor::{unpacked, wrap};
use crate::{ActivationType, Packed};

/// Conversion of a struct to the same struct of the other backend.
pub(crate) trait ConvertBackend<Converted> {
    fn convert_backend(self) -> Converted;
}

/// Implements [`ConvertBackend`] for structs of float tensors that the inner backend returns.
macro_rules! from_inner {
    ($($name:ident { $($float:ident),* } { $($field:ident),* })*) => {$(
        impl<B: Backend, A: ActivationType> ConvertBackend<$name<Packed<B, A>>> for $name<B> {
            fn convert_backend(self) -> $name<Packed<B, A>> {
                $name { $($float: wrap(self.$float),)* $($field: self.$field,)* }
            }
        }
    )*};
}

from_inner! {
    InterpolateBackward { x_grad } {}
    MaxPool1dBackward { x_grad } {}
    MaxPool1dWithIndices { output } { indices }
    MaxPool2dBackward { x_grad } {}
    MaxPool2dWithIndices { output } { indices }
}

impl<B: Backend, A: ActivationType> ConvertBackend<DeformConv2dBackward<Packed<B, A>>> for DeformConv2dBackward<B> {
    fn convert_backend(self) -> DeformConv2dBackward<Packed<B, A>> {
        let Self { x_grad, offset_grad, weight_grad, mask_grad, bias_grad } = self;
        let [x_grad, offset_grad, weight_grad] = [x_grad, offset_grad, weight_grad].map(wrap);
        DeformConv2dBackward {
            x_grad,
            offset_grad,
            weight_grad,
            mask_grad: mask_grad.map(wrap),
            bias_grad: bias_grad.map(wrap),
        }
    }
}

impl<B: Backend, A: ActivationType> ConvertBackend<TensorPrimitive<Packed<B, A>>> for TensorPrimitive<B> {
    fn convert_backend(self) -> TensorPrimitive<Packed<B, A>> {
        match self {
            Self::Float(tensor) => TensorPrimitive::Float(wrap(tensor)),
            Self::QFloat(tensor) => TensorPrimitive::QFloat(tensor),
        }
    }
}

impl<B: Backend, A: ActivationType> ConvertBackend<TensorPrimitive<B>> for TensorPrimitive<Packed<B, A>> {
    fn convert_backend(self) -> TensorPrimitive<B> {
        match self {
            Self::Float(tensor) => TensorPrimitive::Float(unpacked::<B>(tensor)),
            Self::QFloat(tensor) => TensorPrimitive::QFloat(tensor),
        }
    }
}

impl<B: Backend, A: ActivationType> ConvertBackend<QuantizationParametersPrimitive<B>>
    for QuantizationParametersPrimitive<Packed<B, A>>
{
    fn convert_backend(self) -> QuantizationParametersPrimitive<B> {
        QuantizationParametersPrimitive { scales: unpacked::<B>(self.scales) }
    }
}

impl<B: Backend, A: ActivationType> ConvertBackend<TransactionPrimitive<B>> for TransactionPrimitive<Packed<B, A>> {
    fn convert_backend(self) -> TransactionPrimitive<B> {
        let floats = self.read_floats.into_iter().map(unpacked::<B>).collect();
        TransactionPrimitive::new(floats, self.read_qfloats, self.read_ints, self.read_bools)
    }
}
