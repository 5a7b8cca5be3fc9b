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
//! ([`Int8`]).
//!
//! In all other cases each call unpacks the weight on the device and computes the dense layer, with activations in
//! floating point:
//!
//! - the tensors are those of another backend, for example NdArray, or of an autodiff backend;
//! - the input on the CPU is not float32;
//! - the input on a GPU is neither float32 nor a float16 or bfloat16 that the device supports.
//!
//! [`PackedLinear::computes_packed`] and [`PackedConv2d::computes_packed`] return which case applies. Padding, stride,
//! dilation and groups do not matter.
//!
//! A layer computes with the parameters that it has at the call, whatever has changed them. It prepares a kernel at
//! the first call and after each change.

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

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

pub use convolution::PackedConv2d;
pub use layer::{Convolution, LinearLayer};
pub use linear::PackedLinear;
pub use load::{LoadError, LoadOptions, LoadReport, Mismatch, load, load_with};
pub use pack::{PackError, pack};
/// The coding of packed weights in a file, and a packed model: those of [`ttq_packed`].
pub use ttq_packed::{Coding, PackedModel};
pub use weight::PackedWeight;

/// Returns whether a layer with this weight computes this input on the packed form.
fn computes_packed<B: Backend, const D: usize>(input: &Tensor<B, D>, weight: &PackedWeight<B>) -> bool {
    #[cfg(feature = "flex")]
    if kernels::supports(input) {
        return true;
    }
    #[cfg(feature = "cubecl")]
    if device::supports(input, weight) {
        return true;
    }
    let _ = (input, weight);
    false
}
