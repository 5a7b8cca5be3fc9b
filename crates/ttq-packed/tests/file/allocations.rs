//! The bytes that a function allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system allocator, with counters of the current and the maximum number of allocated bytes per thread.
struct CountingAllocator;

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
    static MAXIMUM: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is forwarded unchanged to the system allocator.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CURRENT.set(CURRENT.get().wrapping_add(layout.size()));
        MAXIMUM.set(MAXIMUM.get().max(CURRENT.get()));
        // SAFETY: the caller guarantees what `System` requires of `layout`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // The counter wraps, because another thread may have allocated the memory.
        CURRENT.set(CURRENT.get().wrapping_sub(layout.size()));
        // SAFETY: `pointer` came from `System.alloc` with this `layout`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Returns the result of a function, and the maximum number of bytes that it had allocated at one time on this thread.
pub(crate) fn allocated<T>(function: impl FnOnce() -> T) -> (T, usize) {
    CURRENT.set(0);
    MAXIMUM.set(0);
    let result = function();
    (result, MAXIMUM.get())
}
