//! The kernels on a wgpu device (a software one will do), held against definitions written as loops in float64.
//!
//! Where no adapter answers, every test here skips, and one line says so.

mod numbers;
mod packed;
mod quantizer;
mod training;

use std::io::Write;
use std::sync::OnceLock;

use burn::prelude::*;
use burn_cubecl::CubeBackend;
use burn_fusion::Fusion;
use cubecl::Runtime;
use cubecl::wgpu::{AutoGraphicsApi, GraphicsApi, WgpuDevice, WgpuRuntime};

/// Burn's wgpu backend without fusion, and with it.
type Plain = CubeBackend<WgpuRuntime, f32, i32, u32>;
type Fused = Fusion<Plain>;

/// The device, if there is one.
fn device() -> Option<WgpuDevice> {
    static FOUND: OnceLock<bool> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let found = !WgpuRuntime::enumerate_all_devices(&AutoGraphicsApi::backend()).is_empty();
        if !found {
            say("no wgpu adapter: the tests of the GPU kernels skip");
        }
        found
    });
    found.then(WgpuDevice::default)
}

/// Prints a line that a test harness does not swallow.
fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").expect("standard error takes a line");
}

fn floats<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}
