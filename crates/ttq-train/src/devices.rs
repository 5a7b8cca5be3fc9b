//! What the devices of an execution strategy change: steps, outputs, stops.

use burn::prelude::*;
use burn::train::ExecutionStrategy;

/// Returns the number of times that burn-train asks a schedule for a rate in an epoch of `batches` batches: once per
/// batch, except under Burn's distributed strategy, where each device counts the steps of all devices.
pub fn steps_per_epoch<B: Backend>(batches: usize, execution: &ExecutionStrategy<B>) -> usize {
    match execution {
        #[cfg(feature = "distributed")]
        ExecutionStrategy::DistributedDataParallel { devices, .. } => batches * devices.len(),
        _ => batches,
    }
}

/// Returns whether each device has a worker of Burn's distributed strategy. Workers cannot agree on a batch to stop after.
pub(crate) fn is_distributed<B: Backend>(execution: &ExecutionStrategy<B>) -> bool {
    match execution {
        #[cfg(feature = "distributed")]
        ExecutionStrategy::DistributedDataParallel { .. } => true,
        _ => false,
    }
}

/// Returns the number of devices. burn-train logs as many outputs for one step.
pub(crate) fn devices<B: Backend>(execution: &ExecutionStrategy<B>) -> usize {
    match execution {
        ExecutionStrategy::MultiDevice(devices, _) => devices.len(),
        #[cfg(feature = "distributed")]
        ExecutionStrategy::DistributedDataParallel { devices, .. } => devices.len(),
        _ => 1,
    }
}
