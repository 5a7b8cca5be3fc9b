//! The kernels held against definitions written as loops in float64: on a wgpu device (a software one will do) and, with the feature `cuda`,
//! on an NVIDIA GPU.
//!
//! Where no device answers, its tests skip, and one line says so.

// The same tests on several devices: each of their modules has them.
#![allow(clippy::duplicate_mod)]

#[cfg(feature = "cuda")]
mod cuda;
mod numbers;
mod wgpu;

use std::io::Write;

use burn::prelude::*;

/// Prints a line that a test harness does not swallow.
fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").expect("standard error takes a line");
}

fn floats<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}
