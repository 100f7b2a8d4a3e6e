//! Which extents of a blob are in use, and by whom.
//!
//! A blob has no records, so what is alive in it is kept here, in memory: an extent is alive while the
//! index points at a record that refers to it. Values in blobs are large, so this costs little for each
//! byte. What always holds: the lengths of the extents here add up to the blob's live bytes.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::format::record::Extent;

/// The live extents of one blob; empty in other segments.
#[derive(Default)]
pub(crate) struct Extents {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    live: BTreeMap<Extent, Held>,
    /// Where bytes were set aside and never written, which take no space, and how many.
    holes: Vec<(u64, u64)>,
    /// Bytes that have expired when they were last counted, and from when on to count them anew: they are
    /// asked for all the time, and there are many extents.
    expired: u64,
    count_at_ms: u64,
}

impl State {
    fn count_expired(&mut self, now_ms: u64) {
        (self.expired, self.count_at_ms) = (0, u64::MAX);
        for held in self.live.values().filter(|held| held.expires_ms != 0) {
            if held.expires_ms <= now_ms {
                self.expired += held.len;
            } else {
                self.count_at_ms = self.count_at_ms.min(held.expires_ms);
            }
        }
    }
}

/// A live extent.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) len: u64,
    pub(crate) composite: Box<[u8]>,
    pub(crate) expires_ms: u64,
    /// Records that the index points at. Two for the moment in which one replaces the other.
    references: u32,
}

impl Extents {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how many bytes came alive.
    pub(crate) fn hold(&self, extent: Extent, len: u64, expires_ms: u64, composite: &[u8]) -> u64 {
        let state = &mut *self.state();
        let mut born = 0;
        let held = state.live.entry(extent).or_insert_with(|| {
            born = len;
            Held { len, composite: composite.into(), expires_ms: 0, references: 0 }
        });
        held.references += 1;
        if held.expires_ms != expires_ms {
            held.expires_ms = expires_ms;
            state.count_at_ms = 0;
        }
        born
    }

    /// Returns how many bytes died.
    pub(crate) fn release(&self, extent: Extent) -> u64 {
        let state = &mut *self.state();
        let Some(held) = state.live.get_mut(&extent) else { return 0 };
        held.references -= 1;
        if held.references > 0 {
            return 0;
        }
        if held.expires_ms != 0 {
            state.count_at_ms = 0;
        }
        state.live.remove(&extent).map_or(0, |held| held.len)
    }

    /// All live extents in the order of the file.
    pub(crate) fn live(&self) -> Vec<(Extent, Held)> {
        self.state().live.iter().map(|(extent, held)| (*extent, held.clone())).collect()
    }

    /// Bytes of the extents whose records have expired.
    pub(crate) fn expired_bytes(&self, now_ms: u64) -> u64 {
        let mut state = self.state();
        if now_ms >= state.count_at_ms {
            state.count_expired(now_ms);
        }
        state.expired
    }

    /// Bytes of the holes before byte `end` of the file.
    pub(crate) fn holes_before(&self, end: u64) -> u64 {
        self.state().holes.iter().filter(|(start, _)| *start < end).map(|(_, bytes)| bytes).sum()
    }

    /// Notes that nothing was written to some bytes between or behind extents.
    pub(crate) fn add_hole(&self, start: u64, bytes: u64) {
        if bytes > 0 {
            self.state().holes.push((start, bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::SegmentId;

    #[test]
    fn an_extent_lives_as_long_as_a_record_refers_to_it() {
        let extents = Extents::default();
        let [a, b] = [4096, 8192].map(|at| Extent::new(SegmentId(3), at).unwrap());
        assert_eq!(extents.hold(a, 4096, 0, b"a"), 4096);
        assert_eq!(extents.hold(b, 12_288, 50, b"b"), 12_288);
        assert_eq!(extents.hold(a, 4096, 70, b"a"), 0, "a second record of the same value");
        assert_eq!((extents.release(a), extents.release(a), extents.release(a)), (0, 4096, 0));
        assert_eq!(extents.live().len(), 1);
    }

    #[test]
    fn what_has_expired_is_counted_anew_when_something_expires_comes_or_goes() {
        let extents = Extents::default();
        let [a, b] = [4096, 8192].map(|at| Extent::new(SegmentId(3), at).unwrap());
        assert_eq!(extents.expired_bytes(10), 0);
        extents.hold(a, 4096, 0, b"a");
        extents.hold(b, 12_288, 50, b"b");
        assert_eq!((extents.expired_bytes(49), extents.expired_bytes(50)), (0, 12_288));
        extents.hold(a, 4096, 40, b"a");
        assert_eq!(extents.expired_bytes(50), 16_384);
        extents.hold(b, 12_288, 0, b"b");
        assert_eq!(extents.expired_bytes(50), 4096);
        assert_eq!((extents.release(a), extents.release(a)), (0, 4096));
        assert_eq!(extents.expired_bytes(50), 0);
    }
}
