//! Element types: Burn's and those of files.

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

/// A tensor of a file; `None` for a type that files do not hold.
pub(super) fn to_file(data: &TensorData) -> Option<DenseTensor> {
    let (_, dtype) = TYPES.iter().find(|(burn, _)| *burn == data.dtype)?;
    DenseTensor::new(*dtype, data.shape.to_vec(), data.bytes.to_vec()).ok()
}

/// The data of a tensor; `None` for a type that Burn does not have.
pub(super) fn to_burn(tensor: &DenseTensor) -> Option<TensorData> {
    let (dtype, _) = TYPES.iter().find(|(_, file)| *file == tensor.dtype())?;
    Some(TensorData::from_bytes_vec(tensor.as_bytes().to_vec(), tensor.shape().to_vec(), *dtype))
}
