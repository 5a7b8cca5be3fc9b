//! The error of an export.

use thiserror::Error;
use ttq_packed::network::NetworkError;

/// Error of [`export`](crate::export).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// The graph cannot be simplified.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// An operation has no equivalent.
    #[error("`{node}`: {operation} cannot be exported: {reason}")]
    Unsupported {
        /// Name of the node.
        node: String,
        /// Name of the operation.
        operation: &'static str,
        /// What is wrong, and what is supported.
        reason: String,
    },
    /// Nothing would be quantized.
    #[error(
        "no product reads a value with a range, so that nothing can be quantized: call `Graph::calibrate` with typical \
         inputs, and set `int8_ends` if the network has only two products"
    )]
    NoRanges,
    /// The model exceeds the limit of protocol buffers.
    #[error("the model has {bytes} bytes, but an ONNX file has at most 2147483647: export parts of the network")]
    TooLarge {
        /// Size of the model.
        bytes: usize,
    },
}
