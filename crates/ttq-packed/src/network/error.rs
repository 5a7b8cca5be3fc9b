//! Errors of graphs and networks.

use alloc::string::String;

use thiserror::Error;

use crate::kernels::{KernelError, Level};

/// Error of building, compiling or running a network.
#[derive(Debug, Clone, PartialEq, Error)]
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
    /// The size of a tensor or of the arena overflows or exceeds the limit.
    #[error("`{node}` needs {elements} elements per item: the limit is {limit}")]
    TooLarge {
        /// Name of the node.
        node: String,
        /// Number of elements, or `usize::MAX` if it overflows.
        elements: usize,
        /// Maximum number of elements.
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
    /// The machine does not support the instruction set.
    #[error("this machine does not support {level:?}: choose one of `Level::available()`")]
    Unavailable {
        /// The instruction set.
        level: Level,
    },
}

impl From<KernelError> for NetworkError {
    fn from(error: KernelError) -> Self {
        match error {
            KernelError::Unavailable { level } => Self::Unavailable { level },
            error => Self::Constant { name: String::new(), reason: alloc::format!("{error}") },
        }
    }
}
