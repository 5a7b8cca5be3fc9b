//! Conversion of Burn's structs with a backend parameter between [`Flex`] and [`Cpu`]. Both backends have the same
//! tensor types, so the fields are moved and no data is copied.

use burn_backend::ops::{DeformConv2dBackward, MaxPool2dBackward, MaxPool2dWithIndices};
use burn_backend::quantization::QuantizationParametersPrimitive;
use burn_flex::Flex;

use crate::Cpu;

/// Conversion of a struct to the same struct of the other backend.
pub(crate) trait ConvertBackend {
    type Converted;
    fn convert_backend(self) -> Self::Converted;
}

impl ConvertBackend for MaxPool2dWithIndices<Flex> {
    type Converted = MaxPool2dWithIndices<Cpu>;

    fn convert_backend(self) -> Self::Converted {
        MaxPool2dWithIndices::new(self.output, self.indices)
    }
}

impl ConvertBackend for MaxPool2dBackward<Flex> {
    type Converted = MaxPool2dBackward<Cpu>;

    fn convert_backend(self) -> Self::Converted {
        MaxPool2dBackward::new(self.x_grad)
    }
}

impl ConvertBackend for DeformConv2dBackward<Flex> {
    type Converted = DeformConv2dBackward<Cpu>;

    fn convert_backend(self) -> Self::Converted {
        DeformConv2dBackward::new(self.x_grad, self.offset_grad, self.weight_grad, self.mask_grad, self.bias_grad)
    }
}

impl ConvertBackend for QuantizationParametersPrimitive<Cpu> {
    type Converted = QuantizationParametersPrimitive<Flex>;

    fn convert_backend(self) -> Self::Converted {
        QuantizationParametersPrimitive { scales: self.scales }
    }
}
