//! The file format: a safetensors file with the codes, the scales and all other tensors of a model.
//!
//! Every safetensors reader can open such a file: codes are a `U8` tensor and scales an `F32` tensor.
//!
//! ```
//! use ttq_packed::{Codes, Coding, DenseTensor, PackedModel, TernaryWeight};
//!
//! let mut model = PackedModel::default();
//! let codes = Codes::pack(&[1, 0, -1, 0, 0, 1])?;
//! model.weights.insert("fc.weight".into(), TernaryWeight::new(codes, [[0.5, 0.7]], [2, 3], 1)?);
//! model.tensors.insert("fc.bias".into(), DenseTensor::from_f32([3], &[0.1, 0.2, 0.3])?);
//! let bytes = model.write(Coding::Plain)?;
//! let read = PackedModel::read(&bytes)?;
//! assert_eq!(read, model);
//! assert_eq!(read.weights["fc.weight"].dequantize(), [0.5, 0.0, -0.7, 0.0, 0.0, 0.5]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The [crate documentation](crate#reading-the-codes-in-python) shows how to read the codes in Python.
//!
//! # Format, version 1
//!
//! The file is a [safetensors](https://github.com/huggingface/safetensors#format) file. It consists of the length of
//! the header (little-endian u64), the header (a JSON object with the type, the shape and the offsets of each tensor),
//! and the contiguous data of the tensors. Numbers are little-endian and tensors are row-major.
//!
//! ## Tensors
//!
//! A ternary weight `NAME` consists of two tensors:
//!
//! | name | type, shape | content |
//! |---|---|---|
//! | `NAME.codes` | `U8 [bytes]` | codes in row-major order of the weight, four per byte ([`codes`](crate::codes)) or entropy-coded ([`archive`]) |
//! | `NAME.scales` | `F32 [1, 2]` or `F32 [channels, 2]` | columns `w_pos`, `w_neg`, finite and not negative; one row for the weight or one row per output channel |
//!
//! The values of the weight are `+w_pos`, `0` and `-w_neg` where the codes are +1, 0 and -1. Every other tensor of the
//! model is stored under its own name, with any element type. No tensor has the name of a ternary weight.
//!
//! ## Metadata
//!
//! The key `ttq-packed` in the `__metadata__` of the header marks the format. Its value is a string that contains a
//! JSON object with these fields and no others:
//!
//! | field | type | content |
//! |---|---|---|
//! | `version` | integer | 1; readers reject any other version |
//! | `crc32` | string | the checksum below as eight lower-case hexadecimal digits |
//! | `weights` | object | name of each ternary weight → `{"shape": [..], "output_axis": integer, "coding": "plain" or "archive"}` |
//! | `config` | string, optional | arbitrary text of the writer, usually the configuration of the model as JSON |
//!
//! `shape` is the shape of the weight, and the product of its dimensions is the number of codes. `output_axis` is the
//! axis of the output channels: 1 for a linear weight `[in, out]`, 0 for a convolution weight
//! `[out, in / groups, kh, kw]`, and 0 for a scalar. Scales per output channel apply along this axis.
//!
//! The entry `format` with the value `pt` says that layouts and names are PyTorch's: a linear weight is `[out, in]`, with the
//! output axis 0. Without it they are Burn's. Readers ignore other keys of `__metadata__`; `ttq-network` holds the
//! [graph](crate::network::format) of a network.
//!
//! ## Checksum
//!
//! The checksum is the CRC-32 of zip and zlib (polynomial 0x04C11DB7 reflected; `zlib.crc32` in Python). It detects
//! accidental damage, not manipulation: an attacker who changes a file can also change its checksum. Sign files that
//! are distributed through untrusted channels. The checksum covers the contents of the model and not the text of the
//! header, so it stays valid when a tool rewrites the same tensors in another order. Its input is the following
//! sequence. Integers are little-endian u64, and each string or byte sequence is preceded by its length in bytes.
//!
//! 1. `version`;
//! 2. the number of ternary weights; then, for each weight in ascending order of the UTF-8 bytes of the names: the
//!    name, the number of dimensions, each dimension, the output axis, the coding;
//! 3. 0 without a `config`, or 1 and the `config`;
//! 4. the number of tensors in the file; then, for each tensor in the same order: the name, the element type in the
//!    spelling of safetensors, the number of dimensions, each dimension, the bytes.
//!
//! # Untrusted files
//!
//! [`PackedModel::read`] returns an error for invalid bytes and never panics. Its allocations are proportional to the
//! size of the file: a small multiple of the header, one copy of the tensors, and for archives at most 64 bytes of
//! codes per byte (see [`VALUES_PER_BYTE_LIMIT`](crate::archive::VALUES_PER_BYTE_LIMIT)). It checks the structure
//! first, then the checksum, then codes and scales.

mod description;
#[cfg(feature = "std")]
mod disk;
mod error;
mod header;
mod tensor;
mod weight;

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

pub use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use crate::archive;
use crate::codes::Codes;
use description::{Description, Layout};
use header::{StoredTensor, Tensors};

#[cfg(feature = "std")]
pub use disk::write_atomically;
#[cfg(feature = "std")]
pub(crate) use disk::{read_bytes, write_bytes};
pub use error::FileError;
pub use tensor::{DenseTensor, TensorError};
pub use weight::{TernaryWeight, WeightError};

/// The metadata key that marks the format.
pub const METADATA_KEY: &str = "ttq-packed";
/// The format version that this crate writes, and the only one that it reads.
pub const FORMAT_VERSION: u64 = 1;

/// The entry of the metadata by which files of other tools say that their tensors are PyTorch's.
const PYTORCH: (&str, &str) = ("format", "pt");

/// The encoding of codes in a file. A [`PackedModel`] in memory is independent of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Coding {
    /// 2 bits per code ([`codes`](crate::codes)), which any tool can read.
    Plain,
    /// Entropy-coded ([`archive`]) and decoded when the file is read.
    ///
    /// A weight for which this is not smaller, such as a very small one, is written as [`Plain`](Self::Plain).
    Archive,
}

impl Coding {
    /// Returns the spelling in files.
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Archive => "archive",
        }
    }
}

/// The framework whose layouts and names the tensors of a model have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TensorLayout {
    /// Burn's: linear weights are `[in, out]`, and normalization layers have `gamma` and `beta`.
    #[default]
    Burn,
    /// PyTorch's: linear weights are `[out, in]`, and normalization layers have `weight` and `bias`.
    Pytorch,
}

/// A model: ternary weights, all other tensors, and a configuration.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PackedModel {
    /// Ternary weights by name.
    pub weights: BTreeMap<String, TernaryWeight>,
    /// All other tensors by name.
    pub tensors: BTreeMap<String, DenseTensor>,
    /// Arbitrary text, usually the configuration of the model as JSON.
    pub config: Option<String>,
    /// Layouts and names of the tensors.
    pub layout: TensorLayout,
}

impl PackedModel {
    /// Returns the bytes of the file, with the same coding for all weights. Equal models give equal bytes.
    ///
    /// # Errors
    /// - [`FileError::Duplicate`] if two tensors of the file would have the same name: a weight `NAME` uses the names
    ///   `NAME`, `NAME.codes` and `NAME.scales`;
    /// - [`FileError::Name`] if the name of a tensor is reserved (`__metadata__`);
    /// - [`FileError::Unwritable`] if names and configuration take more than 100 MB.
    pub fn write(&self, coding: Coding) -> Result<Vec<u8>, FileError> {
        self.write_with(|_, _| coding)
    }

    /// Returns the bytes of the file, with the coding that `coding(name, weight)` returns for each weight.
    ///
    /// # Errors
    /// The errors of [`write`](Self::write).
    pub fn write_with(&self, coding: impl Fn(&str, &TernaryWeight) -> Coding) -> Result<Vec<u8>, FileError> {
        self.write_entries(coding, BTreeMap::new())
    }

    /// Returns the bytes of the file with further entries of the metadata.
    pub(crate) fn write_entries(
        &self,
        coding: impl Fn(&str, &TernaryWeight) -> Coding,
        mut metadata: BTreeMap<String, String>,
    ) -> Result<Vec<u8>, FileError> {
        let mut tensors = Tensors::new();
        let mut layouts = BTreeMap::new();
        for (name, weight) in &self.weights {
            let (coding, bytes) = weight.encode(coding(name, weight));
            let scales = weight.scales();
            let codes = StoredTensor { dtype: Dtype::U8, shape: Cow::Owned([bytes.len()].into()), bytes };
            let scales = StoredTensor {
                dtype: Dtype::F32,
                shape: Cow::Owned([scales.len(), 2].into()),
                bytes: tensor::f32_bytes(scales.as_flattened()).into(),
            };
            insert(&mut tensors, codes_name(name), codes)?;
            insert(&mut tensors, scales_name(name), scales)?;
            let (shape, output_axis) = (weight.shape().to_vec(), weight.output_axis());
            layouts.insert(name.clone(), Layout { shape, output_axis, coding });
        }
        for (name, tensor) in &self.tensors {
            self.check_name(name)?;
            let (dtype, shape, bytes) = (tensor.dtype(), tensor.shape().into(), tensor.as_bytes().into());
            insert(&mut tensors, name.clone(), StoredTensor { dtype, shape, bytes })?;
        }
        let config = self.config.clone();
        let mut description = Description { version: FORMAT_VERSION, crc32: String::new(), weights: layouts, config };
        description.crc32 = description.checksum(&tensors);
        metadata.insert(METADATA_KEY.to_string(), description.to_json()?);
        if self.layout == TensorLayout::Pytorch {
            metadata.insert(PYTORCH.0.to_string(), PYTORCH.1.to_string());
        }
        header::write(tensors, &metadata)
    }

    /// Reads a model from the bytes of a file.
    ///
    /// # Errors
    /// [`FileError`] if the bytes deviate from the [format](self).
    pub fn read(file: &[u8]) -> Result<Self, FileError> {
        Self::read_entries(file).map(|(model, _)| model)
    }

    /// Reads a model and the metadata.
    pub(crate) fn read_entries(file: &[u8]) -> Result<(Self, BTreeMap<String, String>), FileError> {
        let (mut tensors, metadata) = header::read(file)?;
        let description = describe(&metadata)?;
        let found = description.checksum(&tensors);
        let mut stored = Vec::new();
        for (name, layout) in description.weights {
            let codes = take(&mut tensors, codes_name(&name), Dtype::U8, "[bytes]", |shape| shape.len() == 1)?;
            let scales =
                take(&mut tensors, scales_name(&name), Dtype::F32, "[groups, 2]", |shape| matches!(shape, [_, 2]))?;
            stored.push((name, layout, codes, scales));
        }
        if found != description.crc32 {
            return Err(FileError::Checksum { expected: description.crc32, found });
        }
        let is_pytorch = metadata.get(PYTORCH.0).is_some_and(|format| format == PYTORCH.1);
        let layout = if is_pytorch { TensorLayout::Pytorch } else { TensorLayout::Burn };
        let mut model = Self { config: description.config, layout, ..Self::default() };
        for (name, layout, codes, scales) in stored {
            let weight = decode(&name, layout, &codes, &scales)?;
            model.weights.insert(name, weight);
        }
        for (name, tensor) in tensors {
            model.check_name(&name)?;
            let tensor = dense(&name, tensor)?;
            model.tensors.insert(name, tensor);
        }
        Ok((model, metadata))
    }

    /// Checks that no weight has the name of this tensor, so that a name identifies a parameter.
    fn check_name(&self, tensor: &str) -> Result<(), FileError> {
        match self.weights.contains_key(tensor) {
            true => Err(FileError::Duplicate { name: tensor.to_string() }),
            false => Ok(()),
        }
    }
}

/// Computes the checksum of the contents of a file, as eight hexadecimal digits, without comparing it with the recorded
/// one.
///
/// The result can repair the checksum of a file that was changed on purpose.
///
/// # Errors
/// [`FileError`] if the header or the metadata cannot be parsed.
pub fn checksum(file: &[u8]) -> Result<String, FileError> {
    let (tensors, description) = open(file)?;
    Ok(description.checksum(&tensors))
}

/// Returns the coding and the number of bytes of the codes of each ternary weight in a file, by name.
///
/// [`PackedModel::read`] discards this information. This function does not check codes and checksum.
///
/// # Errors
/// [`FileError`] if the header or the metadata cannot be parsed, or if the codes of a weight are missing or have the
/// wrong type or shape.
pub fn stored_codes(file: &[u8]) -> Result<BTreeMap<String, (Coding, usize)>, FileError> {
    let (mut tensors, description) = open(file)?;
    let stored = description.weights.into_iter().map(|(name, layout)| {
        let codes = take(&mut tensors, codes_name(&name), Dtype::U8, "[bytes]", |shape| shape.len() == 1)?;
        Ok((name, (layout.coding, codes.bytes.len())))
    });
    stored.collect()
}

/// The contents of a safetensors file, packed or not.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Container {
    /// Tensors by name.
    pub tensors: BTreeMap<String, DenseTensor>,
    /// Entries of `__metadata__`.
    pub metadata: BTreeMap<String, String>,
}

impl Container {
    /// Reads any safetensors file with the checks of packed files: it never panics, and errors name the tensor.
    ///
    /// # Errors
    /// [`FileError`] if the bytes are not a valid safetensors file.
    pub fn read(file: &[u8]) -> Result<Self, FileError> {
        let (stored, metadata) = header::read(file)?;
        let mut tensors = BTreeMap::new();
        for (name, tensor) in stored {
            let tensor = dense(&name, tensor)?;
            tensors.insert(name, tensor);
        }
        Ok(Self { tensors, metadata })
    }

    /// Returns the bytes of the file. Equal contents give equal bytes.
    ///
    /// # Errors
    /// [`FileError::Name`] if the name of a tensor is reserved (`__metadata__`), and [`FileError::Unwritable`] if names and
    /// metadata take more than 100 MB.
    pub fn write(&self) -> Result<Vec<u8>, FileError> {
        let stored = |(name, tensor): (&String, &DenseTensor)| {
            let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec().into());
            (name.clone(), StoredTensor { dtype, shape, bytes: Cow::Owned(tensor.as_bytes().to_vec()) })
        };
        header::write(self.tensors.iter().map(stored).collect(), &self.metadata)
    }
}

fn dense(name: &str, StoredTensor { dtype, shape, bytes }: StoredTensor) -> Result<DenseTensor, FileError> {
    DenseTensor::new(dtype, shape.into_owned(), bytes.into_owned())
        .map_err(|cause| FileError::Tensor { name: name.to_string(), cause })
}

fn open(file: &[u8]) -> Result<(Tensors<'_>, Description), FileError> {
    let (tensors, metadata) = header::read(file)?;
    Ok((tensors, describe(&metadata)?))
}

fn describe(metadata: &BTreeMap<String, String>) -> Result<Description, FileError> {
    Description::parse(metadata.get(METADATA_KEY).ok_or(FileError::UnknownFormat)?)
}

fn codes_name(weight: &str) -> String {
    format!("{weight}.codes")
}

fn scales_name(weight: &str) -> String {
    format!("{weight}.scales")
}

fn insert<'a>(tensors: &mut Tensors<'a>, name: String, tensor: StoredTensor<'a>) -> Result<(), FileError> {
    if tensors.contains_key(&name) {
        return Err(FileError::Duplicate { name });
    }
    tensors.insert(name, tensor);
    Ok(())
}

/// Removes and returns the codes or scales of a weight after a check of element type and shape.
fn take<'a>(
    tensors: &mut Tensors<'a>,
    name: String,
    dtype: Dtype,
    shape: &'static str,
    has_shape: impl Fn(&[usize]) -> bool,
) -> Result<StoredTensor<'a>, FileError> {
    let Some(tensor) = tensors.remove(&name) else { return Err(FileError::Missing { name }) };
    if tensor.dtype != dtype {
        return Err(FileError::Dtype { name, expected: dtype, found: tensor.dtype });
    }
    if !has_shape(&tensor.shape) {
        return Err(FileError::Shape { name, expected: shape, found: tensor.shape.into_owned() });
    }
    Ok(tensor)
}

fn decode(name: &str, layout: Layout, codes: &StoredTensor, scales: &StoredTensor) -> Result<TernaryWeight, FileError> {
    let Layout { shape, output_axis, coding } = layout;
    let weight_error = |cause| FileError::Weight { name: name.to_string(), cause };
    let Some(len) = tensor::elements(&shape, 1) else { return Err(weight_error(WeightError::Shape { shape })) };
    let codes = match coding {
        Coding::Plain => Codes::from_bytes(codes.bytes.to_vec(), len).map_err(|cause| weight_error(cause.into()))?,
        Coding::Archive => {
            archive::decode(&codes.bytes, len).map_err(|cause| FileError::Archive { name: name.to_string(), cause })?
        }
    };
    let scales = tensor::f32_values(&scales.bytes);
    TernaryWeight::new(codes, scales.as_chunks().0, shape, output_axis).map_err(weight_error)
}
