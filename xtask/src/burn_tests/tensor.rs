#![recursion_limit = "256"]
#![allow(warnings)]

extern crate alloc;

pub use burn_tensor::Tensor;

burn_backend_tests::test_types!(burn_backend_tests::Inner);

#[path = "burn/tensor/mod.rs"]
mod tensor;
