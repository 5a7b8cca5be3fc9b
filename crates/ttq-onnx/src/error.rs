//! The error of an export.

use thiserror::Error;
use ttq_packed::network::NetworkError;

/// Error of [`export`](crate::export).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// The graph cannot be simplified, or has no ranges for int8.
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
    /// No product would be in int8.
    #[error(
        "no product can be in int8: use `Int8::All`, which includes the first and the last product, or `Int8::Off`"
    )]
    NoProducts,
    /// The model exceeds the limit of protocol buffers.
    #[error("the model has {bytes} bytes, but an ONNX file has at most 2147483647: export parts of the network")]
    TooLarge {
        /// Size of the model.
        bytes: usize,
    },
}
