//! Uninitialized memory for results.

use std::mem::MaybeUninit;

use burn_backend::{AllocationProperty, Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};
use burn_std::AllocationController;

use crate::arena::Block;

/// Uninitialized memory for a tensor of f32.
pub(crate) struct Buffer {
    block: Block,
    len: usize,
}

impl Buffer {
    /// Allocates memory for `len` floats.
    pub(crate) fn new(len: usize) -> Self {
        Self { block: Block::new(len * size_of::<f32>()), len }
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
        // SAFETY: the block is aligned to a cache line and holds at least `len` floats.
        unsafe { core::slice::from_raw_parts_mut(self.block.start().as_ptr().cast(), self.len) }
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
        // SAFETY: any memory is a valid slice of possibly uninitialized bytes.
        unsafe { core::slice::from_raw_parts_mut(self.block.start().as_ptr(), self.block.len()) }
    }

    fn memory(&self) -> &[MaybeUninit<u8>] {
        // SAFETY: any memory is a valid slice of possibly uninitialized bytes.
        unsafe { core::slice::from_raw_parts(self.block.start().as_ptr(), self.block.len()) }
    }
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
}
