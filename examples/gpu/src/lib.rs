//! The training of the examples, compiled for the backends of GPUs: see `ttq-examples-cpu`.
//!
//! Most of this crate's code describes GPU kernels and prepares their launches. In the profile `release` it is not optimized,
//! which makes the first build minutes shorter; the profile `training` optimizes it, for long runs.

use anyhow::{Result, bail};
#[cfg(any(feature = "cuda", feature = "wgpu"))]
use burn::backend::Autodiff;
use ttq_examples::data::Text;
use ttq_examples::{Job, Task};
#[cfg(any(feature = "cuda", feature = "wgpu"))]
use ttq_examples::{RunBackend, Trains};

/// Runs a job on a GPU.
///
/// # Errors
/// The errors of [`Job::start`], and a job for another backend.
pub fn run(job: Job) -> Result<()> {
    on_backend(job)
}

/// Runs a job on text like [`run`].
///
/// # Errors
/// Those of [`run`].
pub fn run_text(job: Job<Text>) -> Result<()> {
    on_backend(job)
}

fn on_backend<T: Task>(job: Job<T>) -> Result<()> {
    if cfg!(unoptimized) {
        ttq_examples::print_line(
            "for long runs on a GPU build with `--profile training`: this build starts kernels more slowly",
        );
    }
    match job.backend() {
        #[cfg(feature = "cuda")]
        RunBackend::Cuda => start::<T, Autodiff<burn::backend::Cuda>>(job, cuda),
        #[cfg(all(feature = "autocast", feature = "cuda"))]
        RunBackend::CudaBf16 => start_in::<T, burn::backend::Cuda, ttq_autocast::Bf16>(job, cuda),
        #[cfg(all(feature = "autocast", feature = "cuda"))]
        RunBackend::CudaF16 => start_in::<T, burn::backend::Cuda, ttq_autocast::F16>(job, cuda),
        #[cfg(feature = "wgpu")]
        RunBackend::Wgpu => start::<T, Autodiff<burn::backend::Wgpu>>(job, |_| Default::default()),
        #[cfg(all(feature = "autocast", feature = "wgpu"))]
        RunBackend::WgpuF16 => start_in::<T, burn::backend::Wgpu, ttq_autocast::F16>(job, |_| Default::default()),
        other => bail!("the backend {} is not one of a GPU", other.name()),
    }
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> burn::backend::cuda::CudaDevice {
    burn::backend::cuda::CudaDevice::new(index)
}

/// Runs the job in mixed precision, if the device computes in the type `P`.
#[cfg(all(feature = "autocast", any(feature = "cuda", feature = "wgpu")))]
fn start_in<T, B, P>(job: Job<T>, device: fn(usize) -> B::Device) -> Result<()>
where
    T: Task,
    B: burn::prelude::Backend,
    P: ttq_autocast::Half,
    Autodiff<ttq_autocast::Autocast<B, P>>: Trains<Device = B::Device>,
{
    if !ttq_autocast::Autocast::<B, P>::is_supported(&device(0)) {
        bail!("the device does not compute in {}: leave out `--precision`, or choose another one", P::NAME);
    }
    start::<T, Autodiff<ttq_autocast::Autocast<B, P>>>(job, device)
}

#[cfg(any(feature = "cuda", feature = "wgpu"))]
fn start<T: Task, B: Trains>(job: Job<T>, device: fn(usize) -> B::Device) -> Result<()> {
    let first = ttq_examples::first_device();
    let devices = (first..first + job.config().devices).map(device).collect();
    T::start::<B>(job, devices)
}
