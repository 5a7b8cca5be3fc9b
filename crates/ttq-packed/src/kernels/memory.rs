//! Aligned memory, and buffers that are reused between calls.

use alloc::vec::Vec;
use core::marker::PhantomData;

/// A cache line of 64 bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u32; 16]);

/// A growable array of 32-bit words, aligned to a cache line.
#[derive(Debug, Clone, Default)]
pub(crate) struct Words {
    lines: Vec<Line>,
}

/// A type whose values are 32-bit words.
///
/// # Safety
/// The type must have 4 bytes and an alignment of at most 64, and every bit pattern must be valid.
pub(crate) unsafe trait Word {}
// SAFETY: `u32` has 4 bytes, and every bit pattern is valid.
unsafe impl Word for u32 {}
// SAFETY: `f32` has 4 bytes, and every bit pattern is valid.
unsafe impl Word for f32 {}

impl Words {
    /// Creates `len` words of zero.
    pub(crate) fn zeros(len: usize) -> Self {
        let mut words = Self::default();
        words.reserve::<u32>(len);
        words
    }

    /// Returns `len` words and grows the array if needed. The contents are those of the previous use.
    pub(crate) fn reserve<T: Word>(&mut self, len: usize) -> &mut [T] {
        let lines = len.div_ceil(16);
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0; 16]));
        }
        // SAFETY: the lines are initialized, each has 16 words, and every bit pattern is a valid `Word`.
        unsafe { core::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), len) }
    }

    pub(crate) fn as_ptr(&self) -> *const u32 {
        self.lines.as_ptr().cast()
    }

    pub(crate) fn as_floats(&self) -> &[f32] {
        // SAFETY: as in `reserve`.
        unsafe { core::slice::from_raw_parts(self.lines.as_ptr().cast(), 16 * self.lines.len()) }
    }

    pub(crate) fn as_slice(&self) -> &[u32] {
        // SAFETY: as in `reserve`.
        unsafe { core::slice::from_raw_parts(self.as_ptr(), 16 * self.lines.len()) }
    }
}

/// Temporary buffers of [`PackedMatrix::forward`](super::PackedMatrix::forward) and
/// [`PackedConvolution::forward`](super::PackedConvolution::forward).
///
/// Any number of layers can share one value in successive calls: a call allocates only if it needs larger buffers than
/// all previous calls. Threads that call layers concurrently need one value each.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Quantized activations or lookup tables, read by all workers.
    pub(crate) input: Words,
    /// Quantization factors of the rows or images of the input.
    pub(crate) factors: Words,
    /// Shifts of the rows, with the bias of a call.
    pub(crate) shifts: Words,
    /// Offsets of the input elements under the kernel of a convolution.
    pub(crate) offsets: Words,
    /// One buffer per worker.
    pub(crate) workers: Vec<Words>,
}

impl Scratch {
    /// Creates empty buffers.
    pub fn new() -> Self {
        Self::default()
    }
}

/// An output slice that several workers write at disjoint positions.
#[derive(Clone, Copy)]
pub(crate) struct Output<'a> {
    start: *mut f32,
    len: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: the contract of `slice` excludes concurrent writes to the same position.
unsafe impl Send for Output<'_> {}
// SAFETY: as for `Send`.
unsafe impl Sync for Output<'_> {}

impl<'a> Output<'a> {
    pub(crate) fn new(y: &'a mut [f32]) -> Self {
        Self { start: y.as_mut_ptr(), len: y.len(), lifetime: PhantomData }
    }

    /// Returns the part `start..start + len` of the output.
    ///
    /// # Safety
    /// The part must lie within the output, and no other reference to it may exist during the lifetime of the slice.
    #[inline(always)]
    pub(crate) unsafe fn slice(self, start: usize, len: usize) -> &'a mut [f32] {
        debug_assert!(start + len <= self.len);
        // SAFETY: the caller guarantees bounds and exclusive access.
        unsafe { core::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}
