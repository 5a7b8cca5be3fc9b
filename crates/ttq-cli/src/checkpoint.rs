//! Reads checkpoints of every format as named tensors with the layout of their linear weights.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use burn_std::{BoolStore, DType};
use burn_store::{BurnpackStore, ModuleStore, TensorSnapshot};
use clap::ValueEnum;
use serde::Serialize;
use ttq_packed::file::{self, Container, Dtype};
use ttq_packed::{DenseTensor, PackedModel};

use crate::pytorch;

/// File formats, detected from the first bytes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Format {
    /// Safetensors file with the metadata of `ttq-packed`.
    TtqPacked,
    /// Any other safetensors file.
    Safetensors,
    /// PyTorch file: a zip archive, or a sequence of pickles as written by versions before 1.6.
    Pytorch,
    /// Burnpack file, Burn's format.
    Burnpack,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TtqPacked => "packed file",
            Self::Safetensors => "safetensors checkpoint",
            Self::Pytorch => "PyTorch checkpoint",
            Self::Burnpack => "burnpack checkpoint",
        })
    }
}

/// Layout of linear weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Layout {
    /// [in, out]
    Burn,
    /// [out, in]
    Pytorch,
}

/// Contents of a file.
pub(crate) enum Contents {
    /// Packed model, and the bytes it was read from.
    Packed(PackedModel, Vec<u8>),
    /// Checkpoint without packed weights.
    Checkpoint(Checkpoint),
}

/// Checkpoint whose tensors are not packed.
pub(crate) struct Checkpoint {
    pub(crate) format: Format,
    pub(crate) layout: Layout,
    pub(crate) tensors: BTreeMap<String, DenseTensor>,
    /// Metadata entry `config` of the file.
    pub(crate) config: Option<String>,
    /// Size of the file in bytes.
    pub(crate) bytes: usize,
}

/// Reads a file of any supported format. `key` is the entry of a PyTorch checkpoint that holds the tensors.
pub(crate) fn read(path: &Path, key: Option<&str>) -> Result<Contents> {
    let file = || path.display().to_string();
    let bytes = fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let format = detect_format(&bytes).with_context(file)?;
    if key.is_some() && format != Format::Pytorch {
        bail!("{}: --key applies to PyTorch checkpoints only, but the file is a {format}: omit --key", path.display());
    }
    let size = bytes.len();
    let (layout, tensors, config) = match format {
        Format::Safetensors | Format::TtqPacked => {
            let Container { tensors, mut metadata } = Container::read(&bytes).with_context(file)?;
            if metadata.contains_key(file::METADATA_KEY) {
                return Ok(Contents::Packed(PackedModel::read(&bytes).with_context(file)?, bytes));
            }
            let producer = metadata.get("producer").map(String::as_str);
            let layout = if producer == Some("burn") { Layout::Burn } else { Layout::Pytorch };
            (layout, tensors, metadata.remove("config"))
        }
        Format::Pytorch => (Layout::Pytorch, catch_panic(|| read_pytorch(path, key, size)).with_context(file)?, None),
        Format::Burnpack => (Layout::Burn, catch_panic(|| read_burnpack(path, size)).with_context(file)?, None),
    };
    Ok(Contents::Checkpoint(Checkpoint { format, layout, tensors, config, bytes: size }))
}

/// Detects the format of a file.
fn detect_format(bytes: &[u8]) -> Result<Format> {
    // A safetensors file starts with the length of its header in 8 bytes, of which a real file leaves the upper 4 zero.
    // The lower 4 may equal another signature, so this check comes first.
    let header = bytes.get(8) == Some(&b'{');
    let tar = bytes.get(257..262) == Some(b"ustar");
    if header && bytes[4..8] == [0; 4] {
        Ok(Format::Safetensors)
    } else if bytes.starts_with(b"NRUB") {
        Ok(Format::Burnpack)
    } else if bytes.starts_with(pytorch::ZIP) || bytes.starts_with(pytorch::PICKLES) {
        Ok(Format::Pytorch)
    } else if tar || matches!(bytes, [0x80, 2..=5, ..]) {
        bail!(
            "is a tar file or a plain pickle, which PyTorch has not written since version 0.1.10: \
             save the tensors as safetensors"
        )
    } else if header {
        Ok(Format::Safetensors)
    } else {
        bail!("is not a safetensors, PyTorch or burnpack file: pass a file in one of these formats")
    }
}

fn read_pytorch(path: &Path, key: Option<&str>, size: usize) -> Result<BTreeMap<String, DenseTensor>> {
    let snapshots = pytorch::tensors(path, key)?;
    snapshots.iter().map(|(name, snapshot)| Ok((name.clone(), tensor(name, snapshot, size)?))).collect()
}

fn read_burnpack(path: &Path, size: usize) -> Result<BTreeMap<String, DenseTensor>> {
    let mut store = BurnpackStore::from_file(path).auto_extension(false);
    let snapshots =
        store.get_all_snapshots().map_err(|error| anyhow!("cannot be read as a burnpack checkpoint: {error}"))?;
    snapshots.iter().map(|(name, snapshot)| Ok((name.clone(), tensor(name, snapshot, size)?))).collect()
}

/// Turns a panic into an error and suppresses its message: burn-store panics on some damaged files.
fn catch_panic<T>(read: impl FnOnce() -> Result<T>) -> Result<T> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let result = panic::catch_unwind(AssertUnwindSafe(read));
    panic::set_hook(hook);
    result.unwrap_or_else(|_| bail!("is damaged and cannot be parsed: download or save it again"))
}

/// Reads a tensor of a file of `size` bytes. Rejects shapes with more than `size` elements, since burn-store allocates
/// memory for any shape.
fn tensor(name: &str, snapshot: &TensorSnapshot, size: usize) -> Result<DenseTensor> {
    let shape = snapshot.shape.to_vec();
    let elements = shape.iter().try_fold(1, |product: usize, &dim| product.checked_mul(dim));
    if elements.is_none_or(|elements| elements > size) {
        bail!("tensor `{name}` has the shape {shape:?}, which is larger than the file: download or save it again");
    }
    let data = snapshot.to_data().map_err(|error| anyhow!("tensor `{name}` cannot be read: {error}"))?;
    let Some(dtype) = dtype(data.dtype) else {
        bail!(
            "tensor `{name}` has the type {:?}, which safetensors does not support: convert it to float32",
            data.dtype
        );
    };
    DenseTensor::new(dtype, data.shape.to_vec(), data.bytes.to_vec()).with_context(|| format!("tensor `{name}`"))
}

/// Converts Burn's data type to that of safetensors. Returns `None` for quantized types.
fn dtype(dtype: DType) -> Option<Dtype> {
    Some(match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 | DType::Flex32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U64 => Dtype::U64,
        DType::U32 | DType::Bool(BoolStore::U32) => Dtype::U32,
        DType::U16 => Dtype::U16,
        DType::U8 | DType::Bool(BoolStore::U8) => Dtype::U8,
        DType::Bool(BoolStore::Native) => Dtype::BOOL,
        DType::QFloat(_) => return None,
    })
}
