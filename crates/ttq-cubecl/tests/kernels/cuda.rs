//! The tests on an NVIDIA GPU.

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
pub(crate) use cubecl::cuda::CudaDevice as Device;
use cubecl::cuda::CudaRuntime;
use cudarc::driver::CudaContext;

use crate::print_line;

/// Burn's backend without fusion, and with it.
type Plain = CubeBackend<CudaRuntime, f32, i32, u8>;
type Fused = Fusion<Plain>;
/// Type of products in mixed precision.
pub(crate) type Half = ttq_autocast::Bf16;

/// Returns the default device if there is one.
fn device() -> Option<Device> {
    static FOUND: OnceLock<bool> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        // SAFETY: the call only loads the driver's library, whose initializers may run in any process.
        let driver = unsafe { cudarc::driver::sys::is_culib_present() };
        let found = driver && CudaContext::device_count().is_ok_and(|devices| devices > 0);
        if !found {
            print_line("no CUDA device: the tests of the GPU kernels on CUDA are skipped");
        }
        found
    });
    found.then(Device::default)
}
