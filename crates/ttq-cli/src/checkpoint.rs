//! Checkpoints of every kind: named tensors, and what is known about their layout.

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

/// Kinds of files, told apart by their first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Format {
    /// A safetensors file with this project's metadata.
    TtqPacked,
    /// Any other safetensors file.
    Safetensors,
    /// PyTorch's: a zip file, or the pickles of versions before 1.6.
    Pytorch,
    /// Burn's own.
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

/// Which axis of a linear weight its outputs run along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Layout {
    /// `[in, out]`
    Burn,
    /// `[out, in]`
    Pytorch,
}

/// A file's contents.
pub(crate) enum Contents {
    /// A packed model, and the bytes it was read from.
    Packed(PackedModel, Vec<u8>),
    /// A checkpoint.
    Checkpoint(Checkpoint),
}

/// Tensors that are not packed.
pub(crate) struct Checkpoint {
    pub(crate) format: Format,
    pub(crate) layout: Layout,
    pub(crate) tensors: BTreeMap<String, DenseTensor>,
    /// A configuration that the file carries as the metadata `config`.
    pub(crate) config: Option<String>,
    /// The file's size.
    pub(crate) bytes: usize,
}

/// Reads a file of any kind; `key` is the entry of a PyTorch checkpoint to take the tensors from.
pub(crate) fn read(path: &Path, key: Option<&str>) -> Result<Contents> {
    let here = || path.display().to_string();
    let bytes = fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let format = sniff(&bytes).with_context(here)?;
    if key.is_some() && format != Format::Pytorch {
        bail!("{}: --key is for PyTorch checkpoints, this is a {format}: leave it out", path.display());
    }
    let size = bytes.len();
    let (layout, tensors, config) = match format {
        Format::Safetensors | Format::TtqPacked => {
            let Container { tensors, mut metadata } = Container::read(&bytes).with_context(here)?;
            if metadata.contains_key(file::METADATA_KEY) {
                return Ok(Contents::Packed(PackedModel::read(&bytes).with_context(here)?, bytes));
            }
            let producer = metadata.get("producer").map(String::as_str);
            let layout = if producer == Some("burn") { Layout::Burn } else { Layout::Pytorch };
            (layout, tensors, metadata.remove("config"))
        }
        Format::Pytorch => (Layout::Pytorch, guarded(|| pytorch(path, key, size)).with_context(here)?, None),
        Format::Burnpack => (Layout::Burn, guarded(|| burnpack(path, size)).with_context(here)?, None),
    };
    Ok(Contents::Checkpoint(Checkpoint { format, layout, tensors, config, bytes: size }))
}

/// What kind of file begins like this?
fn sniff(bytes: &[u8]) -> Result<Format> {
    // A safetensors header begins behind its length, of which no real one needs the upper four bytes. Its lower ones may be anything,
    // so this comes before the other signatures.
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
            "is a tar file or a pickle, and PyTorch's files since version 0.1.10 are neither: save the tensors again as safetensors"
        )
    } else if header {
        Ok(Format::Safetensors)
    } else {
        bail!("is neither safetensors nor PyTorch nor burnpack: give a file of one of these")
    }
}

fn pytorch(path: &Path, key: Option<&str>, size: usize) -> Result<BTreeMap<String, DenseTensor>> {
    let snapshots = pytorch::tensors(path, key)?;
    snapshots.iter().map(|(name, snapshot)| Ok((name.clone(), tensor(name, snapshot, size)?))).collect()
}

fn burnpack(path: &Path, size: usize) -> Result<BTreeMap<String, DenseTensor>> {
    let mut store = BurnpackStore::from_file(path).auto_extension(false);
    let snapshots =
        store.get_all_snapshots().map_err(|error| anyhow!("cannot be read as a burnpack checkpoint: {error}"))?;
    snapshots.iter().map(|(name, snapshot)| Ok((name.clone(), tensor(name, snapshot, size)?))).collect()
}

/// burn-store panics on some damaged files: that is an error like others, and no stack trace.
fn guarded<T>(read: impl FnOnce() -> Result<T>) -> Result<T> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let result = panic::catch_unwind(AssertUnwindSafe(read));
    panic::set_hook(hook);
    result.unwrap_or_else(|_| bail!("is damaged so that burn-store gave up: fetch or save it again"))
}

/// A tensor of a file of `size` bytes, which is no larger: burn-store allocates whatever a shape takes.
fn tensor(name: &str, snapshot: &TensorSnapshot, size: usize) -> Result<DenseTensor> {
    let shape = snapshot.shape.to_vec();
    let elements = shape.iter().try_fold(1, |product: usize, &dim| product.checked_mul(dim));
    if elements.is_none_or(|elements| elements > size) {
        bail!("tensor `{name}` has the shape {shape:?}, more than the file holds: fetch or save it again");
    }
    let data = snapshot.to_data().map_err(|error| anyhow!("tensor `{name}` cannot be read: {error}"))?;
    let Some(dtype) = dtype(data.dtype) else {
        bail!("tensor `{name}` has the type {:?}, which safetensors has not: convert it to float32", data.dtype);
    };
    DenseTensor::new(dtype, data.shape.to_vec(), data.bytes.to_vec()).with_context(|| format!("tensor `{name}`"))
}

/// Burn's type as safetensors knows it.
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
