//! Memory pool for results. Buffers of dropped tensors are reused, which avoids the operating system's zeroing of new
//! pages in every operation.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn_backend::{AllocationProperty, Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};
use burn_std::AllocationController;

/// A cache line, which sets the alignment of buffers.
#[repr(align(64))]
struct CacheLine {
    _floats: [f32; FLOATS_PER_LINE],
}

const FLOATS_PER_LINE: usize = 16;

type Lines = Box<[MaybeUninit<CacheLine>]>;

/// Smallest number of lines (64 KiB) that is pooled. The allocator reuses smaller buffers well.
const MIN_POOLED_LINES: usize = 1024;

/// Uninitialized memory for a tensor of f32.
pub(crate) struct Buffer {
    lines: Lines,
    len: usize,
}

impl Buffer {
    /// Allocates memory for `len` floats.
    pub(crate) fn new(len: usize) -> Self {
        Self { lines: allocate(len.div_ceil(FLOATS_PER_LINE)), len }
    }

    /// Allocates a tensor of `shape` whose elements `write` initializes.
    ///
    /// # Safety
    /// `write` must write every float.
    pub(crate) unsafe fn filled(shape: Shape, write: impl FnOnce(&mut [MaybeUninit<f32>])) -> FlexTensor {
        let mut buffer = Self::new(shape.num_elements());
        write(buffer.floats());
        // SAFETY: the caller guarantees that `write` initializes every float.
        unsafe { buffer.into_tensor(shape) }
    }

    pub(crate) fn floats(&mut self) -> &mut [MaybeUninit<f32>] {
        // SAFETY: a line is an array of floats without padding, and the lines hold at least `len` floats.
        unsafe { core::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }

    /// # Safety
    /// Every float must have been written.
    unsafe fn into_tensor(self, shape: Shape) -> FlexTensor {
        let bytes = self.len * size_of::<f32>();
        // SAFETY: the caller guarantees that the floats are initialized, and they are the first bytes of the memory.
        let data = unsafe { Bytes::from_controller(Box::new(self), bytes) };
        FlexTensor::new(data, Layout::contiguous(shape), DType::F32)
    }
}

impl AllocationController for Buffer {
    fn alloc_align(&self) -> usize {
        // The alignment that a copy of the bytes needs. The buffer itself is aligned to a cache line.
        align_of::<f32>()
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    unsafe fn memory_mut(&mut self) -> &mut [MaybeUninit<u8>] {
        let bytes = size_of_val(&*self.lines);
        // SAFETY: any memory is a valid slice of possibly uninitialized bytes.
        unsafe { core::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), bytes) }
    }

    fn memory(&self) -> &[MaybeUninit<u8>] {
        let bytes = size_of_val(&*self.lines);
        // SAFETY: any memory is a valid slice of possibly uninitialized bytes.
        unsafe { core::slice::from_raw_parts(self.lines.as_ptr().cast(), bytes) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        recycle(core::mem::take(&mut self.lines));
    }
}

/// Frees all pooled buffers.
pub(crate) fn clear_pool() {
    let buffers = {
        let mut pool = pool();
        pool.lines = 0;
        pool.peak_used = pool.used;
        core::mem::take(&mut pool.buffers)
    };
    // Freed after the lock is released.
    drop(buffers);
}

/// Buffers of dropped tensors. The pool holds at most as many lines as tensors ever used at once.
struct Pool {
    /// Buffers by their number of lines.
    buffers: BTreeMap<usize, Vec<Lines>>,
    /// Lines in `buffers`.
    lines: usize,
    /// Lines that live tensors use.
    used: usize,
    /// Largest value of `used` since the pool was cleared.
    peak_used: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { buffers: BTreeMap::new(), lines: 0, used: 0, peak_used: 0 });

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

fn allocate(lines: usize) -> Lines {
    if lines >= MIN_POOLED_LINES {
        let mut pool = pool();
        // A buffer may be larger than requested by up to an eighth.
        let reused = pool.buffers.range_mut(lines..=lines + lines / 8).find_map(|(_, buffers)| buffers.pop());
        let size = reused.as_ref().map_or(lines, |buffer| buffer.len());
        if reused.is_some() {
            pool.lines -= size;
        }
        pool.used += size;
        pool.peak_used = pool.peak_used.max(pool.used);
        if let Some(buffer) = reused {
            return buffer;
        }
    }
    Box::new_uninit_slice(lines)
}

fn recycle(buffer: Lines) {
    let size = buffer.len();
    if size < MIN_POOLED_LINES {
        return;
    }
    let mut stale = BTreeMap::new();
    {
        let mut pool = pool();
        pool.used -= size;
        if pool.lines + size > pool.peak_used {
            // The pool is full of sizes that are no longer requested.
            stale = core::mem::take(&mut pool.buffers);
            pool.lines = 0;
        }
        pool.lines += size;
        pool.buffers.entry(size).or_default().push(buffer);
    }
    // Freed after the lock is released.
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
    fn reused_memory_holds_the_new_values() {
        for len in [0, 1, 15, 16, 17, 1 << 14, (1 << 14) + 3, 100_000] {
            for value in [1.0, 2.0] {
                let tensor = tensor(len, value);
                assert_eq!(tensor.storage::<f32>(), vec![value; len], "{len}");
                assert_eq!(tensor.clone().into_data().bytes.len(), 4 * len);
            }
        }
    }

    #[test]
    fn a_shared_tensor_is_copied_before_a_write() {
        let tensor = tensor(1 << 15, 1.0);
        let mut other = tensor.clone();
        other.storage_mut::<f32>()[7] = 3.0;
        assert_eq!((tensor.storage::<f32>()[7], other.storage::<f32>()[7]), (1.0, 3.0));
    }

    #[test]
    fn the_pool_never_exceeds_peak_usage() {
        for size in 1..50 {
            drop(tensor(size * 40_000, 1.0));
            let pool = pool();
            assert!(pool.lines <= pool.peak_used);
            assert_eq!(pool.lines, pool.buffers.values().flatten().map(|lines| lines.len()).sum::<usize>());
        }
    }
}
