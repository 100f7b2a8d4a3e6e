//! The blob that large values are written to: the only way to write to one.
//!
//! ```text
//!   | header's page | extent | extent (being written) | extent (given up) | extent (being written) ...
//! ```
//!
//! Any number of values are written at once, each into a [`Space`] of its own that was set aside for it.
//! What always holds: two spaces never overlap, and bytes that were written are never written again; a
//! space that is given up leaves dead bytes and nothing else; [`Blob::sync`] returns after a sync that
//! began after the caller's writes, and syncs nothing if there was one. Absent on purpose: which values
//! are alive, see `extents`.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{Body, Segment, create_file};
use crate::address::{SegmentId, Slot};
use crate::disk::{Disk, DiskFile};
use crate::format::StoreId;
use crate::format::record::{EXTENT_ALIGN, Extent};
use crate::format::segment_header::{RECORDS_START, SegmentHeader, SegmentKind};
use crate::mmap::Map;

/// An open blob and the right to write to it.
pub(crate) struct Blob {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<DiskFile>,
    /// How many changes to the file have ended.
    changes: AtomicU64,
    state: Mutex<State>,
    sync_ended: Condvar,
}

struct State {
    /// Where the next space begins.
    end: u64,
    /// Spaces that are in use.
    writers: usize,
    syncs: Syncs,
}

/// What the syncs have reached, so that writers can share them.
#[derive(Default)]
struct Syncs {
    /// So many changes are durable.
    durable: u64,
    is_running: bool,
    /// What was written before can have been lost for good, so no later one is believed.
    has_failed: bool,
}

/// A blob file that exists on disk, durable but for its name, and holds nothing.
pub(crate) struct NewBlob {
    id: SegmentId,
    file: DiskFile,
    map: Map,
}

impl NewBlob {
    pub(crate) fn create(
        disk: &Disk,
        dir: &Path,
        id: SegmentId,
        store: &StoreId,
        writer_epoch: u32,
        capacity: u64,
    ) -> io::Result<NewBlob> {
        let kind = SegmentKind::Blob;
        let header = SegmentHeader { kind, window: 0, segment: id, store: *store, writer_epoch };
        let (file, map) = create_file(disk, dir, &header, capacity)?;
        Ok(NewBlob { id, file, map })
    }

    pub(crate) fn start(self, store: &StoreId, slot: Slot) -> Blob {
        let body = Body::new(self.id, SegmentKind::Blob, store, self.map);
        let segment = Arc::new(Segment::new(body, slot));
        Blob::resume(segment, Arc::new(self.file), RECORDS_START)
    }
}

impl Blob {
    /// Goes on with a blob to which nothing was ever written from `end` on.
    pub(crate) fn resume(segment: Arc<Segment>, file: Arc<DiskFile>, end: u64) -> Blob {
        let end = end.next_multiple_of(EXTENT_ALIGN);
        let state = Mutex::new(State { end, writers: 0, syncs: Syncs::default() });
        // Somebody may still read what was alive in there in an earlier session, so it is not cut off.
        segment.body.map.publish_up_to(end.min(segment.body.map.capacity() as u64) as usize);
        // An earlier session may have left something that was not synced.
        let changes = AtomicU64::new(1);
        Blob { segment, file, changes, state, sync_ended: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts off what is behind the last extent that anyone can be reading. Returns the length; nobody
    /// must be writing.
    pub(crate) fn trim(&self) -> io::Result<u64> {
        let end = self.segment.body.map.published() as u64;
        self.count_change(self.file.set_len(end))?;
        Ok(end)
    }

    /// Gives the file the length that its map has.
    pub(crate) fn lay_out(&self) -> io::Result<()> {
        self.count_change(self.file.set_len(self.segment.body.map.capacity() as u64))
    }

    /// Also counts a change that failed: some of it may have happened.
    fn count_change(&self, changed: io::Result<()>) -> io::Result<()> {
        self.changes.fetch_add(1, Ordering::Release);
        changed
    }

    /// Sets `len` bytes aside, a multiple of [`EXTENT_ALIGN`]; `None` if they do not fit, or what is there
    /// ends at `full_at` or later.
    pub(crate) fn reserve(self: &Arc<Self>, len: u64, full_at: u64) -> Option<Space> {
        let mut state = self.state();
        let (offset, end) = (state.end, state.end.checked_add(len)?);
        if offset >= full_at || end > self.segment.body.map.capacity() as u64 {
            return None;
        }
        let extent = Extent::new(self.segment.id(), offset)?;
        state.end = end;
        state.writers += 1;
        Some(Space { blob: Arc::clone(self), extent, reserved: len, written: 0 })
    }

    /// Whether nobody writes to it.
    pub(crate) fn is_quiet(&self) -> bool {
        self.state().writers == 0
    }

    /// Whether anything was written that is not known to be durable.
    pub(crate) fn is_unsynced(&self) -> bool {
        let durable = self.state().syncs.durable;
        durable < self.changes.load(Ordering::Acquire)
    }

    /// Makes durable what was written before the call. Callers at the same time share syncs.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let mine = self.changes.load(Ordering::Acquire);
        let mut state = self.state();
        // One that runs already may have begun before the last write.
        while state.syncs.is_running && state.syncs.durable < mine {
            state = self.sync_ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.syncs.has_failed {
            return Err(io::Error::other("an earlier sync of this file failed"));
        }
        if state.syncs.durable >= mine {
            return Ok(());
        }
        state.syncs.is_running = true;
        drop(state);
        let reaches = self.changes.load(Ordering::Acquire);
        SyncTurn { blob: self, reaches, has_succeeded: false }.run()
    }
}

/// The right to sync. Whatever becomes of it, the others do not wait for ever.
struct SyncTurn<'a> {
    blob: &'a Blob,
    /// How many changes it makes durable.
    reaches: u64,
    has_succeeded: bool,
}

impl SyncTurn<'_> {
    fn run(mut self) -> io::Result<()> {
        self.blob.file.sync()?;
        self.has_succeeded = true;
        Ok(())
    }
}

impl Drop for SyncTurn<'_> {
    fn drop(&mut self) {
        let mut state = self.blob.state();
        state.syncs.is_running = false;
        if self.has_succeeded {
            state.syncs.durable = state.syncs.durable.max(self.reaches);
        } else {
            state.syncs.has_failed = true;
        }
        drop(state);
        self.blob.sync_ended.notify_all();
    }
}

/// A part of a blob that was set aside for one value. Dropping it ends the writing.
pub(crate) struct Space {
    pub(crate) blob: Arc<Blob>,
    pub(crate) extent: Extent,
    reserved: u64,
    written: u64,
}

impl Space {
    /// How many bytes were written.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Writes the next bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.written + bytes.len() as u64;
        assert!(end <= self.reserved, "a value stays inside of what was set aside for it");
        let at = self.extent.offset() + self.written;
        // Also if it fails: some of it may have been written.
        self.written = end;
        self.blob.count_change(self.blob.file.write_at(bytes, at))
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let used = self.written.next_multiple_of(EXTENT_ALIGN);
        let mut state = self.blob.state();
        state.writers -= 1;
        let (used, end) = (self.extent.offset() + used, self.extent.offset() + self.reserved);
        if state.end == end {
            state.end = used;
        } else {
            self.blob.segment.extents.add_hole(used, end - used);
        }
    }
}
