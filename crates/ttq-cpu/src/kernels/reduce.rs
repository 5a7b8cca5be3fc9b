//! Sums along one axis. The order of additions depends on the sizes alone, not on the number of threads.

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// Elements per block. A block is summed in f32, and the sums of blocks are added in f64.
const BLOCK: usize = 1 << 12;
/// Elements per task.
const TASK: usize = 1 << 16;
/// Columns per task.
const COLUMNS: usize = 1 << 10;

/// Computes `out[o, i] = factor * Σ_k x[o, k, i]` for contiguous `x` of shape `[outer, len, inner]`.
pub(crate) fn sum_axis(x: &[f32], [len, inner]: [usize; 2], factor: f32, out: &mut [MaybeUninit<f32>]) {
    if x.is_empty() || inner == 0 {
        out.fill(MaybeUninit::new(0.0));
    } else if inner == 1 {
        let rows = TASK.div_ceil(len);
        out.par_chunks_mut(rows).zip(x.par_chunks(rows * len)).for_each(|(out, x)| {
            for (out, row) in out.iter_mut().zip(x.chunks_exact(len)) {
                out.write(sum(row) * factor);
            }
        });
    } else {
        out.par_chunks_mut(inner).zip(x.par_chunks(len * inner)).for_each(|(out, x)| {
            out.par_chunks_mut(COLUMNS).enumerate().for_each(|(task, out)| {
                let columns = task * COLUMNS..task * COLUMNS + out.len();
                sum_columns(x, inner, columns, factor, out);
            });
        });
    }
}

/// Returns the sum of all elements.
pub(crate) fn sum(x: &[f32]) -> f32 {
    let blocks: Vec<f64> = if x.len() > TASK {
        x.par_chunks(BLOCK).map(sum_block).collect()
    } else {
        return x.chunks(BLOCK).map(sum_block).sum::<f64>() as f32;
    };
    blocks.into_iter().sum::<f64>() as f32
}

fn sum_block(x: &[f32]) -> f64 {
    let mut sums = [0.0_f32; 32];
    let chunks = x.chunks_exact(32);
    let rest: f64 = chunks.remainder().iter().map(|x| f64::from(*x)).sum();
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += x;
        }
    }
    sums.into_iter().map(f64::from).sum::<f64>() + rest
}

fn sum_columns(x: &[f32], inner: usize, columns: std::ops::Range<usize>, factor: f32, out: &mut [MaybeUninit<f32>]) {
    let mut sums = [0.0_f64; COLUMNS];
    let mut block = [0.0_f32; COLUMNS];
    let n = columns.len();
    // 64 rows at a time are summed in f32.
    for rows in x.chunks(64 * inner) {
        block[..n].fill(0.0);
        for row in rows.chunks_exact(inner) {
            for (sum, x) in block[..n].iter_mut().zip(&row[columns.clone()]) {
                *sum += x;
            }
        }
        for (sum, block) in sums.iter_mut().zip(&block[..n]) {
            *sum += f64::from(*block);
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        out.write(sum as f32 * factor);
    }
}
