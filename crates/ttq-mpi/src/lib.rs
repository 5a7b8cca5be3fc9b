//! Data-parallel training over MPI: the [`Communicator`] of [`ttq_train::Ranks`] by the MPI library of the machine.
//!
//! Everything about training is in `ttq-train`; this crate only connects it to MPI. It needs the feature `mpi`, without which
//! it is empty: its bindings are generated from the headers of the library (Open MPI, MPICH or another one) with libclang.
//! `docs/mpi.md` of the repository describes how to build and start programs, and what communication costs.
//!
//! ```ignore
//! let mpi = ttq_mpi::Mpi::start()?;
//! let training = PhaseTraining::new(directory, config, execution).with_ranks(mpi.ranks());
//! // ... after the training:
//! mpi.finish(); // a process that ends without it has failed, and ends all others
//! ```
#![cfg(feature = "mpi")]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use mpi::collective::SystemOperation;
use mpi::datatype::PartitionMut;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator as _, CommunicatorCollectives, Root};
use mpi::{Count, Threading};
use ttq_train::{Communicator, Ranks};

/// Values of one call of MPI: it counts in 32 bits.
const CHUNK: usize = 1 << 28;

/// An error at the start of MPI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MpiError {
    /// The process has started MPI before.
    Started,
    /// The library does not support calls from different threads.
    Threads,
}

impl std::fmt::Display for MpiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Started => "MPI was started before in this process: start it once, and clone its ranks",
            Self::Threads => "the MPI library supports one thread only: use one with MPI_THREAD_SERIALIZED",
        })
    }
}

impl std::error::Error for MpiError {}

/// MPI in this process, from its start to its end.
///
/// A process calls [`finish`](Self::finish) when it is done. Dropping this value before that, because the process returns an
/// error or panics, ends all processes ([`abort`](Self::abort)): the others would wait for this one forever.
pub struct Mpi {
    world: Arc<World>,
    local_rank: usize,
}

impl Mpi {
    /// Starts MPI. A program that no launcher such as `mpirun` started is the only process.
    ///
    /// # Errors
    /// [`MpiError`] if MPI was started before, or does not support calls from different threads.
    pub fn start() -> Result<Self, MpiError> {
        // burn-train computes metrics in a thread of its own, which exchanges them at the end of an epoch.
        let (universe, threading) = mpi::initialize_with_threading(Threading::Serialized).ok_or(MpiError::Started)?;
        if threading < Threading::Serialized {
            return Err(MpiError::Threads);
        }
        let world = universe.world();
        let (rank, size) = (world.rank() as usize, world.size() as usize);
        let local_rank = world.split_shared(world.rank()).rank() as usize;
        Ok(Self { world: Arc::new(World { universe: Mutex::new(Some(universe)), rank, size }), local_rank })
    }

    /// Returns the handle of all processes, for training. It is of no use after MPI has ended.
    pub fn ranks(&self) -> Ranks {
        Ranks::new(Connected(self.world.clone()))
    }

    /// Returns the number of this process among those of the same machine, from 0: the device that it uses.
    pub fn local_rank(&self) -> usize {
        self.local_rank
    }

    /// Ends MPI. It waits until all processes do so.
    pub fn finish(&self) {
        drop(self.world.lock().take());
    }

    /// Ends all processes at once, with exit code 1.
    pub fn abort(&self) -> ! {
        SimpleCommunicator::world().abort(1)
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        // The lock is held while another thread waits for the other processes.
        let has_ended = match self.world.universe.try_lock() {
            Ok(universe) => universe.is_none(),
            Err(TryLockError::Poisoned(universe)) => universe.get_ref().is_none(),
            Err(TryLockError::WouldBlock) => false,
        };
        if !has_ended {
            self.abort();
        }
    }
}

struct World {
    /// `None` after its end.
    universe: Mutex<Option<Universe>>,
    rank: usize,
    size: usize,
}

impl World {
    fn lock(&self) -> MutexGuard<'_, Option<Universe>> {
        self.universe.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Connected(Arc<World>);

impl Connected {
    /// Calls MPI, from one thread at a time.
    fn call<T>(&self, call: impl FnOnce(SimpleCommunicator) -> T) -> T {
        let universe = self.0.lock();
        let Some(universe) = universe.as_ref() else { panic!("Mpi: MPI has ended: keep `Mpi` as long as its ranks") };
        call(universe.world())
    }
}

impl Communicator for Connected {
    fn rank(&self) -> usize {
        self.0.rank
    }

    fn size(&self) -> usize {
        self.0.size
    }

    fn sum(&self, values: &mut [f32]) {
        self.call(|world| {
            for chunk in values.chunks_mut(CHUNK) {
                let own = chunk.to_vec();
                world.all_reduce_into(&own[..], chunk, SystemOperation::sum());
            }
        });
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) {
        self.call(|world| {
            let first = world.process_at_rank(0);
            let mut len = bytes.len() as u64;
            first.broadcast_into(&mut len);
            bytes.resize(len as usize, 0);
            bytes.chunks_mut(CHUNK).for_each(|chunk| first.broadcast_into(chunk));
        });
    }

    fn gather(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.call(|world| {
            let mut counts = vec![0 as Count; self.0.size];
            let own = Count::try_from(bytes.len()).unwrap_or(Count::MAX);
            world.all_gather_into(&own, &mut counts[..]);
            // Every process sees the same total, so that all of them stop.
            let total: i64 = counts.iter().map(|count| i64::from(*count)).sum();
            assert!(total < i64::from(Count::MAX), "Mpi: at most 2 GiB can be gathered from all processes together");
            let starts: Vec<Count> = counts
                .iter()
                .scan(0, |end, count| {
                    *end += count;
                    Some(*end - count)
                })
                .collect();
            let mut all = vec![0; total as usize];
            world.all_gather_varcount_into(bytes, &mut PartitionMut::new(&mut all[..], &counts[..], &starts[..]));
            let parts = starts.iter().zip(&counts);
            parts.map(|(start, count)| all[*start as usize..(*start + *count) as usize].to_vec()).collect()
        })
    }
}
