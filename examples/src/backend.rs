//! The backend that a run computes on.

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
pub enum RunBackend {
    /// The CPU, by ttq-cpu.
    #[cfg(feature = "cpu")]
    Cpu,
    /// The CPU, by Burn's Flex.
    #[cfg(feature = "flex")]
    Flex,
    /// Flex with products in bfloat16: not faster, but it shows the effect on a training without a GPU.
    #[cfg(all(feature = "autocast", feature = "flex"))]
    FlexBf16,
    /// NVIDIA GPUs.
    #[cfg(feature = "cuda")]
    Cuda,
    /// NVIDIA GPUs with products in bfloat16.
    #[cfg(all(feature = "autocast", feature = "cuda"))]
    CudaBf16,
    /// NVIDIA GPUs with products in float16.
    #[cfg(all(feature = "autocast", feature = "cuda"))]
    CudaF16,
    /// Other GPUs.
    #[cfg(feature = "wgpu")]
    Wgpu,
    /// Other GPUs with products in float16.
    #[cfg(all(feature = "autocast", feature = "wgpu"))]
    WgpuF16,
}

impl RunBackend {
    /// Returns the name on the command line, with the precision if it is not float32.
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

    /// Returns the same backend with products in the type `precision`.
    ///
    /// # Errors
    /// A precision that the program, the backend or the device does not have.
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
                "the backend {} does not have this precision: cuda has bf16 and f16, wgpu f16, flex bf16",
                self.name()
            ),
        }
    }
}

/// Returns the backend if its device computes in the type `P`.
#[cfg(all(feature = "autocast", any(feature = "cuda", feature = "wgpu")))]
fn on_device<B: Backend, P: Half>(backend: RunBackend) -> Result<RunBackend> {
    if !Autocast::<B, P>::is_supported(&Default::default()) {
        bail!("the device does not compute in {}: leave out `--precision`, or choose another one", P::NAME);
    }
    Ok(backend)
}

/// Returns the backend of a choice, with the reason for it.
///
/// # Errors
/// A backend that is not compiled in or has fewer than `devices` devices.
pub fn select(choice: BackendChoice, devices: usize) -> Result<(RunBackend, &'static str)> {
    const CHOSEN: &str = "chosen by --backend";
    match choice {
        BackendChoice::Auto => automatic(devices),
        BackendChoice::Cuda => cuda(devices).map(|backend| (backend, CHOSEN)),
        #[cfg(feature = "cpu")]
        BackendChoice::Cpu => Ok((RunBackend::Cpu, CHOSEN)),
        #[cfg(feature = "flex")]
        BackendChoice::Flex => Ok((RunBackend::Flex, CHOSEN)),
        #[cfg(feature = "wgpu")]
        BackendChoice::Wgpu => Ok((RunBackend::Wgpu, CHOSEN)),
        #[allow(unreachable_patterns, reason = "with all features there is nothing left")]
        missing => {
            let name =
                clap::ValueEnum::to_possible_value(&missing).map_or(String::new(), |value| value.get_name().into());
            bail!("this program was built without the backend {name}: build it with `--features {name}`")
        }
    }
}

fn automatic(devices: usize) -> Result<(RunBackend, &'static str)> {
    match cuda(devices) {
        Ok(backend) => return Ok((backend, "a CUDA device answers")),
        Err(error) if cuda_driver() => eprintln!("CUDA is not used: {error:#}"),
        Err(_) => {}
    }
    let cpu = select(BackendChoice::Cpu, devices).or_else(|_| select(BackendChoice::Flex, devices));
    let Ok((backend, _)) = cpu else {
        return select(BackendChoice::Wgpu, devices).map(|(backend, _)| (backend, "the only one compiled in"));
    };
    Ok((backend, "no CUDA device answers"))
}

#[cfg(not(feature = "cuda"))]
fn cuda(_devices: usize) -> Result<RunBackend> {
    bail!("this program was built without the backend cuda: build it with `--features cuda`")
}

#[cfg(not(feature = "cuda"))]
fn cuda_driver() -> bool {
    false
}

#[cfg(feature = "cuda")]
fn cuda_driver() -> bool {
    // SAFETY: the function loads the driver's library, whose initializers every process that uses CUDA runs.
    unsafe { cudarc::driver::sys::is_culib_present() }
}

#[cfg(feature = "cuda")]
fn cuda(devices: usize) -> Result<RunBackend> {
    if !cuda_driver() {
        bail!("no CUDA driver (libcuda) was found: install NVIDIA's driver, or use `--backend cpu`");
    }
    match cudarc::driver::CudaContext::device_count() {
        Ok(count) if count as usize >= devices => cuda_compiler().map(|()| RunBackend::Cuda),
        Ok(count) => bail!("{devices} CUDA devices were requested and {count} answer: lower `--devices`"),
        Err(error) => bail!("the CUDA driver does not answer ({error}): use `--backend cpu`"),
    }
}

/// Checks for NVRTC and CUDA's headers, which compile each kernel at its first use. cubecl looks for them in these places.
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

/// Runs a job on its backend: `on_backend!(job, |B, config, classes, device| MnistNet::<B>::new(classes, device))`.
#[macro_export]
macro_rules! on_backend {
    ($job:expr, |$backend:ident, $config:pat_param, $classes:pat_param, $device:ident| $network:expr) => {{
        let job: $crate::Job = $job;
        let count = job.config().devices;
        macro_rules! start {
            ($inner:ty, $devices:expr) => {{
                type $backend = burn::backend::Autodiff<$inner>;
                job.start::<$backend, _>($devices, |$config, $classes, $device| $network)
            }};
        }
        #[allow(unreachable_patterns, reason = "the list of backends depends on the features")]
        match job.backend() {
            #[cfg(feature = "cpu")]
            $crate::RunBackend::Cpu => start!($crate::Cpu, vec![Default::default(); count]),
            #[cfg(feature = "flex")]
            $crate::RunBackend::Flex => start!(burn::backend::Flex, vec![Default::default(); count]),
            #[cfg(all(feature = "autocast", feature = "flex"))]
            $crate::RunBackend::FlexBf16 => {
                start!($crate::Autocast<burn::backend::Flex, $crate::Bf16>, vec![Default::default(); count])
            }
            #[cfg(feature = "cuda")]
            $crate::RunBackend::Cuda => {
                start!(burn::backend::Cuda, (0..count).map(burn::backend::cuda::CudaDevice::new).collect())
            }
            #[cfg(all(feature = "autocast", feature = "cuda"))]
            $crate::RunBackend::CudaBf16 => start!(
                $crate::Autocast<burn::backend::Cuda, $crate::Bf16>,
                (0..count).map(burn::backend::cuda::CudaDevice::new).collect()
            ),
            #[cfg(all(feature = "autocast", feature = "cuda"))]
            $crate::RunBackend::CudaF16 => start!(
                $crate::Autocast<burn::backend::Cuda, $crate::F16>,
                (0..count).map(burn::backend::cuda::CudaDevice::new).collect()
            ),
            #[cfg(feature = "wgpu")]
            $crate::RunBackend::Wgpu => start!(burn::backend::Wgpu, vec![Default::default(); count]),
            #[cfg(all(feature = "autocast", feature = "wgpu"))]
            $crate::RunBackend::WgpuF16 => {
                start!($crate::Autocast<burn::backend::Wgpu, $crate::F16>, vec![Default::default(); count])
            }
            #[allow(clippy::unreachable, reason = "a program is built with the features of its library")]
            other => unreachable!("the backend {} is not compiled into this program", other.name()),
        }
    }};
}

#[cfg(all(test, feature = "autocast", feature = "cpu", feature = "flex"))]
mod tests {
    use super::*;

    #[test]
    fn a_precision_that_a_backend_does_not_have_is_refused() {
        assert_eq!(RunBackend::Flex.in_precision(Precision::Bf16).unwrap().name(), "flex-bf16");
        assert_eq!(RunBackend::Cpu.in_precision(Precision::F32).unwrap(), RunBackend::Cpu);
        for (backend, precision) in [(RunBackend::Cpu, Precision::Bf16), (RunBackend::Flex, Precision::F16)] {
            let refusal = backend.in_precision(precision).unwrap_err().to_string();
            assert!(refusal.contains(backend.name()), "{refusal}");
        }
    }
}
