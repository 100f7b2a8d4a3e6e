//! What is published: the index, the segments it points into, and the time by which keys expire.
//!
//! Readers find a key's newest record here without a lock. Writers change it through
//! [`Keyspace::publish`] and compaction through [`Keyspace::relocate`], one at a time; both hold
//! the index's single writer. What always holds: a record is in its file, and durable if that was
//! promised, before anything here points at it; a segment's live bytes are exactly the lengths of
//! its records that the index points at, a blob's those of the extents that such records refer to.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::address::Address;
use crate::catalog::Catalog;
use crate::clock::Timekeeper;
use crate::error::Corruption;
use crate::format::record::{self, Extent, Header, Kind, Record};
use crate::index::{Guard, Index, IndexWriter, KeyHash, Traits, Visited, prefetch};
use crate::key::{self, Composite};
use crate::segment::Segment;

pub(crate) struct Keyspace {
    pub(crate) index: Index,
    writer: Mutex<IndexWriter>,
    pub(crate) catalog: Catalog,
    pub(crate) time: Timekeeper,
    /// Held by whoever makes one more record that refers to an extent, and against them by compaction
    /// while it moves extents.
    references: RwLock<()>,
}

/// One record that was written and is to be published.
pub(crate) struct Change<'a> {
    pub(crate) header: Header,
    pub(crate) key: &'a [u8],
    pub(crate) address: Address,
}

/// A record that was found, its header verified, and where it lies.
pub(crate) struct Found<'g> {
    pub(crate) segment: &'g Segment,
    pub(crate) offset: u64,
    pub(crate) record: Record<'g>,
}

/// A key that is looked up.
pub(crate) struct Sought<'k> {
    namespace: u32,
    key: &'k [u8],
    hash: KeyHash,
}

/// What a key pointed at before.
enum Old {
    Sound(Header),
    Damaged,
}

impl Old {
    /// Those of a damaged record are not known; these are no record's, so the tree is brought up to
    /// date.
    fn traits(&self) -> Traits {
        match self {
            Old::Sound(header) => traits_of(header),
            Old::Damaged => Traits { expires_at_ms: u64::MAX, has_metadata: true },
        }
    }
}

/// For each record of a group, whether its key was there before. Takes no memory for up to 64.
#[derive(Clone, Default)]
pub(crate) struct Existed {
    len: usize,
    first: u64,
    rest: Option<Arc<Vec<u64>>>,
}

impl Existed {
    fn push(&mut self, existed: bool) {
        let (word, bit) = (self.len / 64, u64::from(existed) << (self.len % 64));
        self.len += 1;
        if word == 0 {
            self.first |= bit;
            return;
        }
        let rest = Arc::make_mut(self.rest.get_or_insert_default());
        rest.resize(word, 0);
        rest[word - 1] |= bit;
    }

    pub(crate) fn get(&self, place: usize) -> bool {
        let rest = || self.rest.as_ref().and_then(|rest| rest.get(place / 64 - 1)).copied();
        let word = if place < 64 { Some(self.first) } else { rest() };
        word.is_some_and(|word| word >> (place % 64) & 1 == 1)
    }
}

/// Keys of one call that are looked up under one pin, their cache misses side by side.
pub(crate) const FOUND_TOGETHER: usize = 16;
/// Changes whose places in the index are fetched together, since their cache misses overlap.
const FETCHED_AHEAD: usize = 16;

/// What the index is told about a record.
pub(crate) fn traits_of(header: &Header) -> Traits {
    Traits { expires_at_ms: header.expires_ms, has_metadata: header.metadata_len > 0 }
}

/// `expires_ms` is 0 for never.
pub(crate) fn is_expired(expires_ms: u64, now_ms: u64) -> bool {
    expires_ms != 0 && expires_ms <= now_ms
}

impl Keyspace {
    pub(crate) fn new(index: Index, writer: IndexWriter, time: Timekeeper) -> Keyspace {
        let references = RwLock::default();
        Keyspace { index, writer: Mutex::new(writer), catalog: Catalog::new(), time, references }
    }

    /// While this is held, no extent that a live record refers to moves: so another record may be made
    /// that refers to it. It must be published before this is dropped.
    pub(crate) fn keep_extents(&self) -> RwLockReadGuard<'_, ()> {
        self.references.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// While this is held, no record is made that refers to an extent which was there before.
    pub(crate) fn move_extents(&self) -> RwLockWriteGuard<'_, ()> {
        self.references.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index's single writer.
    pub(crate) fn writer(&self) -> MutexGuard<'_, IndexWriter> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is looked up for a key.
    #[inline]
    pub(crate) fn sought<'k>(&self, namespace: u32, key: &'k [u8]) -> Sought<'k> {
        Sought { namespace, key, hash: self.index.hash_in(namespace, key) }
    }

    /// The same for a composite key.
    pub(crate) fn sought_composite<'k>(&self, composite: &'k [u8]) -> Sought<'k> {
        let (namespace, key) = key::split(composite);
        self.sought(namespace, key)
    }

    /// Where the newest record of a key lies, expired or not, if it has one. What lies there has this
    /// key or is damaged.
    #[inline]
    pub(crate) fn locate<'g>(
        &self,
        sought: &Sought<'_>,
        pinned: &'g Guard,
    ) -> Option<(&'g Segment, u64)> {
        self.index.get(sought.hash, pinned, |address| {
            let (segment, offset) = (self.segment(address, pinned)?, address.offset());
            let bytes = segment.body.bytes_from(offset);
            fetch(bytes);
            let is_it =
                record::has_key(bytes, sought.namespace, sought.key) || is_damaged(segment, offset);
            is_it.then_some((segment, offset))
        })
    }

    /// The newest record of a key, expired or not, if it has one.
    #[inline]
    pub(crate) fn find_any<'g>(
        &self,
        sought: &Sought<'_>,
        pinned: &'g Guard,
    ) -> Result<Option<Found<'g>>, Corruption> {
        let Some((segment, offset)) = self.locate(sought, pinned) else { return Ok(None) };
        let record = segment.body.record(offset)?;
        Ok(Some(Found { segment, offset, record }))
    }

    /// The newest record of a key if it has one that has not expired.
    #[inline]
    pub(crate) fn find<'g>(
        &self,
        sought: &Sought<'_>,
        pinned: &'g Guard,
    ) -> Result<Option<Found<'g>>, Corruption> {
        let found = self.find_any(sought, pinned)?;
        Ok(found.filter(|found| self.is_live(&found.record.header)))
    }

    /// Whether a record with this header has not expired.
    #[inline]
    pub(crate) fn is_live(&self, header: &Header) -> bool {
        // The clock is only read for a key that can have expired.
        header.expires_ms == 0 || !is_expired(header.expires_ms, self.time.now_ms())
    }

    /// Whether a key's newest record can be found and read without waiting for the disk; a long value
    /// is asked about by itself. True if there is none.
    pub(crate) fn is_resident(&self, namespace: u32, key: &[u8]) -> bool {
        let pinned = self.index.pin();
        let cold = self.index.get(self.index.hash_in(namespace, key), &pinned, |address| {
            let segment = self.segment(address, &pinned)?;
            (!segment.body.is_record_resident(address.offset())).then_some(())
        });
        cold.is_none()
    }

    /// Brings what [`Self::is_resident`] asks about into memory.
    pub(crate) fn populate(&self, namespace: u32, key: &[u8]) -> io::Result<()> {
        let composite = Composite::new(namespace, key);
        let found = {
            let pinned = self.index.pin();
            let mut found = Vec::new();
            self.index.get(self.index.hash(&composite), &pinned, |address| {
                let segment = self.segment(address, &pinned)?;
                found.push((segment.lease(), address.offset()));
                None::<()>
            });
            found
        };
        // Not pinned: that would hold up what is to be freed for as long as the disk takes.
        found.iter().try_for_each(|(lease, offset)| lease.populate_record(*offset))
    }

    pub(crate) fn segment<'g>(&self, address: Address, pinned: &'g Guard) -> Option<&'g Segment> {
        let segment = self.catalog.get(address.slot(), pinned);
        debug_assert!(segment.is_some(), "{address:?} names no segment");
        segment
    }

    /// Publishes records in the order of their seqnos, all of them in `log`. Returns for each
    /// whether its key was there before.
    pub(crate) fn publish<'a>(
        &self,
        log: &Segment,
        changes: impl ExactSizeIterator<Item = Change<'a>>,
    ) -> Existed {
        let mut writer = self.writer();
        let pinned = self.index.pin();
        let mut existed = Existed::default();
        if changes.len() == 1 {
            for change in changes {
                existed.push(self.publish_one(&mut writer, log, &change, &pinned));
            }
            return existed;
        }
        let changes: Vec<Change<'_>> = changes.collect();
        for together in changes.chunks(FETCHED_AHEAD) {
            together.iter().for_each(|change| self.prefetch(change, &pinned));
            for change in together {
                existed.push(self.publish_one(&mut writer, log, change, &pinned));
            }
        }
        existed
    }

    /// Has the processor fetch what lookups of these keys will read: first all their places in the index,
    /// then all their records. So the cache misses of one key hide behind another's.
    #[inline]
    pub(crate) fn fetch_together(&self, sought: &[Sought<'_>], pinned: &Guard) {
        sought.iter().for_each(|sought| self.fetch_place(sought, pinned));
        for sought in sought {
            self.index.get(sought.hash, pinned, |address| {
                // Mostly this is the key's own record. If not, the lookup finds out.
                fetch(self.segment(address, pinned)?.body.bytes_from(address.offset()));
                Some(())
            });
        }
    }

    fn fetch_place(&self, sought: &Sought<'_>, pinned: &Guard) {
        self.index.prefetch(sought.hash, pinned);
    }

    /// Has the processor fetch what a lookup of this key will read first.
    pub(crate) fn fetch_ahead(&self, namespace: u32, key: &[u8]) {
        self.fetch_place(&self.sought(namespace, key), &self.index.pin());
    }

    fn prefetch(&self, change: &Change<'_>, pinned: &Guard) {
        self.fetch_place(&self.sought(change.header.namespace, change.key), pinned);
    }

    fn publish_one(
        &self,
        writer: &mut IndexWriter,
        log: &Segment,
        change: &Change<'_>,
        pinned: &Guard,
    ) -> bool {
        let header = &change.header;
        let composite = Composite::new(header.namespace, change.key);
        let mut old = None;
        match header.kind {
            Kind::Put => {
                log.add_live(header.record_len() as u64);
                self.hold_extent(header.extent, header.value_len, header.expires_ms, &composite);
                let traits = traits_of(header);
                let replaced = writer.upsert(&composite, change.address, traits, |address| {
                    old = self.old(address, header.namespace, change.key, pinned);
                    old.as_ref().map(Old::traits)
                });
                self.bury(replaced, old.as_ref(), pinned);
            }
            Kind::Delete => {
                let removed = writer.remove(&composite, |address| {
                    old = self.old(address, header.namespace, change.key, pinned);
                    old.is_some()
                });
                self.bury(removed, old.as_ref(), pinned);
            }
            Kind::DeletePrefix | Kind::DeleteNamespace => {
                self.remove_range(writer, &composite, pinned);
                return true;
            }
        }
        // The clock is only read for a key that can have expired.
        old.is_some_and(|old| match old {
            Old::Sound(Header { expires_ms: 0, .. }) | Old::Damaged => true,
            Old::Sound(header) => !is_expired(header.expires_ms, self.time.now_ms()),
        })
    }

    fn remove_range(&self, writer: &mut IndexWriter, prefix: &[u8], pinned: &Guard) {
        let end = key::successor(prefix);
        writer.remove_range(
            prefix,
            end.as_deref(),
            |address, composite| {
                let (namespace, key) = key::split(composite);
                self.old(address, namespace, key, pinned).is_some()
            },
            |address| {
                let old = self.segment(address, pinned).and_then(|segment| {
                    let record = segment.body.record(address.offset()).ok()?;
                    Some(Old::Sound(record.header))
                });
                self.bury(Some(address), old.as_ref(), pinned);
            },
        );
    }

    /// What was at `address` if the record there has this very key. A record that is damaged is taken
    /// for it: the hash says so with 36 bits, and a key must not become undeletable with its record.
    fn old(&self, address: Address, namespace: u32, key: &[u8], pinned: &Guard) -> Option<Old> {
        let segment = self.segment(address, pinned)?;
        match record_of(segment, address.offset(), namespace, key) {
            Ok(found) => found.map(|record| Old::Sound(record.header)),
            Err(_) => Some(Old::Damaged),
        }
    }

    /// Takes a record that nothing points at any more off its segment's live bytes. The length of a
    /// damaged one is not known: it stays counted, and keeps its segment from looking empty.
    fn bury(&self, address: Option<Address>, old: Option<&Old>, pinned: &Guard) {
        let (Some(address), Some(Old::Sound(header))) = (address, old) else { return };
        if let Some(segment) = self.segment(address, pinned) {
            segment.sub_live(header.record_len() as u64);
            self.release_extent(header.extent);
        }
    }

    /// Notes that the index is about to point at one more record that refers to `extent`, if that is one.
    pub(crate) fn hold_extent(
        &self,
        extent: Option<Extent>,
        value_len: u32,
        expires_ms: u64,
        composite: &[u8],
    ) {
        let Some(extent) = extent else { return };
        if let Some(blob) = self.catalog.by_id(extent.segment()) {
            blob.hold(extent, value_len, expires_ms, composite);
        }
    }

    /// Notes that the index points at one record less that refers to `extent`, if that is one.
    pub(crate) fn release_extent(&self, extent: Option<Extent>) {
        let Some(extent) = extent else { return };
        if let Some(blob) = self.catalog.by_id(extent.segment()) {
            blob.release(extent);
        }
    }

    /// Moves a key to its copy, if the index still points at the original; both with their lengths.
    pub(crate) fn relocate(
        &self,
        writer: &mut IndexWriter,
        composite: &[u8],
        from: Address,
        to: Address,
        (from_len, to_len): (u64, u64),
        pinned: &Guard,
    ) -> bool {
        let moved = writer.relocate(composite, from, to);
        if moved {
            if let Some(segment) = self.segment(to, pinned) {
                segment.add_live(to_len);
            }
            if let Some(segment) = self.segment(from, pinned) {
                segment.sub_live(from_len);
            }
        }
        moved
    }

    /// Forgets a key whose record of `len` bytes has expired for good, if it is still that record.
    pub(crate) fn forget(
        &self,
        writer: &mut IndexWriter,
        composite: &[u8],
        address: Address,
        (len, extent): (u64, Option<Extent>),
        pinned: &Guard,
    ) {
        if writer.remove_at(composite, address)
            && let Some(segment) = self.segment(address, pinned)
        {
            segment.sub_live(len);
            self.release_extent(extent);
        }
    }

    /// Whether the index points at exactly this record.
    pub(crate) fn points_at(&self, composite: &[u8], address: Address, pinned: &Guard) -> bool {
        let hash = self.index.hash(composite);
        self.index.get(hash, pinned, |found| (found == address).then_some(())).is_some()
    }

    /// Walks the keys in [`start`, `end`), or from `start` on, under one pin, and appends those that
    /// `visit` says to keep to `keys`.
    #[inline(always)]
    pub(crate) fn gather(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        pinned: &Guard,
        keys: &mut Vec<u8>,
        visit: impl FnMut(&[u8], Traits) -> Visited,
    ) {
        self.index.gather(start, end, pinned, keys, visit);
    }

    /// The same from the last key of the range to the first.
    #[inline(always)]
    pub(crate) fn gather_back(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        pinned: &Guard,
        keys: &mut Vec<u8>,
        visit: impl FnMut(&[u8], Traits) -> Visited,
    ) {
        self.index.gather_back(start, end, pinned, keys, visit);
    }
}

/// Has the processor fetch all lines of a short record at once, rather than one miss after the other.
fn fetch(record: &[u8]) {
    (0..3).for_each(|line| prefetch(record.as_ptr().wrapping_add(64 * line)));
}

/// A record without the right key is seldom met: two hashes are alike in 36 bits, or it is damaged.
#[cold]
fn is_damaged(segment: &Segment, offset: u64) -> bool {
    segment.body.record(offset).is_err()
}

/// The record at `offset` if it is one of this key, `None` if it is one of another key whose hash
/// is alike. A damaged header is an error: it might be the one that was asked for.
fn record_of<'a>(
    segment: &'a Segment,
    offset: u64,
    namespace: u32,
    key: &[u8],
) -> Result<Option<Record<'a>>, Corruption> {
    let bytes = segment.body.bytes_from(offset);
    fetch(bytes);
    let same = record::has_key(bytes, namespace, key);
    let record = segment.body.record(offset)?;
    Ok(same.then_some(record))
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use super::*;
    use crate::{Durability, Options};

    #[test]
    fn what_is_in_memory_is_known_once_somebody_asked_and_it_was_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new().durability(Durability::Os).background(false);
        let db = options.open(dir.path().join("store")).unwrap();
        let namespace = db.namespace("n").unwrap();
        namespace.put("a", vec![7; 200_000]).unwrap();
        namespace.put("last", b"behind it the log is empty").unwrap();
        let catalog = &namespace.store.keyspace.catalog;
        let warm = || catalog.segments().iter().all(|segment| segment.body.map.look(false));

        for key in ["a", "last", "absent"] {
            assert!(namespace.is_resident(key), "{key}");
        }
        assert!(warm(), "the segment was asked about");
        assert!(!warm(), "nobody has asked since");
        assert!(namespace.is_resident("a"), "the kernel knows in any case");

        assert!(!db.is_resident(), "nothing is known yet");
        catalog.look();
        assert!(db.is_resident());
        catalog.look();
        catalog.look();
        assert!(!db.is_resident(), "nobody has asked for a while");
    }

    #[test]
    fn what_existed_is_remembered_for_any_number_of_records() {
        let mut existed = Existed::default();
        (0..300).for_each(|place| existed.push(place % 3 == 0));
        assert!((0..300).all(|place| existed.get(place) == (place % 3 == 0)));
        assert!(!existed.get(300));
    }
}
