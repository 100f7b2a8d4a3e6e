//! What a sealed segment can be asked: its records in key order, and whether it holds an older
//! version of a key.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::Body;
use super::scan::{self, Values};
use crate::error::{Corruption, Damage};
use crate::format::Seed;
use crate::format::footer::{self, BlockReader, Builder, Entry, Fence, Trailer};
use crate::format::record::Kind;
use crate::mmap::Map;

/// The bytes of the footer for a log that ends at `end`, what its trailer says, and the log's last seqno.
pub(crate) fn footer_of(body: &Body, end: u64) -> Result<(Vec<u8>, Trailer, u64), Corruption> {
    let scan = scan::scan_log(body, Values::Trust);
    if let Some((offset, damage)) = scan.stop {
        return Err(body.corruption(offset, damage));
    }
    if scan.end != end {
        let damage = Damage::CutShort { what: "log", wanted: end, found: scan.end };
        return Err(body.corruption(scan.end, damage));
    }
    let mut records = scan.records.concat();
    scan::sort(&mut records, body);
    let mut footer = Builder::new(body.id, body.seed, end);
    for found in records {
        let header = found.record(body)?.header;
        footer.push(&found.composite(body), &Entry::of(&header, found.offset()));
    }
    let (bytes, trailer) = footer.finish(scan.clock_ms, scan.chain);
    Ok((bytes, trailer, scan.last_seqno))
}

/// The footer of a sealed segment, all of whose blocks were sound when it was opened.
pub(crate) struct Footer {
    pub(crate) trailer: Trailer,
    fences: Vec<Fence>,
    /// The whole file. Not the segment's own map, if that was made while the log was written.
    file: Arc<Map>,
    file_name: String,
    seed: Seed,
    /// Counted when it is first asked for, since an opening should not wait for it.
    tally: OnceLock<Tally>,
}

/// What all records of a segment come to.
#[derive(Default)]
struct Tally {
    /// Without the commits between them.
    record_bytes: u64,
    put_bytes: u64,
    expiry: Expiry,
}

/// How many bytes expire by when, of records that were overwritten too.
#[derive(Default)]
struct Expiry {
    /// Bytes of puts by the minute in which they expire.
    by_minute: BTreeMap<u64, u64>,
}

/// Counted by the hour, and then the day, once there are more entries than this.
const EXPIRY_ENTRIES: usize = 1024;
const MINUTE_MS: u64 = 60_000;

impl Expiry {
    fn add(&mut self, expires_ms: u64, bytes: u64) {
        *self.by_minute.entry(expires_ms / MINUTE_MS).or_default() += bytes;
        if self.by_minute.len() > EXPIRY_ENTRIES {
            self.coarsen(60);
        }
        if self.by_minute.len() > EXPIRY_ENTRIES {
            self.coarsen(24 * 60);
        }
    }

    /// Puts each entry at the end of its step, so that nothing counts as expired too early.
    fn coarsen(&mut self, step: u64) {
        for (minute, bytes) in std::mem::take(&mut self.by_minute) {
            *self.by_minute.entry(minute.next_multiple_of(step)).or_default() += bytes;
        }
    }

    fn expired(&self, now_ms: u64) -> u64 {
        self.by_minute.range(..now_ms / MINUTE_MS).map(|(_, bytes)| bytes).sum()
    }
}

impl Footer {
    /// Opens the footer at the end of `file`, which is the whole of `body`'s file.
    pub(crate) fn open(body: &Body, file: Arc<Map>) -> Result<Footer, Corruption> {
        let bytes = file.bytes();
        let at_trailer = bytes.len().saturating_sub(footer::TRAILER_LEN) as u64;
        let trailer = Trailer::decode(bytes, body.seed)
            .map_err(|damage| body.corruption(at_trailer, damage))?;
        if trailer.segment != body.id {
            let found = u64::from(trailer.segment.get());
            return Err(body.corruption(at_trailer, Damage::Field { field: "segment_id", found }));
        }
        let fences = footer::read_fences(bytes, &trailer, body.seed)
            .map_err(|(offset, damage)| body.corruption(offset, damage))?;
        for fence in &fences {
            footer::open_block(bytes, fence.offset, body.seed)
                .map_err(|damage| body.corruption(fence.offset, damage))?;
        }
        let (file_name, seed) = (body.file_name(), body.seed);
        Ok(Footer { trailer, fences, file, file_name, seed, tally: OnceLock::new() })
    }

    /// Every block's checksum held when the footer was opened, so it can be counted; what could not be
    /// would count for nothing.
    fn tally(&self) -> &Tally {
        self.tally.get_or_init(|| self.count().unwrap_or_default())
    }

    fn count(&self) -> Result<Tally, Corruption> {
        let mut tally = Tally::default();
        let mut entries = self.entries();
        while let Some(entry) = entries.next()? {
            let len = entry.record_len(entries.key().len());
            tally.record_bytes += len;
            if entry.kind == Kind::Put {
                tally.put_bytes += len;
            }
            if entry.expires_ms != 0 {
                tally.expiry.add(entry.expires_ms, len);
            }
        }
        Ok(tally)
    }

    /// Bytes of all records, live and dead, without commits.
    pub(crate) fn record_bytes(&self) -> u64 {
        self.tally().record_bytes
    }

    /// Of the `live` bytes that the index points at, those that have not expired. Exact, to the minute,
    /// if all or none have expired or nothing was overwritten; otherwise it takes what was overwritten to
    /// have been like the rest.
    pub(crate) fn unexpired_bytes(&self, live: u64, now_ms: u64) -> u64 {
        let tally = self.tally();
        let expired = tally.expiry.expired(now_ms).min(tally.put_bytes);
        let share = u128::from(live) * u128::from(tally.put_bytes - expired);
        (share / u128::from(tally.put_bytes.max(1))) as u64
    }

    /// How many bytes the file has.
    pub(crate) fn file_len(&self) -> u64 {
        self.file.published() as u64
    }

    /// The first key of each block.
    pub(crate) fn fence_keys(&self) -> impl Iterator<Item = &[u8]> {
        self.fences.iter().map(|fence| &*fence.first_key)
    }

    /// All entries in order.
    pub(crate) fn entries(&self) -> Entries<'_> {
        Entries { footer: self, next_block: 0, block: None, ahead: None }
    }

    /// The entries whose key is `key` or greater.
    pub(crate) fn entries_from(&self, key: &[u8]) -> Result<Entries<'_>, Corruption> {
        // The block before the first fence past the key may still begin with it.
        let first = self.fences.partition_point(|fence| &*fence.first_key < key).saturating_sub(1);
        let mut entries = Entries { footer: self, next_block: first, block: None, ahead: None };
        while let Some(entry) = entries.next()? {
            if entries.key() >= key {
                entries.ahead = Some(entry);
                break;
            }
        }
        Ok(entries)
    }

    /// Whether a put of this very key, not younger than `seqno`, lies here. With the same seqno it is the
    /// original of a record that was copied to refer to another extent.
    pub(crate) fn has_older_put(&self, key: &[u8], seqno: u64) -> Result<bool, Corruption> {
        self.has_older_put_where(key, seqno, |found| found == key)
    }

    /// Whether a put of any key that starts with `prefix`, not younger than `seqno`, lies here.
    pub(crate) fn has_older_put_under(
        &self,
        prefix: &[u8],
        seqno: u64,
    ) -> Result<bool, Corruption> {
        self.has_older_put_where(prefix, seqno, |found| found.starts_with(prefix))
    }

    fn has_older_put_where(
        &self,
        start: &[u8],
        seqno: u64,
        covers: impl Fn(&[u8]) -> bool,
    ) -> Result<bool, Corruption> {
        if self.trailer.min_seqno > seqno || self.trailer.record_count == 0 {
            return Ok(false);
        }
        let mut entries = self.entries_from(start)?;
        while let Some(entry) = entries.next()? {
            if !covers(entries.key()) {
                break;
            }
            if entry.kind == Kind::Put && entry.seqno <= seqno {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Walks a footer's entries.
pub(crate) struct Entries<'a> {
    footer: &'a Footer,
    next_block: usize,
    block: Option<BlockReader<'a>>,
    /// An entry that was read and not yet returned; its key is the block's.
    ahead: Option<Entry>,
}

impl<'a> Entries<'a> {
    /// The next entry, `None` after the last; [`Self::key`] is its key.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, Corruption> {
        match self.ahead.take() {
            Some(entry) => Ok(Some(entry)),
            None => self.step(),
        }
    }

    /// The composite key of the entry that was returned last.
    pub(crate) fn key(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], |block| &block.key)
    }

    fn step(&mut self) -> Result<Option<Entry>, Corruption> {
        loop {
            let Some(block) = self.open()? else { return Ok(None) };
            match block.next() {
                Ok(Some(entry)) => return Ok(Some(entry)),
                Ok(None) => self.block = None,
                Err(damage) => return Err(self.corruption(damage)),
            }
        }
    }

    /// The block that is being walked, or the next one.
    fn open(&mut self) -> Result<Option<&mut BlockReader<'a>>, Corruption> {
        if self.block.is_none() {
            let Some(fence) = self.footer.fences.get(self.next_block) else { return Ok(None) };
            self.next_block += 1;
            let (block, _) =
                footer::open_block(self.footer.file.bytes(), fence.offset, self.footer.seed)
                    .map_err(|damage| self.corruption(damage))?;
            self.block = Some(block);
        }
        Ok(self.block.as_mut())
    }

    fn corruption(&self, damage: Damage) -> Corruption {
        let block = self.next_block.saturating_sub(1);
        let offset = self.footer.fences.get(block).map_or(0, |fence| fence.offset);
        Corruption { file: self.footer.file_name.clone(), offset, damage }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_as_expired_from_the_minute_after_and_never_too_early_however_many_there_are() {
        let mut expiry = Expiry::default();
        for minute in 0..3000 {
            expiry.add(minute * MINUTE_MS, 10);
        }
        assert!(expiry.by_minute.len() <= EXPIRY_ENTRIES);
        for minute in [0, 1, 59, 60, 61, 1000, 3000] {
            assert!(expiry.expired(minute * MINUTE_MS) <= minute * 10, "{minute}");
        }
        assert_eq!(expiry.expired(3100 * MINUTE_MS), 30_000);
    }
}
