//! Conversion between the element types of Burn and those of packed files.

use burn::tensor::{DType, TensorData};
use ttq_packed::{DenseTensor, Dtype};

const TYPES: [(DType, Dtype); 12] = [
    (DType::F64, Dtype::F64),
    (DType::F32, Dtype::F32),
    (DType::F16, Dtype::F16),
    (DType::BF16, Dtype::BF16),
    (DType::I64, Dtype::I64),
    (DType::I32, Dtype::I32),
    (DType::I16, Dtype::I16),
    (DType::I8, Dtype::I8),
    (DType::U64, Dtype::U64),
    (DType::U32, Dtype::U32),
    (DType::U16, Dtype::U16),
    (DType::U8, Dtype::U8),
];

/// Converts tensor data to a tensor of a file; `None` if files do not support the element type.
pub(super) fn to_file(data: &TensorData) -> Option<DenseTensor> {
    let (_, dtype) = TYPES.iter().find(|(burn, _)| *burn == data.dtype)?;
    DenseTensor::new(*dtype, data.shape.to_vec(), data.bytes.to_vec()).ok()
}

/// Converts a tensor of a file to tensor data; `None` if Burn does not support the element type.
pub(super) fn to_burn(tensor: &DenseTensor) -> Option<TensorData> {
    let (dtype, _) = TYPES.iter().find(|(_, file)| *file == tensor.dtype())?;
    Some(TensorData::from_bytes_vec(tensor.as_bytes().to_vec(), tensor.shape().to_vec(), *dtype))
}
