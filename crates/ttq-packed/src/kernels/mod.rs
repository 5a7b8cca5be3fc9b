//! Matrix products and convolutions with packed weights. Inputs and outputs are slices.
//!
//! A weight is `+w_pos`, `0` or `-w_neg`. With `P` and `N` the sums of the activations at the codes +1 and -1, an
//! output is
//!
//! `y = w_pos P - w_neg N`.
//!
//! The scales, one pair per tensor or per row, thus cost two multiplications per output and none per weight.
//! [`PackedMatrix`] and [`PackedConvolution`] are created once, when a network is loaded, and hold the weights in the
//! layout of their kernels:
//!
//! | activations | kernels | bits per weight in memory |
//! |---|---|---|
//! | [`Activations::Float32`] | lookup tables of partial sums (AVX-512; AVX2 and NEON for one or two rows of activations); otherwise decoding and multiply-add | 2 |
//! | [`Activations::Float32`], convolution with many zeros ([`ConvolutionPath::Sparse`]) | sums over lists of the codes +1 and -1 | 8 per nonzero weight, plus 64 per row and up to 144 weights |
//! | [`Activations::Int8`] | byte dot products with integers in the ratio of the scales (AVX-512 and AVX-VNNI); elsewhere with the indicator planes of +1 and -1, or with a single plane of signs if `w_pos = w_neg` in every row; lookup tables of partial sums for one or two rows of activations, many rows of weights and two scales (AVX2) | 2 |
//!
//! The instruction set is chosen at run time (see [`Level`]). Results do not depend on the number of threads.

#![allow(clippy::needless_range_loop, reason = "an index of a row, column or lane applies to several arrays")]

#[cfg(all(feature = "std", target_arch = "x86_64"))]
mod avx2;
#[cfg(all(feature = "std", target_arch = "x86_64"))]
mod avx2_bytes;
#[cfg(all(feature = "std", target_arch = "x86_64"))]
mod avx512;
mod byte_tables;
mod byte_weights;
mod convolution;
pub(crate) mod epilogue;
mod error;
pub(crate) mod level;
mod lookup;
mod matrix;
pub(crate) mod memory;
#[cfg(all(feature = "std", target_arch = "aarch64"))]
mod neon;
mod panels;
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod portable;
mod product;
mod quantize;
pub(crate) mod simd;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd128;
mod tile;
mod view;
mod workers;

pub use convolution::{ConvolutionOptions, ConvolutionPath, PackedConvolution};
pub use epilogue::Scales;
pub use error::KernelError;
pub use level::Level;
pub use matrix::PackedMatrix;
pub use memory::Scratch;
pub use view::CodesView;

/// The precision of activations in a product.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Activations {
    /// Float32 activations. Results differ from a product with dense float32 weights only by the order of summation.
    #[default]
    Float32,
    /// Int8 activations, quantized for each call: `q = round(x / factor)` with `factor = max |x| / 127`.
    ///
    /// There is one factor per row of a matrix product, or per image of a convolution. Sums of `q` are exact.
    ///
    /// Scales become `unit · a` and `unit · b` with integers up to 127, so that a single sum per output suffices. This
    /// changes a scale by a factor of at most 1 ± 1/256, by less than 1e-4 for half of all ratios from 1/4 to 4, and not
    /// at all if the scales are equal. If a row has scales whose ratio is not approximated that well (some beyond 64), or
    /// so many columns that sums could overflow, the matrix keeps its exact scales and two sums per output.
    ///
    /// The error of an output is thus at most `factor / 2 · Σ |w| + Σ |w x| / 256`, which is less than `factor · Σ |w|`.
    Int8,
}

/// Memory traffic and arithmetic of one call.
///
/// Divided by the time of the call, it gives the fraction of the memory bandwidth or of the peak arithmetic rate in
/// use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Bytes of the packed weights and of the scales and shifts of the rows.
    pub weight_bytes: usize,
    /// Bytes of the float32 input.
    pub input_bytes: usize,
    /// Bytes of the float32 output.
    pub output_bytes: usize,
    /// Number of multiply-accumulates of the dense product.
    ///
    /// A sparse kernel computes one addition per nonzero weight instead. An int8 kernel with two sums computes each
    /// product twice.
    pub multiply_accumulates: usize,
}
