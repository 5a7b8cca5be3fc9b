//! Items shared by the tests of several crates: random numbers that are the same in every run, modules initialized with
//! them, and a small network to train.
//!
//! Burn has one random number generator for each process, from which all threads of a test program draw. So the numbers
//! that a test gets from it depend on the other tests that run at the same time, even with a seed.

mod numbers;
mod parameters;
#[cfg(feature = "train")]
pub mod points;
mod reproducible;
#[cfg(feature = "train")]
mod training;

pub use numbers::{normal, tensor, uniform};
pub use parameters::{elements, parameters};
pub use reproducible::reproducible;
#[cfg(feature = "train")]
pub use training::classification;
