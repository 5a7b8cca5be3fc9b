//! What can be wrong with the arguments of a kernel.

use thiserror::Error;

use super::Level;

/// A refused argument.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A weight that is none of -1, 0, +1.
    #[error("weight [{row}, {column}] is {value}: ternary values are -1, 0 and +1")]
    NotTernary {
        /// Its output row.
        row: usize,
        /// Its place in the row.
        column: usize,
        /// The value.
        value: i8,
    },
    /// A dimension or an option of zero, or one that does not fit the others.
    #[error("{what} is {value}, it must be {expected}")]
    Dimension {
        /// The dimension or option.
        what: &'static str,
        /// Its value.
        value: usize,
        /// What it may be.
        expected: &'static str,
    },
    /// A slice with too many or too few elements.
    #[error("{what} has {found} elements, expected {expected}")]
    Length {
        /// The slice.
        what: &'static str,
        /// Elements that it must have.
        expected: usize,
        /// Elements that it has.
        found: usize,
    },
    /// An instruction set that this machine lacks.
    #[error("this machine has no {level:?}: choose one of `Level::available()`")]
    Unavailable {
        /// The instruction set.
        level: Level,
    },
    /// An input smaller than the dilated kernel.
    #[error("an input of {input} with a padding of {padding} is smaller than the dilated kernel of {kernel}")]
    InputTooSmall {
        /// Height or width.
        input: usize,
        /// Padding on either side.
        padding: usize,
        /// Extent of the dilated kernel.
        kernel: usize,
    },
}

impl KernelError {
    /// Refuses a slice of the wrong length.
    pub(crate) fn check_length(what: &'static str, expected: usize, found: usize) -> Result<(), Self> {
        if found == expected { Ok(()) } else { Err(Self::Length { what, expected, found }) }
    }

    /// Refuses zero.
    pub(crate) fn check_positive(what: &'static str, value: usize) -> Result<(), Self> {
        if value > 0 { Ok(()) } else { Err(Self::Dimension { what, value, expected: "at least 1" }) }
    }
}
