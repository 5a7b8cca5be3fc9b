//! Masks whose bytes are computed when they are first read. Operations of this crate read the numbers behind a mask
//! instead, so that a comparison is recorded as any other operation.

use std::cell::{Cell, RefCell};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use burn_backend::{AllocationProperty, Bytes, DType};
use burn_flex::FlexTensor;
use burn_std::AllocationController;
use rayon::prelude::*;

use crate::arena::Block;

/// Creates the mask that is true where `numbers`, recorded by [`map`](super::map), are not zero. Its bytes are 0 or 1.
pub(crate) fn mask(numbers: FlexTensor, dtype: DType) -> FlexTensor {
    let layout = numbers.layout().clone();
    let shape = layout.shape().iter().zip(layout.strides());
    let len = shape.filter(|(_, stride)| **stride != 0).map(|(size, _)| size).product();
    let is_published = Arc::new(AtomicBool::new(false));
    let handle = Handle {
        len,
        numbers: Mutex::new(Some(numbers)),
        bytes: OnceLock::new(),
        is_published: is_published.clone(),
        placeholder: OnceLock::new(),
    };
    // SAFETY: the bytes are computed, and thus initialized, before anything can read them.
    let bytes = unsafe { Bytes::from_controller(Box::new(handle), len) };
    is_published.store(true, Ordering::Release);
    FlexTensor::new(bytes, layout, dtype)
}

/// Returns the numbers behind a mask whose bytes are not computed yet, 0 or 1, in the layout of the mask.
pub(crate) fn numbers(mask: &FlexTensor) -> Option<FlexTensor> {
    PROBE.set(true);
    let _ = mask.data_arc().property();
    PROBE.set(false);
    FOUND.take().map(|numbers| numbers.with_layout(mask.layout().clone()))
}

thread_local! {
    /// Asks a [`Handle`] for its numbers: Burn's type for memory does not say what is behind it.
    static PROBE: Cell<bool> = const { Cell::new(false) };
    static FOUND: RefCell<Option<FlexTensor>> = const { RefCell::new(None) };
}

/// The memory of a mask, as Burn sees it.
struct Handle {
    len: usize,
    /// `None` once the bytes are computed.
    numbers: Mutex<Option<FlexTensor>>,
    bytes: OnceLock<Block>,
    /// Set when the tensor is complete. Burn's debug builds ask for the memory before that.
    is_published: Arc<AtomicBool>,
    placeholder: OnceLock<Box<[MaybeUninit<u8>]>>,
}

impl Handle {
    fn numbers(&self) -> MutexGuard<'_, Option<FlexTensor>> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn computed(&self) -> &Block {
        loop {
            if let Some(block) = self.bytes.get() {
                return block;
            }
            // Several threads may compute equal bytes. No lock is held: the computation itself runs on several threads.
            let numbers = self.numbers().clone();
            let Some(numbers) = numbers.map(super::ready) else { continue };
            let block = Block::new(self.len);
            // SAFETY: the block has `len` bytes or more and belongs to this function.
            let bytes: &mut [MaybeUninit<u8>] =
                unsafe { core::slice::from_raw_parts_mut(block.start().as_ptr(), self.len) };
            let floats = &numbers.storage::<f32>()[..self.len];
            bytes.par_chunks_mut(PART).zip(floats.par_chunks(PART)).for_each(|(bytes, floats)| {
                for (byte, float) in bytes.iter_mut().zip(floats) {
                    byte.write(u8::from(*float != 0.0));
                }
            });
            let _ = self.bytes.set(block);
            let numbers = self.numbers().take();
            // Released after the lock.
            drop(numbers);
        }
    }
}

/// Elements that a thread converts at once.
const PART: usize = 1 << 16;

impl AllocationController for Handle {
    fn alloc_align(&self) -> usize {
        align_of::<u8>()
    }

    fn property(&self) -> AllocationProperty {
        if PROBE.get() {
            FOUND.set(self.numbers().clone());
        }
        AllocationProperty::Other
    }

    unsafe fn memory_mut(&mut self) -> &mut [MaybeUninit<u8>] {
        let (block, len) = (self.computed(), self.len);
        // SAFETY: the block has `len` bytes, and the handle is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(block.start().as_ptr(), len) }
    }

    fn memory(&self) -> &[MaybeUninit<u8>] {
        if !self.is_published.load(Ordering::Acquire) {
            return self.placeholder.get_or_init(|| Box::new_uninit_slice(self.len));
        }
        // SAFETY: the block has `len` bytes, and nothing writes to them while they are borrowed.
        unsafe { core::slice::from_raw_parts(self.computed().start().as_ptr(), self.len) }
    }
}
