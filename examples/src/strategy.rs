//! How several devices share a batch: Burn's strategies.

use anyhow::{Result, bail};
use burn::tensor::backend::AutodiffBackend;
#[cfg(feature = "distributed")]
use burn::tensor::backend::distributed::{DistributedBackend, DistributedConfig, ReduceOperation};
use burn::train::{ExecutionStrategy, MultiDeviceOptim};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::{Backends, Options};

/// Who adds up the gradients of several devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The first device, which takes the optimizer's step for all.
    #[default]
    Multi,
    /// The devices among themselves, within the backward pass; each has a copy of the model and an optimizer. Needs the `distributed`
    /// feature.
    Ddp,
}

/// A backend to train on with the strategies that this program has.
pub trait Trains: AutodiffBackend {
    /// Burn's name of a strategy on these devices.
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
            // A sum, as the other strategy's: one factor makes both a mean.
            Strategy::Ddp => ExecutionStrategy::ddp(devices, DistributedConfig { all_reduce_op: ReduceOperation::Sum }),
        }
    }
}

impl Strategy {
    /// Refuses what cannot work.
    pub(crate) fn check(self, backend: Backends, options: &Options) -> Result<()> {
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
                "workers of the distributed strategy cannot agree on a batch to stop after: leave out --minutes, or take `--strategy multi`"
            );
        }
        match backend {
            #[cfg(feature = "wgpu")]
            Backends::Wgpu => bail!("wgpu has no sums over devices: take `--strategy multi`"),
            _ => Ok(()),
        }
    }

    /// Times that Burn asks the schedule for a batch: every worker counts the steps of all.
    pub(crate) fn schedule_steps(self, devices: usize) -> usize {
        match self {
            Self::Multi => 1,
            Self::Ddp => devices,
        }
    }
}
