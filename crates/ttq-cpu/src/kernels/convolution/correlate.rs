//! Sums of products of inputs and weights at many positions: the inner loops of convolutions.
//!
//! A register tile holds some positions times some vectors of output channels. A *term* is one vector of weights times
//! one broadcast input of each position.

use std::ops::Range;

use crate::kernels::simd::{Kernel, MAX_LANES, MAX_POSITIONS, Vector};

/// Vectors of output channels in a register tile.
pub(super) const COLUMNS: usize = 2;
/// Largest number of terms that are summed at a time, so that their weights stay in the first-level cache.
const TERMS: usize = 256;

/// Terms that are adjacent in the input and in the packed weights.
pub(super) struct Run {
    pub(super) offset: isize,
    pub(super) len: usize,
}

/// Splits the terms, `[taps, channels]`, into passes of at most `TERMS` terms, and these into runs.
pub(super) fn passes(shifts: &[isize], channels: usize) -> Vec<Vec<Run>> {
    let mut passes: Vec<Vec<Run>> = vec![Vec::new()];
    let mut free = TERMS;
    for shift in shifts {
        let (mut offset, end) = (*shift, shift + channels as isize);
        while offset < end {
            if free == 0 {
                passes.push(Vec::new());
                free = TERMS;
            }
            let len = free.min((end - offset) as usize);
            match passes.last_mut().and_then(|pass| pass.last_mut()) {
                Some(run) if run.offset + run.len as isize == offset => run.len += len,
                _ => passes.last_mut().into_iter().for_each(|pass| pass.push(Run { offset, len })),
            }
            offset += len as isize;
            free -= len;
        }
    }
    passes
}

/// Returns the number of lanes.
pub(super) struct Lanes;

impl Kernel for Lanes {
    type Output = usize;

    #[inline(always)]
    fn run<V: Vector>(self) -> usize {
        V::LANES
    }
}

/// Computes output channels at some positions.
#[derive(Clone)]
pub(super) struct Correlate<'a> {
    /// Groups of runs that are summed at a time.
    pub(super) passes: &'a [Vec<Run>],
    /// `[blocks of COLUMNS vectors, terms, COLUMNS vectors]`, padded with zeros.
    pub(super) weights: &'a [f32],
    pub(super) terms: usize,
    /// Blocks of output channels to compute.
    pub(super) blocks: Range<usize>,
    /// One value for each channel of the blocks.
    pub(super) bias: &'a [f32],
    /// Number of output channels.
    pub(super) outputs: usize,
    /// The inputs, and the offset of each position.
    pub(super) x: *const f32,
    pub(super) from: &'a [isize],
    /// The outputs, and the offset of each position.
    pub(super) y: *mut f32,
    pub(super) to: &'a [usize],
}

impl Kernel for Correlate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let width = COLUMNS * V::LANES;
        let terms: usize = self.passes.iter().flatten().map(|run| run.len).sum();
        assert!(terms == self.terms && self.weights.len() >= self.blocks.end * terms * width);
        assert!(self.from.len() == self.to.len() && !self.to.is_empty());
        for block in self.blocks.clone() {
            let first = block * width;
            let channels = width.min(self.outputs - first);
            let bias = &self.bias[first..first + width];
            let mut weights = &self.weights[block * self.terms * width..];
            for (index, runs) in self.passes.iter().enumerate() {
                // SAFETY: the weights exist by the assertion, and whoever fills the tables guarantees that positions and
                // runs are within the inputs and the outputs.
                unsafe {
                    if channels > V::LANES {
                        self.pass::<V, 2>(runs, weights, bias, first, channels, index == 0);
                    } else {
                        self.pass::<V, 1>(runs, weights, bias, first, channels, index == 0);
                    }
                }
                weights = &weights[runs.iter().map(|run| run.len).sum::<usize>() * width..];
            }
        }
    }
}

impl Correlate<'_> {
    /// Computes or continues the sums of `channels` output channels from `first` on, at most `N` vectors.
    ///
    /// # Safety
    /// The runs of each position must be readable, `weights` must hold their terms, and the outputs of each position must
    /// be writable, and initialized unless `is_first`.
    #[inline(always)]
    unsafe fn pass<V: Vector, const N: usize>(
        &self,
        runs: &[Run],
        weights: &[f32],
        bias: &[f32],
        first: usize,
        channels: usize,
        is_first: bool,
    ) {
        let last = self.from.len() - 1;
        let is_full = channels == N * V::LANES;
        for tile in (0..=last).step_by(V::POSITIONS) {
            // Positions beyond the last are the last one.
            let position = |k: usize| (tile + k).min(last);
            // SAFETY: the caller guarantees that the memory is valid.
            unsafe {
                let mut x = [self.x; MAX_POSITIONS];
                let mut y = [core::ptr::null_mut::<f32>(); MAX_POSITIONS];
                for k in 0..V::POSITIONS {
                    x[k] = self.x.offset(self.from[position(k)]);
                    y[k] = self.y.add(self.to[position(k)] + first);
                }
                let mut sums = [[V::splat(0.0); N]; MAX_POSITIONS];
                if is_first {
                    for sums in sums.iter_mut().take(V::POSITIONS) {
                        for (n, sum) in sums.iter_mut().enumerate() {
                            *sum = V::load(bias.as_ptr().add(n * V::LANES));
                        }
                    }
                } else {
                    for (y, sums) in y.iter().zip(&mut sums).take(V::POSITIONS) {
                        for (n, sum) in sums.iter_mut().enumerate() {
                            *sum = load(y.add(n * V::LANES), channels - n * V::LANES);
                        }
                    }
                }
                let mut weights = weights.as_ptr();
                for run in runs {
                    let mut x = x;
                    for x in x.iter_mut().take(V::POSITIONS) {
                        *x = x.offset(run.offset);
                    }
                    for term in 0..run.len {
                        let mut row = [V::splat(0.0); N];
                        for (n, weight) in row.iter_mut().enumerate() {
                            *weight = V::load(weights.add(n * V::LANES));
                        }
                        weights = weights.add(COLUMNS * V::LANES);
                        for (x, sums) in x.iter().zip(&mut sums).take(V::POSITIONS) {
                            let x = V::splat(*x.add(term));
                            for (sum, weight) in sums.iter_mut().zip(row) {
                                *sum = sum.add_product(x, weight);
                            }
                        }
                    }
                }
                for (y, sums) in y.iter().zip(&sums).take(V::POSITIONS) {
                    for (n, sum) in sums.iter().enumerate() {
                        if is_full {
                            sum.store(y.add(n * V::LANES));
                        } else {
                            store(*sum, y.add(n * V::LANES), channels - n * V::LANES);
                        }
                    }
                }
            }
        }
    }
}

/// Loads the first `n` lanes of a vector, or all.
///
/// # Safety
/// The memory must be valid for reads of so many floats.
#[inline(always)]
unsafe fn load<V: Vector>(from: *const f32, n: usize) -> V {
    // SAFETY: the caller guarantees that the memory is valid.
    unsafe {
        if n >= V::LANES {
            return V::load(from);
        }
        let mut lanes = [0.0; MAX_LANES];
        core::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), n);
        V::load(lanes.as_ptr())
    }
}

/// Stores the first `n` lanes of a vector, or all.
///
/// # Safety
/// The memory must be valid for writes of so many floats.
#[inline(always)]
pub(super) unsafe fn store<V: Vector>(vector: V, to: *mut f32, n: usize) {
    // SAFETY: the caller guarantees that the memory is valid.
    unsafe {
        if n >= V::LANES {
            return vector.store(to);
        }
        let mut lanes = [0.0; MAX_LANES];
        vector.store(lanes.as_mut_ptr());
        core::ptr::copy_nonoverlapping(lanes.as_ptr(), to, n);
    }
}
