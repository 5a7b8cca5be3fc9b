//! What can be wrong with a file.

use alloc::string::String;
use alloc::vec::Vec;

use safetensors::Dtype;
use thiserror::Error;

use super::tensor::TensorError;
use super::weight::WeightError;
use crate::archive::ArchiveError;

/// Why a file cannot be read or written. A message says it all; causes are fields, too.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FileError {
    /// Shorter than its header, or than its header says.
    #[error("the file has {found} bytes and should have {expected}: it was cut off, or is no safetensors file")]
    Truncated {
        /// Bytes there should be.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// Bytes that belong to no tensor.
    #[error("{bytes} bytes before offset {offset} belong to no tensor: the header or the file's end is damaged")]
    Unclaimed {
        /// How many.
        bytes: usize,
        /// Where they end, from the first byte behind the header.
        offset: usize,
    },
    /// A header that is not JSON of the right structure.
    #[error("the header is no safetensors header: {cause}")]
    Header {
        /// What the JSON parser says.
        cause: serde_json::Error,
    },
    /// A tensor's line in the header.
    #[error("the header's entry of `{name}` cannot be read: {cause}")]
    Entry {
        /// The tensor.
        name: String,
        /// What the JSON parser says.
        cause: serde_json::Error,
    },
    /// Two things of the same name.
    #[error("`{name}` is there twice")]
    Duplicate {
        /// The name of a tensor, a weight or a key.
        name: String,
    },
    /// Offsets that point outside the file, or backwards.
    #[error("tensor `{name}` is said to be at bytes {start}..{end} of {len}")]
    OutOfBounds {
        /// The tensor.
        name: String,
        /// Its first byte.
        start: usize,
        /// Where it ends.
        end: usize,
        /// Bytes behind the header.
        len: usize,
    },
    /// Two tensors that share bytes.
    #[error("tensor `{name}` starts at byte {start}, the tensor before it ends at {end}")]
    Overlap {
        /// The tensor.
        name: String,
        /// Its first byte.
        start: usize,
        /// Where the other one ends.
        end: usize,
    },
    /// A tensor whose shape and bytes disagree.
    #[error("tensor `{name}`: {cause}")]
    Tensor {
        /// The tensor.
        name: String,
        /// Why.
        cause: TensorError,
    },
    /// A safetensors file without the metadata of this format.
    #[error("the metadata have no key `{}`: this is a safetensors file of another kind", super::KEY)]
    UnknownFormat,
    /// A version that this reader does not know.
    #[error("version {found} of the format, this reader knows {}: update ttq-packed", super::VERSION)]
    Version {
        /// The file's version.
        found: u64,
    },
    /// Metadata that do not describe a model.
    #[error("the description in the metadata cannot be read: {cause}")]
    Description {
        /// What the JSON parser says.
        cause: serde_json::Error,
    },
    /// A tensor that should be there.
    #[error("tensor `{name}` is missing")]
    Missing {
        /// The tensor.
        name: String,
    },
    /// A tensor of another type than its part requires.
    #[error("tensor `{name}` is of type {found} and must be {expected}")]
    Dtype {
        /// The tensor.
        name: String,
        /// The type it must have.
        expected: Dtype,
        /// Its type.
        found: Dtype,
    },
    /// A tensor of another shape than its part requires.
    #[error("tensor `{name}` has the shape {found:?} and must have {expected}")]
    Shape {
        /// The tensor.
        name: String,
        /// The shape it must have.
        expected: &'static str,
        /// Its shape.
        found: Vec<usize>,
    },
    /// Another checksum than the file's own.
    #[error("the checksum is {found} and should be {expected}: the file is damaged, fetch it again")]
    Checksum {
        /// What the file says.
        expected: String,
        /// What its contents give.
        found: String,
    },
    /// Codes, scales and shape that are no ternary weight.
    #[error("weight `{name}`: {cause}")]
    Weight {
        /// The weight.
        name: String,
        /// Why.
        cause: WeightError,
    },
    /// An archive that cannot be decoded.
    #[error("weight `{name}`: {cause}")]
    Archive {
        /// The weight.
        name: String,
        /// Why.
        cause: ArchiveError,
    },
    /// A name that a safetensors header has another use for.
    #[error("`{name}` cannot be the name of a tensor")]
    Name {
        /// The name.
        name: String,
    },
    /// A header that safetensors readers would refuse.
    #[error("the header does not fit the safetensors format: {cause}")]
    Unwritable {
        /// What safetensors says.
        cause: safetensors::SafeTensorError,
    },
    /// The file system refused.
    #[cfg(feature = "std")]
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// With which file.
        path: std::path::PathBuf,
        /// Why.
        cause: std::io::Error,
    },
}
