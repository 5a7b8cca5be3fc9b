//! Deployment: packed weights in files and in layers.
//!
//! ```text
//! Ternary<B, M> ──► pack ──► PackedModel ──► file ──► PackedModel ──► load ──► M again, its weights take three values
//!                                                                        └──► a module of packed layers: 2 bits a weight
//! ```
//!
//! A network that is to run packed is generic over its layers, `Net<B, C: Convolution<B>>` say: `Net<B, Conv2d<B>>` trains, and
//! `Net<B, PackedConv2d<B>>` is filled from the file by parameter path. Modules are never rewritten.
//!
//! Packed layers compute on the packed form where tensors are those of Burn's Flex (that backend and `ttq-cpu`, with the feature
//! `flex`) or lie on a device of Burn's CUDA or wgpu backend (with the features `cuda` and `wgpu`): with float32 activations exactly as the
//! dense layer up to the order of sums, or with [`Int8`] ones. On every other backend the weight is unpacked on the device for each call,
//! and the layer computes as the dense one.

mod activations;
mod convolution;
#[cfg(feature = "cubecl")]
mod device;
mod dtype;
#[cfg(feature = "flex")]
mod kernels;
mod layer;
mod linear;
mod load;
mod pack;
#[cfg(any(feature = "cubecl", feature = "flex"))]
mod padding;
#[cfg(any(feature = "cubecl", feature = "flex"))]
mod prepared;
mod weight;

pub use activations::{ActivationType, Float32, Int8};
pub use convolution::PackedConv2d;
pub use layer::{Convolution, LinearLayer};
pub use linear::PackedLinear;
pub use load::{LoadError, Mismatch, load};
pub use pack::{PackError, pack};
pub use weight::PackedWeight;
