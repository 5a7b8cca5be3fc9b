//! Reads checkpoints of every format as named tensors with the layout of their linear weights.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use ttq_packed::file::{self, Container};
use ttq_packed::{DenseTensor, PackedModel, TensorLayout, TernaryWeight};
use ttq_pytorch::Escaped;

use crate::{burnpack, unpacked};

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
    pub(crate) layout: TensorLayout,
    pub(crate) tensors: BTreeMap<String, DenseTensor>,
    /// Weights that the file stores as codes and scales.
    pub(crate) weights: BTreeMap<String, TernaryWeight>,
    /// Output axes of weights, where the file has them.
    pub(crate) axes: BTreeMap<String, usize>,
    /// Tensors of kinds that are not read.
    pub(crate) unread: Vec<Unread>,
    /// What was done to find the tensors, and what in the file is not used. Sentences without control characters.
    pub(crate) notes: Vec<String>,
    /// Metadata entry `config` of the file.
    pub(crate) config: Option<String>,
    /// Size of the file in bytes.
    pub(crate) bytes: usize,
}

/// A tensor that cannot be read.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Unread {
    pub(crate) name: String,
    pub(crate) reason: String,
}

impl Checkpoint {
    pub(crate) fn new(
        format: Format,
        layout: TensorLayout,
        tensors: BTreeMap<String, DenseTensor>,
        bytes: usize,
    ) -> Self {
        Self {
            format,
            layout,
            tensors,
            weights: BTreeMap::new(),
            axes: BTreeMap::new(),
            unread: Vec::new(),
            notes: Vec::new(),
            config: None,
            bytes,
        }
    }

    /// Checks that every tensor of the file `path` was read.
    pub(crate) fn all_read(&self, path: &Path) -> Result<()> {
        let Some(Unread { name, reason }) = self.unread.first() else { return Ok(()) };
        let others = match self.unread.len() - 1 {
            0 => String::new(),
            others => format!(" ({others} others cannot be read either, see `ttq inspect`)"),
        };
        bail!("{}: tensor `{name}` {reason}{others}", path.display())
    }
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
    let checkpoint = match format {
        Format::Safetensors | Format::TtqPacked => {
            let container = Container::read(&bytes).with_context(file)?;
            if container.metadata.contains_key(file::METADATA_KEY) {
                return Ok(Contents::Packed(PackedModel::read(&bytes).with_context(file)?, bytes));
            }
            let producer = container.metadata.get("producer").map(String::as_str);
            let layout = if producer == Some("burn") { TensorLayout::Burn } else { TensorLayout::Pytorch };
            unpacked::read(container, layout, size).with_context(file)?
        }
        Format::Pytorch => read_pytorch(bytes, key).with_context(file)?,
        Format::Burnpack => {
            Checkpoint::new(format, TensorLayout::Burn, burnpack::read(&bytes).with_context(file)?, size)
        }
    };
    Ok(Contents::Checkpoint(checkpoint))
}

/// Detects the format of a file.
fn detect_format(bytes: &[u8]) -> Result<Format> {
    // A safetensors file starts with the length of its header in 8 bytes, of which a real file leaves the upper 4 zero.
    // The lower 4 may equal another signature, so this check comes first.
    let header = bytes.get(8) == Some(&b'{');
    let tar = bytes.get(257..262) == Some(b"ustar");
    if header && bytes[4..8] == [0; 4] {
        Ok(Format::Safetensors)
    } else if bytes.starts_with(burnpack::MAGIC) {
        Ok(Format::Burnpack)
    } else if ttq_pytorch::is_pytorch(bytes) {
        Ok(Format::Pytorch)
    } else if tar || matches!(bytes, [0x80, 2..=5, ..]) {
        bail!(
            "is a tar file or a plain pickle, which PyTorch has not written since version 0.1.10: \
             save the tensors as safetensors"
        )
    } else if header {
        Ok(Format::Safetensors)
    } else {
        bail!(
            "is not a safetensors, PyTorch or burnpack file: pass a file in one of these formats, in which `burn-store` \
             saves a module too (records of Burn, .mpk and .bin, are not read)"
        )
    }
}

fn read_pytorch(bytes: Vec<u8>, key: Option<&str>) -> Result<Checkpoint> {
    let size = bytes.len();
    let file = ttq_pytorch::Checkpoint::from_bytes(bytes)?;
    let model = file.model(key)?;
    if model.tensors().is_empty() {
        bail!("holds no tensors: save the state_dict of the model");
    }
    let safetensors = model.to_safetensors()?;
    let unread = model.tensors().iter().filter_map(|(name, entry)| {
        let reason = entry.problem()?.to_owned();
        Some(Unread { name: name.clone(), reason })
    });
    let unread = unread.collect();
    let mut notes: Vec<String> = Some(model.to_string()).filter(|note| !note.is_empty()).into_iter().collect();
    let (objects, values): (Vec<_>, Vec<_>) = file.skipped().iter().partition(|skipped| skipped.has_tensors);
    for (skipped, what) in
        [(objects, "not read are the tensors in"), (values, "skipped, because they hold no tensors, are")]
    {
        let names =
            skipped.iter().take(8).map(|skipped| format!("`{}` ({})", Escaped(&skipped.path), Escaped(&skipped.kind)));
        let names: Vec<String> = names.collect();
        if !names.is_empty() {
            let more = skipped.len() - names.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            notes.push(format!("{what} {}{more}", names.join(", ")));
        }
    }
    // Two copies of the tensors are enough in memory.
    drop(file);
    let tensors = Container::read(&safetensors)?.tensors;
    Ok(Checkpoint { unread, notes, ..Checkpoint::new(Format::Pytorch, TensorLayout::Pytorch, tensors, size) })
}
