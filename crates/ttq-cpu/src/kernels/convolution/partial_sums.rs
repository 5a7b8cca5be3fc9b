//! Sums over a batch, computed in parts.

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use crate::buffer::Buffer;
use crate::kernels::SharedOutput;

/// Largest number of parts. The number of parts does not depend on the number of threads, so neither does the result.
const PARTS: usize = 16;
/// Approximate number of floats in all parts.
const FLOATS: usize = 1 << 20;
/// Floats that a task adds up.
const TASK: usize = 1 << 14;

/// Sums of some floats over all blocks of a batch, one for each part of the blocks.
pub(super) struct PartialSums {
    memory: Buffer,
    /// Number of floats of a part.
    len: usize,
    parts: usize,
    blocks: usize,
}

/// What a task adds to the sums.
pub(super) struct Share {
    /// Blocks of the batch.
    pub(super) blocks: Range<usize>,
    /// Blocks of output channels.
    pub(super) columns: Range<usize>,
    /// The sums of the part, uninitialized.
    pub(super) sums: *mut f32,
}

impl PartialSums {
    /// Creates uninitialized sums of `len` floats over `blocks` blocks.
    pub(super) fn new(len: usize, blocks: usize) -> Self {
        let parts = (FLOATS / len).clamp(1, PARTS).min(blocks);
        Self { memory: Buffer::new(parts * len), len, parts, blocks }
    }

    /// Calls `work` for all parts. If there are fewer parts than threads, tasks also split the `columns`.
    ///
    /// # Safety
    /// `work` must write the sums of its columns, and the columns must cover all sums.
    pub(super) unsafe fn total(mut self, columns: usize, work: impl Fn(Share) + Sync) -> Self {
        let splits = rayon::current_num_threads().div_ceil(self.parts).min(columns);
        let memory = SharedOutput::new(self.memory.floats());
        let Self { len, parts, blocks, .. } = self;
        (0..parts * splits).into_par_iter().for_each(|task| {
            let (part, split) = (task / splits, task % splits);
            work(Share {
                blocks: part * blocks / parts..(part + 1) * blocks / parts,
                columns: split * columns / splits..(split + 1) * columns / splits,
                // SAFETY: the parts are in the memory.
                sums: unsafe { memory.pointer().add(part * len) },
            });
        });
        let (first, others) = self.memory.floats().split_at_mut(len);
        first.par_chunks_mut(TASK).enumerate().for_each(|(task, first)| {
            for other in others.chunks_exact(len) {
                for (sum, other) in first.iter_mut().zip(&other[task * TASK..]) {
                    // SAFETY: the caller guarantees that all sums are written.
                    unsafe { *sum.assume_init_mut() += other.assume_init() };
                }
            }
        });
        self
    }

    /// The sums over all blocks.
    pub(super) fn floats(&mut self) -> &[f32] {
        let sums: &[MaybeUninit<f32>] = &self.memory.floats()[..self.len];
        // SAFETY: `total` has written them.
        unsafe { &*(core::ptr::from_ref(sums) as *const [f32]) }
    }
}
