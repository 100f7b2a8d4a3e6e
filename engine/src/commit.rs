//! The single writer: turns groups of writes into commits in the log, and publishes them.
//!
//! ```text
//!   draft ──> group ──> place, chain, commit record ──> pwrite ──> fdatasync ──> publish ──> done
//!                                                                 if one asked
//! ```
//!
//! What always holds:
//! - A record is published after its write returned, and after its sync returned if one was asked
//!   for. Never before.
//! - Seqnos of a log follow on each other without a gap; a group that failed takes none.
//! - After a write or sync failed with anything but a full disk, nothing more is acknowledged: what
//!   the page cache holds can no longer be trusted to reach the disk.
//! - Directory operations happen when a log is made, which is done ahead of need; a commit is one
//!   `pwrite` and at most one `fdatasync`.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use crate::address::{Address, SegmentId};
use crate::disk::{Disk, DiskFile};
use crate::error::Error;
use crate::format::manifest::{Closed, Entry};
use crate::format::record::{self, COMMIT_LEN, Commit, Draft, Kind, OwnCommit};
use crate::format::segment_header::{RECORDS_START, SegmentKind};
use crate::format::{Seed, StoreId};
use crate::keyspace::{Change, Existed, Found, Keyspace};
use crate::segment::active::{Log, NewLog};
use crate::segment::blob::Blob;
use crate::segment::sealed;
use crate::segment::{Segment, file_name};
use crate::stats::WriteCounts;
use crate::witness::ManifestFile;

mod queue;

use queue::{Group, Queue};

/// A group takes no more members once it holds this many bytes.
const GROUP_BYTES: usize = 16 << 20;
/// As many bytes of a batch are copied rather than have the group lose the buffer that it had.
const BYTES_COPIED: usize = 256 << 10;
/// Buffers that grew past this are given back after use.
const BUFFER_KEPT: usize = 4 << 20;

/// A condition on a key that must hold when the group is written.
pub(crate) struct Condition {
    pub(crate) namespace: u32,
    pub(crate) key: Vec<u8>,
    /// The version that the key must have; `None`: it must be absent.
    pub(crate) version: Option<u64>,
}

impl Condition {
    /// Bytes of memory that it takes.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Condition>() + self.key.len()
    }
}

/// Records that are waiting to be written together: encoded, without seqno and place.
#[derive(Default)]
pub(crate) struct WriteGroup {
    bytes: Vec<u8>,
    /// Where each record starts in `bytes`.
    starts: Vec<usize>,
    conditions: Vec<Condition>,
    renewal: Option<Renewal>,
    /// Have values that records here refer to, and may not be synced.
    blobs: Vec<Arc<Blob>>,
    sync: bool,
}

/// A record that is to be written anew with another expiry. What it holds is looked up when the group
/// is written, so no write of its key can come between; so its group has no other member.
pub(crate) struct Renewal {
    pub(crate) namespace: u32,
    pub(crate) key: Vec<u8>,
    pub(crate) written_ms: u64,
    pub(crate) expires_ms: u64,
}

impl Group for WriteGroup {
    fn has_room(&self) -> bool {
        self.bytes.len() < GROUP_BYTES
    }

    fn is_slow(&self) -> bool {
        self.sync
    }

    fn clear(&mut self) {
        if self.bytes.capacity() > BUFFER_KEPT {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.starts.clear();
        self.conditions.clear();
        self.renewal = None;
        self.blobs.clear();
        self.sync = false;
    }
}

impl WriteGroup {
    /// Adds a record and returns its place in the group.
    pub(crate) fn push(&mut self, draft: &Draft<'_>) -> usize {
        self.starts.push(self.bytes.len());
        draft.append_to(&mut self.bytes);
        self.starts.len() - 1
    }

    /// Adds records that were encoded beforehand and returns the place of the first.
    pub(crate) fn push_all(&mut self, bytes: Vec<u8>, starts: Vec<usize>) -> usize {
        let (first, base) = (self.starts.len(), self.bytes.len());
        if first == 0 && bytes.len() > BYTES_COPIED {
            // The group goes on with the buffers of the batch.
            (self.bytes, self.starts) = (bytes, starts);
            return 0;
        }
        self.bytes.extend_from_slice(&bytes);
        self.starts.extend(starts.iter().map(|start| base + start));
        first
    }

    pub(crate) fn require(&mut self, condition: Condition) {
        self.conditions.push(condition);
    }

    /// Has the group's records count as durable only once these blobs are synced.
    pub(crate) fn rest_on(&mut self, blobs: impl IntoIterator<Item = Arc<Blob>>) {
        self.blobs.extend(blobs);
    }

    /// Adds the record of a key with another expiry, or nothing if the key is absent.
    pub(crate) fn renew(&mut self, renewal: Renewal) {
        self.renewal = Some(renewal);
    }
}

/// What became of a group.
#[derive(Clone)]
pub(crate) struct Done {
    /// The seqno of the group's first record.
    first_seqno: u64,
    existed: Existed,
}

impl Done {
    /// Of a group that wrote no record.
    fn nothing() -> Done {
        Done { first_seqno: 0, existed: Existed::default() }
    }

    pub(crate) fn wrote(&self) -> bool {
        self.first_seqno != 0
    }

    pub(crate) fn seqno(&self, place: usize) -> u64 {
        self.first_seqno + place as u64
    }

    pub(crate) fn existed(&self, place: usize) -> bool {
        self.existed.get(place)
    }
}

/// A log that takes no more records and waits for its footer.
pub(crate) struct FullLog {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<DiskFile>,
    pub(crate) end: u64,
}

/// What recovery found and the first write of a session has to clear away.
#[derive(Default)]
pub(crate) struct Leftovers {
    /// Segments that the manifest names and that hold nothing that was promised.
    pub(crate) discard: Vec<SegmentId>,
    /// Segments that the manifest had lost.
    pub(crate) adopted: Vec<(SegmentId, SegmentKind)>,
    /// Files that are no part of the store any more.
    pub(crate) files: Vec<PathBuf>,
    /// The highest segment id that any of these has in its name.
    pub(crate) highest_id: u32,
    /// Bytes that were read and may not be on disk.
    pub(crate) unproven: Vec<Unproven>,
}

/// Bytes of a log or extent that nothing proves to be on disk. If an earlier process failed to sync
/// them, the page cache can show them as clean although they are lost, and a later sync says nothing; so
/// they are written once more.
pub(crate) struct Unproven {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<DiskFile>,
    pub(crate) bytes: Range<u64>,
}

/// Unproven bytes are rewritten in pieces of this length.
const REWRITE_BYTES: usize = 1 << 20;

impl Unproven {
    fn rewrite(&self) -> Result<(), Error> {
        let range = self.bytes.start as usize..self.bytes.end as usize;
        let Some(bytes) = self.segment.body.map.window(range) else {
            unreachable!("it was read before")
        };
        let mut at = self.bytes.start;
        for piece in bytes.chunks(REWRITE_BYTES) {
            let written = self.file.write_at(piece, at);
            written.map_err(|error| Error::io("write once more", self.file.path(), error))?;
            at += piece.len() as u64;
        }
        Ok(())
    }
}

/// The store as of one moment, besides its sealed segments.
pub(crate) struct Moment {
    /// The logs without a footer, in the order of their seqnos, and where each was whole.
    pub(crate) logs: Vec<(Arc<Segment>, u64)>,
    pub(crate) last_seqno: u64,
    pub(crate) clock_ms: u64,
}

/// How the committer begins: what recovery found.
pub(crate) struct Start {
    pub(crate) log: Option<Log>,
    pub(crate) full: Vec<FullLog>,
    /// Blobs with values that may not be on disk.
    pub(crate) blobs: Vec<Arc<Blob>>,
    pub(crate) next_seqno: u64,
    pub(crate) durable_seqno: u64,
    pub(crate) leftovers: Leftovers,
}

pub(crate) struct Committer {
    queue: Queue<WriteGroup, Result<Done, Error>>,
    writer: Mutex<Writer>,
    /// Logs that wait for their footer, oldest first.
    full: Mutex<VecDeque<FullLog>>,
    /// How many those are, for those who only want to know that.
    full_count: AtomicUsize,
    /// Blobs that records refer to and that may not be synced. One leaves when it is.
    blobs: Mutex<Vec<Arc<Blob>>>,
    /// The next log, made ahead of need.
    prepared: Mutex<Option<NewLog>>,
    poison: OnceLock<Arc<str>>,
    keyspace: Arc<Keyspace>,
    pub(crate) manifest: Mutex<ManifestFile>,
    counts: WriteCounts,
    site: Site,
}

/// Where and how logs are made.
pub(crate) struct Site {
    pub(crate) disk: Disk,
    pub(crate) dir: PathBuf,
    pub(crate) store: StoreId,
    pub(crate) segment_bytes: u64,
    pub(crate) read_only: bool,
}

impl Site {
    /// Bytes that the store's file system has left, and has in all.
    pub(crate) fn space(&self) -> Option<(u64, u64)> {
        self.disk.space(&self.dir)
    }
}

/// What only the leader touches.
struct Writer {
    log: Option<Log>,
    /// Earlier logs with bytes that were not synced.
    unsynced: Vec<Arc<DiskFile>>,
    next_seqno: u64,
    durable_seqno: u64,
    /// The watermark that the last commit in the log carries.
    recorded_seqno: u64,
    /// The writer epoch, once this session has written.
    epoch: Option<u32>,
    leftovers: Leftovers,
    closed: bool,
}

impl Committer {
    pub(crate) fn new(
        site: Site,
        keyspace: Arc<Keyspace>,
        manifest: ManifestFile,
        start: Start,
    ) -> Committer {
        let counts = WriteCounts::new(start.next_seqno - 1, start.durable_seqno);
        let writer = Writer {
            log: start.log,
            unsynced: start.full.iter().map(|log| Arc::clone(&log.file)).collect(),
            next_seqno: start.next_seqno,
            durable_seqno: start.durable_seqno,
            recorded_seqno: start.durable_seqno,
            epoch: None,
            leftovers: start.leftovers,
            closed: false,
        };
        Committer {
            queue: Queue::new(),
            writer: Mutex::new(writer),
            full_count: AtomicUsize::new(start.full.len()),
            full: Mutex::new(start.full.into()),
            blobs: Mutex::new(start.blobs),
            prepared: Mutex::new(None),
            poison: OnceLock::new(),
            keyspace,
            manifest: Mutex::new(manifest),
            counts,
            site,
        }
    }

    /// Writes what `join` adds to a group, with whoever writes at the same time; `alone` keeps
    /// others out. Returns what `join` returned, and what became of the group.
    pub(crate) fn write<T>(
        &self,
        sync: bool,
        alone: bool,
        join: impl FnOnce(&mut WriteGroup) -> T,
    ) -> (T, Result<Done, Error>) {
        let join = |group: &mut WriteGroup| {
            group.sync |= sync;
            join(group)
        };
        self.queue.run(alone, join, |group| self.commit_or_poison(group))
    }

    /// A panic while leading must neither leave the others waiting nor let anyone go on with what it
    /// left behind.
    fn commit_or_poison(&self, group: &mut WriteGroup) -> Result<Done, Error> {
        catch_unwind(AssertUnwindSafe(|| self.commit(group))).unwrap_or_else(|_| {
            let cause = self.poison.get_or_init(|| "a panic while writing".into());
            Err(Error::Poisoned { cause: Arc::clone(cause) })
        })
    }

    fn commit(&self, group: &mut WriteGroup) -> Result<Done, Error> {
        if group.starts.is_empty() && group.conditions.is_empty() && group.renewal.is_none() {
            return Ok(Done::nothing());
        }
        let mut writer = self.writer();
        self.check_open(&writer)?;
        self.check_conditions(&group.conditions)?;
        self.resolve_renewal(group)?;
        if group.starts.is_empty() {
            return Ok(Done::nothing());
        }
        self.begin_session(&mut writer)?;
        self.make_room(&mut writer, (group.bytes.len() + COMMIT_LEN) as u64)?;
        let first_seqno = writer.next_seqno;
        self.append(&mut writer, group)?;
        if group.sync {
            self.sync_writer(&mut writer)?;
        }
        let existed = self.publish(&writer, group);
        self.counts.count_commit(group.starts.len());
        self.note_versions(&writer);
        Ok(Done { first_seqno, existed })
    }

    pub(crate) fn site(&self) -> &Site {
        &self.site
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn manifest(&self) -> MutexGuard<'_, ManifestFile> {
        self.manifest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_open(&self, writer: &Writer) -> Result<(), Error> {
        if self.site.read_only {
            return Err(Error::ReadOnly);
        }
        if writer.closed {
            return Err(Error::Closed);
        }
        self.check_poison()
    }

    /// An error if an earlier write or sync failed.
    pub(crate) fn check_poison(&self) -> Result<(), Error> {
        match self.poison.get() {
            Some(cause) => Err(Error::Poisoned { cause: Arc::clone(cause) }),
            None => Ok(()),
        }
    }

    /// Refuses every later write, unless the disk was merely full.
    pub(crate) fn poison_unless_full(&self, error: Error) -> Error {
        match error {
            Error::DiskFull { .. } => {
                Error::DiskFull { free: self.site.space().map(|(free, _)| free) }
            }
            error => self.poison(error),
        }
    }

    /// Refuses every later write.
    pub(crate) fn poison(&self, error: Error) -> Error {
        let cause = self.poison.get_or_init(|| error.to_string().into());
        match error {
            Error::DiskFull { .. } => Error::Poisoned { cause: Arc::clone(cause) },
            error => error,
        }
    }

    fn check_conditions(&self, conditions: &[Condition]) -> Result<(), Error> {
        for condition in conditions {
            let sought = self.keyspace.sought(condition.namespace, &condition.key);
            let pinned = self.keyspace.index.pin();
            let current = self.keyspace.find(&sought, &pinned)?;
            let current = current.map(|found| found.record.header.seqno);
            if current != condition.version {
                return Err(Error::VersionMismatch { current });
            }
        }
        Ok(())
    }

    /// Turns a renewal into a record. The value is verified first, so that damage is not given a sound
    /// checksum; one in a blob keeps the checksums that it has, and the place: see
    /// `Keyspace::keep_extents`.
    fn resolve_renewal(&self, group: &mut WriteGroup) -> Result<(), Error> {
        let Some(renewal) = group.renewal.take() else { return Ok(()) };
        let sought = self.keyspace.sought(renewal.namespace, &renewal.key);
        let pinned = self.keyspace.index.pin();
        let Some(Found { segment, offset, record: old }) = self.keyspace.find(&sought, &pinned)?
        else {
            return Ok(());
        };
        old.verify_value().map_err(|damage| segment.body.corruption(offset, damage))?;
        let value_len = old.header.value_len;
        group.push(&Draft {
            kind: Kind::Put,
            namespace: renewal.namespace,
            written_ms: renewal.written_ms,
            expires_ms: renewal.expires_ms,
            key: &renewal.key,
            metadata: old.metadata,
            value: old.content.map_or(&[], |content| content.value),
            value_crc: old.header.value_crc,
            extent: old.header.extent.map(|extent| (extent, value_len)),
        });
        Ok(())
    }

    fn note_versions(&self, writer: &Writer) {
        self.counts.note_versions(writer.next_seqno - 1, writer.durable_seqno);
    }

    /// Begins to write, for work that is no commit.
    /// Returns the session's writer epoch.
    pub(crate) fn begin(&self) -> Result<u32, Error> {
        let mut writer = self.writer();
        self.check_open(&writer)?;
        self.begin_session(&mut writer)?;
        Ok(writer.epoch.unwrap_or(0))
    }

    /// Whether this session has written.
    pub(crate) fn has_begun(&self) -> bool {
        self.writer().epoch.is_some()
    }

    /// The first write of a session says so in the manifest, and clears away what recovery left.
    fn begin_session(&self, writer: &mut Writer) -> Result<(), Error> {
        if writer.epoch.is_some() {
            return Ok(());
        }
        let mut manifest = self.manifest();
        manifest.skip_ids(writer.leftovers.highest_id);
        let epoch = manifest.witness().epoch + 1;
        let start = |manifest: &mut ManifestFile, leftovers: &mut Leftovers| {
            self.record_in(manifest, &Entry::Writing { epoch })?;
            while let Some((id, kind)) = leftovers.adopted.last() {
                self.record_in(manifest, &Entry::Opened(*id, *kind))?;
                leftovers.adopted.pop();
            }
            if !leftovers.discard.is_empty() {
                let inputs = leftovers.discard.clone();
                self.record_in(manifest, &Entry::Replaced { inputs, outputs: Vec::new() })?;
                leftovers.discard.clear();
            }
            self.rewrite_unproven(leftovers)?;
            let (disk, dir) = (&self.site.disk, &self.site.dir);
            if leftovers.files.is_empty() {
                return Ok(());
            }
            for path in &leftovers.files {
                let fail = |error| Error::io("remove a leftover file", path, error);
                disk.remove(path).map_err(fail)?;
            }
            leftovers.files.clear();
            disk.sync_dir(dir).map_err(|error| Error::io("sync the store's directory", dir, error))
        };
        start(&mut manifest, &mut writer.leftovers)?;
        writer.epoch = Some(epoch);
        Ok(())
    }

    /// Before what was read is called durable.
    fn rewrite_unproven(&self, leftovers: &mut Leftovers) -> Result<(), Error> {
        for unproven in &leftovers.unproven {
            unproven.rewrite().map_err(|error| self.poison_unless_full(error))?;
        }
        leftovers.unproven.clear();
        Ok(())
    }

    /// Makes sure that `len` bytes fit in the log, in a new one if need be.
    fn make_room(&self, writer: &mut Writer, len: u64) -> Result<(), Error> {
        if writer.log.as_ref().is_some_and(|log| log.room() >= len) {
            return Ok(());
        }
        self.start_log(writer, len)
    }

    /// Begins a new log with room for `len` bytes. If that fails, the old one goes on.
    fn start_log(&self, writer: &mut Writer, len: u64) -> Result<(), Error> {
        let needed = RECORDS_START + len;
        let prepared = self.prepared().take();
        let new = match prepared {
            Some(new) if new.capacity() >= needed => Ok(new),
            other => {
                *self.prepared() = other;
                self.new_log(self.site.segment_bytes.max(needed), writer.epoch.unwrap_or(0))
            }
        };
        self.go_on_in(writer, new?)
    }

    fn go_on_in(&self, writer: &mut Writer, new: NewLog) -> Result<(), Error> {
        let Some(slot) = self.keyspace.catalog.take_slot() else {
            return Err(Error::DiskFull { free: None });
        };
        let log = new.start(&self.site.store, slot);
        self.keyspace.catalog.enter(Arc::clone(&log.segment));
        if let Some(old) = writer.log.replace(log) {
            self.set_aside(writer, old);
        }
        Ok(())
    }

    fn set_aside(&self, writer: &mut Writer, old: Log) {
        if old.unsynced {
            writer.unsynced.push(Arc::clone(&old.file));
        }
        let (end, segment, file) = (old.end(), old.segment, old.file);
        self.full().push_back(FullLog { segment, file, end });
        self.full_count.fetch_add(1, Ordering::Relaxed);
    }

    /// A log that leaves the disk the room that compaction needs.
    fn new_log(&self, capacity: u64, epoch: u32) -> Result<NewLog, Error> {
        self.keep_headroom()?;
        self.make_log(capacity, epoch)
    }

    /// A log that is durable under its name and known to the manifest.
    fn make_log(&self, capacity: u64, epoch: u32) -> Result<NewLog, Error> {
        let site = &self.site;
        let mut manifest = self.manifest();
        let id = manifest.take_segment_id();
        let path = site.dir.join(file_name(id, SegmentKind::Log));
        let fail = |error| Error::io("create a log", &path, error);
        let new = NewLog::create(&site.disk, &site.dir, id, &site.store, epoch, capacity);
        let new = new.and_then(|new| site.disk.sync_dir(&site.dir).map(|()| new));
        let made = new.map_err(fail).and_then(|new| {
            self.record_in(&mut manifest, &Entry::Opened(id, SegmentKind::Log))?;
            Ok(new)
        });
        if made.is_err() && !manifest.is_in_doubt() {
            // It holds nothing; what cannot be removed now is a leftover for the next opening.
            let _ = site.disk.remove(&path);
        }
        made
    }

    /// Adds an entry to the manifest. A failure is as final as that of the log, unless the disk was
    /// merely full.
    pub(crate) fn record(&self, entry: &Entry) -> Result<(), Error> {
        self.record_in(&mut self.manifest(), entry)
    }

    pub(crate) fn record_in(
        &self,
        manifest: &mut ManifestFile,
        entry: &Entry,
    ) -> Result<(), Error> {
        self.check_poison()?;
        manifest.append(entry).map_err(|error| self.poison_unless_full(error))
    }

    /// Refuses a new log or large value while the disk has no more room than compaction needs to free
    /// some: two segments, or a twentieth of a small disk; and a few slots.
    pub(crate) fn keep_headroom(&self) -> Result<(), Error> {
        if !self.keyspace.catalog.has_room() {
            return Err(Error::DiskFull { free: None });
        }
        let Some((free, total)) = self.site.space() else { return Ok(()) };
        if free < (2 * self.site.segment_bytes).min(total / 20) {
            return Err(Error::DiskFull { free: Some(free) });
        }
        Ok(())
    }

    /// Gives records their places and seqnos, commits them, and writes them.
    fn append(&self, writer: &mut Writer, group: &mut WriteGroup) -> Result<(), Error> {
        self.note_blobs(group.blobs.drain(..));
        let (count, durable_seqno) = (group.starts.len(), writer.durable_seqno);
        let last_seqno = writer.next_seqno + count as u64 - 1;
        let clock_ms = self.keyspace.time.guarded_ms();
        let Some(log) = &mut writer.log else { unreachable!("room was made in a log") };
        let own = OwnCommit { chain_before: log.chain, durable_seqno, clock_ms };
        let commits_itself = count == 1 && own.put_into(&mut group.bytes, last_seqno);
        let (seed, base, group_bytes) = (log.segment.body.seed, log.end(), group.bytes.len());
        let chain_crc = place_all(group, writer.next_seqno, log.chain, seed, base);
        if !commits_itself {
            let commit = Commit {
                last_seqno,
                durable_seqno,
                clock_ms,
                count: count as u32,
                group_bytes: group_bytes as u32,
                chain_crc,
                writer_epoch: writer.epoch.unwrap_or(0),
            };
            commit.append_to(&mut group.bytes, seed.at(base + group_bytes as u64));
        }
        let written = log.append(&group.bytes, group.sync);
        written
            .map_err(|error| Error::io("write the log", log.file.path(), error))
            .map_err(|error| self.poison_unless_full(error))?;
        log.segment.add_commit((group.bytes.len() - group_bytes) as u64);
        self.counts.count_written(group_bytes as u64);
        log.chain = chain_crc;
        writer.next_seqno = last_seqno + 1;
        writer.recorded_seqno = durable_seqno;
        Ok(())
    }

    /// Remembers blobs that have to be synced before the next records are durable.
    fn note_blobs(&self, blobs: impl ExactSizeIterator<Item = Arc<Blob>>) {
        if blobs.len() == 0 {
            return;
        }
        let mut noted = self.blobs();
        for blob in blobs {
            if noted.iter().all(|known| !Arc::ptr_eq(known, &blob)) {
                // So that those do not add up which were synced when they were sealed.
                noted.retain(|known| known.is_unsynced());
                noted.push(blob);
            }
        }
    }

    fn blobs(&self) -> MutexGuard<'_, Vec<Arc<Blob>>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes durable every value in a blob that a record refers to which was written before. A failure
    /// is final.
    pub(crate) fn sync_blobs(&self) -> Result<(), Error> {
        let blobs = self.blobs().clone();
        for blob in &blobs {
            let fail = |error| Error::io("sync a blob", blob.file.path(), error);
            blob.sync().map_err(|error| self.poison(fail(error)))?;
        }
        if !blobs.is_empty() {
            self.blobs().retain(|blob| blob.is_unsynced());
        }
        Ok(())
    }

    /// Syncs everything that was written. A failure is final.
    fn sync_writer(&self, writer: &mut Writer) -> Result<(), Error> {
        self.rewrite_unproven(&mut writer.leftovers)?;
        self.sync_blobs()?;
        let sync = |writer: &mut Writer| -> Result<(), Error> {
            for file in &writer.unsynced {
                file.sync().map_err(|error| Error::io("sync the log", file.path(), error))?;
            }
            writer.unsynced.clear();
            if let Some(log) = &mut writer.log {
                let file = Arc::clone(&log.file);
                log.sync().map_err(|error| Error::io("sync the log", file.path(), error))?;
            }
            Ok(())
        };
        let begun = Instant::now();
        sync(writer).map_err(|error| self.poison(error))?;
        self.counts.count_sync(begun.elapsed());
        writer.durable_seqno = writer.next_seqno - 1;
        Ok(())
    }

    fn publish(&self, writer: &Writer, group: &WriteGroup) -> Existed {
        let Some(log) = &writer.log else { unreachable!("the group was written to a log") };
        log.publish();
        let base = log.end() - group.bytes.len() as u64;
        let segment = &log.segment;
        let changes = group.starts.iter().map(|start| {
            let offset = base + *start as u64;
            // As it was written, but from memory that is warm: the map's page may not be there yet.
            let written = &group.bytes[*start..];
            let Ok(record) = record::decode_record(written, segment.body.seed.at(offset)) else {
                unreachable!("the record at byte {offset} was encoded a moment ago")
            };
            let address = Address::new(segment.slot, offset);
            Change { header: record.header, key: record.key, address }
        });
        self.keyspace.publish(segment, changes)
    }

    /// Makes everything acknowledged so far durable.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        if !self.has_unsynced(&self.writer())? {
            return Ok(());
        }
        // Most of it while others write: a blob can have a lot.
        self.sync_blobs()?;
        let mut writer = self.writer();
        if self.has_unsynced(&writer)? {
            self.sync_writer(&mut writer)?;
            self.note_versions(&writer);
        }
        Ok(())
    }

    fn has_unsynced(&self, writer: &Writer) -> Result<bool, Error> {
        self.check_poison()?;
        Ok(writer.durable_seqno + 1 != writer.next_seqno && !writer.closed)
    }

    /// Writes an empty commit if the watermark has moved since the last one, so that recovery can
    /// tell rot from a torn tail for the last group too. Needs no sync of its own.
    pub(crate) fn record_watermark(&self) -> Result<(), Error> {
        let mut writer = self.writer();
        self.check_open(&writer)?;
        let has_room = writer.log.as_ref().is_some_and(|log| log.room() >= COMMIT_LEN as u64);
        if writer.recorded_seqno == writer.durable_seqno || writer.epoch.is_none() || !has_room {
            return Ok(());
        }
        self.empty_commit(&mut writer)
    }

    fn empty_commit(&self, writer: &mut Writer) -> Result<(), Error> {
        self.append(writer, &mut WriteGroup::default())?;
        if let Some(log) = &writer.log {
            log.publish();
        }
        Ok(())
    }

    /// Ends the log early, so that compaction can have it.
    pub(crate) fn rotate(&self) -> Result<(), Error> {
        self.rotate_by(|writer| self.start_log(writer, COMMIT_LEN as u64))
    }

    /// The same for compaction that cannot free any room without. If the disk has little left, the new
    /// log takes as much as the old one might have: so writers are given no more than they had.
    pub(crate) fn rotate_for_room(&self) -> Result<(), Error> {
        self.rotate_by(|writer| match self.start_log(writer, COMMIT_LEN as u64) {
            Err(Error::DiskFull { .. }) => {
                let room = writer.log.as_ref().map_or(0, Log::room);
                let capacity = RECORDS_START + COMMIT_LEN as u64 + room;
                let new = self.make_log(capacity, writer.epoch.unwrap_or(0))?;
                self.go_on_in(writer, new)
            }
            started => started,
        })
    }

    fn rotate_by(
        &self,
        start_log: impl FnOnce(&mut Writer) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut writer = self.writer();
        self.check_open(&writer)?;
        self.begin_session(&mut writer)?;
        start_log(&mut writer)?;
        // The new log says which seqno the store has reached, even if every record with it goes.
        self.empty_commit(&mut writer)
    }

    /// Makes the next log ahead of need, once the current one is half full.
    pub(crate) fn prepare(&self) -> Result<(), Error> {
        let epoch = {
            let writer = self.writer();
            let half = self.site.segment_bytes / 2;
            let wanted = writer.log.as_ref().is_some_and(|log| log.room() < half);
            match writer.epoch {
                Some(epoch) if wanted && !writer.closed => epoch,
                _ => return Ok(()),
            }
        };
        if self.prepared().is_some() {
            return Ok(());
        }
        let new = self.new_log(self.site.segment_bytes, epoch);
        *self.prepared() = Some(new?);
        Ok(())
    }

    fn prepared(&self) -> MutexGuard<'_, Option<NewLog>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn full(&self) -> MutexGuard<'_, VecDeque<FullLog>> {
        self.full.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest of them has its footer.
    pub(crate) fn forget_first_full(&self) {
        if self.full().pop_front().is_some() {
            self.full_count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many there are, without waiting for anybody.
    pub(crate) fn full_count(&self) -> usize {
        self.full_count.load(Ordering::Relaxed)
    }

    /// The log that is being written: its segment.
    pub(crate) fn active(&self) -> Option<Arc<Segment>> {
        self.writer().log.as_ref().map(|log| Arc::clone(&log.segment))
    }

    /// What was counted, without waiting for whoever writes.
    pub(crate) fn counts(&self) -> &WriteCounts {
        &self.counts
    }

    /// Makes everything acknowledged so far durable, and says which logs it is in, up to where.
    pub(crate) fn moment(&self) -> Result<Moment, Error> {
        let mut writer = self.writer();
        self.check_poison()?;
        if !self.site.read_only {
            self.sync_writer(&mut writer)?;
            self.note_versions(&writer);
        }
        let mut logs: Vec<_> =
            self.full().iter().map(|log| (Arc::clone(&log.segment), log.end)).collect();
        logs.extend(writer.log.as_ref().map(|log| (Arc::clone(&log.segment), log.end())));
        let clock_ms = self.keyspace.time.guarded_ms();
        Ok(Moment { logs, last_seqno: writer.next_seqno - 1, clock_ms })
    }

    /// Makes everything durable and says so in the manifest. Nothing is written afterwards.
    pub(crate) fn close(&self) -> Result<(), Error> {
        let mut writer = self.writer();
        if writer.closed || self.site.read_only {
            return Ok(());
        }
        writer.closed = true;
        if writer.epoch.is_none() {
            return Ok(());
        }
        self.check_poison()?;
        self.sync_writer(&mut writer)?;
        self.note_versions(&writer);
        let mut manifest = self.manifest();
        if let Some(new) = self.prepared().take() {
            let inputs = vec![new.id()];
            self.record_in(&mut manifest, &Entry::Replaced { inputs, outputs: Vec::new() })?;
            let path = self.site.dir.join(file_name(new.id(), SegmentKind::Log));
            let fail = |error| Error::io("remove an unused log", &path, error);
            self.site.disk.remove(&path).map_err(fail)?;
        }
        let last_seqno = writer.next_seqno - 1;
        let clock_ms = self.keyspace.time.guarded_ms();
        let (segment, end, footer_crc) = match &mut writer.log {
            Some(log) => {
                let finished = finish(log);
                let finished =
                    finished.map_err(|error| Error::io("finish the log", log.file.path(), error));
                (log.segment.id(), log.end(), finished?)
            }
            None => (SegmentId(0), 0, 0),
        };
        let closed = Closed { last_seqno, segment, end, clock_ms, footer_crc };
        self.record_in(&mut manifest, &Entry::Closed(closed))
    }
}

/// Gives a log the length of its content, and behind it a footer, which spares the next opening from
/// reading it. Returns the footer's checksum, 0 if there is none: it only serves speed, so a log without
/// a record, a damaged one, and a full disk go without.
fn finish(log: &mut Log) -> io::Result<u32> {
    log.trim()?;
    let footer = match sealed::footer_of(&log.segment.body, log.end()) {
        Ok((bytes, trailer, _)) if trailer.record_count > 0 => Some((bytes, trailer.footer_crc)),
        _ => None,
    };
    let footer_crc = match footer {
        Some((bytes, footer_crc)) if log.append_footer(&bytes)? => footer_crc,
        _ => 0,
    };
    log.file.sync()?;
    Ok(footer_crc)
}

/// Gives each record its seqno and header checksum. Returns the chain's new value.
fn place_all(group: &mut WriteGroup, first_seqno: u64, chain: u32, seed: Seed, base: u64) -> u32 {
    let mut chain = chain;
    for (nth, start) in group.starts.iter().enumerate() {
        let initial = seed.at(base + *start as u64);
        let crc = record::place(&mut group.bytes[*start..], first_seqno + nth as u64, initial);
        chain = record::chain(chain, crc);
    }
    chain
}

/// A draft of a record that only deletes.
pub(crate) fn tombstone<'a>(
    kind: Kind,
    namespace: u32,
    key: &'a [u8],
    written_ms: u64,
) -> Draft<'a> {
    Draft {
        kind,
        namespace,
        written_ms,
        expires_ms: 0,
        key,
        metadata: &[],
        value: &[],
        value_crc: 0,
        extent: None,
    }
}
