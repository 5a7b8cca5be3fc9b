//! Gradients summed over threads that each train a copy of the model: Burn's distributed strategy on a CPU.
//!
//! Burn's own server tells devices apart, and a CPU is one device. So a worker here is whoever takes part in a round: a round is over when as
//! many wait as there were devices at the start, the last of them adds up, and all go on with the same sums. (Terms are added in the order in
//! which they came. With more than two workers rounding differs from run to run, but never between workers.)

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use burn_backend::distributed::{
    DistributedBackend, DistributedConfig, DistributedParamId, DistributedParams, ReduceOperation, TensorRef,
};
use burn_backend::ops::FloatTensorOps;
use burn_flex::FlexDevice;

use crate::Cpu;

static SESSION: Mutex<Option<Arc<Session>>> = Mutex::new(None);

struct Session {
    workers: usize,
    operation: ReduceOperation,
    round: Mutex<Round>,
    over: Condvar,
}

#[derive(Default)]
struct Round {
    number: u64,
    waiting: usize,
    gradients: HashMap<DistributedParamId, Vec<TensorRef<Cpu>>>,
}

impl DistributedBackend for Cpu {
    fn start_communication_server(devices: &[FlexDevice], config: DistributedConfig) {
        let (workers, operation) = (devices.len(), config.all_reduce_op);
        let session = Session { workers, operation, round: Mutex::default(), over: Condvar::new() };
        *locked(&SESSION) = Some(Arc::new(session));
    }

    fn close_communication_server(_device: &FlexDevice) {
        *locked(&SESSION) = None;
    }

    /// Nothing needs to be counted: a round waits for workers, not for gradients.
    fn register_sync_parameters(_device: &FlexDevice, _params: Vec<DistributedParams>) {}

    fn submit_gradient_sync(tensor: TensorRef<Self>, params: DistributedParams) {
        if let Some(session) = session() {
            locked(&session.round).gradients.entry(params.param_id).or_default().push(tensor);
        }
    }

    fn submit_sync_collective(_device: &FlexDevice) {
        if let Some(session) = session() {
            session.wait();
        }
    }
}

fn session() -> Option<Arc<Session>> {
    locked(&SESSION).clone()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    /// Waits for all workers of the round; the last one adds up.
    fn wait(&self) {
        let mut round = locked(&self.round);
        round.waiting += 1;
        if round.waiting < self.workers {
            let number = round.number;
            drop(self.over.wait_while(round, |round| round.number == number));
            return;
        }
        for gradients in std::mem::take(&mut round.gradients).into_values() {
            self.reduce(&gradients);
        }
        *round = Round { number: round.number + 1, ..Round::default() };
        self.over.notify_all();
    }

    /// Gives all of these tensors their sum or mean.
    fn reduce(&self, gradients: &[TensorRef<Cpu>]) {
        // SAFETY: the tensors lie in gradients that their workers hold while they wait for the end of the round, which comes after this.
        let terms = gradients.iter().map(|gradient| unsafe { (*gradient.0).clone() });
        let Some(sum) = terms.reduce(Cpu::float_add) else { return };
        let result = match self.operation {
            ReduceOperation::Sum => sum,
            ReduceOperation::Mean => Cpu::float_div_scalar(sum, (self.workers as f64).into()),
        };
        for gradient in gradients {
            // SAFETY: as above; only this thread touches them.
            unsafe { *gradient.0 = result.clone() };
        }
    }
}
