//! The backend that a run computes on.

#[cfg(feature = "cuda")]
use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::{BackendChoice, Precision};

/// A backend, with the type of its products. [`select`] returns only those that are compiled in and have a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunBackend {
    /// The CPU, by ttq-cpu.
    Cpu,
    /// The CPU, by Burn's Flex.
    Flex,
    /// Flex with products in bfloat16: not faster, but it shows the effect on a training without a GPU.
    FlexBf16,
    /// NVIDIA GPUs.
    Cuda,
    /// NVIDIA GPUs with products in bfloat16.
    CudaBf16,
    /// NVIDIA GPUs with products in float16.
    CudaF16,
    /// Other GPUs.
    Wgpu,
    /// Other GPUs with products in float16.
    WgpuF16,
}

impl RunBackend {
    /// Returns the name on the command line, with the precision if it is not float32.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Flex => "flex",
            Self::FlexBf16 => "flex-bf16",
            Self::Cuda => "cuda",
            Self::CudaBf16 => "cuda-bf16",
            Self::CudaF16 => "cuda-f16",
            Self::Wgpu => "wgpu",
            Self::WgpuF16 => "wgpu-f16",
        }
    }

    /// Returns whether it computes on a GPU.
    pub fn is_gpu(self) -> bool {
        !matches!(self, Self::Cpu | Self::Flex | Self::FlexBf16)
    }

    /// Returns the same backend with products in the type `precision`.
    ///
    /// # Errors
    /// A precision that the program, the backend or the device does not have.
    pub(crate) fn in_precision(self, precision: Precision) -> Result<Self> {
        match (self, precision) {
            (_, Precision::F32) => Ok(self),
            _ if cfg!(not(feature = "autocast")) => {
                bail!("this program was built without mixed precision: build it with `--features autocast`")
            }
            (Self::Flex, Precision::Bf16) => Ok(Self::FlexBf16),
            (Self::Cuda, Precision::Bf16) => Ok(Self::CudaBf16),
            (Self::Cuda, Precision::F16) => Ok(Self::CudaF16),
            (Self::Wgpu, Precision::F16) => Ok(Self::WgpuF16),
            _ => bail!(
                "the backend {} does not have this precision: cuda has bf16 and f16, wgpu f16, flex bf16",
                self.name()
            ),
        }
    }
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
        BackendChoice::Wgpu if devices > 1 => bail!("wgpu trains on one device: leave out `--devices`"),
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
