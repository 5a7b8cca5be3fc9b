//! Compares the kernels with reference loops in float64, on a wgpu device (also a software one) and, with the feature
//! `cuda`, on an NVIDIA GPU.
//!
//! Tests of a device that does not exist are skipped, with one line on the standard error.

// Each device's module includes the same test files.
#![allow(clippy::duplicate_mod)]

#[cfg(feature = "cuda")]
mod cuda;
mod numbers;
mod wgpu;

use std::io::Write;

use burn::prelude::*;

/// Prints a line that the test harness does not capture.
fn print_line(line: &str) {
    writeln!(std::io::stderr(), "{line}").expect("the standard error is writable");
}

fn floats<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}
