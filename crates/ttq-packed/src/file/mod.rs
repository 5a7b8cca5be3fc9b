//! The file: a safetensors container with 2-bit codes, both scales and everything else of a model.
//!
//! Whatever reads safetensors reads it: the codes are an ordinary `U8` tensor, the scales an `F32` one.
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
//! In Python ten lines do it, which the [crate](crate#the-integers-in-python) shows.
//!
//! # Format, version 1
//!
//! A [safetensors](https://github.com/huggingface/safetensors#format) file: the length of the header, u64 little-endian; the header, a JSON
//! object that gives each tensor's type, shape and place; the tensors, side by side. Numbers are little-endian, tensors row-major.
//!
//! ## Tensors
//!
//! A ternary weight `NAME` is two tensors:
//!
//! | name | type, shape | content |
//! |---|---|---|
//! | `NAME.codes` | `U8 [bytes]` | codes in row-major order of the weight's shape, four in a byte ([`codes`](crate::codes)) or entropy-coded ([`archive`]) |
//! | `NAME.scales` | `F32 [1, 2]` or `F32 [channels, 2]` | columns `w_pos`, `w_neg`, finite and not negative; one row, or one for each output channel |
//!
//! Its values are `+w_pos`, `0` and `-w_neg` where the codes are +1, 0, -1. Every other tensor of the model is there under its own name, of
//! any type. No tensor has the name of a ternary weight.
//!
//! ## Metadata
//!
//! The key `ttq-packed` of the header's `__metadata__` marks the format. Its value is a string, and that a JSON object without further fields:
//!
//! | field | type | content |
//! |---|---|---|
//! | `version` | integer | 1; readers refuse any other |
//! | `crc32` | string | the checksum below, eight hexadecimal digits in lower case |
//! | `weights` | object | for each ternary weight's name `{"shape": [..], "output_axis": integer, "coding": "plain" or "archive"}` |
//! | `config` | string, may be missing | whatever the writer wants to find again, usually the model's configuration as JSON |
//!
//! `shape` is the weight's own; the product of its dimensions is the number of codes. `output_axis` is the axis along which output channels
//! and scales run: 1 for linear weights `[in, out]`, 0 for convolutions `[out, in / groups, kh, kw]`, and 0 for a scalar. Other keys of
//! `__metadata__` are ignored.
//!
//! ## Checksum
//!
//! The CRC-32 of zip and zlib (polynomial 0x04C11DB7 reflected; `zlib.crc32` in Python). It finds damage, not malice: whoever can change
//! a file can change its checksum, so sign files that strangers hand on. It is of what a model consists of, and not of how the header is written,
//! and so survives tools that write the same tensors in another order. With integers as u64 little-endian, and strings and bytes preceded
//! by their length in bytes, it is of
//!
//! 1. `version`;
//! 2. the number of ternary weights, and for each, names in ascending order of their UTF-8 bytes: the name; the number of dimensions and each
//!    dimension; the output axis; the coding;
//! 3. 0, or 1 and the `config`;
//! 4. the number of tensors in the file, and for each, names in the same order: the name; the type as safetensors spells it; the number
//!    of dimensions and each dimension; the bytes.
//!
//! # Reading hostile files
//!
//! [`PackedModel::read`] returns an error, and never panics, whatever the bytes. It allocates in proportion to the file: a small multiple
//! of the header, the tensors once, and for archives at most 64 bytes of codes a byte ([`VALUES_PER_BYTE_LIMIT`](crate::archive::VALUES_PER_BYTE_LIMIT)).
//! Structure is checked first, then the checksum, then codes and scales.

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

pub use error::FileError;
pub use tensor::{DenseTensor, TensorError};
pub use weight::{TernaryWeight, WeightError};

/// The metadata's key that marks the format.
pub const KEY: &str = "ttq-packed";
/// The version written, and the only one read.
pub const VERSION: u64 = 1;

/// How codes lie in a file; of a model in memory it says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Coding {
    /// Two bits each: any tool reads them.
    Plain,
    /// About their entropy, decoded at load; plain where that is no smaller, as in small weights.
    Archive,
}

impl Coding {
    /// As files spell it.
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Archive => "archive",
        }
    }
}

/// A model: ternary weights, other tensors and a configuration, by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PackedModel {
    /// Ternary weights.
    pub weights: BTreeMap<String, TernaryWeight>,
    /// Every other tensor.
    pub tensors: BTreeMap<String, DenseTensor>,
    /// Whatever belongs to the model and is no tensor, usually its configuration as JSON.
    pub config: Option<String>,
}

impl PackedModel {
    /// The file's bytes; the same for the same model.
    ///
    /// # Errors
    /// [`FileError::Duplicate`] where two tensors would have one name, [`FileError::Name`], [`FileError::Unwritable`] for names and
    /// configuration of more than 100 MB.
    pub fn write(&self, coding: Coding) -> Result<Vec<u8>, FileError> {
        self.write_with(|_, _| coding)
    }

    /// The file's bytes, with a coding for each weight by its name and itself.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_with(&self, coding: impl Fn(&str, &TernaryWeight) -> Coding) -> Result<Vec<u8>, FileError> {
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
        let mut description = Description { version: VERSION, crc32: String::new(), weights: layouts, config };
        description.crc32 = description.checksum(&tensors);
        header::write(tensors, KEY, description.to_json()?)
    }

    /// Reads a file's bytes.
    ///
    /// # Errors
    /// [`FileError`], for anything that is not as the [format](self) says.
    pub fn read(file: &[u8]) -> Result<Self, FileError> {
        let (mut tensors, description) = open(file)?;
        let found = description.checksum(&tensors);
        let mut stored = BTreeMap::new();
        for (name, layout) in description.weights {
            let codes = take(&mut tensors, codes_name(&name), Dtype::U8, "[bytes]", |shape| shape.len() == 1)?;
            let scales =
                take(&mut tensors, scales_name(&name), Dtype::F32, "[groups, 2]", |shape| matches!(shape, [_, 2]))?;
            stored.insert(name, (layout, codes, scales));
        }
        if found != description.crc32 {
            return Err(FileError::Checksum { expected: description.crc32, found });
        }
        let mut model = Self { config: description.config, ..Self::default() };
        for (name, (layout, codes, scales)) in stored {
            let weight = decode(&name, layout, &codes, &scales)?;
            model.weights.insert(name, weight);
        }
        for (name, tensor) in tensors {
            model.check_name(&name)?;
            let tensor = dense(&name, tensor)?;
            model.tensors.insert(name, tensor);
        }
        Ok(model)
    }

    /// Who fills a model by name could not tell a tensor from a weight of the same name.
    fn check_name(&self, tensor: &str) -> Result<(), FileError> {
        match self.weights.contains_key(tensor) {
            true => Err(FileError::Duplicate { name: tensor.to_string() }),
            false => Ok(()),
        }
    }
}

/// The checksum that a file should record, whether or not it does: for repairing a file that was changed on purpose.
///
/// # Errors
/// [`FileError`], for what makes it impossible to say what the contents are.
pub fn checksum(file: &[u8]) -> Result<String, FileError> {
    let (tensors, description) = open(file)?;
    Ok(description.checksum(&tensors))
}

/// How the codes of each ternary weight lie in a file, and the bytes they take there: what [`PackedModel::read`] does not keep.
///
/// # Errors
/// [`FileError`], for what makes it impossible to say; codes and checksum are not looked at.
pub fn stored_codes(file: &[u8]) -> Result<BTreeMap<String, (Coding, usize)>, FileError> {
    let (mut tensors, description) = open(file)?;
    let stored = description.weights.into_iter().map(|(name, layout)| {
        let codes = take(&mut tensors, codes_name(&name), Dtype::U8, "[bytes]", |shape| shape.len() == 1)?;
        Ok((name, (layout.coding, codes.bytes.len())))
    });
    stored.collect()
}

/// The contents of any safetensors file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Container {
    /// Its tensors.
    pub tensors: BTreeMap<String, DenseTensor>,
    /// Its metadata.
    pub metadata: BTreeMap<String, String>,
}

impl Container {
    /// Reads any safetensors file as carefully as a packed one: no panic, and errors that name the tensor.
    ///
    /// # Errors
    /// [`FileError`], for what is no safetensors file.
    pub fn read(file: &[u8]) -> Result<Self, FileError> {
        let (stored, metadata) = header::read(file)?;
        let mut tensors = BTreeMap::new();
        for (name, tensor) in stored {
            let tensor = dense(&name, tensor)?;
            tensors.insert(name, tensor);
        }
        Ok(Self { tensors, metadata })
    }
}

fn dense(name: &str, StoredTensor { dtype, shape, bytes }: StoredTensor) -> Result<DenseTensor, FileError> {
    DenseTensor::new(dtype, shape.into_owned(), bytes.into_owned())
        .map_err(|cause| FileError::Tensor { name: name.to_string(), cause })
}

fn open(file: &[u8]) -> Result<(Tensors<'_>, Description), FileError> {
    let (tensors, metadata) = header::read(file)?;
    let description = Description::parse(metadata.get(KEY).ok_or(FileError::UnknownFormat)?)?;
    Ok((tensors, description))
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

/// A part of a weight, of the type and shape that it must have.
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
    let wrong = |cause| FileError::Weight { name: name.to_string(), cause };
    let Some(len) = tensor::elements(&shape, 1) else { return Err(wrong(WeightError::Shape { shape })) };
    let codes = match coding {
        Coding::Plain => Codes::from_bytes(codes.bytes.to_vec(), len).map_err(|cause| wrong(cause.into()))?,
        Coding::Archive => {
            archive::decode(&codes.bytes, len).map_err(|cause| FileError::Archive { name: name.to_string(), cause })?
        }
    };
    let scales = tensor::f32_values(&scales.bytes);
    TernaryWeight::new(codes, scales.as_chunks().0, shape, output_axis).map_err(wrong)
}
