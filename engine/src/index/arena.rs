//! Memory for the hash's tables, in chunks that are large enough for huge pages.
//!
//! A look-up reads one line of a table at random. With pages of 4 KiB it mostly walks the page table
//! first; with huge pages it seldom does. The allocator of the process spreads tables between other
//! things, so they get chunks of their own: small ones while there is little in them, so that a small
//! store stays small; then of 2 MiB, for which the system is asked for huge pages.
//!
//! What always holds: the free extents of a chunk do not overlap or touch each other, each is in both
//! maps, and all else in the chunk was taken. A chunk that is free as a whole goes back at once.
//!
//! Absent on purpose: several threads (there is one writer), and knowledge of what lies here. What was
//! taken and not given back is not dropped with the arena; its memory is freed.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::collections::{BTreeMap, BTreeSet};
use std::ptr::NonNull;

/// The size of a huge page, and of a large chunk.
const HUGE_BYTES: usize = 2 << 20;
const SMALL_BYTES: usize = 64 << 10;
/// While an arena has less than this, its chunks are small.
const SMALL_UNTIL_BYTES: usize = 2 << 20;

/// Slices of `T`, taken and given back.
pub(super) struct Arena<T> {
    /// By the address where each starts.
    chunks: BTreeMap<usize, Chunk<T>>,
    /// All free extents by their length: length, address of the chunk, start in it.
    free: BTreeSet<(usize, usize, usize)>,
    bytes: usize,
}

struct Chunk<T> {
    first: NonNull<T>,
    layout: Layout,
    /// How many `T` there is room for.
    len: usize,
    /// Free extents: start and length.
    free: BTreeMap<usize, usize>,
}

// SAFETY: a chunk is memory that belongs to no thread, and hands out `T` by pointer alone. Who uses
// those says why it may.
unsafe impl<T: Send> Send for Chunk<T> {}

impl<T> Chunk<T> {
    fn new(len: usize, align: usize) -> Chunk<T> {
        let layout = Layout::array::<T>(len).and_then(|layout| layout.align_to(align));
        let layout = layout.expect("a chunk is smaller than the address space");
        assert!(layout.size() > 0, "a chunk of nothing");
        // SAFETY: the size is not zero.
        let first = NonNull::new(unsafe { alloc(layout) }.cast::<T>());
        let Some(first) = first else { handle_alloc_error(layout) };
        Chunk { first, layout, len, free: BTreeMap::new() }
    }

    /// Asks the system for huge pages. Where it has none, nothing changes.
    fn ask_for_huge_pages(&self) {
        #[cfg(all(target_os = "linux", not(miri)))]
        // SAFETY: the advice changes what backs the memory of this chunk, and nothing in it.
        let _ = unsafe {
            libc::madvise(self.first.as_ptr().cast(), self.layout.size(), libc::MADV_HUGEPAGE)
        };
    }
}

impl<T> Drop for Chunk<T> {
    fn drop(&mut self) {
        // SAFETY: `new` allocated it with this layout.
        unsafe { dealloc(self.first.as_ptr().cast(), self.layout) };
    }
}

impl<T> Default for Arena<T> {
    fn default() -> Arena<T> {
        Arena { chunks: BTreeMap::new(), free: BTreeSet::new(), bytes: 0 }
    }
}

impl<T> Arena<T> {
    /// What all chunks take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Room for `len` values, filled by `new`. Stays where it is until it is given back or the arena is
    /// dropped.
    pub(super) fn take(&mut self, len: usize, new: impl Fn() -> T) -> NonNull<T> {
        let shortest = self.free.range((len, 0, 0)..).next().copied();
        let (found, at, start) = shortest.unwrap_or_else(|| self.add_chunk(len));
        self.free.remove(&(found, at, start));
        let chunk = self.chunks.get_mut(&at).expect("a free extent lies in a chunk");
        chunk.free.remove(&start);
        if found > len {
            chunk.free.insert(start + len, found - len);
            self.free.insert((found - len, at, start + len));
        }
        // SAFETY: a free extent lies within its chunk, and nobody else has it.
        unsafe {
            let first = chunk.first.add(start);
            (0..len).for_each(|nth| first.add(nth).write(new()));
            first
        }
    }

    /// A chunk with room for `len` values, all of it one free extent.
    fn add_chunk(&mut self, len: usize) -> (usize, usize, usize) {
        let is_small = self.bytes < SMALL_UNTIL_BYTES;
        let (bytes, align) =
            if is_small { (SMALL_BYTES, align_of::<T>()) } else { (HUGE_BYTES, HUGE_BYTES) };
        let len = len.max(bytes / size_of::<T>());
        let mut chunk = Chunk::new(len, align);
        if !is_small {
            chunk.ask_for_huge_pages();
        }
        let at = chunk.first.addr().get();
        chunk.free.insert(0, len);
        self.bytes += chunk.layout.size();
        self.chunks.insert(at, chunk);
        self.free.insert((len, at, 0));
        (len, at, 0)
    }

    /// Takes back what [`Self::take`] gave.
    ///
    /// # Safety
    /// `first` and `len` are of one call of `take` of this arena, not given back before, and nobody uses
    /// what is there any more.
    pub(super) unsafe fn give_back(&mut self, first: NonNull<T>, len: usize) {
        // SAFETY: `take` wrote all of them, and they are nobody's now, says the caller.
        unsafe { NonNull::slice_from_raw_parts(first, len).drop_in_place() };
        let address = first.addr().get();
        let chunk = self.chunks.range_mut(..=address).next_back();
        let (&at, chunk) = chunk.expect("what was taken lies in a chunk");
        let mut start = (address - at) / size_of::<T>();
        let mut end = start + len;
        debug_assert!(end <= chunk.len, "what was taken lies in one chunk");
        if let Some((&before, &before_len)) = chunk.free.range(..start).next_back()
            && before + before_len == start
        {
            chunk.free.remove(&before);
            self.free.remove(&(before_len, at, before));
            start = before;
        }
        if let Some(behind_len) = chunk.free.remove(&end) {
            self.free.remove(&(behind_len, at, end));
            end += behind_len;
        }
        if end - start == chunk.len {
            self.bytes -= chunk.layout.size();
            self.chunks.remove(&at);
        } else {
            chunk.free.insert(start, end - start);
            self.free.insert((end - start, at, start));
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_overlaps_nothing_and_what_is_given_back_is_taken_again() {
        let (mut arena, mut taken, mut random) = (Arena::<u64>::default(), Vec::new(), 7u64);
        for round in 0..20_000u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round);
            let len = 1 + (random >> 33) as usize % 900;
            if taken.len() < 300 || random >> 60 < 8 {
                let first = arena.take(len, || round);
                taken.push((first, len, round));
            } else {
                let (first, len, content) =
                    taken.swap_remove((random >> 40) as usize % taken.len());
                // SAFETY: it was taken and is given back once; nobody else knows of it.
                unsafe {
                    let all = NonNull::slice_from_raw_parts(first, len);
                    assert!(all.as_ref().iter().all(|value| *value == content));
                    arena.give_back(first, len);
                }
            }
            let by_chunk: usize = arena.chunks.values().map(|chunk| chunk.free.len()).sum();
            assert_eq!(by_chunk, arena.free.len());
        }
        let used: usize = taken.iter().map(|(_, len, _)| 8 * len).sum();
        assert!(arena.bytes() < used + used / 4 + HUGE_BYTES, "{used}: {}", arena.bytes());
        for (first, len, _) in taken {
            // SAFETY: as above.
            unsafe { arena.give_back(first, len) };
        }
        assert_eq!((arena.bytes(), arena.free.len(), arena.chunks.len()), (0, 0, 0));
    }

    #[test]
    fn a_slice_may_be_longer_than_a_chunk() {
        let mut arena = Arena::<u64>::default();
        let first = arena.take(HUGE_BYTES, || 3);
        assert!(arena.bytes() >= 8 * HUGE_BYTES);
        // SAFETY: it was just taken.
        unsafe { arena.give_back(first, HUGE_BYTES) };
        assert_eq!(arena.bytes(), 0);
    }
}
