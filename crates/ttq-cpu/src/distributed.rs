//! Burn's distributed strategy for threads on a CPU: each worker thread trains a copy of the model, and gradients are
//! reduced over the workers.
//!
//! Burn's server distinguishes workers by their device, and a CPU is a single device. Here workers are counted by a
//! barrier: a round ends when as many workers have arrived as devices were given at the start. The last worker to
//! arrive reduces the gradients, and every worker receives the same result. Terms are added in the order of arrival, so
//! with more than two workers rounding can differ between runs, but never between workers. If the thread
//! of a worker ends while others wait for it, they panic.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use burn_backend::distributed::{
    DistributedBackend, DistributedConfig, DistributedParamId, DistributedParams, ReduceOperation, TensorRef,
};
use burn_backend::ops::FloatTensorOps;
use burn_flex::FlexDevice;

use crate::Cpu;

static SESSION: Mutex<Option<Arc<Session>>> = Mutex::new(None);

thread_local! {
    /// The session of which this thread is a worker.
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}

/// A worker of a session; leaves it when it is dropped.
struct Worker(Arc<Session>);

impl Drop for Worker {
    fn drop(&mut self) {
        lock(&self.0.round).left += 1;
        self.0.finished.notify_all();
    }
}

struct Session {
    workers: usize,
    operation: ReduceOperation,
    round: Mutex<Round>,
    /// Notified when a round ends.
    finished: Condvar,
}

#[derive(Default)]
struct Round {
    number: u64,
    /// Workers that have arrived at the barrier.
    arrived: usize,
    /// Workers whose threads have ended.
    left: usize,
    gradients: HashMap<DistributedParamId, Vec<TensorRef<Cpu>>>,
}

impl DistributedBackend for Cpu {
    fn start_communication_server(devices: &[FlexDevice], config: DistributedConfig) {
        let (workers, operation) = (devices.len(), config.all_reduce_op);
        let session = Session { workers, operation, round: Mutex::default(), finished: Condvar::new() };
        *lock(&SESSION) = Some(Arc::new(session));
    }

    fn close_communication_server(_device: &FlexDevice) {
        *lock(&SESSION) = None;
    }

    /// The barrier counts workers, not gradients.
    fn register_sync_parameters(_device: &FlexDevice, _params: Vec<DistributedParams>) {
        let _session = session();
    }

    fn submit_gradient_sync(tensor: TensorRef<Self>, params: DistributedParams) {
        if let Some(session) = session() {
            lock(&session.round).gradients.entry(params.param_id).or_default().push(tensor);
        }
    }

    fn submit_sync_collective(_device: &FlexDevice) {
        if let Some(session) = session() {
            session.wait();
        }
    }
}

/// Returns the session, of which this thread is a worker from now on.
fn session() -> Option<Arc<Session>> {
    let session = lock(&SESSION).clone()?;
    WORKER.with_borrow_mut(|worker| {
        if worker.as_ref().is_none_or(|worker| !Arc::ptr_eq(&worker.0, &session)) {
            *worker = Some(Worker(session.clone()));
        }
    });
    Some(session)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    /// Blocks until all workers of the round have arrived. The last worker reduces the gradients before it releases the
    /// others.
    ///
    /// # Panics
    /// If a worker has left that the others wait for.
    fn wait(&self) {
        let mut round = lock(&self.round);
        round.arrived += 1;
        if round.arrived < self.workers {
            let number = round.number;
            let waits = |round: &mut Round| round.number == number && round.left == 0;
            let round = self.finished.wait_while(round, waits).unwrap_or_else(PoisonError::into_inner);
            let has_ended = round.number != number;
            drop(round);
            assert!(
                has_ended,
                "another worker of the distributed strategy has ended: it failed, was interrupted, or had fewer batches"
            );
            return;
        }
        for gradients in std::mem::take(&mut round.gradients).into_values() {
            self.reduce(&gradients);
        }
        *round = Round { number: round.number + 1, left: round.left, ..Round::default() };
        self.finished.notify_all();
    }

    /// Replaces each of the tensors with their sum or mean.
    fn reduce(&self, gradients: &[TensorRef<Cpu>]) {
        // SAFETY: each pointer refers to a tensor of a worker that is blocked until the end of the round, so it is
        // valid until then.
        let terms = gradients.iter().map(|gradient| unsafe { (*gradient.0).clone() });
        let Some(sum) = terms.reduce(Cpu::float_add) else { return };
        let result = match self.operation {
            ReduceOperation::Sum => sum,
            ReduceOperation::Mean => Cpu::float_div_scalar(sum, (self.workers as f64).into()),
        };
        for gradient in gradients {
            // SAFETY: as above. All workers but this thread are blocked, so no other thread accesses the tensor.
            unsafe { *gradient.0 = result.clone() };
        }
    }
}
