//! Kernels: slices in, slices out. They know no tensors.

#[cfg(test)]
mod convolution_tests;
pub(crate) mod direct;
pub(crate) mod elementwise;
#[cfg(test)]
mod naive;
pub(crate) mod reduce;
pub(crate) mod simd;
pub(crate) mod strides;

use std::cell::RefCell;
use std::mem::MaybeUninit;

/// The sizes of a convolution in two dimensions with one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    pub(crate) channels_in: usize,
    pub(crate) channels_out: usize,
    /// Height and width of the input.
    pub(crate) input: [usize; 2],
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) padding: [usize; 2],
    pub(crate) dilation: [usize; 2],
}

impl Geometry {
    /// Height and width of the output; `None` where there is none.
    pub(crate) fn output(&self) -> Option<[usize; 2]> {
        let [h, w] = [0, 1].map(|axis| {
            let padded = self.input[axis] + 2 * self.padding[axis];
            Some(padded.checked_sub(self.extent(axis))? / self.stride[axis] + 1)
        });
        Some([h?, w?])
    }

    /// What the kernel spans with its dilation.
    pub(crate) fn extent(&self, axis: usize) -> usize {
        self.dilation[axis] * (self.kernel[axis] - 1) + 1
    }

    /// Places in the kernel.
    pub(crate) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Weights.
    pub(crate) fn weights(&self) -> usize {
        self.channels_out * self.channels_in * self.taps()
    }
}

/// A result that several threads write at once, each its own places.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*mut f32);

// SAFETY: a pointer alone; whoever makes a slice of it promises that it is the only one there.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(crate) fn new(memory: &mut [MaybeUninit<f32>]) -> Self {
        Self(memory.as_mut_ptr().cast())
    }

    /// # Safety
    /// The places must lie in the memory, and no other slice may hold one of them at the same time.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice(&self, start: usize, len: usize) -> &mut [MaybeUninit<f32>] {
        // SAFETY: that is the caller's promise.
        unsafe { core::slice::from_raw_parts_mut(self.0.add(start).cast(), len) }
    }
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Lends `len` floats of this thread's scratch memory, with whatever is in them. `work` must not ask for scratch memory itself
/// nor wait for other tasks of rayon (which may).
pub(crate) fn with_scratch<T>(len: usize, work: impl FnOnce(&mut [f32]) -> T) -> T {
    SCRATCH.with(|scratch| {
        let mut scratch = scratch.borrow_mut();
        if scratch.len() < len {
            scratch.resize(len, 0.0);
        }
        work(&mut scratch[..len])
    })
}

/// Copies floats to memory that is not written yet.
pub(crate) fn copy(to: &mut [MaybeUninit<f32>], from: &[f32]) {
    assert_eq!(to.len(), from.len());
    for (to, from) in to.iter_mut().zip(from) {
        to.write(*from);
    }
}
