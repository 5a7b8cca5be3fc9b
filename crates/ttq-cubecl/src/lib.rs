//! GPU kernels of trained ternary quantization, for the CubeCL backends of the [Burn](https://burn.dev) deep-learning framework.
//!
//! The functions here take Burn tensors of any backend for which [`takes`] says yes: CUDA's with the feature `cuda`, wgpu's (Vulkan,
//! Metal, DirectX, WebGPU) with the feature `wgpu`, each with Burn's fusion and without. On others, and through autodiff, `ttq-core`
//! computes the same with ordinary tensor operations; it is what calls this crate.
//!
//! Nothing here waits for the device, and every sum has one order, whatever the device.
//!
//! | operation | kernels |
//! |---|---|
//! | [`threshold`], [`ternarize`] | one over the weight for the maximum or sum of the magnitudes, one for the result |
//! | [`smallest`] | eight pairs: one over the weight counts its digits, a small one chooses among them |
//! | [`gradients`] | the first of these, one over the weight for the latent gradient and the sums, one small one where there are many |
//! | [`linear`] | up to four rows: each word of 16 weights is read once; more: tiles in shared memory |
//! | [`conv2d`] | tiles in shared memory, the windows of the images found while these are read |

// Without a runtime there is no tensor that the kernels take, and nothing is reached.
#![cfg_attr(not(any(feature = "cuda", feature = "wgpu")), allow(dead_code, unused_variables))]

mod kernels;
mod operation;
mod packed;
mod quantizer;

pub use packed::{Layer, Weight, Window, conv2d, linear, takes_codes};
pub use quantizer::{Gradients, Threshold, gradients, smallest, takes, ternarize, threshold};
