//! Real images: MNIST, CIFAR-10, and digits that need no network.
//!
//! A data set is looked for in `--data`, then in `$TTQ_DATA`, then in the user's cache, and is downloaded into the cache
//! where it is in none of them.

mod augment;
mod cache;
mod cifar;
mod digits;
mod error;
mod images;
mod mnist;

pub use augment::{Augmentation, mix, normalize};
pub use cifar::cifar10;
pub use error::DataError;
pub use images::{ImageSet, Images};
pub use mnist::mnist;
