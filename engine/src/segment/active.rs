//! The log that is being written: the only way to append to a segment.
//!
//! What always holds: the bytes below [`Log::end`] are whole commit groups; `end` moves only after
//! a write that succeeded; whatever a failed write left behind `end` is wiped before the next one,
//! so that it can never be read as a record. Absent on purpose: who waits for whom, which is
//! `commit`'s business.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{Body, Segment, create_file};
use crate::address::{Address, SegmentId, Slot};
use crate::disk::{self, Disk, DiskFile};
use crate::format::StoreId;
use crate::format::segment_header::{RECORDS_START, SegmentHeader, SegmentKind};
use crate::mmap::Map;

/// Blocks that were written before make a later sync cheaper, because only their content changes:
/// 88 to 97 us instead of 120 to 142. So zeros run this far ahead of a log that is synced often.
const PREFILL: u64 = 256 << 10;
/// Written in pieces of a page: larger ones leave large folios behind, which make later small
/// writes five times dearer.
const PREFILL_PIECE: [u8; 4096] = [0; 4096];

/// A log and the right to append to it.
pub(crate) struct Log {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<DiskFile>,
    end: u64,
    /// The chain of the last commit; the next one continues it.
    pub(crate) chain: u32,
    /// Bytes below were written at least once.
    filled: u64,
    /// Bytes after `end` may hold something.
    dirty_tail: bool,
    /// Bytes were written since the last sync.
    pub(crate) unsynced: bool,
}

/// A log file that exists on disk, durable but for its name, and holds no record.
pub(crate) struct NewLog {
    id: SegmentId,
    file: DiskFile,
    map: Map,
}

impl NewLog {
    pub(crate) fn create(
        disk: &Disk,
        dir: &Path,
        id: SegmentId,
        store: &StoreId,
        writer_epoch: u32,
        capacity: u64,
    ) -> io::Result<NewLog> {
        let kind = SegmentKind::Log;
        let header = SegmentHeader { kind, window: 0, segment: id, store: *store, writer_epoch };
        let (file, map) = create_file(disk, dir, &header, capacity)?;
        Ok(NewLog { id, file, map })
    }

    pub(crate) fn id(&self) -> SegmentId {
        self.id
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.map.capacity() as u64
    }

    /// The log, once its name is durable and the manifest knows it.
    pub(crate) fn start(self, store: &StoreId, slot: Slot) -> Log {
        let body = Body::new(self.id, SegmentKind::Log, store, self.map);
        let chain = body.seed.base();
        Log {
            segment: Arc::new(Segment::new(body, slot)),
            file: Arc::new(self.file),
            end: RECORDS_START,
            chain,
            filled: RECORDS_START,
            dirty_tail: false,
            unsynced: false,
        }
    }
}

impl Log {
    /// Goes on with a log that recovery has read up to `end`. Whatever follows is wiped before the
    /// first append; what was read may still be on its way to the disk.
    pub(crate) fn resume(segment: Arc<Segment>, file: Arc<DiskFile>, end: u64, chain: u32) -> Log {
        Log { segment, file, end, chain, filled: end, dirty_tail: true, unsynced: true }
    }

    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// How many bytes still fit.
    pub(crate) fn room(&self) -> u64 {
        // A footer behind an earlier session's records can have been mapped with them.
        let limit = (self.segment.body.map.capacity() as u64).min(Address::OFFSET_END);
        limit.saturating_sub(self.end)
    }

    /// Writes `bytes` at the end. Readers do not see them before [`Self::publish`]. `sync_follows`
    /// lets the log run ahead with zeros.
    pub(crate) fn append(&mut self, bytes: &[u8], sync_follows: bool) -> io::Result<()> {
        self.wipe_tail()?;
        let end = self.end + bytes.len() as u64;
        if sync_follows && end > self.filled {
            self.prefill(end)?;
        }
        self.unsynced = true;
        if let Err(error) = self.file.write_at(bytes, self.end) {
            self.dirty_tail = true;
            return Err(error);
        }
        self.end = end;
        self.filled = self.filled.max(end);
        Ok(())
    }

    /// Cuts off what stands after `end`, and makes room for what is to come.
    fn wipe_tail(&mut self) -> io::Result<()> {
        if self.dirty_tail {
            self.file.set_len(self.end)?;
            self.file.set_len(self.segment.body.map.capacity() as u64)?;
            self.filled = self.end;
            self.dirty_tail = false;
        }
        Ok(())
    }

    /// Writes zeros from where the log was filled to a little past `end`. No room for them is no
    /// failure: they only serve speed.
    fn prefill(&mut self, end: u64) -> io::Result<()> {
        let capacity = self.segment.body.map.capacity() as u64;
        let piece = PREFILL_PIECE.len() as u64;
        let until = (end + PREFILL).min(capacity) / piece * piece;
        let mut at = self.filled.next_multiple_of(piece);
        while at < until {
            match self.file.write_at(&PREFILL_PIECE, at) {
                Ok(()) => at += piece,
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error),
            }
        }
        self.filled = self.filled.max(at.min(until));
        Ok(())
    }

    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if self.unsynced {
            self.file.sync()?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// Lets readers see everything up to `end`.
    pub(crate) fn publish(&self) {
        self.segment.body.map.publish(self.end as usize);
    }

    /// Gives the file the length of its content, for a store that is closed.
    pub(crate) fn trim(&mut self) -> io::Result<()> {
        self.dirty_tail = true;
        self.file.set_len(self.end)
    }

    /// Writes a footer behind a log that was trimmed; the next append cuts it off. False if the disk has
    /// no room for it.
    pub(crate) fn append_footer(&mut self, footer: &[u8]) -> io::Result<bool> {
        match self.file.write_at(footer, self.end) {
            Ok(()) => Ok(true),
            Err(error) if disk::is_full(&error) => self.file.set_len(self.end).map(|()| false),
            Err(error) => Err(error),
        }
    }
}
