//! Errors of graphs and networks.

use alloc::string::String;
use alloc::vec::Vec;

use thiserror::Error;

use crate::file::FileError;
use crate::kernels::Level;

/// Error of building, compiling or running a network.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The operands of an operation do not fit together, or an attribute is out of range.
    #[error("`{node}` ({operation}): {reason}")]
    Operation {
        /// Name of the node.
        node: String,
        /// Name of the operation.
        operation: &'static str,
        /// What is wrong, and what is expected.
        reason: String,
    },
    /// A constant is invalid.
    #[error("constant `{name}`: {reason}")]
    Constant {
        /// Name of the constant.
        name: String,
        /// What is wrong, and what is expected.
        reason: String,
    },
    /// No kernel exists for an operation with these operands.
    #[error("`{node}`: {operation} is not supported here: {reason}")]
    Unsupported {
        /// Name of the node.
        node: String,
        /// Name of the operation.
        operation: &'static str,
        /// What is supported.
        reason: String,
    },
    /// A value does not belong to the graph.
    #[error("value {index} is not part of the graph, which has {values} values")]
    Value {
        /// Index of the value.
        index: usize,
        /// Number of values.
        values: usize,
    },
    /// The output of the graph does not depend on its input.
    #[error("the output does not depend on the input: choose the value of an operation on the input as output")]
    ConstantOutput,
    /// A value has no elements.
    #[error("`{node}` has shape {dims:?}: every dimension must be at least 1")]
    Empty {
        /// Name of the value.
        node: String,
        /// Its dimensions.
        dims: Vec<usize>,
    },
    /// A value has too many dimensions.
    #[error("`{node}` has {dims} dimensions: the limit is {limit}")]
    TooManyDimensions {
        /// Name of the node.
        node: String,
        /// Number of dimensions.
        dims: usize,
        /// Maximum number.
        limit: usize,
    },
    /// The graph has too many values.
    #[error("the graph has {values} values: the limit is {limit}")]
    TooManyValues {
        /// Number of values.
        values: usize,
        /// Maximum number.
        limit: usize,
    },
    /// A value is too large, or its computation too long, for the limit of the graph or of the compiler.
    #[error("`{node}` needs {elements} elements or products: the limit is {limit}")]
    TooLarge {
        /// Name of the node.
        node: String,
        /// Number of elements or products, or `usize::MAX` if it overflows.
        elements: usize,
        /// Maximum number.
        limit: usize,
    },
    /// The input or output slice has the wrong number of elements.
    #[error("the {what} has {found} elements: {batch} items need {expected}")]
    Length {
        /// `input` or `output`.
        what: &'static str,
        /// Number of items.
        batch: usize,
        /// Required number of elements.
        expected: usize,
        /// Actual number of elements.
        found: usize,
    },
    /// No value has a range, and [`Int8`](super::Int8) asks for products of bytes.
    #[error(
        "the graph has no ranges of values, which int8 needs: call `Graph::calibrate` with typical inputs before it is \
         compiled or written, or compute in float32"
    )]
    NoRanges,
    /// The range of a value is invalid.
    #[error("the range of `{node}` is {low} to {high}: it must be finite, and in ascending order")]
    Range {
        /// Name of the value.
        node: String,
        /// Smallest element.
        low: f32,
        /// Largest element.
        high: f32,
    },
    /// The file of the constants is invalid.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file has no graph.
    #[error("the metadata has no key `{}`: this file has weights, but no graph", super::format::NETWORK_KEY)]
    NoGraph,
    /// The graph has a version that this reader does not support.
    #[error(
        "version {found} of the graph is not supported, only {}: update ttq-packed",
        super::format::NETWORK_VERSION
    )]
    Version {
        /// Version of the graph.
        found: u64,
    },
    /// The JSON of the graph is invalid.
    #[error("the graph in the metadata is invalid: {cause}")]
    Json {
        /// Error of the JSON parser, which names an unknown operation or field.
        cause: serde_json::Error,
    },
    /// The checksum does not match the graph.
    #[error(
        "the checksum of the graph is {found} instead of {expected}: the file is damaged, download or copy it again"
    )]
    Checksum {
        /// Checksum recorded in the file.
        expected: String,
        /// Checksum of the graph.
        found: String,
    },
    /// The machine does not support the instruction set.
    #[error("this machine does not support {level:?}: choose one of `Level::available()`")]
    Unavailable {
        /// The instruction set.
        level: Level,
    },
}
