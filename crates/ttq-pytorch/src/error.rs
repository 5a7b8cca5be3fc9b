//! Errors.

use std::fmt;
use std::path::PathBuf;

/// Error of reading a PyTorch file. Each message is one sentence without control characters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("{} cannot be read: {cause}", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        cause: std::io::Error,
    },
    /// The file has another format.
    #[error("is not a file of torch.save: {reason}")]
    Format {
        /// What the file is, and what to do.
        reason: String,
    },
    /// The file is cut off or damaged.
    #[error("is damaged: {reason}: download or save it again")]
    Damaged {
        /// The first contradiction.
        reason: String,
    },
    /// The file holds a module instead of its parameters.
    #[error(
        "{} is a whole module ({}): save its parameters with torch.save(model.state_dict(), path)",
        Place(path),
        Escaped(class)
    )]
    WholeModule {
        /// Path of the module in the file; empty for the root.
        path: String,
        /// Class of the module.
        class: String,
    },
    /// A tensor cannot be read.
    #[error("tensor `{}` {reason}", Escaped(path))]
    Tensor {
        /// Path of the tensor.
        path: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Two tensors have the same path.
    #[error("two tensors have the name `{}`: save one dictionary of tensors with different names", Escaped(path))]
    Duplicate {
        /// The path.
        path: String,
    },
    /// No tensor has this path.
    #[error("no tensor has the path `{}`", Escaped(path))]
    NoTensor {
        /// The path.
        path: String,
    },
    /// The file has no entry with this key that holds tensors.
    #[error("no entry `{}` holds tensors: {}", Escaped(key), Keys(available))]
    NoKey {
        /// The key.
        key: String,
        /// Keys that hold tensors.
        available: Vec<String>,
    },
    /// The tensors do not fit a safetensors file.
    #[error("does not fit a safetensors file: {reason}")]
    Unwritable {
        /// What does not fit.
        reason: String,
    },
}

impl Error {
    pub(crate) fn damaged(reason: impl Into<String>) -> Self {
        Self::Damaged { reason: reason.into() }
    }
}

/// Text from a file, with control and text-direction characters escaped as in a Rust string.
///
/// ```
/// assert_eq!(ttq_pytorch::Escaped("a\n\u{1b}[31m").to_string(), r"a\n\u{1b}[31m");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            let reorders =
                matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if character.is_control() || reorders || matches!(character, '\u{2028}' | '\u{2029}') {
                write!(f, "{}", character.escape_debug())?;
            } else {
                write!(f, "{character}")?;
            }
        }
        Ok(())
    }
}

/// A path, or the file if it is empty.
struct Place<'a>(&'a str);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("the file") } else { write!(f, "its entry `{}`", Escaped(self.0)) }
    }
}

/// The keys to choose from.
struct Keys<'a>(&'a [String]);

impl fmt::Display for Keys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("the file has no entries with keys, so omit the key");
        }
        let keys: Vec<String> = self.0.iter().map(|key| format!("`{}`", Escaped(key))).collect();
        write!(f, "choose one of {}", keys.join(", "))
    }
}
