//! Where large values are written before a record refers to them.
//!
//! ```text
//!   begin ──> space in the active blob ──write──> pwrite ──> sync ──> a record that refers to it
//!                        └── dropped: dead bytes
//! ```
//!
//! Large values are kept out of the log so that an upload takes no memory and no room in the log before it
//! is whole, and holds up nobody: 25 MiB in one group would. `options` says from which length on.
//!
//! What always holds:
//! - A record is durable, as far as anybody is told, only together with the extent that it refers to. With
//!   [`Durability::Sync`](crate::Durability::Sync) the extent is synced first, while others write; values that
//!   are written at the same time share that. Otherwise the committer syncs it with the log, and until then
//!   recovery reads it: see `recover`.
//! - Giving a value up leaves dead bytes and touches nobody else.
//! - After [`Stage::close`] nothing is written any more: another process may have the store then.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use crate::commit::Committer;
use crate::error::Error;
use crate::format::manifest::Entry;
use crate::format::record::{ContentSum, Draft, Extent, extent_len};
use crate::format::segment_header::{RECORDS_START, SegmentKind};
use crate::keyspace::Keyspace;
use crate::segment::blob::{Blob, NewBlob, Space};
use crate::segment::file_name;

/// Values are written in pieces of this length.
const PIECE_BYTES: usize = 1 << 20;

pub(crate) struct Stage {
    committer: Arc<Committer>,
    keyspace: Arc<Keyspace>,
    active: Mutex<Active>,
    /// Blobs that take no more values and wait for their writers, and then to be sealed.
    full: Mutex<VecDeque<Arc<Blob>>>,
    is_closed: RwLock<bool>,
}

struct Active {
    /// Takes the next value.
    blob: Option<Arc<Blob>>,
    /// This session has written.
    has_begun: bool,
}

impl Stage {
    /// Goes on with the blobs that have no final length yet; values go to the last one.
    pub(crate) fn new(
        committer: Arc<Committer>,
        keyspace: Arc<Keyspace>,
        mut open: Vec<Arc<Blob>>,
    ) -> Stage {
        let active = Mutex::new(Active { blob: open.pop(), has_begun: false });
        let full = Mutex::new(open.into());
        Stage { committer, keyspace, active, full, is_closed: RwLock::new(false) }
    }

    fn active(&self) -> MutexGuard<'_, Active> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn full(&self) -> MutexGuard<'_, VecDeque<Arc<Blob>>> {
        self.full.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to write a value of at most `len` bytes.
    pub(crate) fn begin(self: &Arc<Self>, len: u64) -> Result<Writing, Error> {
        self.check_open()?;
        self.committer.keep_headroom()?;
        self.begin_copy(len)
    }

    /// The same for compaction, for which there is always some room.
    pub(crate) fn begin_copy(self: &Arc<Self>, len: u64) -> Result<Writing, Error> {
        let space = self.reserve(extent_len(len))?;
        Ok(Writing { stage: Arc::clone(self), space, len: 0, sum: ContentSum::default() })
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.committer.site().read_only {
            return Err(Error::ReadOnly);
        }
        drop(self.keep_open()?);
        self.committer.check_poison()
    }

    /// While this is held, the store is not closed.
    fn keep_open(&self) -> Result<RwLockReadGuard<'_, bool>, Error> {
        let is_closed = self.is_closed.read().unwrap_or_else(PoisonError::into_inner);
        if *is_closed { Err(Error::Closed) } else { Ok(is_closed) }
    }

    fn reserve(&self, len: u64) -> Result<Space, Error> {
        let _open = self.keep_open()?;
        let (mut active, full_at) = (self.active(), self.committer.site().segment_bytes);
        if !active.has_begun {
            self.committer.begin()?;
            if let Some(blob) = &active.blob {
                let fail = |error| Error::io("lay a blob out", blob.file.path(), error);
                blob.lay_out().map_err(fail)?;
            }
            active.has_begun = true;
        }
        if let Some(space) = active.blob.as_ref().and_then(|blob| blob.reserve(len, full_at)) {
            return Ok(space);
        }
        let new = Arc::new(self.new_blob(RECORDS_START + len)?);
        let Some(space) = new.reserve(len, full_at) else {
            unreachable!("it was made with room for this")
        };
        let old = active.blob.replace(new);
        self.full().extend(old);
        Ok(space)
    }

    /// A blob that is durable under its name and known to the manifest.
    fn new_blob(&self, needed: u64) -> Result<Blob, Error> {
        let (committer, site) = (&self.committer, self.committer.site());
        let epoch = committer.begin()?;
        let mut manifest = committer.manifest();
        let id = manifest.take_segment_id();
        let path = site.dir.join(file_name(id, SegmentKind::Blob));
        let fail = |error| Error::io("create a blob", &path, error);
        // A value of unknown length takes less than is set aside for it: there is room for the next.
        let capacity = site.segment_bytes + needed;
        let new = NewBlob::create(&site.disk, &site.dir, id, &site.store, epoch, capacity);
        let new = new.and_then(|new| site.disk.sync_dir(&site.dir).map(|()| new));
        let made = new.map_err(fail).and_then(|new| {
            committer.record_in(&mut manifest, &Entry::Opened(id, SegmentKind::Blob))?;
            Ok(new)
        });
        if made.is_err() && !manifest.is_in_doubt() {
            // It holds nothing; what cannot be removed now is a leftover for the next opening.
            let _ = site.disk.remove(&path);
        }
        let new = made?;
        let Some(slot) = self.keyspace.catalog.take_slot() else {
            return Err(Error::DiskFull { free: None });
        };
        let blob = new.start(&site.store, slot);
        self.keyspace.catalog.enter(Arc::clone(&blob.segment));
        Ok(blob)
    }

    /// Every blob that has no final length yet.
    pub(crate) fn open_blobs(&self) -> Vec<Arc<Blob>> {
        let active = self.active();
        self.full().iter().chain(&active.blob).cloned().collect()
    }

    /// The blob that takes the next value.
    pub(crate) fn active_blob(&self) -> Option<Arc<Blob>> {
        self.active().blob.clone()
    }

    /// Has the next value go to a new blob, so that compaction can have this one.
    pub(crate) fn rotate(&self) {
        let mut active = self.active();
        self.full().extend(active.blob.take());
    }

    /// Has no more values go to this blob: sealing it gives back what was written in vain at its end.
    fn set_aside(&self, blob: &Arc<Blob>) {
        let mut active = self.active();
        self.full().extend(active.blob.take_if(|active| Arc::ptr_eq(active, blob)));
    }

    /// A full blob that nobody writes to any more.
    pub(crate) fn next_to_seal(&self) -> Option<Arc<Blob>> {
        self.full().iter().find(|blob| blob.is_quiet()).cloned()
    }

    /// Lets go of a blob that was sealed.
    pub(crate) fn forget(&self, sealed: &Arc<Blob>) {
        self.full().retain(|blob| !Arc::ptr_eq(blob, sealed));
    }

    /// Nothing is written from now on. Waits for what is being written, not for whole values. Returns
    /// whether it was open.
    pub(crate) fn close(&self) -> bool {
        let mut is_closed = self.is_closed.write().unwrap_or_else(PoisonError::into_inner);
        !std::mem::replace(&mut *is_closed, true)
    }

    /// Gives the files the length of their content, in a store that is closed.
    pub(crate) fn trim(&self) {
        if !self.active().has_begun {
            return;
        }
        for blob in self.open_blobs() {
            // What is left over is cut off when the blob is sealed.
            let _ = blob.trim();
        }
    }
}

/// A value that is being written.
pub(crate) struct Writing {
    stage: Arc<Stage>,
    space: Space,
    len: u64,
    sum: ContentSum,
}

impl Writing {
    /// Writes the next bytes of the value.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.len += bytes.len() as u64;
        // In pieces that are still near when they are read a second time.
        bytes.chunks(PIECE_BYTES).try_for_each(|piece| {
            self.sum.update(piece);
            self.append(piece)
        })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let _open = self.stage.keep_open()?;
        self.stage.committer.check_poison()?;
        let written = self.space.write(bytes);
        let path = self.space.blob.file.path();
        written.map_err(|error| {
            let error = Error::io("write a large value", path, error);
            if matches!(error, Error::DiskFull { .. }) {
                self.stage.set_aside(&self.space.blob);
            }
            self.stage.committer.poison_unless_full(error)
        })
    }

    /// The value is whole: writes its block table.
    pub(crate) fn finish(mut self) -> Result<Staged, Error> {
        let (table, value_crc) = std::mem::take(&mut self.sum).finish();
        if !table.is_empty() {
            let gap = self.space.written().next_multiple_of(4) - self.space.written();
            let table = [&[0; 4][..gap as usize], &table].concat();
            self.append(&table)?;
        }
        // No value is longer than `Options::max_value_bytes`, which is checked to fit.
        let value_len = self.len as u32;
        Ok(Staged { stage: self.stage, space: self.space, value_len, value_crc })
    }
}

/// Makes whole values durable; see [`Staged::sync`].
pub(crate) fn sync_all<'a>(values: impl Iterator<Item = &'a Staged>) -> Result<(), Error> {
    // What the first one of a blob synced, the others do not sync again.
    values.into_iter().try_for_each(Staged::sync)
}

/// A whole value in a blob that no record refers to yet. Keep it until the record is published: the
/// blob is not sealed before.
pub(crate) struct Staged {
    stage: Arc<Stage>,
    space: Space,
    value_len: u32,
    value_crc: u32,
}

impl Staged {
    /// The blob that must be synced before a record that refers to it is durable.
    pub(crate) fn blob(&self) -> Arc<Blob> {
        Arc::clone(&self.space.blob)
    }

    /// Makes it durable.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        let blob = &self.space.blob;
        let synced = blob.sync();
        let synced = synced.map_err(|error| Error::io("sync a blob", blob.file.path(), error));
        synced.map_err(|error| self.stage.committer.poison(error))
    }

    pub(crate) fn extent(&self) -> Extent {
        self.space.extent
    }

    pub(crate) fn value_crc(&self) -> u32 {
        self.value_crc
    }

    /// Has a draft refer to this value instead of holding it.
    pub(crate) fn refer(&self, draft: &mut Draft<'_>) {
        let extent = extent_len(u64::from(self.value_len));
        self.stage.committer.counts().count_written(extent);
        draft.value = &[];
        draft.value_crc = self.value_crc;
        draft.extent = Some((self.space.extent, self.value_len));
    }
}
