//! Which backend a run takes.

#[cfg(feature = "cuda")]
use std::path::PathBuf;

use anyhow::{Result, bail};
#[cfg(all(feature = "autocast", any(feature = "cuda", feature = "wgpu")))]
use burn::prelude::*;
#[cfg(all(feature = "autocast", any(feature = "cuda", feature = "wgpu")))]
use ttq_autocast::{Autocast, Half};

use crate::{BackendChoice, Precision};

/// A backend that is compiled in and has a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backends {
    /// The CPU, with this project's kernels.
    #[cfg(feature = "cpu")]
    Cpu,
    /// The CPU, with Burn's kernels.
    #[cfg(feature = "flex")]
    Flex,
    /// The same with products in bfloat16: no faster, but it shows without a GPU what that does to a training.
    #[cfg(all(feature = "autocast", feature = "flex"))]
    FlexBf16,
    /// NVIDIA GPUs.
    #[cfg(feature = "cuda")]
    Cuda,
    /// The same with products in bfloat16.
    #[cfg(all(feature = "autocast", feature = "cuda"))]
    CudaBf16,
    /// The same with products in float16.
    #[cfg(all(feature = "autocast", feature = "cuda"))]
    CudaF16,
    /// Other GPUs.
    #[cfg(feature = "wgpu")]
    Wgpu,
    /// The same with products in float16.
    #[cfg(all(feature = "autocast", feature = "wgpu"))]
    WgpuF16,
}

impl Backends {
    /// Name on the command line, and the precision where it is not float32.
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "cpu")]
            Self::Cpu => "cpu",
            #[cfg(feature = "flex")]
            Self::Flex => "flex",
            #[cfg(all(feature = "autocast", feature = "flex"))]
            Self::FlexBf16 => "flex-bf16",
            #[cfg(feature = "cuda")]
            Self::Cuda => "cuda",
            #[cfg(all(feature = "autocast", feature = "cuda"))]
            Self::CudaBf16 => "cuda-bf16",
            #[cfg(all(feature = "autocast", feature = "cuda"))]
            Self::CudaF16 => "cuda-f16",
            #[cfg(feature = "wgpu")]
            Self::Wgpu => "wgpu",
            #[cfg(all(feature = "autocast", feature = "wgpu"))]
            Self::WgpuF16 => "wgpu-f16",
        }
    }

    /// The same backend with products in another type.
    pub(crate) fn in_precision(self, precision: Precision) -> Result<Self> {
        match (self, precision) {
            (_, Precision::F32) => Ok(self),
            #[cfg(all(feature = "autocast", feature = "flex"))]
            (Self::Flex, Precision::Bf16) => Ok(Self::FlexBf16),
            #[cfg(all(feature = "autocast", feature = "cuda"))]
            (Self::Cuda, Precision::Bf16) => on_device::<burn::backend::Cuda, ttq_autocast::Bf16>(Self::CudaBf16),
            #[cfg(all(feature = "autocast", feature = "cuda"))]
            (Self::Cuda, Precision::F16) => on_device::<burn::backend::Cuda, ttq_autocast::F16>(Self::CudaF16),
            #[cfg(all(feature = "autocast", feature = "wgpu"))]
            (Self::Wgpu, Precision::F16) => on_device::<burn::backend::Wgpu, ttq_autocast::F16>(Self::WgpuF16),
            _ if cfg!(not(feature = "autocast")) => {
                bail!("this program was built without mixed precision: build it with `--features autocast`")
            }
            _ => bail!(
                "the backend {} has no such precision: cuda takes `--precision` bf16 and f16, wgpu f16, flex bf16",
                self.name()
            ),
        }
    }
}

/// The backend, if its device computes in the type.
#[cfg(all(feature = "autocast", any(feature = "cuda", feature = "wgpu")))]
fn on_device<B: Backend, P: Half>(backend: Backends) -> Result<Backends> {
    if !Autocast::<B, P>::is_supported(&Default::default()) {
        bail!("the device does not compute in {}: leave `--precision` out, or try the other one", P::NAME);
    }
    Ok(backend)
}

/// The backend behind a choice, with the reason where the choice was `auto`.
pub(crate) fn select(choice: BackendChoice, devices: usize) -> Result<(Backends, &'static str)> {
    match choice {
        BackendChoice::Auto => auto(devices),
        BackendChoice::Cpu => cpu().map(|backend| (backend, "as asked for")),
        BackendChoice::Flex => flex().map(|backend| (backend, "as asked for")),
        BackendChoice::Cuda => cuda(devices).map(|backend| (backend, "as asked for")),
        BackendChoice::Wgpu => wgpu().map(|backend| (backend, "as asked for")),
    }
}

fn auto(devices: usize) -> Result<(Backends, &'static str)> {
    match cuda(devices) {
        Ok(backend) => return Ok((backend, "a CUDA device answers")),
        Err(error) if cuda_driver() => eprintln!("CUDA is left out: {error:#}"),
        Err(_) => {}
    }
    if let Ok(backend) = cpu().or_else(|_| flex()) {
        return Ok((backend, "no CUDA device answers"));
    }
    wgpu().map(|backend| (backend, "the only one compiled in"))
}

#[cfg(feature = "cpu")]
fn cpu() -> Result<Backends> {
    Ok(Backends::Cpu)
}

#[cfg(not(feature = "cpu"))]
fn cpu() -> Result<Backends> {
    bail!("this program was built without the backend cpu: build it with `--features cpu`")
}

#[cfg(feature = "flex")]
fn flex() -> Result<Backends> {
    Ok(Backends::Flex)
}

#[cfg(not(feature = "flex"))]
fn flex() -> Result<Backends> {
    bail!("this program was built without the backend flex: build it with `--features flex`")
}

#[cfg(feature = "wgpu")]
fn wgpu() -> Result<Backends> {
    Ok(Backends::Wgpu)
}

#[cfg(not(feature = "wgpu"))]
fn wgpu() -> Result<Backends> {
    bail!("this program was built without the backend wgpu: build it with `--features wgpu`")
}

#[cfg(not(feature = "cuda"))]
fn cuda(_devices: usize) -> Result<Backends> {
    bail!("this program was built without the backend cuda: build it with `--features cuda`")
}

#[cfg(not(feature = "cuda"))]
fn cuda_driver() -> bool {
    false
}

#[cfg(feature = "cuda")]
fn cuda_driver() -> bool {
    // SAFETY: the function only tries to load the driver's library, whose initializers are the vendor's and expected to
    // run in any process that uses CUDA.
    unsafe { cudarc::driver::sys::is_culib_present() }
}

#[cfg(feature = "cuda")]
fn cuda(devices: usize) -> Result<Backends> {
    if !cuda_driver() {
        bail!("no CUDA driver (libcuda) was found: install NVIDIA's driver, or take `--backend cpu`");
    }
    match cudarc::driver::CudaContext::device_count() {
        Ok(count) if count as usize >= devices => cuda_compiler().map(|()| Backends::Cuda),
        Ok(count) => bail!("{devices} CUDA devices were asked for and {count} answer: lower `--devices`"),
        Err(error) => bail!("the CUDA driver does not answer ({error}): take `--backend cpu`"),
    }
}

/// Kernels are compiled when they are first used, by NVRTC and with CUDA's headers, which cubecl looks for in these places.
#[cfg(feature = "cuda")]
fn cuda_compiler() -> Result<()> {
    const REMEDY: &str = "install the CUDA toolkit, or set CUDA_PATH and LD_LIBRARY_PATH as docs/gpu.md says";
    // SAFETY: as for the driver's library.
    let compiler = unsafe { cudarc::nvrtc::sys::is_culib_present() };
    if !compiler {
        bail!("NVRTC (libnvrtc), which compiles kernels for CUDA, was not found: {REMEDY}");
    }
    let places = match std::env::var_os("CUDA_PATH") {
        Some(path) => vec![PathBuf::from(path)],
        None if cfg!(target_os = "linux") => ["/usr/local/cuda", "/opt/cuda", "/usr"].map(PathBuf::from).into(),
        None => return Ok(()),
    };
    if !places.iter().any(|place| place.join("include/cuda_runtime.h").is_file()) {
        bail!("CUDA's headers (cuda_runtime.h), which kernels are compiled with, were not found: {REMEDY}");
    }
    Ok(())
}

/// Does a job on the backend that it was given: `on_backend!(job, |B, classes, device| MnistNet::<B>::new(classes, device))`.
#[macro_export]
macro_rules! on_backend {
    (@start $job:ident, $inner:ty, $devices:expr, |$backend:ident, $classes:ident, $device:ident| $network:expr) => {{
        type $backend = burn::backend::Autodiff<$inner>;
        $job.start::<$backend, _>($devices, |$classes, $device| $network)
    }};
    ($job:expr, |$backend:ident, $classes:ident, $device:ident| $network:expr) => {{
        let job: $crate::Job = $job;
        let devices = job.config().devices;
        match job.backend() {
            #[cfg(feature = "cpu")]
            $crate::Backends::Cpu => {
                let devices = vec![Default::default(); devices];
                $crate::on_backend!(@start job, $crate::Cpu, devices, |$backend, $classes, $device| $network)
            }
            #[cfg(feature = "flex")]
            $crate::Backends::Flex => {
                let devices = vec![Default::default(); devices];
                $crate::on_backend!(@start job, burn::backend::Flex, devices, |$backend, $classes, $device| $network)
            }
            #[cfg(all(feature = "autocast", feature = "flex"))]
            $crate::Backends::FlexBf16 => {
                let devices = vec![Default::default(); devices];
                $crate::on_backend!(@start job, $crate::Autocast<burn::backend::Flex, $crate::Bf16>, devices, |$backend, $classes, $device| $network)
            }
            #[cfg(feature = "cuda")]
            $crate::Backends::Cuda => {
                let devices = (0..devices).map(burn::backend::cuda::CudaDevice::new).collect();
                $crate::on_backend!(@start job, burn::backend::Cuda, devices, |$backend, $classes, $device| $network)
            }
            #[cfg(all(feature = "autocast", feature = "cuda"))]
            $crate::Backends::CudaBf16 => {
                let devices = (0..devices).map(burn::backend::cuda::CudaDevice::new).collect();
                $crate::on_backend!(@start job, $crate::Autocast<burn::backend::Cuda, $crate::Bf16>, devices, |$backend, $classes, $device| $network)
            }
            #[cfg(all(feature = "autocast", feature = "cuda"))]
            $crate::Backends::CudaF16 => {
                let devices = (0..devices).map(burn::backend::cuda::CudaDevice::new).collect();
                $crate::on_backend!(@start job, $crate::Autocast<burn::backend::Cuda, $crate::F16>, devices, |$backend, $classes, $device| $network)
            }
            #[cfg(feature = "wgpu")]
            $crate::Backends::Wgpu => {
                let devices = vec![Default::default(); devices];
                $crate::on_backend!(@start job, burn::backend::Wgpu, devices, |$backend, $classes, $device| $network)
            }
            #[cfg(all(feature = "autocast", feature = "wgpu"))]
            $crate::Backends::WgpuF16 => {
                let devices = vec![Default::default(); devices];
                $crate::on_backend!(@start job, $crate::Autocast<burn::backend::Wgpu, $crate::F16>, devices, |$backend, $classes, $device| $network)
            }
        }
    }};
}

#[cfg(all(test, feature = "autocast", feature = "cpu", feature = "flex"))]
mod tests {
    use super::*;

    #[test]
    fn a_precision_that_a_backend_does_not_have_is_refused() {
        assert_eq!(Backends::Flex.in_precision(Precision::Bf16).unwrap().name(), "flex-bf16");
        assert_eq!(Backends::Cpu.in_precision(Precision::F32).unwrap(), Backends::Cpu);
        for (backend, precision) in [(Backends::Cpu, Precision::Bf16), (Backends::Flex, Precision::F16)] {
            let refusal = backend.in_precision(precision).unwrap_err().to_string();
            assert!(refusal.contains(backend.name()), "{refusal}");
        }
    }
}
