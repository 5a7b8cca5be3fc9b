//! Which backend a run takes.

use anyhow::{Result, bail};

use crate::BackendChoice;

/// A backend that is compiled in and has a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backends {
    /// The CPU, with this project's kernels.
    #[cfg(feature = "cpu")]
    Cpu,
    /// The CPU, with Burn's kernels.
    #[cfg(feature = "flex")]
    Flex,
    /// NVIDIA GPUs.
    #[cfg(feature = "cuda")]
    Cuda,
    /// Other GPUs.
    #[cfg(feature = "wgpu")]
    Wgpu,
}

impl Backends {
    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "cpu")]
            Self::Cpu => "cpu",
            #[cfg(feature = "flex")]
            Self::Flex => "flex",
            #[cfg(feature = "cuda")]
            Self::Cuda => "cuda",
            #[cfg(feature = "wgpu")]
            Self::Wgpu => "wgpu",
        }
    }
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
    if let Ok(backend) = cuda(devices) {
        return Ok((backend, "a CUDA device answers"));
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

#[cfg(feature = "cuda")]
fn cuda(devices: usize) -> Result<Backends> {
    // SAFETY: the function only tries to load the driver's library, whose initializers are the vendor's and expected to
    // run in any process that uses CUDA.
    let driver = unsafe { cudarc::driver::sys::is_culib_present() };
    if !driver {
        bail!("no CUDA driver (libcuda) was found: install NVIDIA's driver, or take `--backend cpu`");
    }
    match cudarc::driver::CudaContext::device_count() {
        Ok(count) if count as usize >= devices => Ok(Backends::Cuda),
        Ok(count) => bail!("{devices} CUDA devices were asked for and {count} answer: lower `--devices`"),
        Err(error) => bail!("the CUDA driver does not answer ({error}): take `--backend cpu`"),
    }
}

/// Does a job on the backend that it was given: `on_backend!(job, |B, classes, device| MnistNet::<B>::new(classes, device))`.
#[macro_export]
macro_rules! on_backend {
    ($job:expr, |$backend:ident, $classes:ident, $device:ident| $network:expr) => {{
        let job: $crate::Job = $job;
        let devices = job.config().devices;
        match job.backend() {
            #[cfg(feature = "cpu")]
            $crate::Backends::Cpu => {
                type $backend = burn::backend::Autodiff<$crate::Cpu>;
                let devices = vec![Default::default(); devices];
                job.start::<$backend, _>(devices, |$classes, $device| $network)
            }
            #[cfg(feature = "flex")]
            $crate::Backends::Flex => {
                type $backend = burn::backend::Autodiff<burn::backend::Flex>;
                let devices = vec![Default::default(); devices];
                job.start::<$backend, _>(devices, |$classes, $device| $network)
            }
            #[cfg(feature = "cuda")]
            $crate::Backends::Cuda => {
                type $backend = burn::backend::Autodiff<burn::backend::Cuda>;
                let devices = (0..devices).map(burn::backend::cuda::CudaDevice::new).collect();
                job.start::<$backend, _>(devices, |$classes, $device| $network)
            }
            #[cfg(feature = "wgpu")]
            $crate::Backends::Wgpu => {
                type $backend = burn::backend::Autodiff<burn::backend::Wgpu>;
                let devices = vec![Default::default(); devices];
                job.start::<$backend, _>(devices, |$classes, $device| $network)
            }
        }
    }};
}
