//! GPU kernels of trained ternary quantization, for the CubeCL backends of the [Burn](https://burn.dev) deep-learning
//! framework.
//!
//! Most users enable the feature `cuda` or `wgpu` of `ttq-core` (training) or `ttq-inference`, which call these functions
//! for all tensors that [`supports`] accepts. On other backends, and through autodiff, they compute the same results with
//! ordinary tensor operations.
//!
//! The functions accept Burn tensors of the following backends, each with Burn's fusion and without:
//!
//! | feature | backend |
//! |---|---|
//! | `cuda` | CUDA |
//! | `wgpu` | wgpu: Vulkan, Metal, DirectX, WebGPU |
//!
//! Without these features no tensor is supported.
//!
//! No function synchronizes with the device or differentiates. The order of every sum depends on the shapes alone, so
//! it is the same on every device.
//!
//! | operation | kernels |
//! |---|---|
//! | [`threshold`], [`ternarize`] | maximum or sum of the magnitudes in one pass over the weight; result |
//! | [`kth_smallest_magnitude`] | eight times: digit counts in one pass over the weight; selection of a digit |
//! | [`gradients`] | pass for latent gradient and sums; addition of several sums of a group |
//! | [`linear`] | up to four rows: each word of 16 weights is read once; more rows: tiles in shared memory |
//! | [`conv2d`] | tiles in shared memory, with windows of the images addressed on the fly (no im2col) |

// Without a runtime no tensor is supported, and most code is unreachable.
#![cfg_attr(not(any(feature = "cuda", feature = "wgpu")), allow(dead_code, unused_variables))]

mod kernels;
mod operation;
mod packed;
mod quantizer;

pub use packed::{PackedLayer, Window, conv2d, linear};
pub use quantizer::{
    GradientOptions, GroupAxes, Slope, ThresholdRule, gradients, kth_smallest_magnitude, supports, ternarize, threshold,
};

/// Tests the code of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
