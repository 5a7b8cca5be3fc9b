//! Memory that the program has allocated.

use std::alloc::System;

use cap::Cap;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// Calls a function. Returns its result, and by how many bytes the allocated memory has grown.
pub(crate) fn measure<T>(call: impl FnOnce() -> T) -> (T, usize) {
    let before = MEMORY.allocated();
    let result = call();
    (result, MEMORY.allocated().saturating_sub(before))
}
