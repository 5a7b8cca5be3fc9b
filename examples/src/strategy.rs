//! Burn's strategies for several devices.

use anyhow::{Result, bail};
use burn::tensor::backend::AutodiffBackend;
#[cfg(feature = "distributed")]
use burn::tensor::backend::distributed::{DistributedBackend, DistributedConfig, ReduceOperation};
use burn::train::{ExecutionStrategy, MultiDeviceOptim};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::{Options, RunBackend};

/// Strategy that sums the gradients of several devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The first device sums the gradients and runs the optimizer.
    #[default]
    Multi,
    /// Each device has a copy of the model and an optimizer; gradients are summed by all-reduce within the backward pass.
    /// Needs the feature `distributed`.
    Ddp,
}

/// A backend that supports the strategies of this program.
pub trait Trains: AutodiffBackend {
    /// Creates Burn's strategy for these devices.
    fn execution(strategy: Strategy, devices: Vec<Self::Device>) -> ExecutionStrategy<Self>;
}

#[cfg(not(feature = "distributed"))]
impl<B: AutodiffBackend> Trains for B {
    fn execution(_strategy: Strategy, devices: Vec<B::Device>) -> ExecutionStrategy<B> {
        ExecutionStrategy::multi(devices, MultiDeviceOptim::OptimMainDevice)
    }
}

#[cfg(feature = "distributed")]
impl<B: AutodiffBackend + DistributedBackend> Trains for B {
    fn execution(strategy: Strategy, devices: Vec<B::Device>) -> ExecutionStrategy<B> {
        match strategy {
            Strategy::Multi => ExecutionStrategy::multi(devices, MultiDeviceOptim::OptimMainDevice),
            // A sum, as in the other strategy: the same factor turns both into a mean.
            Strategy::Ddp => ExecutionStrategy::ddp(devices, DistributedConfig { all_reduce_op: ReduceOperation::Sum }),
        }
    }
}

impl Strategy {
    /// Checks that the strategy works with the backend and the options.
    pub(crate) fn check(self, backend: RunBackend, options: &Options) -> Result<()> {
        if self == Self::Multi {
            return Ok(());
        }
        if cfg!(not(feature = "distributed")) {
            bail!(
                "this program was built without Burn's distributed strategy: build it with `--no-default-features --features cpu,cuda,tui,distributed`"
            );
        }
        if options.minutes.is_some() {
            bail!(
                "the distributed strategy cannot stop all devices after the same batch: leave out --minutes, or use `--strategy multi`"
            );
        }
        match backend {
            #[cfg(feature = "wgpu")]
            RunBackend::Wgpu => bail!("wgpu does not support sums over devices: use `--strategy multi`"),
            _ => Ok(()),
        }
    }
}
