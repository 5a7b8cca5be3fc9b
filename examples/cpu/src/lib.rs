//! The training of the examples, compiled for the backends of the CPU.
//!
//! burn-train and the backend's operations are generic, so that the crate that chooses the types compiles them. This crate
//! does it once for all examples.

use anyhow::{Result, bail};
use burn::backend::Autodiff;
use ttq_examples::model::{MnistNet, ResNet};
use ttq_examples::{Job, RunBackend, Trains};

/// Runs a job on the CPU.
///
/// # Errors
/// The errors of [`Job::start`], and a job for another backend.
pub fn run(job: Job) -> Result<()> {
    match job.backend() {
        RunBackend::Cpu => start::<Autodiff<ttq_cpu::Cpu>>(job),
        #[cfg(feature = "flex")]
        RunBackend::Flex => start::<Autodiff<burn::backend::Flex>>(job),
        #[cfg(all(feature = "autocast", feature = "flex"))]
        RunBackend::FlexBf16 => start::<Autodiff<ttq_autocast::Autocast<burn::backend::Flex, ttq_autocast::Bf16>>>(job),
        other => bail!("the backend {} is not one of the CPU", other.name()),
    }
}

fn start<B: Trains>(job: Job) -> Result<()> {
    let devices = vec![Default::default(); job.config().devices];
    match job.config().depth {
        Some(depth) => job.start::<B, _>(devices, |classes, device| ResNet::<B>::new(depth, classes, device)),
        None => job.start::<B, _>(devices, |classes, device| MnistNet::<B>::new(classes, device)),
    }
}
