//! Copies of strided views.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::strides::Runs;

/// Elements per task.
const TASK: usize = 1 << 15;

/// Copies a strided view to contiguous memory, run by run.
pub(crate) fn gather(runs: &Runs<1>, x: &[f32], out: &mut [MaybeUninit<f32>]) {
    let [step] = runs.steps;
    for_each_run(runs, out, |[at], out| match step {
        1 => super::copy(out, &x[at..at + out.len()]),
        0 => out.fill(MaybeUninit::new(x[at])),
        _ => {
            for (i, out) in out.iter_mut().enumerate() {
                out.write(x[(at as isize + i as isize * step) as usize]);
            }
        }
    });
}

/// Calls `work` with the operands' offsets and the output of each run. A task processes several runs.
fn for_each_run<const K: usize, T: Send>(runs: &Runs<K>, out: &mut [T], work: impl Fn([usize; K], &mut [T]) + Sync) {
    if out.is_empty() {
        return;
    }
    let per_task = TASK.div_ceil(runs.len);
    out.par_chunks_mut(per_task * runs.len).enumerate().for_each(|(task, out)| {
        let mut offsets = runs.offsets_from(task * per_task);
        for out in out.chunks_mut(runs.len) {
            work(offsets.current(), out);
            offsets.advance();
        }
    });
}
