//! The tests on a wgpu device.

#[path = "autocast.rs"]
mod autocast;
#[path = "modules.rs"]
mod modules;
#[path = "packed.rs"]
mod packed;
#[path = "quantizer.rs"]
mod quantizer;
#[path = "training.rs"]
mod training;

use std::sync::OnceLock;

use burn_cubecl::CubeBackend;
use burn_fusion::Fusion;
use cubecl::Runtime;
pub(crate) use cubecl::wgpu::WgpuDevice as Device;
use cubecl::wgpu::{AutoGraphicsApi, GraphicsApi, WgpuRuntime};

use crate::print_line;

/// Burn's backend without fusion, and with it.
type Plain = CubeBackend<WgpuRuntime, f32, i32, u32>;
type Fused = Fusion<Plain>;
/// Type of products in mixed precision. WGSL has no bfloat16.
pub(crate) type Half = ttq_autocast::F16;

/// Returns the default device if there is one.
fn device() -> Option<Device> {
    static FOUND: OnceLock<bool> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let found = !WgpuRuntime::enumerate_all_devices(&AutoGraphicsApi::backend()).is_empty();
        if !found {
            print_line("no wgpu adapter: the tests of the GPU kernels on wgpu are skipped");
        }
        found
    });
    found.then(Device::default)
}
