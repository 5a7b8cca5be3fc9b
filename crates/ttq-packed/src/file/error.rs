//! Errors of reading and writing files.

use alloc::string::String;
use alloc::vec::Vec;

use safetensors::Dtype;
use thiserror::Error;

use super::tensor::TensorError;
use super::weight::WeightError;
use crate::archive::ArchiveError;

/// Error of reading or writing a packed file.
///
/// The message includes the cause, if there is one. The field `cause` holds it as well.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file is shorter than the length of the header or the header requires.
    #[error("the file has {found} bytes instead of at least {expected}: it was cut off or is not a safetensors file")]
    Truncated {
        /// Minimum number of bytes.
        expected: u64,
        /// Actual number of bytes.
        found: u64,
    },
    /// Some bytes belong to no tensor.
    #[error("{bytes} bytes before offset {offset} belong to no tensor: the header or the end of the file is damaged")]
    Unclaimed {
        /// Number of bytes.
        bytes: usize,
        /// End of these bytes, counted from the end of the header.
        offset: usize,
    },
    /// The header is not a JSON object.
    #[error("the header is not a safetensors header: {cause}")]
    Header {
        /// Error of the JSON parser.
        cause: serde_json::Error,
    },
    /// The header entry of a tensor or of the metadata is invalid.
    #[error("the header entry of `{name}` is invalid: {cause}")]
    Entry {
        /// Name of the tensor, or `__metadata__`.
        name: String,
        /// Error of the JSON parser.
        cause: serde_json::Error,
    },
    /// A name occurs twice.
    #[error("the name `{name}` occurs twice: names of tensors, weights and keys must be unique")]
    Duplicate {
        /// Name of a tensor, a weight or a key.
        name: String,
    },
    /// The offsets of a tensor are reversed or outside of the file.
    #[error("the header places tensor `{name}` at bytes {start}..{end} of {len}: the file is truncated or damaged")]
    OutOfBounds {
        /// Name of the tensor.
        name: String,
        /// Offset of its first byte, counted from the end of the header.
        start: usize,
        /// Offset of its end.
        end: usize,
        /// Number of bytes after the header.
        len: usize,
    },
    /// Two tensors overlap.
    #[error("tensor `{name}` starts at byte {start}, but the previous tensor ends at {end}: the header is damaged")]
    Overlap {
        /// Name of the tensor.
        name: String,
        /// Offset of its first byte, counted from the end of the header.
        start: usize,
        /// Offset of the end of the previous tensor.
        end: usize,
    },
    /// The shape and the bytes of a tensor do not match.
    #[error("tensor `{name}`: {cause}")]
    Tensor {
        /// Name of the tensor.
        name: String,
        /// Error of the tensor.
        cause: TensorError,
    },
    /// The file is a safetensors file without the metadata of this format.
    #[error("the metadata has no key `{}`: this safetensors file is not a packed file", super::METADATA_KEY)]
    UnknownFormat,
    /// The file has a format version that this reader does not support.
    #[error("version {found} of the format is not supported, only {}: update ttq-packed", super::FORMAT_VERSION)]
    Version {
        /// Version of the file.
        found: u64,
    },
    /// The description of the model in the metadata is invalid.
    #[error("the description of the model in the metadata is invalid: {cause}")]
    Description {
        /// Error of the JSON parser.
        cause: serde_json::Error,
    },
    /// The codes or scales of a weight are missing.
    #[error("tensor `{name}` is missing: the metadata describes a weight that needs it")]
    Missing {
        /// Name of the tensor.
        name: String,
    },
    /// The codes or scales of a weight have the wrong element type.
    #[error("tensor `{name}` has type {found}: it must be {expected}")]
    Dtype {
        /// Name of the tensor.
        name: String,
        /// Required element type.
        expected: Dtype,
        /// Actual element type.
        found: Dtype,
    },
    /// The codes or scales of a weight have the wrong shape.
    #[error("tensor `{name}` has shape {found:?}: it must be {expected}")]
    Shape {
        /// Name of the tensor.
        name: String,
        /// Required shape.
        expected: &'static str,
        /// Actual shape.
        found: Vec<usize>,
    },
    /// The checksum does not match the contents.
    #[error("the checksum is {found} instead of {expected}: the file is damaged, download or copy it again")]
    Checksum {
        /// Checksum recorded in the file.
        expected: String,
        /// Checksum of the contents.
        found: String,
    },
    /// Codes, scales and shape do not form a ternary weight.
    #[error("weight `{name}`: {cause}")]
    Weight {
        /// Name of the weight.
        name: String,
        /// Error of the weight.
        cause: WeightError,
    },
    /// The archive of a weight cannot be decoded.
    #[error("weight `{name}`: {cause}")]
    Archive {
        /// Name of the weight.
        name: String,
        /// Error of the archive.
        cause: ArchiveError,
    },
    /// The name of a tensor is reserved by the safetensors format.
    #[error("`{name}` cannot be the name of a tensor: safetensors reserves it")]
    Name {
        /// The name.
        name: String,
    },
    /// The safetensors writer rejects the header, for example because it is too large.
    #[error("the model cannot be written as a safetensors file: {cause}")]
    Unwritable {
        /// Error of the `safetensors` crate.
        cause: safetensors::SafeTensorError,
    },
    /// A file operation failed.
    #[cfg(feature = "std")]
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// The operation, such as `read`, `write` or `replace`.
        action: &'static str,
        /// Path of the file.
        path: std::path::PathBuf,
        /// Error of the operating system.
        cause: std::io::Error,
    },
}
