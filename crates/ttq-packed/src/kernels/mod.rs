//! Kernels over packed weights: slices in, slices out. They know no files and no tensors.
//!
//! A weight is one of `+w_pos`, `0`, `-w_neg`. With `P` and `N` the sums of the activations at weights of +1 and of -1, a product is
//!
//! `y = w_pos P - w_neg N`,
//!
//! so that two scales, one pair for a tensor or one for each row, cost two multiplications for an output and none for a weight.
//! [`PackedMatrix`] and [`PackedConvolution`] are made once, when a network is loaded, and hold what their kernels read:
//!
//! | activations | kernels | weights in memory |
//! |---|---|---|
//! | [`Activations::Float32`] | tables of partial sums for a row or two (AVX2, AVX-512, NEON); decode and multiply-add otherwise | 2 bits |
//! | the same, convolution with many zeros ([`Path::Sparse`]) | sums over lists of the weights of +1 and of -1 | 2 bits, and 8 for a nonzero |
//! | [`Activations::Int8`] | tables of partial sums for a row or two, many rows of weights and two scales (AVX2); byte dot products otherwise, with both indicator planes; with one plane where `w_pos = w_neg` in every row | 2 bits |
//!
//! Each kernel exists for every [`Level`] of the machine. Results do not depend on the number of threads.

#![allow(clippy::needless_range_loop, reason = "rows, columns and lanes of several arrays advance in step")]

#[cfg(all(feature = "std", target_arch = "x86_64"))]
mod avx2;
#[cfg(all(feature = "std", target_arch = "x86_64"))]
mod avx2_bytes;
#[cfg(all(feature = "std", target_arch = "x86_64"))]
mod avx512;
mod byte_tables;
mod convolution;
mod epilogue;
mod error;
mod level;
mod lookup;
mod matrix;
mod memory;
#[cfg(all(feature = "std", target_arch = "aarch64"))]
mod neon;
mod panels;
mod portable;
mod product;
mod quantize;
mod simd;
mod tile;
mod workers;

pub use convolution::{ConvolutionOptions, PackedConvolution, Path};
pub use epilogue::Scales;
pub use error::KernelError;
pub use level::Level;
pub use matrix::PackedMatrix;
pub use memory::Scratch;

/// The precision in which activations are multiplied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Activations {
    /// Exact: results differ from those of dense float32 weights by the order of summation alone.
    #[default]
    Float32,
    /// 8 bits: each row of a matrix product, each image of a convolution, is rounded to `q = round(x / factor)` with
    /// `factor = max |x| / 127`. Sums of `q` are exact; the error of an output is at most `factor / 2` times the sum of the magnitudes
    /// of its weights.
    Int8,
}

/// What a call has to read, write and compute: divided by its time, a share of what the machine can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Packed weights and all that belongs to rows, as the kernel reads them.
    pub weight_bytes: usize,
    /// The input, in float32.
    pub input_bytes: usize,
    /// The output, in float32.
    pub output_bytes: usize,
    /// Multiply-accumulates of the dense product. A sparse kernel adds once for each nonzero weight among them; an int8 kernel with
    /// two scales multiplies each twice.
    pub multiply_accumulates: usize,
}
