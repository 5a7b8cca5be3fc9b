//! Data sets: MNIST, CIFAR-10, text, and digits that are part of this program.
//!
//! A set of images is searched for in `--data`, then in `$TTQ_DATA`, then in the user's cache. If it is in none of them, it is
//! downloaded into the cache.

mod augment;
pub mod cache;
pub mod cifar;
mod classification;
mod digits;
mod error;
mod images;
mod mnist;
mod text;

pub use augment::{Augmentation, Distort, normalize};
pub use cifar::cifar10;
pub use classification::batch;
pub use error::DataError;
pub use images::{ImageSet, Images};
pub use mnist::mnist;
pub(crate) use text::BYTES;
pub use text::{PackedText, Text, text};
