//! What the devices of an execution strategy change: steps, outputs.

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

/// Returns the number of outputs that burn-train logs for one step.
pub(crate) fn outputs_per_step<B: Backend>(execution: &ExecutionStrategy<B>) -> usize {
    match execution {
        ExecutionStrategy::MultiDevice(devices, _) => devices.len(),
        _ => 1,
    }
}

/// Returns the number of devices.
pub(crate) fn devices<B: Backend>(execution: &ExecutionStrategy<B>) -> usize {
    match execution {
        ExecutionStrategy::MultiDevice(devices, _) => devices.len(),
        #[cfg(feature = "distributed")]
        ExecutionStrategy::DistributedDataParallel { devices, .. } => devices.len(),
        _ => 1,
    }
}
