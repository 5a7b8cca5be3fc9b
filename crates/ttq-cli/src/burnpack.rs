//! Reads burnpack files, Burn's format: a header, a CBOR map of the tensors' descriptions, and the tensors.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde::de::IgnoredAny;
use ttq_packed::{DenseTensor, Dtype};

/// First bytes of a file.
pub(crate) const MAGIC: &[u8] = b"NRUB";
/// The newest version of the format.
const VERSION: u16 = 1;
/// Length of the magic number, the version (u16) and the length of the descriptions (u32).
const HEADER: usize = 10;
/// The tensors start at a multiple of this number.
const ALIGNMENT: usize = 256;
/// Maximum depth of the CBOR map.
const DEPTH: usize = 16;

#[derive(Deserialize)]
struct Descriptions {
    tensors: BTreeMap<String, Description>,
}

#[derive(Deserialize)]
struct Description {
    dtype: BurnDtype,
    shape: Vec<usize>,
    /// Start and end, counted from the start of the tensors.
    data_offsets: (usize, usize),
}

/// Element types as Burn writes them.
#[derive(Debug, Deserialize)]
enum BurnDtype {
    F64,
    F32,
    Flex32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool(BoolStore),
    QFloat(IgnoredAny),
}

#[derive(Debug, Deserialize)]
enum BoolStore {
    Native,
    U8,
    U32,
}

/// Reads the tensors of a file.
pub(crate) fn read(file: &[u8]) -> Result<BTreeMap<String, DenseTensor>> {
    let damaged = "is damaged: download or save it again";
    let header = file.first_chunk::<HEADER>().context("is cut off: download or save it again")?;
    let version = u16::from_le_bytes([header[4], header[5]]);
    if version > VERSION {
        bail!("is a burnpack file of version {version}, only version {VERSION} is read: save it as safetensors");
    }
    let length = u32::from_le_bytes([header[6], header[7], header[8], header[9]]) as usize;
    let descriptions = file.get(HEADER..HEADER + length).context("is cut off: download or save it again")?;
    let Descriptions { tensors } =
        ciborium::de::from_reader_with_recursion_limit(descriptions, DEPTH).context(damaged)?;
    let data = file.get((HEADER + length).next_multiple_of(ALIGNMENT)..).unwrap_or_default();
    let read = |(name, Description { dtype, shape, data_offsets: (start, end) }): (String, Description)| {
        let bytes = data.get(start..end).with_context(|| {
            format!("the header places tensor `{name}` at bytes {start}..{end} of {}: the file is cut off", data.len())
        })?;
        let Some(dtype) = dtype.safetensors() else {
            bail!("tensor `{name}` is quantized by Burn, which is not read: save it after dequantize()");
        };
        let tensor = DenseTensor::new(dtype, shape, bytes.to_vec()).with_context(|| format!("tensor `{name}`"))?;
        Ok((name, tensor))
    };
    tensors.into_iter().map(read).collect()
}

impl BurnDtype {
    /// Returns the type of safetensors; `None` for quantized types.
    fn safetensors(&self) -> Option<Dtype> {
        Some(match self {
            Self::F64 => Dtype::F64,
            Self::F32 | Self::Flex32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::BF16 => Dtype::BF16,
            Self::I64 => Dtype::I64,
            Self::I32 => Dtype::I32,
            Self::I16 => Dtype::I16,
            Self::I8 => Dtype::I8,
            Self::U64 => Dtype::U64,
            Self::U32 | Self::Bool(BoolStore::U32) => Dtype::U32,
            Self::U16 => Dtype::U16,
            Self::U8 | Self::Bool(BoolStore::U8) => Dtype::U8,
            Self::Bool(BoolStore::Native) => Dtype::BOOL,
            Self::QFloat(_) => return None,
        })
    }
}
