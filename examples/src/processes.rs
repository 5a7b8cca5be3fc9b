//! The processes of a run that a launcher such as `mpirun` starts: with the feature `mpi`, they train together.

use std::hash::{DefaultHasher, Hasher};

use anyhow::{Context, Result};
use ttq_train::Ranks;

#[cfg(feature = "mpi")]
static MPI: std::sync::OnceLock<ttq_mpi::Mpi> = std::sync::OnceLock::new();

/// The variables by which launchers (Open MPI, MPICH, Slurm) tell processes how many there are.
const SIZES: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"];

/// Ends all processes when a thread panics: the others would wait for this one.
pub(crate) struct Processes;

impl Processes {
    /// Starts MPI if a launcher has started this process and others.
    ///
    /// # Errors
    /// Several processes of a program that was built without MPI.
    pub(crate) fn start() -> Result<Self> {
        if SIZES.iter().any(|name| std::env::var(name).is_ok_and(|size| size != "1")) {
            #[cfg(feature = "mpi")]
            MPI.set(ttq_mpi::Mpi::start()?).ok().context("MPI was started before")?;
            #[cfg(not(feature = "mpi"))]
            anyhow::bail!(
                "this program was built without MPI and would train in every process alone: build it with `--features mpi`"
            );
        }
        Ok(Self)
    }

    /// Waits until all processes are done.
    pub(crate) fn finish(self) {
        #[cfg(feature = "mpi")]
        if let Some(mpi) = MPI.get() {
            mpi.finish();
        }
    }

    /// Ends all processes.
    pub(crate) fn abort(&self) {
        #[cfg(feature = "mpi")]
        if let Some(mpi) = MPI.get() {
            mpi.abort();
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.abort();
        }
    }
}

/// Returns the processes of this run.
pub(crate) fn ranks() -> Ranks {
    #[cfg(feature = "mpi")]
    if let Some(mpi) = MPI.get() {
        return mpi.ranks();
    }
    Ranks::default()
}

/// Returns whether this process prints and writes.
pub fn is_first() -> bool {
    ranks().is_first()
}

/// Returns the number of this process among those of the same machine: the first of its devices.
pub fn first_device() -> usize {
    #[cfg(feature = "mpi")]
    if let Some(mpi) = MPI.get() {
        return mpi.local_rank();
    }
    0
}

/// Returns a checksum of this program.
pub(crate) fn program() -> Result<u64> {
    let path = std::env::current_exe().context("the path of this program is not known")?;
    let mut hasher = DefaultHasher::new();
    hasher.write(&std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    Ok(hasher.finish())
}
