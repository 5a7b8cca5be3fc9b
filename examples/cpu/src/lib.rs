//! The training of the examples, compiled for the backends of the CPU.
//!
//! burn-train and the backend's operations are generic, so that the crate that chooses the types compiles them. This crate
//! does it once for all examples.

use anyhow::{Result, bail};
use burn::backend::Autodiff;
use ttq_examples::data::Text;
use ttq_examples::{Job, RunBackend, Task};

/// Runs a job on the CPU.
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
    let devices = vec![Default::default(); job.config().devices];
    match job.backend() {
        RunBackend::Cpu => T::start::<Autodiff<ttq_cpu::Cpu>>(job, devices),
        #[cfg(feature = "flex")]
        RunBackend::Flex => T::start::<Autodiff<burn::backend::Flex>>(job, devices),
        #[cfg(all(feature = "autocast", feature = "flex"))]
        RunBackend::FlexBf16 => {
            T::start::<Autodiff<ttq_autocast::Autocast<burn::backend::Flex, ttq_autocast::Bf16>>>(job, devices)
        }
        other => bail!("the backend {} is not one of the CPU", other.name()),
    }
}
