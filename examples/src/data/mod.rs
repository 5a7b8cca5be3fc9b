//! Real images: MNIST, CIFAR-10, Tiny ImageNet, and digits that need no network.
//!
//! A data set is looked for in `--data`, then in `$TTQ_DATA`, then in the user's cache, and is downloaded into the cache
//! where it is in none of them (Tiny ImageNet must be fetched by hand).

mod augment;
mod cache;
mod cifar;
mod digits;
mod distort;
mod error;
mod images;
mod jpeg;
mod mnist;
mod mosaic;
mod tiny_imagenet;

#[cfg(test)]
pub(crate) use cache::tests::real_data;

pub use augment::{Augmentation, mix, normalize};
pub use cifar::cifar10;
pub use error::DataError;
pub use images::{ImageSet, Images};
pub use mnist::mnist;
pub use mosaic::{cifar10_from_mosaics, cifar10_to_mosaics};
pub use tiny_imagenet::{tiny_imagenet, tiny_imagenet_validation};
