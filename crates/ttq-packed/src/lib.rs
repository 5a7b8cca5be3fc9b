//! Stores ternary weights in 2 bits each and computes on the packed form, without a deep-learning framework.
//!
//! A ternary weight takes the values `+w_pos`, `0` and `-w_neg`. This crate stores its codes -1, 0, +1 in 2 bits each
//! and its two scales as exact float32 numbers, one pair per tensor or per output channel.
//!
//! | item | purpose |
//! |---|---|
//! | [`codes`] | 2-bit codes for -1, 0, +1 |
//! | [`file`](mod@file) | a model in a safetensors file (codes, scales, all other tensors), and the specification of the format |
//! | [`archive`] | entropy coding of codes, for storage and transfer |
//! | [`recognize`](recognize()) | detection of ternary weights among full-precision tensors |
//! | [`kernels`] | CPU matrix products and convolutions with packed weights |
//! | [`network`] | whole networks: a graph in the same file, compiled and run on the CPU in float32 or int8 |
//!
//! ```no_run
//! use ttq_packed::PackedModel;
//!
//! let model = PackedModel::load("model.safetensors")?;
//! for (name, weight) in &model.weights {
//!     println!("{name}: shape {:?}, sparsity {:.2}", weight.shape(), weight.sparsity());
//!     let codes: Vec<i8> = weight.codes().unpack();
//!     let [w_pos, w_neg] = weight.scales()[0];
//! }
//! # Ok::<(), ttq_packed::FileError>(())
//! ```
//!
//! # `no_std`
//!
//! The feature `std` is enabled by default. Without it the crate is `no_std` and needs `alloc`: models are read from
//! byte slices and written to byte vectors, and kernels run on one thread at
//! [`Level::Portable`](kernels::Level::Portable), or at [`Level::Simd128`](kernels::Level::Simd128) in WebAssembly with SIMD.
//!
//! # Reading the codes in Python
//!
//! The packages `safetensors` and `numpy` suffice (`python/codes.py`):
//!
//! ```python
#![doc = include_str!("../python/codes.py")]
//! ```

#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod archive;
pub mod codes;
pub mod file;
pub mod kernels;
pub mod network;
mod recognize;

pub use codes::{Codes, CodesError};
pub use file::{Coding, DenseTensor, Dtype, FileError, PackedModel, TensorLayout, TernaryWeight};
pub use recognize::recognize;

/// Compiles the code of `README.md` as a doc test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeDocTests;
