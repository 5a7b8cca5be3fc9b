//! Data sets: MNIST, CIFAR-10, and digits that are part of this program.
//!
//! A data set is searched for in `--data`, then in `$TTQ_DATA`, then in the user's cache. If it is in none of them, it is
//! downloaded into the cache.

mod augment;
pub mod cache;
pub mod cifar;
mod digits;
mod error;
mod images;
mod mnist;

pub use augment::{Augmentation, normalize};
pub use cifar::cifar10;
pub use error::DataError;
pub use images::{ImageSet, Images};
pub use mnist::mnist;
