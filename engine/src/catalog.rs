//! Which segments there are: from an index address to a segment, without a lock.
//!
//! What always holds: a slot that a published address names has its segment in the table. A reader
//! pins first and looks up then; a retired segment leaves the table only when every reader that was
//! pinned at its retirement has moved on, and by then no published address names it. Slots are used
//! again after that, segment ids never.
//!
//! The owner of the table's pointers is [`State`]: an entry is put in after the `Arc` is stored and
//! taken out before the `Arc` is dropped.

use std::collections::BTreeMap;
use std::ptr;
use std::sync::atomic::AtomicU16;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::address::{SegmentId, Slot};
use crate::index::{Guard, Reclaimer};
use crate::segment::{Body, Segment};
use crate::sync::{AtomicPtr, Ordering};
use crate::warmth::Warmth;

/// As many slots as an address can name.
const SLOTS: usize = 1 << 16;
/// As many are left to compaction, which cannot give any back without.
const SLOTS_KEPT: usize = 256;

pub(crate) struct Catalog {
    table: Box<[AtomicPtr<Segment>]>,
    /// By the low bits of a segment's id, the slot of the last one with these bits: a guess, since it may
    /// have been another's.
    guesses: Box<[AtomicU16]>,
    state: Mutex<State>,
    /// Of all segments together.
    warmth: Warmth,
}

struct State {
    by_id: BTreeMap<SegmentId, Arc<Segment>>,
    free: Vec<Slot>,
    next_slot: usize,
    retired: Reclaimer<Arc<Segment>>,
    /// Retired bodies that a lease may still hold.
    leased: Vec<Weak<Body>>,
}

impl Catalog {
    pub(crate) fn new() -> Catalog {
        let table = (0..SLOTS).map(|_| AtomicPtr::new(ptr::null_mut())).collect();
        let guesses = (0..SLOTS).map(|_| AtomicU16::new(0)).collect();
        let state = State {
            by_id: BTreeMap::new(),
            free: Vec::new(),
            next_slot: 0,
            retired: Reclaimer::new(1),
            leased: Vec::new(),
        };
        Catalog { table, guesses, state: Mutex::new(state), warmth: Warmth::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segment in `slot`, for as long as the reader stays pinned.
    pub(crate) fn get<'g>(&self, slot: Slot, _pinned: &'g Guard) -> Option<&'g Segment> {
        let pointer = self.table[usize::from(slot.0)].load(Ordering::Acquire);
        // SAFETY: a non-null entry points into an `Arc<Segment>` that `State` keeps. `collect`
        // clears the entry first and drops the `Arc` then, and does so only for a segment whose
        // retirement is older than every pin; a reader that loaded the pointer before the entry was
        // cleared was pinned before the segment was flagged free, and so would have held that up.
        #[expect(unsafe_code, reason = "readers take no lock; see the module's invariant")]
        unsafe {
            pointer.as_ref()
        }
    }

    /// A slot for a segment that is to be entered; `None` if all 65,536 are taken.
    pub(crate) fn take_slot(&self) -> Option<Slot> {
        let mut state = self.state();
        if let Some(slot) = state.free.pop() {
            return Some(slot);
        }
        let slot = state.next_slot;
        (slot < SLOTS).then(|| {
            state.next_slot += 1;
            Slot(slot as u16)
        })
    }

    /// Whether there may be one more log or blob. Asked before its file is made, since a store with more
    /// segments than slots could not be opened.
    pub(crate) fn has_room(&self) -> bool {
        let state = self.state();
        state.free.len() + SLOTS - state.next_slot > SLOTS_KEPT
    }

    /// Makes the segment findable, before any address of it is published.
    pub(crate) fn enter(&self, segment: Arc<Segment>) {
        let slot = usize::from(segment.slot.0);
        let pointer = Arc::as_ptr(&segment).cast_mut();
        self.guess(segment.id()).store(segment.slot.0, Ordering::Relaxed);
        self.state().by_id.insert(segment.id(), segment);
        self.table[slot].store(pointer, Ordering::Release);
    }

    fn guess(&self, id: SegmentId) -> &AtomicU16 {
        &self.guesses[id.0 as usize % SLOTS]
    }

    /// Hands the segment of this id to `read`, for whom the reader stays pinned; takes a lock only if
    /// another segment's id ends in the same bits. A blob is not here any more once the index has left it and
    /// nobody reads it, so a reader that finds none looks into the index again.
    pub(crate) fn with_id<R>(
        &self,
        id: SegmentId,
        pinned: &Guard,
        read: impl FnOnce(&Segment) -> R,
    ) -> Option<R> {
        let slot = Slot(self.guess(id).load(Ordering::Relaxed));
        match self.get(slot, pinned) {
            Some(segment) if segment.id() == id => Some(read(segment)),
            _ => self.by_id(id).map(|segment| read(&segment)),
        }
    }

    /// The segment of this id, unless it was retired.
    pub(crate) fn by_id(&self, id: SegmentId) -> Option<Arc<Segment>> {
        self.state().by_id.get(&id).cloned()
    }

    /// All segments in the order of their ids.
    pub(crate) fn segments(&self) -> Vec<Arc<Segment>> {
        self.state().by_id.values().cloned().collect()
    }

    /// Takes a segment out, after the last published address of it was replaced. Readers that are
    /// pinned still find it.
    pub(crate) fn retire(&self, id: SegmentId) {
        let mut state = self.state();
        if let Some(segment) = state.by_id.remove(&id) {
            state.leased.push(Arc::downgrade(&segment.body));
            state.retired.retire(segment);
        }
    }

    /// Lets go of retired segments that no reader can see any more. Called by the engine's own
    /// threads, so that no reader pays for unmapping.
    pub(crate) fn collect(&self) {
        let mut gone = Vec::new();
        let mut state = self.state();
        state.retired.flush();
        while let Some(segment) = state.retired.ready() {
            self.table[usize::from(segment.slot.0)].store(ptr::null_mut(), Ordering::Release);
            state.free.push(segment.slot);
            gone.push(segment);
        }
        drop(state);
        drop(gone);
        self.state().leased.retain(|body| body.strong_count() > 0);
    }

    /// Whether all segments were in memory when they were last looked at.
    pub(crate) fn is_warm(&self) -> bool {
        self.warmth.is_warm()
    }

    /// Looks which segments are in memory, as far as anybody wants to know.
    pub(crate) fn look(&self) {
        let (for_all, mut all_warm) = (self.warmth.was_asked(), true);
        for segment in self.segments() {
            all_warm &= segment.body.map.look(for_all && all_warm);
        }
        self.warmth.note(for_all && all_warm);
    }

    /// How many bytes are kept only because a reader holds a lease on a retired segment.
    pub(crate) fn pinned_bytes(&self) -> u64 {
        let state = self.state();
        state.leased.iter().filter_map(Weak::upgrade).map(|body| body.map.published() as u64).sum()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_last_slots_are_left_to_compaction() {
        let catalog = Catalog::new();
        let taken = std::iter::repeat_with(|| catalog.has_room().then(|| catalog.take_slot()));
        assert_eq!(taken.take_while(Option::is_some).flatten().flatten().count(), 65_280);
        assert!(catalog.take_slot().is_some());
    }
}
