//! Kernels on slices, without tensors.

pub(crate) mod convolution;
pub(crate) mod elementwise;
pub(crate) mod product;
pub(crate) mod simd;
pub(crate) mod strides;
pub(crate) mod tape;

use std::cell::RefCell;
use std::mem::MaybeUninit;

use burn_backend::ops::conv::calculate_conv_output_size;

/// Sizes of a two-dimensional convolution with one group.
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
    /// Height and width of the output; `None` if the dilated kernel is larger than the padded input.
    pub(crate) fn output(&self) -> Option<[usize; 2]> {
        let fits = |axis: usize| {
            let extent = self.dilation[axis] * (self.kernel[axis] - 1) + 1;
            self.input[axis] + 2 * self.padding[axis] >= extent
        };
        let Self { input, kernel, stride, padding, dilation, .. } = self;
        (fits(0) && fits(1)).then(|| {
            [0, 1].map(|axis| {
                calculate_conv_output_size(kernel[axis], stride[axis], padding[axis], dilation[axis], input[axis])
            })
        })
    }

    /// Number of kernel positions, height times width.
    pub(crate) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }
}

/// Output memory that several threads write concurrently, each to disjoint ranges.
#[derive(Clone, Copy)]
pub(crate) struct SharedOutput(*mut f32);

// SAFETY: the pointer is only dereferenced through `slice`, whose callers guarantee disjoint ranges.
unsafe impl Send for SharedOutput {}
// SAFETY: as above.
unsafe impl Sync for SharedOutput {}

impl SharedOutput {
    pub(crate) fn new(memory: &mut [MaybeUninit<f32>]) -> Self {
        Self(memory.as_mut_ptr().cast())
    }

    /// Returns the start of the memory.
    pub(crate) fn pointer(&self) -> *mut f32 {
        self.0
    }

    /// Returns the range `start..start + len` of the memory.
    ///
    /// # Safety
    /// The range must lie within the memory, and must not overlap a slice that is in use at the same time.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice(&self, start: usize, len: usize) -> &mut [MaybeUninit<f32>] {
        // SAFETY: the caller guarantees a valid, disjoint range.
        unsafe { core::slice::from_raw_parts_mut(self.0.add(start).cast(), len) }
    }
}

/// Number of parts that each task is split into, each with some of the `blocks` of output channels: more than one if
/// there are fewer tasks than threads. The sums of an output do not depend on it.
fn splits(tasks: usize, blocks: usize) -> usize {
    rayon::current_num_threads().div_ceil(tasks).min(blocks)
}

/// Floats in a cache line.
const LINE: usize = 16;

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Calls `work` with `len` floats of this thread's scratch memory, whose contents are arbitrary. The memory starts at a
/// cache line.
///
/// # Panics
/// Panics if calls are nested on one thread. `work` must therefore not block on rayon tasks: rayon may run another task
/// that uses scratch memory on this thread in the meantime.
pub(crate) fn with_scratch<T>(len: usize, work: impl FnOnce(&mut [f32]) -> T) -> T {
    SCRATCH.with(|scratch| {
        let mut scratch = scratch.borrow_mut();
        if scratch.len() < len + LINE {
            scratch.resize(len + LINE, 0.0);
        }
        let start = scratch.as_ptr().align_offset(LINE * size_of::<f32>());
        work(&mut scratch[start..start + len])
    })
}

/// Copies floats to uninitialized memory of the same length.
pub(crate) fn copy(to: &mut [MaybeUninit<f32>], from: &[f32]) {
    assert_eq!(to.len(), from.len());
    for (to, from) in to.iter_mut().zip(from) {
        to.write(*from);
    }
}
