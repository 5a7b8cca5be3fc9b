//! Element types.

use std::fmt;

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dtype {
    /// float64.
    F64,
    /// float32.
    F32,
    /// float16.
    F16,
    /// bfloat16.
    Bf16,
    /// float8 with 4 exponent bits, 3 mantissa bits and no infinity (`torch.float8_e4m3fn`).
    F8E4m3,
    /// float8 with 5 exponent bits and 2 mantissa bits (`torch.float8_e5m2`).
    F8E5m2,
    /// int64.
    I64,
    /// int32.
    I32,
    /// int16.
    I16,
    /// int8.
    I8,
    /// uint64.
    U64,
    /// uint32.
    U32,
    /// uint16.
    U16,
    /// uint8.
    U8,
    /// Boolean, one byte each.
    Bool,
}

impl Dtype {
    /// Returns the size of an element in bytes.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => 2,
            Self::F8E4m3 | Self::F8E5m2 | Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// Returns the type of a storage class, such as `FloatStorage`, or of a `torch.dtype`, such as `float32`; otherwise why
    /// it is not read.
    pub(crate) fn from_name(name: &str) -> Result<Self, String> {
        Ok(match name {
            "DoubleStorage" | "float64" => Self::F64,
            "FloatStorage" | "float32" => Self::F32,
            "HalfStorage" | "float16" => Self::F16,
            "BFloat16Storage" | "bfloat16" => Self::Bf16,
            "float8_e4m3fn" => Self::F8E4m3,
            "float8_e5m2" => Self::F8E5m2,
            "LongStorage" | "int64" => Self::I64,
            "IntStorage" | "int32" => Self::I32,
            "ShortStorage" | "int16" => Self::I16,
            "CharStorage" | "int8" => Self::I8,
            "uint64" => Self::U64,
            "uint32" => Self::U32,
            "uint16" => Self::U16,
            "ByteStorage" | "uint8" => Self::U8,
            "BoolStorage" | "bool" => Self::Bool,
            _ if name.starts_with('Q') => return Err("is quantized: save it after .dequantize()".into()),
            _ if name.to_lowercase().contains("complex") => {
                return Err("is complex: save its parts as real tensors with torch.view_as_real".into());
            }
            _ => return Err(format!("has the type {name}, which is not read: convert it with .float() before saving")),
        })
    }

    /// Returns the type in safetensors files.
    pub(crate) fn safetensors(self) -> safetensors::Dtype {
        match self {
            Self::F64 => safetensors::Dtype::F64,
            Self::F32 => safetensors::Dtype::F32,
            Self::F16 => safetensors::Dtype::F16,
            Self::Bf16 => safetensors::Dtype::BF16,
            Self::F8E4m3 => safetensors::Dtype::F8_E4M3,
            Self::F8E5m2 => safetensors::Dtype::F8_E5M2,
            Self::I64 => safetensors::Dtype::I64,
            Self::I32 => safetensors::Dtype::I32,
            Self::I16 => safetensors::Dtype::I16,
            Self::I8 => safetensors::Dtype::I8,
            Self::U64 => safetensors::Dtype::U64,
            Self::U32 => safetensors::Dtype::U32,
            Self::U16 => safetensors::Dtype::U16,
            Self::U8 => safetensors::Dtype::U8,
            Self::Bool => safetensors::Dtype::BOOL,
        }
    }

    /// Returns the size in bytes of an element of a storage class in the format before version 1.6.
    pub(crate) fn storage_size(class: &str) -> Option<usize> {
        match class {
            "ComplexDoubleStorage" => Some(16),
            "ComplexFloatStorage" => Some(8),
            "QInt32Storage" => Some(4),
            "QInt8Storage" | "QUInt8Storage" | "UntypedStorage" => Some(1),
            _ => Self::from_name(class).ok().map(Self::size),
        }
    }
}

/// The name in PyTorch, such as `float32`.
impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F64 => "float64",
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
            Self::F8E4m3 => "float8_e4m3fn",
            Self::F8E5m2 => "float8_e5m2",
            Self::I64 => "int64",
            Self::I32 => "int32",
            Self::I16 => "int16",
            Self::I8 => "int8",
            Self::U64 => "uint64",
            Self::U32 => "uint32",
            Self::U16 => "uint16",
            Self::U8 => "uint8",
            Self::Bool => "bool",
        })
    }
}
