//! What the tests of several crates share: numbers that are the same in every run, modules made of them, and a network
//! to train.
//!
//! Burn's own random numbers come from one generator for each process, which all threads of a test program draw from:
//! what a test gets of it depends on what the others do at that moment, seeded or not.

mod numbers;
#[cfg(feature = "train")]
pub mod points;
mod reproducible;
#[cfg(feature = "train")]
mod training;

pub use numbers::{normal, tensor, uniform};
pub use reproducible::reproducible;
#[cfg(feature = "train")]
pub use training::classification;
