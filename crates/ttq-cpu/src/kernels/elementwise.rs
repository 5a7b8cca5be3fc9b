//! Element-wise kernels of one operand or of two, which may have any strides.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::strides::Runs;

/// Elements per task.
const TASK: usize = 1 << 15;

/// Computes `out[i] = f(x[i])` for contiguous slices.
pub(crate) fn map(x: &[f32], out: &mut [MaybeUninit<f32>], f: impl Fn(f32) -> f32 + Sync) {
    out.par_chunks_mut(TASK).zip(x.par_chunks(TASK)).for_each(|(out, x)| {
        for (out, x) in out.iter_mut().zip(x) {
            out.write(f(*x));
        }
    });
}

/// Computes `x[i] = f(x[i])`.
pub(crate) fn map_in_place(x: &mut [f32], f: impl Fn(f32) -> f32 + Sync) {
    x.par_chunks_mut(TASK).for_each(|x| x.iter_mut().for_each(|x| *x = f(*x)));
}

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

/// Computes `out[i] = f(l[i], r[i])`. The steps of both operands within a run must be 0 or 1.
pub(crate) fn combine(
    runs: &Runs<2>,
    l: &[f32],
    r: &[f32],
    out: &mut [MaybeUninit<f32>],
    f: impl Fn(f32, f32) -> f32 + Sync,
) {
    let steps = runs.steps;
    for_each_run(runs, out, |[l_at, r_at], out| {
        let n = out.len();
        match steps {
            [1, 1] => {
                for (out, (l, r)) in out.iter_mut().zip(l[l_at..l_at + n].iter().zip(&r[r_at..r_at + n])) {
                    out.write(f(*l, *r));
                }
            }
            [1, _] => {
                let r = r[r_at];
                for (out, l) in out.iter_mut().zip(&l[l_at..l_at + n]) {
                    out.write(f(*l, r));
                }
            }
            [_, 1] => {
                let l = l[l_at];
                for (out, r) in out.iter_mut().zip(&r[r_at..r_at + n]) {
                    out.write(f(l, *r));
                }
            }
            _ => out.fill(MaybeUninit::new(f(l[l_at], r[r_at]))),
        }
    });
}

/// Computes `x[i] = f(x[i], y[i])`. `x` is contiguous, and the steps of `y` within a run must be 0 or 1.
pub(crate) fn combine_in_place(runs: &Runs<1>, x: &mut [f32], y: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) {
    let [step] = runs.steps;
    for_each_run(runs, x, |[at], x| {
        if step == 1 {
            let y = &y[at..at + x.len()];
            x.iter_mut().zip(y).for_each(|(x, y)| *x = f(*x, *y));
        } else {
            let y = y[at];
            x.iter_mut().for_each(|x| *x = f(*x, y));
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

/// Length that long runs are cut to.
pub(crate) const CUT: usize = TASK;
