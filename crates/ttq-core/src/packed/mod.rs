//! Deployment: packed weights in files and in layers.
//!
//! ```text
//! Ternary<B, M> ──► pack ──► PackedModel ──► file ──► PackedModel ──► load ──► M, its weights take three values
//!                                                                       └────► packed layers, 2 bits per weight
//! ```
//!
//! A network that runs on packed weights is generic over its layers, for example `Net<B, C>` with `C: Convolution<B>`:
//! `Net<B, Conv2d<B>>` is trained, and [`load`] fills `Net<B, PackedConv2d<B>>` from the file by parameter path.
//!
//! Packed layers compute on the packed form if tensors are those of Burn's Flex backend or of `ttq-cpu` (feature
//! `flex`), or on a device of Burn's CUDA or wgpu backend (features `cuda` and `wgpu`). With float32 activations the
//! result is exactly that of the dense layer up to the order of sums; activations can also be quantized to 8 bits
//! ([`Int8`]). On every other backend each call unpacks the weight on the device and computes the dense layer.

mod activations;
mod convolution;
#[cfg(feature = "cubecl")]
mod device;
mod dtype;
mod geometry;
#[cfg(any(feature = "cubecl", feature = "flex"))]
mod kernel_cache;
#[cfg(feature = "flex")]
mod kernels;
mod layer;
mod linear;
mod load;
mod pack;
pub mod pytorch;
mod weight;

pub use activations::{ActivationType, Float32, Int8};
pub use convolution::PackedConv2d;
pub use layer::{Convolution, LinearLayer};
pub use linear::PackedLinear;
pub use load::{LoadError, Mismatch, load};
pub use pack::{PackError, pack};
/// The coding of packed weights in a file, and a packed model: those of [`ttq_packed`].
pub use ttq_packed::{Coding, PackedModel};
pub use weight::PackedWeight;
