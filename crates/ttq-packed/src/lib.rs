//! Packed ternary weights, without a deep-learning framework: two bits a weight, two exact scales, and CPU kernels that compute on
//! the packed form.
//!
//! | module | what |
//! |---|---|
//! | [`codes`] | two bits for each of -1, 0, +1 |
//! | [`file`](mod@file) | a model in a safetensors file: codes, scales, every other tensor; its specification |
//! | [`archive`] | codes at their entropy, for files that are kept or sent |
//! | [`recognize`](recognize()) | ternary weights among full-precision tensors |
//! | [`kernels`] | products with packed weights |
//!
//! ```no_run
//! use ttq_packed::PackedModel;
//!
//! let model = PackedModel::load("model.safetensors")?;
//! for (name, weight) in &model.weights {
//!     let zeros = 100.0 * weight.sparsity();
//!     println!("{name} {:?}: {zeros:.0} % zeros, {:.2} bits of information a weight", weight.shape(), weight.entropy());
//!     let integers: Vec<i8> = weight.codes().unpack();
//!     let [w_pos, w_neg] = weight.scales()[0];
//! }
//! # Ok::<(), ttq_packed::FileError>(())
//! ```
//!
//! Without the feature `std`, which is on by default, the crate is `no_std` with `alloc`: models are read from bytes.
//!
//! # The integers in Python
//!
//! `safetensors` and `numpy` are enough (`python/codes.py`):
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
mod recognize;

pub use codes::{Codes, CodesError};
pub use file::{Coding, DenseTensor, Dtype, FileError, PackedModel, TernaryWeight};
pub use recognize::recognize;
