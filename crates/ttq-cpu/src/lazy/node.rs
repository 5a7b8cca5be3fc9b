//! Tensors whose elements are computed when they are first read.

use std::cell::{Cell, RefCell};
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use burn_backend::{AllocationProperty, Bytes, DType};
use burn_flex::{FlexTensor, Layout};
use burn_std::AllocationController;

use super::expression::Expression;
use crate::buffer::Buffer;

/// The memory of a lazy tensor: an expression until the elements are read, and a buffer from then on.
pub(crate) struct Node {
    /// Number of elements.
    len: usize,
    /// `None` once the elements are computed.
    expression: Mutex<Option<Arc<Expression>>>,
    elements: OnceLock<Elements>,
    /// Set when the tensor is complete, see [`Handle::memory`].
    is_published: AtomicBool,
    placeholder: OnceLock<Box<[MaybeUninit<u8>]>>,
}

/// Computed elements. The pointer is kept because the memory is written through it, see [`Handle::memory_mut`].
struct Elements {
    pointer: NonNull<MaybeUninit<u8>>,
    bytes: usize,
    _buffer: Buffer,
}

// SAFETY: the pointer refers to the memory of the buffer, which can be sent and shared.
unsafe impl Send for Elements {}
// SAFETY: as above.
unsafe impl Sync for Elements {}

impl Elements {
    fn new(mut buffer: Buffer) -> Self {
        let floats = buffer.floats();
        Self { bytes: size_of_val(floats), pointer: NonNull::from(floats).cast(), _buffer: buffer }
    }
}

impl Node {
    /// Creates a tensor with the layout `layout` over the result of `expression`.
    pub(super) fn tensor(expression: Expression, layout: Layout) -> (Arc<Self>, FlexTensor) {
        let len = expression.len();
        let node = Arc::new(Self {
            len,
            expression: Mutex::new(Some(Arc::new(expression))),
            elements: OnceLock::new(),
            is_published: AtomicBool::new(false),
            placeholder: OnceLock::new(),
        });
        // SAFETY: the bytes are computed, and thus initialized, before anything can read them.
        let bytes = unsafe { Bytes::from_controller(Box::new(Handle(node.clone())), len * size_of::<f32>()) };
        node.is_published.store(true, Ordering::Release);
        (node, FlexTensor::new(bytes, layout, DType::F32))
    }

    /// Returns the node of a tensor whose elements are not computed yet.
    pub(crate) fn pending(tensor: &FlexTensor) -> Option<Arc<Self>> {
        if tensor.dtype() != DType::F32 {
            return None;
        }
        PROBE.set(true);
        let _ = tensor.data_arc().property();
        PROBE.set(false);
        FOUND.take().filter(|node| node.is_pending())
    }

    pub(super) fn is_pending(&self) -> bool {
        self.elements.get().is_none()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns the expression; `None` once the elements are computed.
    pub(super) fn expression(&self) -> Option<Arc<Expression>> {
        self.expression.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the elements and releases the operands. If another thread has computed them in the meantime, its elements
    /// are kept; they are equal.
    pub(super) fn set(&self, buffer: Buffer) {
        let _ = self.elements.set(Elements::new(buffer));
        let expression = self.expression.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Operands are released after the lock.
        drop(expression);
    }

    fn computed(&self) -> &Elements {
        loop {
            if let Some(elements) = self.elements.get() {
                return elements;
            }
            super::evaluate::evaluate(self);
        }
    }
}

thread_local! {
    /// Asks a [`Handle`] for its node: Burn's type for memory does not say what is behind it.
    static PROBE: Cell<bool> = const { Cell::new(false) };
    static FOUND: RefCell<Option<Arc<Node>>> = const { RefCell::new(None) };
}

/// The memory of a lazy tensor, as Burn sees it.
struct Handle(Arc<Node>);

impl AllocationController for Handle {
    fn alloc_align(&self) -> usize {
        align_of::<f32>()
    }

    fn property(&self) -> AllocationProperty {
        if PROBE.get() {
            FOUND.set(Some(self.0.clone()));
        }
        AllocationProperty::Other
    }

    unsafe fn memory_mut(&mut self) -> &mut [MaybeUninit<u8>] {
        let elements = self.0.computed();
        // SAFETY: the pointer is valid as long as the node. A tensor has one handle, and whoever reads the elements
        // holds the tensor: nothing else accesses them while the handle is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(elements.pointer.as_ptr(), elements.bytes) }
    }

    fn memory(&self) -> &[MaybeUninit<u8>] {
        if !self.0.is_published.load(Ordering::Acquire) {
            // In debug builds, Burn asserts the length of the memory when the tensor is created. It must not be
            // computed for that.
            return self.0.placeholder.get_or_init(|| Box::new_uninit_slice(self.0.len * size_of::<f32>()));
        }
        let elements = self.0.computed();
        // SAFETY: the pointer is valid as long as the node, and nothing writes to the memory while it is borrowed.
        unsafe { core::slice::from_raw_parts(elements.pointer.as_ptr(), elements.bytes) }
    }
}
