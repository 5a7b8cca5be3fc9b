//! Memory of results: taken from what earlier tensors have given back, so that the operating system need not clear new pages
//! for every operation.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn_backend::{AllocationProperty, Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};
use burn_std::AllocationController;

/// A cache line: the alignment of a buffer.
#[repr(align(64))]
struct Line {
    _floats: [f32; FLOATS_OF_LINE],
}

const FLOATS_OF_LINE: usize = 16;

type Lines = Box<[MaybeUninit<Line>]>;

/// Smaller buffers (64 KiB) are left to the allocator, which reuses their memory well.
const SMALLEST_KEPT: usize = 1024;

/// Memory for a tensor of f32 that is not written yet.
pub(crate) struct Buffer {
    lines: Lines,
    len: usize,
}

impl Buffer {
    /// Memory for `len` floats.
    pub(crate) fn new(len: usize) -> Self {
        Self { lines: take(len.div_ceil(FLOATS_OF_LINE)), len }
    }

    /// A buffer that `write` fills.
    ///
    /// # Safety
    /// `write` must write every float.
    pub(crate) unsafe fn filled(shape: Shape, write: impl FnOnce(&mut [MaybeUninit<f32>])) -> FlexTensor {
        let mut buffer = Self::new(shape.num_elements());
        write(buffer.floats());
        // SAFETY: that is the caller's promise.
        unsafe { buffer.into_tensor(shape) }
    }

    fn floats(&mut self) -> &mut [MaybeUninit<f32>] {
        // SAFETY: a line is an array of floats without padding, and there are enough lines for `len` of them.
        unsafe { core::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }

    /// # Safety
    /// Every float must have been written.
    unsafe fn into_tensor(self, shape: Shape) -> FlexTensor {
        let bytes = self.len * size_of::<f32>();
        // SAFETY: the floats were written, says the caller, and they are the first bytes of the memory.
        let data = unsafe { Bytes::from_controller(Box::new(self), bytes) };
        FlexTensor::new(data, Layout::contiguous(shape), DType::F32)
    }
}

impl AllocationController for Buffer {
    fn alloc_align(&self) -> usize {
        // What a copy of the bytes must have, which a cache line is more than.
        align_of::<f32>()
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    unsafe fn memory_mut(&mut self) -> &mut [MaybeUninit<u8>] {
        let bytes = size_of_val(&*self.lines);
        // SAFETY: any memory is a slice of bytes that may be uninitialized.
        unsafe { core::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), bytes) }
    }

    fn memory(&self) -> &[MaybeUninit<u8>] {
        let bytes = size_of_val(&*self.lines);
        // SAFETY: any memory is a slice of bytes that may be uninitialized.
        unsafe { core::slice::from_raw_parts(self.lines.as_ptr().cast(), bytes) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        give_back(core::mem::take(&mut self.lines));
    }
}

/// Frees the memory that is kept for later tensors.
pub(crate) fn clean_up() {
    let kept = {
        let mut kept = kept();
        kept.lines = 0;
        kept.most_used = kept.used;
        core::mem::take(&mut kept.buffers)
    };
    drop(kept);
}

/// Memory that was given back, by its number of lines.
struct Kept {
    buffers: BTreeMap<usize, Vec<Lines>>,
    /// Lines in `buffers`.
    lines: usize,
    /// Lines in tensors now, and at most so far. No more are kept than were ever in use at once.
    used: usize,
    most_used: usize,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept { buffers: BTreeMap::new(), lines: 0, used: 0, most_used: 0 });

fn kept() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take(lines: usize) -> Lines {
    if lines >= SMALLEST_KEPT {
        let mut kept = kept();
        // A buffer that is up to an eighth too large will do.
        let fitting = kept.buffers.range_mut(lines..=lines + lines / 8).find_map(|(_, buffers)| buffers.pop());
        let size = fitting.as_ref().map_or(lines, |buffer| buffer.len());
        if fitting.is_some() {
            kept.lines -= size;
        }
        kept.used += size;
        kept.most_used = kept.most_used.max(kept.used);
        if let Some(buffer) = fitting {
            return buffer;
        }
    }
    Box::new_uninit_slice(lines)
}

fn give_back(buffer: Lines) {
    let size = buffer.len();
    if size < SMALLEST_KEPT {
        return;
    }
    let mut stale = BTreeMap::new();
    {
        let mut kept = kept();
        kept.used -= size;
        if kept.lines + size > kept.most_used {
            // Sizes that are no longer asked for have filled it up.
            stale = core::mem::take(&mut kept.buffers);
            kept.lines = 0;
        }
        kept.lines += size;
        kept.buffers.entry(size).or_default().push(buffer);
    }
    // Freed here, with the lock released.
    drop(stale);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(len: usize, value: f32) -> FlexTensor {
        // SAFETY: `write` writes every float.
        unsafe {
            Buffer::filled(Shape::from([len]), |floats| {
                floats.iter_mut().for_each(|float| {
                    float.write(value);
                })
            })
        }
    }

    #[test]
    fn a_tensor_holds_what_was_written_whatever_was_there_before() {
        for len in [0, 1, 15, 16, 17, 1 << 14, (1 << 14) + 3, 100_000] {
            for value in [1.0, 2.0] {
                let tensor = tensor(len, value);
                assert_eq!(tensor.storage::<f32>(), vec![value; len], "{len}");
                assert_eq!(tensor.clone().into_data().bytes.len(), 4 * len);
            }
        }
    }

    #[test]
    fn a_shared_tensor_is_copied_before_it_is_changed() {
        let tensor = tensor(1 << 15, 1.0);
        let mut other = tensor.clone();
        other.storage_mut::<f32>()[7] = 3.0;
        assert_eq!((tensor.storage::<f32>()[7], other.storage::<f32>()[7]), (1.0, 3.0));
    }

    #[test]
    fn no_more_is_kept_than_was_in_use() {
        for size in 1..50 {
            drop(tensor(size * 40_000, 1.0));
            let kept = kept();
            assert!(kept.lines <= kept.most_used);
            assert_eq!(kept.lines, kept.buffers.values().flatten().map(|lines| lines.len()).sum::<usize>());
        }
    }
}
