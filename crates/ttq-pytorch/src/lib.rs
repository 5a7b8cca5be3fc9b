#![doc = include_str!("../README.md")]

mod archive;
mod checkpoint;
mod dtype;
mod error;
mod model;
mod objects;
mod pickle;
mod tensor;

pub use archive::is_pytorch;
pub use checkpoint::{Checkpoint, Entry, Skipped};
pub use dtype::Dtype;
pub use error::{Error, Escaped};
pub use model::Model;
pub use tensor::Tensor;
