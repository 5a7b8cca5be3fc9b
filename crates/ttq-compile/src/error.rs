//! Errors of a capture.

use thiserror::Error;
use ttq_packed::network::NetworkError;

/// Error of [`capture`](crate::capture()).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The output depends on an operation that a graph does not have.
    #[error("{}: a graph has no operation for `{operation}`, on which the output depends", place(.module))]
    Unsupported {
        /// Burn's name of the operation.
        operation: String,
        /// Path of the module whose parameter was used last, or empty.
        module: String,
    },
    /// Elements that depend on the input were read.
    #[error(
        "{}: `{operation}` reads elements that depend on the input; the graph would lack what follows from them, so \
         compute with tensors instead",
        place(.module)
    )]
    Read {
        /// Burn's name of the operation.
        operation: String,
        /// Path of the module whose parameter was used last, or empty.
        module: String,
    },
    /// An operation does not treat each item of a batch alone, or a graph cannot express how.
    #[error("{}: `{operation}` {reason}", place(.module))]
    Batch {
        /// Name of the operation.
        operation: String,
        /// Path of the module whose parameter was used last, or empty.
        module: String,
        /// What is wrong.
        reason: String,
    },
    /// The example is no batch of at least one item.
    #[error("the example has the shape {dims:?}: the first dimension is the batch, and none may be 0")]
    Example {
        /// Shape of the example.
        dims: Vec<usize>,
    },
    /// The output of the module does not depend on its input.
    #[error("the output of the module does not depend on its input")]
    ConstantOutput,
    /// The captured operations are no valid graph.
    #[error(transparent)]
    Network(#[from] NetworkError),
}

fn place(module: &str) -> String {
    if module.is_empty() { "before the first parameter".into() } else { format!("at or after `{module}`") }
}
