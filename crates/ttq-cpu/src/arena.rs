//! The memory behind results. It is taken from the operating system in large segments, on huge pages where there are
//! any, and reused for blocks of every size, so that a training step reads and writes the same pages as the one before.
//!
//! A request takes the smallest free block that is large enough; what is left of it stays free. A block that is freed
//! merges with its free neighbors.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::collections::{BTreeMap, BTreeSet};
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Size of a cache line, the unit of sizes and the alignment of blocks, in bytes.
pub(crate) const LINE: usize = 64;
/// Smallest number of lines (64 KiB) of a block. The allocator reuses smaller ones well.
const MIN_LINES: usize = 1024;
/// Size of a huge page on most processors, in lines, and the alignment of segments.
const HUGE_PAGE: usize = (2 << 20) / LINE;
/// Lines of a segment (66 MiB), unless a block needs more. The last two mebibytes make room for seven further lines when
/// eight blocks of 8 MiB have one line more each.
const SEGMENT: usize = 33 * HUGE_PAGE;

/// Uninitialized memory, aligned to a cache line.
pub(crate) struct Block {
    start: NonNull<MaybeUninit<u8>>,
    lines: usize,
    /// `None` for memory of the global allocator.
    place: Option<Place>,
}

// SAFETY: a block is the only owner of its memory.
unsafe impl Send for Block {}
// SAFETY: a shared block gives access to its address only.
unsafe impl Sync for Block {}

/// A segment and the number of lines before the block in it.
type Place = (usize, usize);

impl Block {
    /// Allocates at least `bytes` bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        let lines = bytes.div_ceil(LINE);
        match lines {
            0 => Self { start: NonNull::<Line>::dangling().cast(), lines, place: None },
            // One line more than requested: without it, most blocks would start at the same offset in a page, and a
            // processor takes a load for dependent on a store to the same offset of another page.
            MIN_LINES.. => {
                let mut arena = arena();
                let (place, lines) = arena.take(lines + 1);
                Self { start: arena.start(place), lines, place: Some(place) }
            }
            _ => Self { start: allocate(small(lines)), lines, place: None },
        }
    }

    /// First byte.
    pub(crate) fn start(&self) -> NonNull<MaybeUninit<u8>> {
        self.start
    }

    /// Size in bytes.
    pub(crate) fn len(&self) -> usize {
        self.lines * LINE
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        match self.place {
            Some(place) => arena().put(place, self.lines),
            None if self.lines == 0 => {}
            // SAFETY: `new` has allocated the memory with this layout.
            None => unsafe { dealloc(self.start.as_ptr().cast(), small(self.lines)) },
        }
    }
}

/// Gives the segments without blocks back to the operating system.
pub(crate) fn shrink() {
    let unused = arena().take_unused_segments();
    // Freed after the lock is released.
    drop(unused);
}

/// A cache line.
#[repr(align(64))]
struct Line;

struct Segment {
    start: NonNull<MaybeUninit<u8>>,
    lines: usize,
}

// SAFETY: a segment is only an address; its blocks have distinct parts of the memory.
unsafe impl Send for Segment {}

struct Arena {
    segments: BTreeMap<usize, Segment>,
    /// Lines of the free blocks by place. No two of them are neighbors.
    free: BTreeMap<Place, usize>,
    /// Lines and places of the same blocks.
    by_size: BTreeSet<(usize, Place)>,
}

static ARENA: Mutex<Arena> =
    Mutex::new(Arena { segments: BTreeMap::new(), free: BTreeMap::new(), by_size: BTreeSet::new() });

fn arena() -> MutexGuard<'static, Arena> {
    ARENA.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Arena {
    /// Takes a block of at least `lines`. Returns its place and lines.
    fn take(&mut self, lines: usize) -> (Place, usize) {
        let smallest = self.by_size.range((lines, (0, 0))..).next().copied();
        let (found, place) = smallest.unwrap_or_else(|| self.grow(lines));
        self.remove(found, place);
        // No request needs a smaller rest.
        if found - lines < MIN_LINES {
            return (place, found);
        }
        self.insert(found - lines, (place.0, place.1 + lines));
        (place, lines)
    }

    fn start(&self, (segment, offset): Place) -> NonNull<MaybeUninit<u8>> {
        // SAFETY: the place lies within its segment.
        unsafe { self.segments[&segment].start.add(offset * LINE) }
    }

    fn put(&mut self, (segment, mut offset): Place, mut lines: usize) {
        let next = (segment, offset + lines);
        if let Some(&more) = self.free.get(&next) {
            self.remove(more, next);
            lines += more;
        }
        let previous = self.free.range(..(segment, offset)).next_back().map(|(&place, &more)| (place, more));
        if let Some((place, more)) = previous.filter(|&((of, start), more)| (of, start + more) == (segment, offset)) {
            self.remove(more, place);
            offset = place.1;
            lines += more;
        }
        self.insert(lines, (segment, offset));
    }

    /// Allocates a segment for a block of `lines`. Returns its lines and place.
    fn grow(&mut self, lines: usize) -> (usize, Place) {
        let lines = lines.next_multiple_of(HUGE_PAGE).max(SEGMENT);
        let start = allocate(huge(lines));
        advise_huge_pages(start, lines * LINE);
        let index = self.segments.last_key_value().map_or(0, |(last, _)| last + 1);
        self.segments.insert(index, Segment { start, lines });
        self.insert(lines, (index, 0));
        (lines, (index, 0))
    }

    fn take_unused_segments(&mut self) -> Vec<Segment> {
        let is_unused = |index: usize, segment: &mut Segment| self.free.get(&(index, 0)) == Some(&segment.lines);
        let unused: Vec<_> = self.segments.extract_if(.., |&index, segment| is_unused(index, segment)).collect();
        for (index, segment) in &unused {
            self.remove(segment.lines, (*index, 0));
        }
        unused.into_iter().map(|(_, segment)| segment).collect()
    }

    fn insert(&mut self, lines: usize, place: Place) {
        self.free.insert(place, lines);
        self.by_size.insert((lines, place));
    }

    fn remove(&mut self, lines: usize, place: Place) {
        self.free.remove(&place);
        self.by_size.remove(&(lines, place));
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: `grow` has allocated the memory with this layout, and no block uses it.
        unsafe { dealloc(self.start.as_ptr().cast(), huge(self.lines)) }
    }
}

/// Layout of memory that the global allocator provides for a block.
fn small(lines: usize) -> Layout {
    layout(lines, LINE)
}

/// Layout of a segment.
fn huge(lines: usize) -> Layout {
    layout(lines, HUGE_PAGE * LINE)
}

fn layout(lines: usize, align: usize) -> Layout {
    let layout = lines.checked_mul(LINE).and_then(|bytes| Layout::from_size_align(bytes, align).ok());
    layout.expect("a tensor is smaller than the address space")
}

fn allocate(layout: Layout) -> NonNull<MaybeUninit<u8>> {
    // SAFETY: no layout of this file has size zero.
    NonNull::new(unsafe { alloc(layout) }.cast()).unwrap_or_else(|| handle_alloc_error(layout))
}

/// Asks for huge pages: a fault for 2 MiB instead of 4 KiB, and fewer misses in the table of translations.
#[cfg(target_os = "linux")]
fn advise_huge_pages(start: NonNull<MaybeUninit<u8>>, bytes: usize) {
    // SAFETY: the range was allocated, and the advice changes no contents. Without huge pages it fails, which is fine.
    unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages(_: NonNull<MaybeUninit<u8>>, _: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that the free blocks are apart from each other, and that both indices have them.
    fn check(arena: &Arena) {
        let pairs: BTreeSet<_> = arena.free.iter().map(|(&place, &lines)| (lines, place)).collect();
        assert_eq!(pairs, arena.by_size);
        for ((&(segment, offset), &lines), (&next, _)) in arena.free.iter().zip(arena.free.iter().skip(1)) {
            assert!(segment != next.0 || offset + lines < next.1, "{:?}", arena.free);
        }
    }

    fn empty() -> Arena {
        Arena { segments: BTreeMap::new(), free: BTreeMap::new(), by_size: BTreeSet::new() }
    }

    #[test]
    fn blocks_do_not_overlap_and_leave_whole_segments_behind() {
        let mut arena = empty();
        let mut live: Vec<(Place, usize)> = Vec::new();
        let mut state = 1u32;
        for _ in 0..2000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let random = (state >> 8) as usize;
            if live.len() > 40 || (random.is_multiple_of(2) && !live.is_empty()) {
                let (place, lines) = live.swap_remove(random % live.len());
                arena.put(place, lines);
            } else {
                let requested = MIN_LINES + random % 50_000;
                let ((segment, offset), lines) = arena.take(requested);
                assert!((requested..requested + MIN_LINES).contains(&lines));
                let overlaps = |&((of, start), len): &(Place, usize)| {
                    of == segment && start < offset + lines && offset < start + len
                };
                assert!(!live.iter().any(overlaps) && offset + lines <= arena.segments[&segment].lines);
                live.push(((segment, offset), lines));
            }
            check(&arena);
        }
        live.into_iter().for_each(|(place, lines)| arena.put(place, lines));
        let whole: Vec<_> = arena.segments.iter().map(|(&index, segment)| ((index, 0), segment.lines)).collect();
        assert_eq!(arena.free.clone().into_iter().collect::<Vec<_>>(), whole);
        assert_eq!(arena.take_unused_segments().len(), whole.len());
        assert!(arena.free.is_empty() && arena.by_size.is_empty());
    }

    #[test]
    fn freed_memory_serves_other_sizes() {
        let mut arena = empty();
        let blocks = [3, 2, 5].map(|size| arena.take(size * MIN_LINES));
        let [first, ..] = blocks;
        blocks.into_iter().for_each(|(place, lines)| arena.put(place, lines));
        assert_eq!(arena.take(10 * MIN_LINES).0, first.0);
        assert_eq!(arena.segments.len(), 1);
    }

    #[test]
    fn a_block_larger_than_a_segment_has_its_own() {
        let mut arena = empty();
        let (place, lines) = arena.take(SEGMENT + 1);
        arena.take(MIN_LINES);
        assert_eq!((place, arena.segments.len()), ((0, 0), 1), "the small block is in the rest of the last huge page");
        arena.put(place, lines);
        assert_eq!(arena.take_unused_segments().len(), 0, "it is still used");
    }

    #[test]
    fn blocks_are_aligned_and_large_enough() {
        for bytes in [0, 1, 63, 64, 65, 1 << 16, (1 << 16) + 1, 3 << 20] {
            let blocks = [Block::new(bytes), Block::new(bytes)];
            for block in &blocks {
                assert!(block.len() >= bytes && block.start().as_ptr().cast::<Line>().is_aligned(), "{bytes}");
            }
        }
    }
}
