//! Writes the output of a compaction: records in key order, a footer, synced, not yet in the catalog.

use std::path::Path;

use crate::address::SegmentId;
use crate::disk::{Disk, DiskFile};
use crate::error::Error;
use crate::format::footer::{Builder, Entry};
use crate::format::manifest::Sealed;
use crate::format::record::{self, Header};
use crate::format::segment_header::{self, RECORDS_START, SegmentHeader, SegmentKind};
use crate::format::{Seed, StoreId, align8};
use crate::segment::file_name;

/// Records are gathered into writes of this length, each at a multiple of it: so the system may keep
/// the run in huge pages, and a get that finds its record there has no page table to walk.
const WRITE_BYTES: usize = 2 << 20;

pub(crate) struct RunWriter {
    pub(crate) id: SegmentId,
    file: DiskFile,
    seed: Seed,
    buffer: Vec<u8>,
    /// Where `buffer` starts in the file.
    written: u64,
    /// Keys and entries for the footer, in order.
    keys: Vec<u8>,
    entries: Vec<(usize, Entry)>,
    pub(crate) tombstone_bytes: u64,
}

/// A run that is whole and durable under a name that is not durable yet.
pub(crate) struct FinishedRun {
    pub(crate) sealed: Sealed,
    pub(crate) file: DiskFile,
    pub(crate) tombstone_bytes: u64,
}

impl RunWriter {
    pub(crate) fn create(
        disk: &Disk,
        dir: &Path,
        id: SegmentId,
        store: &StoreId,
        window: u8,
    ) -> Result<RunWriter, Error> {
        let kind = SegmentKind::Run;
        let path = dir.join(file_name(id, kind));
        let file = disk.create(&path).map_err(|error| Error::io("create a run", &path, error))?;
        let header = SegmentHeader { kind, window, segment: id, store: *store, writer_epoch: 0 };
        let mut buffer = vec![0; RECORDS_START as usize];
        buffer[..segment_header::LEN].copy_from_slice(&header.encode());
        Ok(RunWriter {
            id,
            file,
            seed: Seed::of_segment(store, id.0),
            buffer,
            written: 0,
            keys: Vec::new(),
            entries: Vec::new(),
            tombstone_bytes: 0,
        })
    }

    /// Where the next record goes.
    pub(crate) fn end(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Copies a record, which keeps its seqno and leaves a commit behind. Returns where it went.
    pub(crate) fn copy(
        &mut self,
        composite: &[u8],
        header: &Header,
        bytes: &[u8],
    ) -> Result<u64, Error> {
        let (start, offset) = (self.buffer.len(), self.end());
        let copy = record::copy_without_commit(header, bytes, &mut self.buffer);
        self.list(composite, Entry::of(&copy, offset));
        self.place(self.buffer.len() - start, header.seqno, offset)?;
        Ok(offset)
    }

    /// Writes a tombstone that keeps the seqno of what it stands for.
    pub(crate) fn tombstone(
        &mut self,
        composite: &[u8],
        seqno: u64,
        draft: &record::Draft<'_>,
    ) -> Result<(), Error> {
        let entry = Entry {
            kind: draft.kind,
            seqno,
            offset: self.end(),
            expires_ms: 0,
            metadata_len: 0,
            value_len: 0,
            extent: None,
            commits_itself: false,
        };
        let offset = entry.offset;
        self.list(composite, entry);
        draft.append_to(&mut self.buffer);
        self.tombstone_bytes += draft.record_len() as u64;
        self.place(draft.record_len(), seqno, offset)
    }

    fn list(&mut self, composite: &[u8], entry: Entry) {
        self.keys.extend_from_slice(composite);
        self.entries.push((self.keys.len(), entry));
    }

    fn place(&mut self, len: usize, seqno: u64, offset: u64) -> Result<(), Error> {
        let start = self.buffer.len() - len;
        record::place(&mut self.buffer[start..], seqno, self.seed.at(offset));
        debug_assert_eq!(len, align8(len));
        let whole = self.buffer.len() / WRITE_BYTES * WRITE_BYTES;
        if whole > 0 { self.flush(whole) } else { Ok(()) }
    }

    /// Writes the first `len` bytes of the buffer.
    fn flush(&mut self, len: usize) -> Result<(), Error> {
        let fail = |error| Error::io("write a run", self.file.path(), error);
        self.file.write_at(&self.buffer[..len], self.written).map_err(fail)?;
        self.written += len as u64;
        self.buffer.drain(..len);
        Ok(())
    }

    /// Writes the footer and syncs the file.
    pub(crate) fn finish(mut self, clock_ms: u64) -> Result<FinishedRun, Error> {
        let records_end = self.end();
        let mut footer = Builder::new(self.id, self.seed, records_end);
        let mut start = 0;
        for (end, entry) in &self.entries {
            footer.push(&self.keys[start..*end], entry);
            start = *end;
        }
        let (footer, trailer) = footer.finish(clock_ms, 0);
        self.buffer.extend_from_slice(&footer);
        self.flush(self.buffer.len())?;
        let fail = |error| Error::io("sync a run", self.file.path(), error);
        self.file.sync().map_err(fail)?;
        let sealed = Sealed {
            segment: self.id,
            kind: SegmentKind::Run,
            file_len: self.written,
            records_end,
            footer_crc: trailer.footer_crc,
            last_seqno: 0,
            clock_ms: 0,
        };
        let tombstone_bytes = self.tombstone_bytes;
        Ok(FinishedRun { sealed, file: self.file, tombstone_bytes })
    }
}
