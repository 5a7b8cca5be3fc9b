//! Memory in whole cache lines, and the buffers that calls share.

use alloc::vec::Vec;
use core::marker::PhantomData;

/// A cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u32; 16]);

/// Words of 32 bits, aligned to a cache line.
#[derive(Debug, Clone, Default)]
pub(crate) struct Words {
    lines: Vec<Line>,
}

/// What may be read and written as words of 32 bits.
///
/// # Safety
/// Four bytes, an alignment of at most 64, and every bit pattern a value.
pub(crate) unsafe trait Word {}
// SAFETY: plain numbers of four bytes.
unsafe impl Word for u32 {}
// SAFETY: as above.
unsafe impl Word for f32 {}

impl Words {
    /// `len` words of zero.
    pub(crate) fn zeros(len: usize) -> Self {
        let mut words = Self::default();
        words.reserve::<u32>(len);
        words
    }

    /// At least `len` words; what they hold is left from the use before.
    pub(crate) fn reserve<T: Word>(&mut self, len: usize) -> &mut [T] {
        let lines = len.div_ceil(16);
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0; 16]));
        }
        // SAFETY: the lines are initialized and 16 words each, and a `Word` may be any of their values.
        unsafe { core::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), len) }
    }

    pub(crate) fn as_ptr(&self) -> *const u32 {
        self.lines.as_ptr().cast()
    }

    pub(crate) fn as_slice(&self) -> &[u32] {
        // SAFETY: as in `reserve`.
        unsafe { core::slice::from_raw_parts(self.as_ptr(), 16 * self.lines.len()) }
    }
}

/// Buffers that the calls of any number of layers use one after the other, so that a call allocates only where it is the largest
/// so far. A network needs one; threads that call layers at the same time need one each.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Quantized activations or tables, read by all workers.
    pub(crate) input: Words,
    /// For each row or image of the input a factor.
    pub(crate) factors: Words,
    /// Offsets of the elements under a convolution's kernel.
    pub(crate) offsets: Words,
    /// One for each worker.
    pub(crate) workers: Vec<Words>,
}

impl Scratch {
    /// Empty buffers.
    pub fn new() -> Self {
        Self::default()
    }
}

/// An output that several workers write, each to places of its own.
#[derive(Clone, Copy)]
pub(crate) struct Output<'a> {
    start: *mut f32,
    len: usize,
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: `row` makes its callers vouch that no two threads write the same place.
unsafe impl Send for Output<'_> {}
// SAFETY: as above.
unsafe impl Sync for Output<'_> {}

impl<'a> Output<'a> {
    pub(crate) fn new(y: &'a mut [f32]) -> Self {
        Self { start: y.as_mut_ptr(), len: y.len(), lifetime: PhantomData }
    }

    /// Some of the output.
    ///
    /// # Safety
    /// `start + len` is within the output, and nobody else uses these places while the slice lives.
    #[inline(always)]
    pub(crate) unsafe fn slice(self, start: usize, len: usize) -> &'a mut [f32] {
        debug_assert!(start + len <= self.len);
        // SAFETY: the caller's vow.
        unsafe { core::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}
