//! Segments: the files that hold every record and large value, as readers see them.
//!
//! ```text
//!   create ──> active ──────> full ──seal──> sealed ──retire──> retired ──last lease──> unmapped
//!              a `Log` writes  waits         has a footer       out of the catalog
//! ```
//!
//! A [`Segment`] is the reader's face of all these states. What differs is held by the type that
//! has the right to it: only an `active::Log` appends, only a [`Segment::footer`] that is set can
//! be a compaction's input. A reader that wants to keep bytes takes a [`Lease`], which keeps the
//! map alive after the segment is retired and its file is unlinked.
//!
//! A blob goes the same way: a `blob::Blob` writes to it, sealing gives it its length, and instead of a
//! footer it has [`Extents`] in memory.

use std::cell::Cell;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::address::{SegmentId, Slot};
use crate::disk::{Disk, DiskFile};
use crate::error::{Corruption, Damage};
use crate::format::record::{
    self, BLOCK_LEN, Content, Extent, Header, Item, Record, extent_len, table_of,
};
use crate::format::segment_header::{self, RECORDS_START, SegmentHeader, SegmentKind};
use crate::format::{Seed, StoreId};
use crate::mmap::{self, Map};

pub(crate) mod active;
pub(crate) mod bins;
pub(crate) mod blob;
pub(crate) mod extents;
pub(crate) mod scan;
pub(crate) mod sealed;

use extents::Extents;
use sealed::Footer;

/// Leases are counted in this many places, so that readers on different cores do not fight over
/// one counter.
const STRIPES: usize = 8;

/// The bytes of a segment and its name: what must outlive a reader.
pub(crate) struct Body {
    pub(crate) id: SegmentId,
    pub(crate) kind: SegmentKind,
    pub(crate) seed: Seed,
    pub(crate) map: Map,
}

impl Body {
    pub(crate) fn new(id: SegmentId, kind: SegmentKind, store: &StoreId, map: Map) -> Body {
        Body { id, kind, seed: Seed::of_segment(store, id.0), map }
    }

    pub(crate) fn file_name(&self) -> String {
        file_name(self.id, self.kind)
    }

    #[cold]
    pub(crate) fn corruption(&self, offset: u64, damage: Damage) -> Corruption {
        Corruption { file: self.file_name(), offset, damage }
    }

    /// The published bytes from `offset` on; empty past the end.
    #[inline]
    pub(crate) fn bytes_from(&self, offset: u64) -> &[u8] {
        self.map.bytes().get(offset as usize..).unwrap_or(&[])
    }

    /// The record at `offset`, its header verified.
    #[inline(always)]
    pub(crate) fn record(&self, offset: u64) -> Result<Record<'_>, Corruption> {
        record::decode_record(self.bytes_from(offset), self.seed.at(offset))
            .map_err(|damage| self.corruption(offset, damage))
    }

    /// Whether the record at `offset` can be read without waiting for the disk: its key and metadata,
    /// and its value if that is verified in one piece.
    pub(crate) fn is_record_resident(&self, offset: u64) -> bool {
        let header = self.header_of(offset);
        self.map.is_resident(header.clone()) && self.map.is_resident(self.rest_of(header))
    }

    /// Brings what [`Self::is_record_resident`] asks about into memory.
    pub(crate) fn populate_record(&self, offset: u64) -> io::Result<()> {
        let header = self.header_of(offset);
        self.map.populate(header.clone())?;
        self.map.populate(self.rest_of(header))
    }

    /// Where the record at `offset` has its lengths.
    fn header_of(&self, offset: u64) -> Range<usize> {
        let start = offset as usize;
        start..(start + record::HEADER_LEN).min(self.map.published())
    }

    /// What a get reads of the record with this header, which is in memory, behind the page that the header
    /// ends in. A damaged one can name too much, and is told by whoever reads it.
    fn rest_of(&self, header: Range<usize>) -> Range<usize> {
        let read = record::claimed_read(&self.map.bytes()[header.clone()]);
        mmap::page_end(header.end)..(header.start + read).min(self.map.published())
    }

    /// The value at byte `start`, which a record with this header says is there; not verified. Of a
    /// blob or not, the block table follows in the same way.
    pub(crate) fn content(&self, start: u64, header: &Header) -> Result<Content<'_>, Corruption> {
        let value = start as usize..start as usize + header.value_len as usize;
        let table = table_of(value.clone());
        let end = table.end as u64;
        match (self.map.window(value), self.map.window(table)) {
            (Some(value), Some(table)) => Ok(Content { value, table, crc: header.value_crc }),
            _ => {
                let (wanted, found) = (end, self.map.published() as u64);
                let damage = Damage::CutShort { what: "segment", wanted, found };
                Err(self.corruption(start, damage))
            }
        }
    }

    /// The same, and all of it verified.
    pub(crate) fn verified_content(
        &self,
        start: u64,
        header: &Header,
    ) -> Result<Content<'_>, Corruption> {
        let content = self.content(start, header)?;
        content.verify_table().map_err(|damage| self.corruption(start, damage))?;
        for block in 0..content.value.len().div_ceil(BLOCK_LEN) {
            let at = start + (block * BLOCK_LEN) as u64;
            content.verify_block(block).map_err(|damage| self.corruption(at, damage))?;
        }
        Ok(content)
    }

    /// The record or commit at `offset`, its header verified.
    pub(crate) fn item(&self, offset: u64) -> Result<Item<'_>, Damage> {
        record::decode(self.bytes_from(offset), self.seed.at(offset))
    }
}

/// Makes the file of a segment: its header is durable and its name is not, and it holds nothing.
fn create_file(
    disk: &Disk,
    dir: &Path,
    header: &SegmentHeader,
    capacity: u64,
) -> io::Result<(DiskFile, Map)> {
    let file = disk.create(&dir.join(file_name(header.segment, header.kind)))?;
    let mut page = vec![0; RECORDS_START as usize];
    page[..segment_header::LEN].copy_from_slice(&header.encode());
    file.write_at(&page, 0)?;
    file.set_len(capacity)?;
    file.sync()?;
    let map = Map::new(file.as_file(), capacity as usize, RECORDS_START as usize)?;
    Ok((file, map))
}

pub(crate) fn file_name(id: SegmentId, kind: SegmentKind) -> String {
    format!("{id}.{}", kind.extension())
}

/// Keeps a segment's bytes mapped. Cloning the `Arc` counts in one of [`STRIPES`] places; each
/// lease fills cache lines of its own.
#[repr(align(128))]
pub(crate) struct Lease(Arc<Body>);

impl std::ops::Deref for Lease {
    type Target = Body;

    fn deref(&self) -> &Body {
        &self.0
    }
}

/// One segment in the catalog.
pub(crate) struct Segment {
    pub(crate) body: Arc<Body>,
    pub(crate) slot: Slot,
    leases: [Arc<Lease>; STRIPES],
    /// Bytes of the records that the index points at.
    live_bytes: AtomicU64,
    /// Of logs that are being written: bytes of the commits between the records.
    commit_bytes: AtomicU64,
    /// Set once, when the segment is sealed.
    footer: OnceLock<Footer>,
    /// For runs: bytes of the tombstones that could not be dropped when it was written.
    pub(crate) kept_tombstone_bytes: AtomicU64,
    /// For blobs: who has values here.
    pub(crate) extents: Extents,
}

impl Segment {
    pub(crate) fn new(body: Body, slot: Slot) -> Segment {
        let body = Arc::new(body);
        let leases = std::array::from_fn(|_| Arc::new(Lease(Arc::clone(&body))));
        Segment {
            body,
            slot,
            leases,
            live_bytes: AtomicU64::new(0),
            commit_bytes: AtomicU64::new(0),
            footer: OnceLock::new(),
            kept_tombstone_bytes: AtomicU64::new(0),
            extents: Extents::default(),
        }
    }

    /// Keeps the bytes mapped for as long as the lease lives.
    #[inline]
    pub(crate) fn lease(&self) -> Arc<Lease> {
        Arc::clone(&self.leases[stripe()])
    }

    pub(crate) fn id(&self) -> SegmentId {
        self.body.id
    }

    pub(crate) fn footer(&self) -> Option<&Footer> {
        self.footer.get()
    }

    pub(crate) fn set_footer(&self, footer: Footer) {
        let before = self.footer.set(footer);
        debug_assert!(before.is_ok(), "a segment is sealed once");
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn add_live(&self, bytes: u64) {
        self.live_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn sub_live(&self, bytes: u64) {
        let before = self.live_bytes.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "no more can die than lived");
    }

    pub(crate) fn add_commit(&self, bytes: u64) {
        self.commit_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn is_blob(&self) -> bool {
        self.body.kind == SegmentKind::Blob
    }

    /// Notes that the index is about to point at a record of this key whose value lies in `extent`,
    /// one of this blob's. From now on it can be read.
    pub(crate) fn hold(&self, extent: Extent, value_len: u32, expires_ms: u64, composite: &[u8]) {
        let len = extent_len(u64::from(value_len));
        self.body.map.publish_up_to((extent.offset() + len) as usize);
        self.add_live(self.extents.hold(extent, len, expires_ms, composite));
    }

    /// Notes that the index points at one record less that refers to `extent`.
    pub(crate) fn release(&self, extent: Extent) {
        self.sub_live(self.extents.release(extent));
    }

    /// Bytes of records, or of extents, live and dead. Commits that are no part of a record are not among
    /// them: they are neither, and no reason to compact.
    pub(crate) fn compactable_bytes(&self) -> u64 {
        match self.footer() {
            Some(footer) => footer.record_bytes(),
            None => self.record_bytes().saturating_sub(self.commit_bytes.load(Ordering::Relaxed)),
        }
    }

    /// Bytes of records and commits, or of extents, live and dead.
    pub(crate) fn record_bytes(&self) -> u64 {
        if self.is_blob() {
            let end = self.body.map.published() as u64;
            let not_written = segment_header::RECORDS_START + self.extents.holes_before(end);
            let written = end.saturating_sub(not_written);
            // A file system can keep values in less space than they have.
            return written.max(self.live_bytes());
        }
        let end = match self.footer() {
            Some(footer) => footer.trailer.footer_offset,
            None => self.body.map.published() as u64,
        };
        end.saturating_sub(segment_header::RECORDS_START)
    }
}

/// This thread's stripe.
#[inline]
fn stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        // No lazy value: asking whether it is there would cost more than reading it.
        static MINE: Cell<usize> = const { Cell::new(STRIPES) };
    }
    let mine = MINE.get();
    if mine < STRIPES {
        return mine;
    }
    let mine = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES;
    MINE.set(mine);
    mine
}
