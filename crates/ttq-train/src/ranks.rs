//! Processes that train one network together: what they exchange.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::PhaseError;

/// The operations that connect the processes of a training, such as those of MPI. Every process calls the same operations
/// in the same order, from one thread at a time; each call returns when its result is complete.
///
/// The crate `ttq-mpi` implements it.
pub trait Communicator: Send + Sync {
    /// Returns the number of this process, from 0 to `size() - 1`.
    fn rank(&self) -> usize;

    /// Returns the number of processes.
    fn size(&self) -> usize;

    /// Replaces `values`, of which all processes have the same number, by their sums over processes: equal to the bit in
    /// all of them.
    fn sum(&self, values: &mut [f32]);

    /// Replaces `bytes` by those of process 0. The others need not know their number.
    fn broadcast(&self, bytes: &mut Vec<u8>);

    /// Returns the bytes of every process, in order of their numbers.
    fn gather(&self, bytes: &[u8]) -> Vec<Vec<u8>>;
}

/// Data parallelism over processes ("ranks"): each has a copy of the network and computes the gradients of its share of
/// every batch. It is a handle: clones share one [`Communicator`].
///
/// [`PhaseTraining::with_ranks`](crate::PhaseTraining::with_ranks) needs nothing else. A loop of your own adds two lines,
/// one at the start and one between the backward pass and the optimizer:
///
/// ```ignore
/// let mut model = ranks.broadcast(model, &device);
/// for batch in loader.slice(len * ranks.rank() / ranks.size(), len * (ranks.rank() + 1) / ranks.size()).iter() {
///     let output = TrainStep::step(&model, batch);
///     let grads = ranks.sum_gradients(&model, output.grads);
///     model = model.optimize(&mut optimizer, rate, grads);
/// }
/// ```
///
/// The sum of the gradients is that of the whole batch if each process weights its gradient by its share of the batch
/// ([`TernaryStep::with_gradient_factor`](crate::TernaryStep::with_gradient_factor)).
///
/// The default is a single process, in which every operation returns what it is given.
#[derive(Clone)]
pub struct Ranks(Arc<dyn Communicator>);

impl Default for Ranks {
    fn default() -> Self {
        Self::new(Single)
    }
}

impl fmt::Debug for Ranks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ranks({} of {})", self.rank(), self.size())
    }
}

struct Single;

impl Communicator for Single {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn sum(&self, _values: &mut [f32]) {}

    fn broadcast(&self, _bytes: &mut Vec<u8>) {}

    fn gather(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        vec![bytes.to_vec()]
    }
}

/// A difference between processes that must be equal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RankError {
    /// The parameters of two processes differ.
    #[error(
        "process {rank} has other values of {parameter} than process 0 {when}: the processes have computed different \
         updates; run the same program on processors of the same kind, and continue after the last checkpoint"
    )]
    Parameters {
        /// The first process that differs from process 0.
        rank: usize,
        /// Path of the first parameter that differs.
        parameter: String,
        /// When the parameters were compared.
        when: String,
    },
    /// A process was started with something else than process 0.
    #[error("process {rank} has {what} than process 0: start all processes with the same program, options and data")]
    Start {
        /// The first process that differs from process 0.
        rank: usize,
        /// What differs.
        what: String,
    },
    /// A process has an error before the training starts.
    #[error("process {rank}: {reason}")]
    Failed {
        /// The process.
        rank: usize,
        /// Its error.
        reason: String,
    },
}

impl Ranks {
    /// Creates the handle of the processes that a communicator connects.
    pub fn new(communicator: impl Communicator + 'static) -> Self {
        Self(Arc::new(communicator))
    }

    /// Returns the number of this process, from 0.
    pub fn rank(&self) -> usize {
        self.0.rank()
    }

    /// Returns the number of processes.
    pub fn size(&self) -> usize {
        self.0.size()
    }

    /// Returns whether this process is number 0, which decides and writes for all.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    pub(crate) fn are_several(&self) -> bool {
        self.size() > 1
    }

    /// Replaces `values` by their sums over processes.
    pub fn sum(&self, values: &mut [f32]) {
        if self.are_several() {
            self.0.sum(values);
        }
    }

    /// Returns the bytes of process 0.
    pub fn broadcast_bytes(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        if self.are_several() {
            self.0.broadcast(&mut bytes);
        }
        bytes
    }

    /// Returns the values of all processes, in order of their numbers.
    ///
    /// # Panics
    /// If JSON cannot represent a value.
    pub fn gather<T: Serialize + DeserializeOwned>(&self, value: &T) -> Vec<T> {
        let bytes = serde_json::to_vec(value).unwrap_or_else(|error| panic!("Ranks: {error}"));
        let read = |bytes: Vec<u8>| serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("Ranks: {error}"));
        self.0.gather(&bytes).into_iter().map(read).collect()
    }

    /// Returns whether `condition` holds in any process.
    pub fn any(&self, condition: bool) -> bool {
        let mut count = [f32::from(u8::from(condition))];
        self.sum(&mut count);
        count[0] > 0.0
    }

    /// Returns the reason of the first process that has one.
    pub(crate) fn first_reason(&self, reason: Option<String>) -> Option<String> {
        if self.are_several() { self.gather(&reason).into_iter().flatten().next() } else { reason }
    }

    /// Returns `result`, or the error of the first process that has one.
    pub(crate) fn agree<T>(&self, result: Result<T, PhaseError>) -> Result<T, PhaseError> {
        if !self.are_several() {
            return result;
        }
        let errors = self.gather(&result.as_ref().err().map(ToString::to_string));
        let failed = errors.into_iter().enumerate().find_map(|(rank, error)| Some((rank, error?)));
        match failed {
            Some((rank, reason)) => Err(result.err().unwrap_or(RankError::Failed { rank, reason }.into())),
            None => result,
        }
    }

    /// Returns what process 0 makes, or its error.
    pub(crate) fn of_first<T: Serialize + DeserializeOwned>(
        &self,
        make: impl FnOnce() -> Result<T, PhaseError>,
    ) -> Result<T, PhaseError> {
        if !self.are_several() {
            return make();
        }
        let made = self.agree(self.is_first().then(make).transpose())?;
        match self.gather(&made).into_iter().flatten().next() {
            Some(made) => Ok(made),
            None => unreachable!("process 0 has made it"),
        }
    }

    /// Returns the part of `items` that belongs to this process, as start and end: disjoint parts that together are complete.
    pub(crate) fn share(&self, items: usize) -> (usize, usize) {
        let end = |rank: usize| items * rank / self.size();
        (end(self.rank()), end(self.rank() + 1))
    }

    /// Checks that every process was started with the same things: names, as they follow "has" in an error ("other data"),
    /// and their descriptions, or why this process cannot start. All processes return the same result.
    ///
    /// # Errors
    /// [`RankError`] for the first process that cannot start or differs from process 0.
    pub fn check_start(&self, started: Result<Vec<(String, String)>, String>) -> Result<(), RankError> {
        if !self.are_several() {
            return started.map(|_| ()).map_err(|reason| RankError::Failed { rank: 0, reason });
        }
        let all = self.gather(&started);
        if let Some((rank, reason)) =
            all.iter().enumerate().find_map(|(rank, found)| Some((rank, found.as_ref().err()?)))
        {
            return Err(RankError::Failed { rank, reason: reason.clone() });
        }
        let all: Vec<_> = all.into_iter().flatten().collect();
        for (rank, found) in all.iter().enumerate() {
            if let Some((expected, _)) = all[0].iter().zip(found).find(|(expected, found)| expected != found) {
                return Err(RankError::Start { rank, what: expected.0.clone() });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_process_keeps_what_it_has() {
        let ranks = Ranks::default();
        let mut values = [1.5, -2.0];
        ranks.sum(&mut values);
        assert_eq!(values, [1.5, -2.0]);
        assert_eq!(ranks.broadcast_bytes(vec![7]), [7]);
        assert_eq!(ranks.gather(&"x".to_owned()), ["x"]);
        assert!(ranks.any(true) && !ranks.any(false));
        assert!(ranks.check_start(Ok(Vec::new())).is_ok());
    }
}
