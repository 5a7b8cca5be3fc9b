//! Which backend a run takes.

use anyhow::{Result, bail};

use crate::BackendChoice;

/// A backend that is compiled in and has a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Selected {
    #[cfg(feature = "flex")]
    Flex,
    #[cfg(feature = "cuda")]
    Cuda,
    #[cfg(feature = "wgpu")]
    Wgpu,
}

impl Selected {
    /// Name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
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
pub(crate) fn select(choice: BackendChoice, devices: usize) -> Result<(Selected, &'static str)> {
    match choice {
        BackendChoice::Auto => auto(devices),
        BackendChoice::Flex => flex().map(|backend| (backend, "as asked for")),
        BackendChoice::Cuda => cuda(devices).map(|backend| (backend, "as asked for")),
        BackendChoice::Wgpu => wgpu().map(|backend| (backend, "as asked for")),
    }
}

fn auto(devices: usize) -> Result<(Selected, &'static str)> {
    if let Ok(backend) = cuda(devices) {
        return Ok((backend, "a CUDA device answers"));
    }
    match flex() {
        Ok(backend) => Ok((backend, "no CUDA device answers")),
        Err(_) => wgpu().map(|backend| (backend, "the only one compiled in")),
    }
}

#[cfg(feature = "flex")]
fn flex() -> Result<Selected> {
    Ok(Selected::Flex)
}

#[cfg(not(feature = "flex"))]
fn flex() -> Result<Selected> {
    bail!("this program was built without the backend flex: build it with `--features flex`")
}

#[cfg(feature = "wgpu")]
fn wgpu() -> Result<Selected> {
    Ok(Selected::Wgpu)
}

#[cfg(not(feature = "wgpu"))]
fn wgpu() -> Result<Selected> {
    bail!("this program was built without the backend wgpu: build it with `--features wgpu`")
}

#[cfg(not(feature = "cuda"))]
fn cuda(_devices: usize) -> Result<Selected> {
    bail!("this program was built without the backend cuda: build it with `--features cuda`")
}

#[cfg(feature = "cuda")]
fn cuda(devices: usize) -> Result<Selected> {
    // SAFETY: the function only tries to load the driver's library, whose initializers are the vendor's and expected to
    // run in any process that uses CUDA.
    let driver = unsafe { cudarc::driver::sys::is_culib_present() };
    if !driver {
        bail!("no CUDA driver (libcuda) was found: install NVIDIA's driver, or take `--backend flex`");
    }
    match cudarc::driver::CudaContext::device_count() {
        Ok(count) if count as usize >= devices => Ok(Selected::Cuda),
        Ok(count) => bail!("{devices} CUDA devices were asked for and {count} answer: lower `--devices`"),
        Err(error) => bail!("the CUDA driver does not answer ({error}): take `--backend flex`"),
    }
}
