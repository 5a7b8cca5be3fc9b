//! Packed ternary weights, without a deep-learning framework: two bits a weight, two exact scales, and CPU kernels that compute on
//! the packed form.

#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod archive;
pub mod codes;
pub mod file;
pub mod kernels;

pub use codes::{Codes, CodesError};
pub use file::{Coding, DenseTensor, Dtype, FileError, PackedModel, TernaryWeight};
