//! Tasks shared among threads.

use super::memory::Words;

/// Multiply-accumulates that pay for waking a thread.
#[cfg(feature = "std")]
const WORTH_A_THREAD: usize = 1 << 21;

/// Threads worth using for so many multiply-accumulates.
pub(crate) fn worthwhile(_operations: usize) -> usize {
    #[cfg(feature = "std")]
    return rayon::current_num_threads().min(_operations / WORTH_A_THREAD).max(1);
    #[cfg(not(feature = "std"))]
    1
}

/// Does tasks `0..tasks` on as many threads as there are `workers`; a task gets the buffer of the worker that does it. Which worker
/// that is must not matter for the result.
pub(crate) fn run(tasks: usize, workers: &mut [Words], task: impl Fn(usize, &mut Words) + Sync) {
    match workers {
        [] => {}
        [alone] => (0..tasks).for_each(|i| task(i, alone)),
        #[cfg(feature = "std")]
        workers => {
            use core::sync::atomic::{AtomicUsize, Ordering};
            use rayon::iter::{IndexedParallelIterator, IntoParallelRefMutIterator, ParallelIterator};
            // Whoever is done takes the next one: a busy core must not hold up the others.
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
