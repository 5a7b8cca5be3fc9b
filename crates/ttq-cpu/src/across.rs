//! Structs that have a backend as their argument, from one backend to the other: their tensors are the same.

use burn_backend::ops::{DeformConv2dBackward, MaxPool2dBackward, MaxPool2dWithIndices};
use burn_backend::quantization::QuantizationParametersPrimitive;
use burn_flex::Flex;

use crate::Cpu;

/// The same for the other backend.
pub(crate) trait Across {
    type Other;
    fn across(self) -> Self::Other;
}

impl Across for MaxPool2dWithIndices<Flex> {
    type Other = MaxPool2dWithIndices<Cpu>;

    fn across(self) -> Self::Other {
        MaxPool2dWithIndices::new(self.output, self.indices)
    }
}

impl Across for MaxPool2dBackward<Flex> {
    type Other = MaxPool2dBackward<Cpu>;

    fn across(self) -> Self::Other {
        MaxPool2dBackward::new(self.x_grad)
    }
}

impl Across for DeformConv2dBackward<Flex> {
    type Other = DeformConv2dBackward<Cpu>;

    fn across(self) -> Self::Other {
        DeformConv2dBackward::new(self.x_grad, self.offset_grad, self.weight_grad, self.mask_grad, self.bias_grad)
    }
}

impl Across for QuantizationParametersPrimitive<Cpu> {
    type Other = QuantizationParametersPrimitive<Flex>;

    fn across(self) -> Self::Other {
        QuantizationParametersPrimitive { scales: self.scales }
    }
}
