//! Errors of kernel arguments.

use thiserror::Error;

use super::Level;

/// Error of an invalid argument.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A dimension or option is out of range or does not match another one.
    #[error("{what} is {value}: it must be {expected}")]
    Dimension {
        /// Name of the dimension or option.
        what: &'static str,
        /// Its value.
        value: usize,
        /// Description of valid values.
        expected: &'static str,
    },
    /// A slice has the wrong number of elements.
    #[error("{what} has {found} elements: it must have {expected}")]
    Length {
        /// Name of the slice.
        what: &'static str,
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
    /// The padded input is smaller than the dilated kernel.
    #[error(
        "an input of size {input} with padding {padding} is smaller than the dilated kernel of size {kernel}: use a larger \
         input or more padding"
    )]
    InputTooSmall {
        /// Height or width of the input.
        input: usize,
        /// Padding, the sum of both sides.
        padding: usize,
        /// Size of the dilated kernel, `dilation * (kernel - 1) + 1`.
        kernel: usize,
    },
}

impl KernelError {
    /// Returns an error if a slice has the wrong length.
    pub(crate) fn check_length(what: &'static str, expected: usize, found: usize) -> Result<(), Self> {
        if found == expected { Ok(()) } else { Err(Self::Length { what, expected, found }) }
    }

    /// Returns an error if the value is zero.
    pub(crate) fn check_positive(what: &'static str, value: usize) -> Result<(), Self> {
        if value > 0 { Ok(()) } else { Err(Self::Dimension { what, value, expected: "at least 1" }) }
    }
}
