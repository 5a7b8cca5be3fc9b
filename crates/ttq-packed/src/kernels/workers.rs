//! Distribution of tasks over threads.

use super::memory::Words;

/// Minimum number of multiply-accumulates per thread: fewer do not pay for waking the thread.
#[cfg(feature = "std")]
const OPERATIONS_PER_THREAD: usize = 1 << 21;

/// Returns the number of threads to use for a number of multiply-accumulates.
pub(crate) fn count(_operations: usize) -> usize {
    #[cfg(feature = "std")]
    return rayon::current_num_threads().min(_operations / OPERATIONS_PER_THREAD).max(1);
    #[cfg(not(feature = "std"))]
    1
}

/// Runs the tasks `0..tasks` on one thread per element of `workers`.
///
/// A task receives the buffer of the worker that runs it. The result of a task must not depend on the worker.
pub(crate) fn run(tasks: usize, workers: &mut [Words], task: impl Fn(usize, &mut Words) + Sync) {
    match workers {
        [] => {}
        [only] => (0..tasks).for_each(|i| task(i, only)),
        #[cfg(feature = "std")]
        workers => {
            use core::sync::atomic::{AtomicUsize, Ordering};
            use rayon::iter::{IndexedParallelIterator, IntoParallelRefMutIterator, ParallelIterator};
            // Each worker takes the next task when it finishes one, so a slow core does not delay the others.
            let next = AtomicUsize::new(0);
            workers.par_iter_mut().with_max_len(1).for_each(|buffer| {
                loop {
                    match next.fetch_add(1, Ordering::Relaxed) {
                        i if i < tasks => task(i, buffer),
                        _ => break,
                    }
                }
            });
        }
        #[cfg(not(feature = "std"))]
        [first, ..] => (0..tasks).for_each(|i| task(i, first)),
    }
}
