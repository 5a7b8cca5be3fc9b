//! Conversion from the element types of packed files to those of Burn.

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

/// Converts a tensor of a file to tensor data; `None` if Burn does not support the element type.
pub(crate) fn to_burn(tensor: &DenseTensor) -> Option<TensorData> {
    let (bytes, shape) = (tensor.as_bytes(), tensor.shape().to_vec());
    if tensor.dtype() == Dtype::BOOL {
        return Some(TensorData::new(bytes.iter().map(|byte| *byte != 0).collect::<Vec<bool>>(), shape));
    }
    let (dtype, _) = TYPES.iter().find(|(_, file)| *file == tensor.dtype())?;
    Some(TensorData::from_bytes_vec(bytes.to_vec(), shape, *dtype))
}

/// The kinds of Burn's tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Float,
    Int,
    Bool,
}

impl Kind {
    /// Returns the kind of tensors with this element type; `None` if Burn does not support it.
    pub(crate) fn of(dtype: Dtype) -> Option<Self> {
        if dtype == Dtype::BOOL {
            return Some(Self::Bool);
        }
        let (burn, _) = TYPES.iter().find(|(_, file)| *file == dtype)?;
        Some(if burn.is_float() { Self::Float } else { Self::Int })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Int => "integer",
            Self::Bool => "boolean",
        }
    }
}

/// Converts integers to another integer type. Returns the first value that the type does not have, if there is one.
pub(crate) fn convert_integers(data: TensorData, dtype: DType) -> Result<TensorData, i128> {
    if data.dtype == dtype {
        return Ok(data);
    }
    let range = match dtype {
        DType::I64 => i64::MIN.into()..=i64::MAX.into(),
        DType::I32 => i32::MIN.into()..=i32::MAX.into(),
        DType::I16 => i16::MIN.into()..=i16::MAX.into(),
        DType::I8 => i8::MIN.into()..=i8::MAX.into(),
        DType::U64 => 0..=u64::MAX.into(),
        DType::U32 => 0..=u32::MAX.into(),
        DType::U16 => 0..=u16::MAX.into(),
        _ => 0..=i128::from(u8::MAX),
    };
    let outside = match data.dtype {
        DType::U64 => data.iter::<u64>().map(i128::from).find(|value| !range.contains(value)),
        _ => data.iter::<i64>().map(i128::from).find(|value| !range.contains(value)),
    };
    outside.map_or_else(|| Ok(data.convert_dtype(dtype)), Err)
}

/// Converts float data to another float type. Returns the first finite value that overflows, if there is one.
pub(crate) fn convert_floats(data: TensorData, dtype: DType) -> Result<TensorData, f64> {
    if data.dtype == dtype {
        return Ok(data);
    }
    let converted = data.clone().convert_dtype(dtype);
    let overflows = |(before, after): &(f64, f64)| before.is_finite() && !after.is_finite();
    let overflowing = data.iter::<f64>().zip(converted.iter::<f64>()).find(overflows);
    match overflowing.map(|(value, _)| value) {
        Some(value) => Err(value),
        None => Ok(converted),
    }
}
