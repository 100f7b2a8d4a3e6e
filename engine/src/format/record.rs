//! Records and commits: what a segment's body is made of; `format-spec.md` §4.
//!
//! ```text
//!  0        36        (8)      (10)  +key     +metadata  +value   (4)            (8)
//!  | header | expires | commit | key | metadata | value .. | pad | block checksums | pad |
//!             only if   only if                              only if the value
//!             EXPIRES   COMMITS                              is over 64 KiB
//! ```
//!
//! A record that is a group by itself carries its commit inside, which takes a fifth of a commit's bytes.
//!
//! The value of a reference lies in an extent of a blob segment, its block table behind it; in the
//! record the extent's place stands instead of both.
//!
//! The header checksum is bound to the place of the record and covers everything up to the value, and
//! the extent's place; the value checksum is bound to the content alone, so compaction copies it as it is.

use std::num::NonZeroU32;
use std::ops::Range;

use super::{
    Field, align8, assert_dense, crc32, crc32_from, field, read_u16, read_u32, read_u48, read_u64,
    write_u16, write_u32, write_u48, write_u64,
};
use crate::address::SegmentId;
use crate::error::Damage;

pub(crate) const HEADER_LEN: usize = 36;
pub(crate) const COMMIT_LEN: usize = 48;
/// Values over this length carry one checksum for each block of this length.
pub(crate) const BLOCK_LEN: usize = 64 * 1024;
/// The record has an expiry, eight bytes after the header.
const EXPIRES: u8 = 1;
/// The value lies in an extent, whose place follows in its stead.
const REFERENCE: u8 = 2;
/// A table of block checksums follows the value.
const BLOCK_TABLE: u8 = 4;
/// The record is a whole group; its commit follows the header.
const COMMITS: u8 = 0x80;
const KNOWN_FLAGS: u8 = EXPIRES | REFERENCE | BLOCK_TABLE | COMMITS;
/// The bytes of a commit inside of a record.
pub(crate) const OWN_COMMIT_LEN: usize = 10;
/// The bytes of an extent's place.
pub(crate) const REFERENCE_LEN: usize = 8;
/// Extents start at multiples of this many bytes, and are padded to one.
pub(crate) const EXTENT_ALIGN: u64 = 4096;
/// The first expiry that the format refuses: 2^48 ms after 1970.
pub(crate) const EXPIRES_END: u64 = 1 << 48;

/// The record header, row for row as in §4.1.
pub(crate) const FIELDS: [Field; 10] = [
    field("header_crc", 0, 4),
    field("kind", 4, 1),
    field("flags", 5, 1),
    field("key_len", 6, 2),
    field("seqno", 8, 8),
    field("written_ms", 16, 6),
    field("metadata_len", 22, 2),
    field("namespace", 24, 4),
    field("value_len", 28, 4),
    field("value_crc", 32, 4),
];
const _: () = assert_dense(&FIELDS, HEADER_LEN);

/// The commit record, row for row as in §4.3.
pub(crate) const COMMIT_FIELDS: [Field; 12] = [
    field("header_crc", 0, 4),
    field("kind", 4, 1),
    field("flags", 5, 1),
    field("reserved", 6, 2),
    field("last_seqno", 8, 8),
    field("durable_seqno", 16, 8),
    field("clock_ms", 24, 6),
    field("reserved", 30, 2),
    field("count", 32, 4),
    field("group_bytes", 36, 4),
    field("chain_crc", 40, 4),
    field("writer_epoch", 44, 4),
];
const _: () = assert_dense(&COMMIT_FIELDS, COMMIT_LEN);

/// The commit inside of a record, row for row as in §4.3.1.
pub(crate) const OWN_COMMIT_FIELDS: [Field; 3] =
    [field("chain_before", 0, 4), field("durable_behind", 4, 4), field("clock_ahead_ms", 8, 2)];
const _: () = assert_dense(&OWN_COMMIT_FIELDS, OWN_COMMIT_LEN);

/// The place of an extent, row for row as in §4.5.
pub(crate) const REFERENCE_FIELDS: [Field; 2] =
    [field("blob_id", 0, 4), field("extent_page", 4, 4)];
const _: () = assert_dense(&REFERENCE_FIELDS, REFERENCE_LEN);

/// What a record says happened. Zero is no kind; 6 is reserved for padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    Put = 1,
    Delete = 2,
    DeletePrefix = 3,
    DeleteNamespace = 4,
}

/// Where an extent starts, see §4.5: eight bytes, since each entry of a footer has room for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Extent {
    /// The blob segment's id.
    segment: NonZeroU32,
    /// In units of [`EXTENT_ALIGN`].
    page: NonZeroU32,
}

impl Extent {
    /// The extent at byte `offset` of a blob; `None` if none can start there.
    pub(crate) fn new(segment: SegmentId, offset: u64) -> Option<Extent> {
        let page = u32::try_from(offset / EXTENT_ALIGN).ok().and_then(NonZeroU32::new)?;
        let segment = NonZeroU32::new(segment.0)?;
        offset.is_multiple_of(EXTENT_ALIGN).then_some(Extent { segment, page })
    }

    /// From the fields as they are stored; zeros are no extent.
    pub(crate) fn from_fields(segment: u32, page: u32) -> Option<Extent> {
        let (segment, page) = (NonZeroU32::new(segment)?, NonZeroU32::new(page)?);
        Some(Extent { segment, page })
    }

    pub(crate) fn segment(self) -> SegmentId {
        SegmentId(self.segment.get())
    }

    pub(crate) fn page(self) -> u32 {
        self.page.get()
    }

    pub(crate) fn offset(self) -> u64 {
        u64::from(self.page.get()) * EXTENT_ALIGN
    }

    fn write_to(self, out: &mut [u8]) {
        write_u32(out, 0, self.segment.get());
        write_u32(out, 4, self.page.get());
    }
}

/// How many bytes the extent of a value takes, its block table and padding included.
pub(crate) fn extent_len(value_len: u64) -> u64 {
    let value_len = value_len as usize;
    (table_of(0..value_len).end as u64).next_multiple_of(EXTENT_ALIGN)
}

/// Where the block table of the value at `value` lies, counted from the same place, a multiple of 4;
/// empty if the value is too short for one.
pub(crate) fn table_of(value: Range<usize>) -> Range<usize> {
    if value.len() <= BLOCK_LEN {
        return value.end..value.end;
    }
    let start = value.end.next_multiple_of(4);
    start..start + 4 * value.len().div_ceil(BLOCK_LEN)
}

/// The kind byte of a commit record.
pub(crate) const COMMIT_KIND: u8 = 5;

/// Whether a commit can stand at the front of `input`, by itself or in a record: a first look that
/// costs little.
pub(crate) fn may_commit(input: &[u8]) -> bool {
    match input.get(4..6) {
        Some(&[COMMIT_KIND, flags]) => flags == 0,
        Some(&[kind, flags]) => {
            flags & COMMITS != 0 && flags & !KNOWN_FLAGS == 0 && Kind::from_byte(kind).is_some()
        }
        _ => false,
    }
}

impl Kind {
    pub(crate) fn from_byte(byte: u8) -> Option<Kind> {
        match byte {
            1 => Some(Kind::Put),
            2 => Some(Kind::Delete),
            3 => Some(Kind::DeletePrefix),
            4 => Some(Kind::DeleteNamespace),
            _ => None,
        }
    }
}

/// A record's fixed part, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) seqno: u64,
    pub(crate) written_ms: u64,
    pub(crate) namespace: u32,
    /// When the record expires, in ms since 1970; 0 is never.
    pub(crate) expires_ms: u64,
    pub(crate) key_len: u16,
    pub(crate) metadata_len: u16,
    pub(crate) value_len: u32,
    pub(crate) value_crc: u32,
    /// Where the value lies, if it does not follow.
    pub(crate) extent: Option<Extent>,
    /// The record has its commit inside.
    pub(crate) commits_itself: bool,
}

/// Where the key of a record with these flags starts: behind what they say is there.
#[inline]
fn key_start(flags: u8) -> usize {
    HEADER_LEN + usize::from(flags & EXPIRES) * 8 + usize::from(flags >> 7) * OWN_COMMIT_LEN
}

impl Header {
    fn flags(&self) -> u8 {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        flag(self.expires_ms != 0, EXPIRES)
            | flag(self.extent.is_some(), REFERENCE)
            | flag(self.has_block_table(), BLOCK_TABLE)
            | flag(self.commits_itself, COMMITS)
    }

    fn key_start(&self) -> usize {
        key_start(self.flags())
    }

    /// Where the value starts, or the place of its extent, counted from the record.
    pub(crate) fn value_start(&self) -> usize {
        self.key_start() + usize::from(self.key_len) + usize::from(self.metadata_len)
    }

    pub(crate) fn has_block_table(&self) -> bool {
        self.value_len as usize > BLOCK_LEN
    }

    /// Where the value lies in the record; empty if it lies in an extent.
    fn value(&self) -> Range<usize> {
        let len = if self.extent.is_none() { self.value_len as usize } else { 0 };
        self.value_start()..self.value_start() + len
    }

    /// The whole record's length, padding included.
    pub(crate) fn record_len(&self) -> usize {
        align8(match self.extent {
            None => table_of(self.value()).end,
            Some(_) => self.value_start() + REFERENCE_LEN,
        })
    }
}

/// A whole record, borrowed from the bytes it was decoded from. Its header checksum holds; its
/// value has not been looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) header: Header,
    pub(crate) key: &'a [u8],
    pub(crate) metadata: &'a [u8],
    /// `None` if it lies in an extent.
    pub(crate) content: Option<Content<'a>>,
}

/// A value with its checksums, wherever it lies. Nothing has been verified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content<'a> {
    pub(crate) value: &'a [u8],
    /// The block checksums; empty for values of up to [`BLOCK_LEN`] bytes.
    pub(crate) table: &'a [u8],
    /// From the record's header.
    pub(crate) crc: u32,
}

/// The end of a commit group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) last_seqno: u64,
    /// Every record up to this seqno was durable when this commit was written.
    pub(crate) durable_seqno: u64,
    pub(crate) clock_ms: u64,
    pub(crate) count: u32,
    pub(crate) group_bytes: u32,
    pub(crate) chain_crc: u32,
    pub(crate) writer_epoch: u32,
}

/// One item of a segment's body.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Item<'a> {
    Record(Record<'a>),
    Commit(Commit),
}

impl Item<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Item::Record(record) => record.header.record_len(),
            Item::Commit(_) => COMMIT_LEN,
        }
    }
}

/// What a writer knows of a record before it has a place and a seqno.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draft<'a> {
    pub(crate) kind: Kind,
    pub(crate) namespace: u32,
    pub(crate) written_ms: u64,
    pub(crate) expires_ms: u64,
    pub(crate) key: &'a [u8],
    pub(crate) metadata: &'a [u8],
    pub(crate) value: &'a [u8],
    /// From [`value_checksum`], so that it can be computed outside of any lock.
    pub(crate) value_crc: u32,
    /// Where a value of this length lies, if it is not in `value`.
    pub(crate) extent: Option<(Extent, u32)>,
}

impl Draft<'_> {
    fn header(&self) -> Header {
        Header {
            kind: self.kind,
            seqno: 0,
            written_ms: self.written_ms,
            namespace: self.namespace,
            expires_ms: self.expires_ms,
            key_len: self.key.len() as u16,
            metadata_len: self.metadata.len() as u16,
            value_len: self.extent.map_or(self.value.len() as u32, |(_, len)| len),
            value_crc: self.value_crc,
            extent: self.extent.map(|(extent, _)| extent),
            commits_itself: false,
        }
    }

    pub(crate) fn record_len(&self) -> usize {
        self.header().record_len()
    }

    /// Appends the record with seqno and header checksum left zero; see [`place`].
    pub(crate) fn append_to(&self, out: &mut Vec<u8>) {
        let header = self.header();
        let start = out.len();
        out.resize(start + header.key_start(), 0);
        write_header(&mut out[start..], &header);
        out.extend_from_slice(self.key);
        out.extend_from_slice(self.metadata);
        if let Some((extent, _)) = self.extent {
            let at = out.len();
            out.resize(start + header.record_len(), 0);
            extent.write_to(&mut out[at..]);
            return;
        }
        out.extend_from_slice(self.value);
        let table = table_of(header.value());
        if !table.is_empty() {
            out.resize(start + table.start, 0);
            out.extend(block_checksums(self.value).flat_map(u32::to_le_bytes));
        }
        out.resize(start + header.record_len(), 0);
    }
}

fn write_header(out: &mut [u8], header: &Header) {
    out[4] = header.kind as u8;
    out[5] = header.flags();
    write_u16(out, 6, header.key_len);
    write_u64(out, 8, header.seqno);
    write_u48(out, 16, header.written_ms);
    write_u16(out, 22, header.metadata_len);
    write_u32(out, 24, header.namespace);
    write_u32(out, 28, header.value_len);
    write_u32(out, 32, header.value_crc);
    if header.expires_ms != 0 {
        write_u64(out, HEADER_LEN, header.expires_ms);
    }
}

/// Gives the record at the front of `record` its seqno and its place. Returns the header checksum,
/// which the commit's chain takes in.
pub(crate) fn place(record: &mut [u8], seqno: u64, initial: u32) -> u32 {
    write_u64(record, 8, seqno);
    let covered = value_start(record) + usize::from(record[5] & REFERENCE != 0) * REFERENCE_LEN;
    let crc = crc32_from(initial, &record[4..covered]);
    write_u32(record, 0, crc);
    crc
}

/// Where the value of the record at the front of `record` starts, or the place of its extent.
fn value_start(record: &[u8]) -> usize {
    key_start(record[5]) + usize::from(read_u16(record, 6)) + usize::from(read_u16(record, 22))
}

/// The commit of a record that is a group by itself; §4.3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnCommit {
    pub(crate) chain_before: u32,
    pub(crate) durable_seqno: u64,
    pub(crate) clock_ms: u64,
}

impl OwnCommit {
    /// Puts the commit into the record that is all of `record` and will get this seqno, unless it has
    /// no room for what the commit says, or the record has a block table; [`place`] it then.
    pub(crate) fn put_into(&self, record: &mut Vec<u8>, seqno: u64) -> bool {
        let behind = u32::try_from(seqno - self.durable_seqno);
        let ahead = i16::try_from(self.clock_ms.wrapping_sub(read_u48(record, 16)) as i64);
        let (Ok(behind), Ok(ahead)) = (behind, ahead) else { return false };
        if record[5] & (BLOCK_TABLE | COMMITS) != 0 {
            return false;
        }
        let content_len =
            if record[5] & REFERENCE != 0 { REFERENCE_LEN } else { read_u32(record, 28) as usize };
        let (at, end) = (key_start(record[5]), value_start(record) + content_len);
        record.resize(align8(end + OWN_COMMIT_LEN), 0);
        record.copy_within(at..end, at + OWN_COMMIT_LEN);
        record[5] |= COMMITS;
        write_u32(record, at, self.chain_before);
        write_u32(record, at + 4, behind);
        write_u16(record, at + 8, ahead as u16);
        true
    }

    /// The commit in the record at the front of `input`, which has this header.
    pub(crate) fn of(header: &Header, input: &[u8]) -> Option<OwnCommit> {
        let at = header.key_start().checked_sub(OWN_COMMIT_LEN)?;
        let ahead = i64::from(read_u16(input, at + 8) as i16);
        header.commits_itself.then(|| OwnCommit {
            chain_before: read_u32(input, at),
            durable_seqno: header.seqno.saturating_sub(u64::from(read_u32(input, at + 4))),
            clock_ms: header.written_ms.saturating_add_signed(ahead),
        })
    }
}

/// Appends a record to `out` without the commit that it may have inside; [`place`] it then. Returns its
/// header.
pub(crate) fn copy_without_commit(header: &Header, record: &[u8], out: &mut Vec<u8>) -> Header {
    if !header.commits_itself {
        out.extend_from_slice(record);
        return *header;
    }
    let copy = Header { commits_itself: false, ..*header };
    let (start, len) = (out.len(), copy.record_len());
    out.extend_from_slice(&record[..copy.key_start()]);
    out[start + 5] &= !COMMITS;
    // What follows is padding at most.
    let rest = &record[header.key_start()..];
    out.extend_from_slice(&rest[..rest.len().min(len - copy.key_start())]);
    out.resize(start + len, 0);
    copy
}

/// Puts another extent's place into the reference at the front of `record`; [`place`] it then.
pub(crate) fn refer_to(record: &mut [u8], header: &Header, extent: Extent) {
    extent.write_to(&mut record[header.value_start()..]);
}

fn block_checksums(value: &[u8]) -> impl Iterator<Item = u32> + '_ {
    value.chunks(BLOCK_LEN).map(crc32)
}

/// The checksum that stands in a record's header for its value; §4.2.
pub(crate) fn value_checksum(value: &[u8]) -> u32 {
    if value.len() <= BLOCK_LEN {
        return crc32(value);
    }
    let mut hasher = crc32fast::Hasher::new();
    for crc in block_checksums(value) {
        hasher.update(&crc.to_le_bytes());
    }
    hasher.finalize()
}

/// The checksums of a value that comes in pieces.
#[derive(Default)]
pub(crate) struct ContentSum {
    /// Those of whole blocks.
    table: Vec<u8>,
    block: crc32fast::Hasher,
    in_block: usize,
}

impl ContentSum {
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(bytes.len().min(BLOCK_LEN - self.in_block));
            self.block.update(piece);
            self.in_block += piece.len();
            bytes = rest;
            if self.in_block == BLOCK_LEN {
                self.end_block();
            }
        }
    }

    fn end_block(&mut self) {
        let crc = std::mem::take(&mut self.block).finalize();
        self.table.extend_from_slice(&crc.to_le_bytes());
        self.in_block = 0;
    }

    /// The block table, empty for a short value, and the checksum for the record's header.
    pub(crate) fn finish(mut self) -> (Vec<u8>, u32) {
        if self.table.is_empty() {
            return (Vec::new(), self.block.finalize());
        }
        if self.in_block > 0 {
            self.end_block();
        }
        match <[u8; 4]>::try_from(self.table.as_slice()) {
            Ok(only) => (Vec::new(), u32::from_le_bytes(only)),
            Err(_) => {
                let crc = crc32(&self.table);
                (self.table, crc)
            }
        }
    }
}

/// Whether the bytes at `input` claim to be a record of this very key. Nothing is verified: a
/// `false` may be due to damage, so the caller decodes before it believes one.
#[inline]
pub(crate) fn has_key(input: &[u8], namespace: u32, key: &[u8]) -> bool {
    if input.len() < HEADER_LEN {
        return false;
    }
    let start = key_start(input[5]);
    usize::from(read_u16(input, 6)) == key.len()
        && read_u32(input, 24) == namespace
        && input.get(start..start + key.len()) == Some(key)
}

/// How many bytes a get reads of the record with this header: all but a value that has a block table or
/// lies in an extent. Nothing is verified.
pub(crate) fn claimed_read(header: &[u8]) -> usize {
    if header.len() < HEADER_LEN {
        return header.len();
    }
    let head = value_start(header);
    match header[5] & (REFERENCE | BLOCK_TABLE) {
        0 => head + read_u32(header, 28) as usize,
        _ => head + REFERENCE_LEN,
    }
}

#[inline]
fn checksum(of: &'static str, stored: u32, computed: u32) -> Result<(), Damage> {
    if stored == computed { Ok(()) } else { Err(Damage::Checksum { of, stored, computed }) }
}

#[cold]
fn cut_short(what: &'static str, wanted: usize, found: usize) -> Damage {
    Damage::CutShort { what, wanted: wanted as u64, found: found as u64 }
}

/// Decodes the record or commit at the front of `input`, which ends where the segment's readable
/// bytes end. `initial` is [`super::Seed::at`] of its offset.
pub(crate) fn decode(input: &[u8], initial: u32) -> Result<Item<'_>, Damage> {
    match input.get(4) {
        Some(&COMMIT_KIND) => decode_commit(input, initial).map(Item::Commit),
        _ => decode_record(input, initial).map(Item::Record),
    }
}

/// Decodes the record at the front of `input`; see [`decode`].
// Always inlined: a get uses half of what is decoded, and the record is as long as two cache lines.
#[inline(always)]
pub(crate) fn decode_record(input: &[u8], initial: u32) -> Result<Record<'_>, Damage> {
    if input.len() < HEADER_LEN {
        return Err(cut_short("record header", HEADER_LEN, input.len()));
    }
    let head_len = value_start(input) + if input[5] & REFERENCE != 0 { REFERENCE_LEN } else { 0 };
    let Some(head) = input.get(..head_len) else {
        return Err(cut_short("record header with key and metadata", head_len, input.len()));
    };
    checksum("record header", read_u32(input, 0), crc32_from(initial, &head[4..]))?;
    decode_again(input)
}

/// Decodes a record whose checksum was verified before.
pub(crate) fn decode_again(input: &[u8]) -> Result<Record<'_>, Damage> {
    if input.len() < HEADER_LEN {
        return Err(cut_short("record header", HEADER_LEN, input.len()));
    }
    let (key_len, metadata_len) = (read_u16(input, 6), read_u16(input, 22));
    let key_start = key_start(input[5]);
    let key_end = key_start + usize::from(key_len);
    let covered = key_end + usize::from(metadata_len);
    let is_reference = input[5] & REFERENCE != 0;
    let head_len = covered + if is_reference { REFERENCE_LEN } else { 0 };
    if input.len() < head_len {
        return Err(cut_short("record header with key and metadata", head_len, input.len()));
    }
    let Some(kind) = Kind::from_byte(input[4]) else {
        return Err(Damage::Field { field: "kind", found: u64::from(input[4]) });
    };
    let extent = is_reference
        .then(|| {
            let (segment, page) = (read_u32(input, covered), read_u32(input, covered + 4));
            Extent::from_fields(segment, page)
                .ok_or(Damage::Field { field: "extent", found: u64::from(segment) })
        })
        .transpose()?;
    let expires_ms = if input[5] & EXPIRES == 0 { 0 } else { read_u64(input, HEADER_LEN) };
    let header = Header {
        kind,
        seqno: read_u64(input, 8),
        written_ms: read_u48(input, 16),
        namespace: read_u32(input, 24),
        expires_ms,
        key_len,
        metadata_len,
        value_len: read_u32(input, 28),
        value_crc: read_u32(input, 32),
        extent,
        commits_itself: input[5] & COMMITS != 0,
    };
    check_fields(input[5], &header)?;
    if header.commits_itself {
        check_own_commit(&header, read_u32(input, key_start - OWN_COMMIT_LEN + 4))?;
    }
    let len = header.record_len();
    if input.len() < len {
        return Err(cut_short("record", len, input.len()));
    }
    let value = header.value();
    let content = extent.is_none().then(|| Content {
        table: &input[table_of(value.clone())],
        value: &input[value],
        crc: header.value_crc,
    });
    let (key, metadata) = (&input[key_start..key_end], &input[key_end..covered]);
    Ok(Record { header, key, metadata, content })
}

/// The key of a record whose checksum was verified before.
pub(crate) fn key_of(input: &[u8]) -> &[u8] {
    if input.len() < HEADER_LEN {
        return &[];
    }
    let start = key_start(input[5]);
    input.get(start..start + usize::from(read_u16(input, 6))).unwrap_or(&[])
}

/// Rules between fields that a sound checksum does not prove: a record that breaks one was written
/// by a later version or by a bug, and is refused either way.
#[inline]
fn check_fields(flags: u8, header: &Header) -> Result<(), Damage> {
    let refuse = |field, found| Err(Damage::Field { field, found });
    if flags & !KNOWN_FLAGS != 0 || (flags & BLOCK_TABLE != 0) != header.has_block_table() {
        return refuse("flags", u64::from(flags));
    }
    if flags & EXPIRES != 0 && (header.expires_ms == 0 || header.expires_ms >= EXPIRES_END) {
        return refuse("expires_ms", header.expires_ms);
    }
    if header.seqno == 0 {
        return refuse("seqno", 0);
    }
    let only_puts = header.kind != Kind::Put
        && (header.value_len != 0
            || header.metadata_len != 0
            || header.expires_ms != 0
            || header.extent.is_some());
    if only_puts {
        return refuse("value_len", u64::from(header.value_len));
    }
    Ok(())
}

/// A watermark lies before the record and not before the first one.
fn check_own_commit(header: &Header, durable_behind: u32) -> Result<(), Damage> {
    if header.has_block_table() {
        return Err(Damage::Field { field: "flags", found: u64::from(header.flags()) });
    }
    if durable_behind == 0 || u64::from(durable_behind) > header.seqno {
        let found = u64::from(durable_behind);
        return Err(Damage::Field { field: "durable_behind", found });
    }
    Ok(())
}

fn decode_commit(input: &[u8], initial: u32) -> Result<Commit, Damage> {
    if input.len() < COMMIT_LEN {
        return Err(cut_short("commit", COMMIT_LEN, input.len()));
    }
    checksum("commit", read_u32(input, 0), crc32_from(initial, &input[4..COMMIT_LEN]))?;
    let commit = Commit {
        last_seqno: read_u64(input, 8),
        durable_seqno: read_u64(input, 16),
        clock_ms: read_u48(input, 24),
        count: read_u32(input, 32),
        group_bytes: read_u32(input, 36),
        chain_crc: read_u32(input, 40),
        writer_epoch: read_u32(input, 44),
    };
    let reserved = u64::from(input[5]) | u64::from(read_u16(input, 6)) << 8;
    if reserved != 0 || read_u16(input, 30) != 0 {
        return Err(Damage::Field { field: "reserved", found: reserved });
    }
    if commit.durable_seqno > commit.last_seqno {
        return Err(Damage::Field { field: "durable_seqno", found: commit.durable_seqno });
    }
    Ok(commit)
}

impl Commit {
    /// Appends the commit that stands at the place with checksum seed `initial`.
    pub(crate) fn append_to(&self, out: &mut Vec<u8>, initial: u32) {
        let mut bytes = [0; COMMIT_LEN];
        bytes[4] = COMMIT_KIND;
        write_u64(&mut bytes, 8, self.last_seqno);
        write_u64(&mut bytes, 16, self.durable_seqno);
        write_u48(&mut bytes, 24, self.clock_ms);
        write_u32(&mut bytes, 32, self.count);
        write_u32(&mut bytes, 36, self.group_bytes);
        write_u32(&mut bytes, 40, self.chain_crc);
        write_u32(&mut bytes, 44, self.writer_epoch);
        let crc = crc32_from(initial, &bytes[4..]);
        write_u32(&mut bytes, 0, crc);
        out.extend_from_slice(&bytes);
    }
}

/// Takes one record's header checksum into a commit's chain; §4.3.
pub(crate) fn chain(so_far: u32, header_crc: u32) -> u32 {
    crc32_from(so_far, &header_crc.to_le_bytes())
}

impl Record<'_> {
    /// Verifies the value if it is in the record, block by block if it has a table.
    #[inline]
    pub(crate) fn verify_value(&self) -> Result<(), Damage> {
        self.content.map_or(Ok(()), |content| content.verify())
    }
}

impl Content<'_> {
    /// Verifies all of it.
    #[inline]
    pub(crate) fn verify(&self) -> Result<(), Damage> {
        self.verify_table()?;
        if self.table.is_empty() {
            return Ok(());
        }
        (0..self.value.len().div_ceil(BLOCK_LEN)).try_for_each(|block| self.verify_block(block))
    }

    /// Verifies what a stream needs before its first block: a short value, or the table.
    #[inline]
    pub(crate) fn verify_table(&self) -> Result<(), Damage> {
        let (of, covered) =
            if self.table.is_empty() { ("value", self.value) } else { ("block table", self.table) };
        checksum(of, self.crc, crc32(covered))
    }

    /// Verifies one block of a value that has a table; nothing of one that has none.
    pub(crate) fn verify_block(&self, block: usize) -> Result<(), Damage> {
        if self.table.is_empty() {
            return Ok(());
        }
        let start = block * BLOCK_LEN;
        let bytes = &self.value[start..self.value.len().min(start + BLOCK_LEN)];
        checksum("value block", read_u32(self.table, 4 * block), crc32(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(draft: &Draft<'_>, seqno: u64, initial: u32) -> Vec<u8> {
        let mut out = Vec::new();
        draft.append_to(&mut out);
        place(&mut out, seqno, initial);
        out
    }

    fn put<'a>(key: &'a [u8], metadata: &'a [u8], value: &'a [u8], expires_ms: u64) -> Draft<'a> {
        Draft {
            kind: Kind::Put,
            namespace: 3,
            written_ms: 1_700_000_000_123,
            expires_ms,
            key,
            metadata,
            value,
            value_crc: value_checksum(value),
            extent: None,
        }
    }

    #[test]
    fn records_of_every_shape_come_back_as_they_were_written() {
        let large = vec![7; 3 * BLOCK_LEN + 5];
        for value in [&b""[..], b"v", &large[..BLOCK_LEN], &large[..=BLOCK_LEN], &large] {
            for (metadata, expires) in [(&b""[..], 0), (b"{}", 1_800_000_000_000)] {
                let bytes = encode(&put(b"key", metadata, value, expires), 9, 77);
                assert_eq!(bytes.len() % 8, 0);
                let record = decode_record(&bytes, 77).unwrap();
                let found = record.content.unwrap().value;
                assert_eq!((record.key, record.metadata, found), (&b"key"[..], metadata, value));
                assert_eq!((record.header.seqno, record.header.expires_ms), (9, expires));
                assert_eq!(record.header.record_len(), bytes.len());
                record.verify_value().unwrap();
                assert!(has_key(&bytes, 3, b"key") && !has_key(&bytes, 4, b"key"));
            }
        }
    }

    #[test]
    fn a_record_does_not_pass_at_another_place() {
        let bytes = encode(&put(b"k", b"", b"v", 0), 1, 77);
        assert!(matches!(decode_record(&bytes, 78), Err(Damage::Checksum { .. })));
    }

    #[test]
    fn every_flipped_bit_is_noticed_but_in_the_padding() {
        let large = vec![1; BLOCK_LEN + 1];
        for value in [&b"value"[..], &large] {
            let good = encode(&put(b"key", b"m", value, 1_800_000_000_000), 5, 1);
            let header = decode_record(&good, 1).unwrap().header;
            let value_end = header.value_start() + value.len();
            for byte in
                (0..good.len()).filter(|at| *at < 200 || at % 997 == 0 || at + 40 > good.len())
            {
                let mut bad = good.clone();
                bad[byte] ^= 0x10;
                let sound =
                    decode_record(&bad, 1).is_ok_and(|record| record.verify_value().is_ok());
                let table = table_of(header.value()).contains(&byte);
                assert_eq!(sound, byte >= value_end && !table, "byte {byte}");
            }
        }
    }

    #[test]
    fn a_reference_comes_back_and_no_flipped_bit_of_it_passes() {
        let extent = Extent::new(SegmentId(7), 5 * EXTENT_ALIGN).unwrap();
        for (metadata, expires) in [(&b""[..], 0), (b"{}", 1_800_000_000_000)] {
            let draft =
                Draft { extent: Some((extent, 300_000)), ..put(b"key", metadata, b"", expires) };
            let bytes = encode(&draft, 9, 77);
            assert_eq!((bytes.len(), bytes.len() % 8), (draft.record_len(), 0));
            let record = decode_record(&bytes, 77).unwrap();
            assert_eq!((record.key, record.metadata), (&b"key"[..], metadata));
            assert_eq!((record.header.extent, record.header.value_len), (Some(extent), 300_000));
            assert!(record.content.is_none());
            let used = record.header.value_start() + REFERENCE_LEN;
            for bit in 0..8 * used {
                let mut bad = bytes.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(decode_record(&bad, 77).is_err(), "bit {bit}");
            }
            let mut moved = bytes.clone();
            let other = Extent::new(SegmentId(9), EXTENT_ALIGN).unwrap();
            refer_to(&mut moved, &record.header, other);
            place(&mut moved, 9, 78);
            assert_eq!(decode_record(&moved, 78).unwrap().header.extent, Some(other));
        }
        assert_eq!(Extent::new(SegmentId(7), 4097), None);
        assert_eq!(Extent::new(SegmentId(7), 0), None);
    }

    #[test]
    fn checksums_of_pieces_are_those_of_the_whole() {
        let value: Vec<u8> = (0..3 * BLOCK_LEN + 5).map(|at| (at % 253) as u8).collect();
        for len in [0, 1, BLOCK_LEN - 1, BLOCK_LEN, BLOCK_LEN + 1, 2 * BLOCK_LEN, value.len()] {
            for piece in [1000, BLOCK_LEN, 100_000] {
                let mut sum = ContentSum::default();
                value[..len].chunks(piece).for_each(|piece| sum.update(piece));
                let (table, crc) = sum.finish();
                assert_eq!(crc, value_checksum(&value[..len]), "{len} bytes");
                assert_eq!(table.len(), table_of(0..len).len());
                Content { value: &value[..len], table: &table, crc }.verify().unwrap();
            }
        }
    }

    fn own_commit() -> OwnCommit {
        OwnCommit { chain_before: 0xabcd, durable_seqno: 3, clock_ms: 1_700_000_000_100 }
    }

    #[test]
    fn a_record_that_commits_itself_comes_back_with_its_commit_and_no_flipped_bit_passes() {
        let extent = Extent::new(SegmentId(7), EXTENT_ALIGN).unwrap();
        let references = put(b"key", b"{}", b"", 0);
        let drafts = (0..20).map(|len| put(b"key", b"m", &b"a value of up to 20 bytes"[..len], 0));
        let others = [
            put(b"key", b"{}", b"value", 1_800_000_000_000),
            Draft { extent: Some((extent, 30_000)), ..references },
            Draft { kind: Kind::Delete, value_crc: 0, ..put(b"key", b"", b"", 0) },
        ];
        for draft in drafts.chain(others) {
            let plain = encode(&draft, 9, 77);
            let mut bytes = plain.clone();
            assert!(own_commit().put_into(&mut bytes, 9));
            place(&mut bytes, 9, 77);
            let record = decode_record(&bytes, 77).unwrap();
            record.verify_value().unwrap();
            assert_eq!(OwnCommit::of(&record.header, &bytes), Some(own_commit()));
            assert_eq!((record.header.record_len(), bytes.len() % 8), (bytes.len(), 0));
            assert!(has_key(&bytes, 3, b"key") && may_commit(&bytes) && !may_commit(&plain));
            let used =
                value_start(&bytes) + record.content.map_or(REFERENCE_LEN, |c| c.value.len());
            for bit in 0..8 * used {
                let mut bad = bytes.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                let sound =
                    decode_record(&bad, 77).is_ok_and(|record| record.verify_value().is_ok());
                assert!(!sound, "bit {bit}");
            }
            for cut in 0..used {
                assert!(decode_record(&bytes[..cut], 77).is_err(), "cut at {cut}");
            }
            let mut copy = vec![1; 8];
            let header = copy_without_commit(&record.header, &bytes, &mut copy);
            place(&mut copy[8..], 9, 77);
            assert_eq!(copy[8..], plain, "a copy is the record as if it had never had a commit");
            assert_eq!(header, decode_record(&plain, 77).unwrap().header);
        }
    }

    #[test]
    fn a_commit_that_does_not_fit_into_its_record_stays_outside() {
        let refuses = |commit: OwnCommit, value: &[u8], seqno| {
            let plain = encode(&put(b"key", b"", value, 0), seqno, 0);
            let mut bytes = plain.clone();
            !commit.put_into(&mut bytes, seqno) && bytes == plain
        };
        assert!(!refuses(own_commit(), b"v", 3 + u64::from(u32::MAX)));
        assert!(refuses(own_commit(), b"v", 4 + u64::from(u32::MAX)));
        assert!(refuses(OwnCommit { clock_ms: 0, ..own_commit() }, b"v", 9));
        assert!(refuses(own_commit(), &vec![1; BLOCK_LEN + 1], 9));
    }

    #[test]
    fn a_watermark_behind_the_record_or_before_the_first_one_is_refused() {
        for behind in [0, 10, u32::MAX] {
            let mut bytes = encode(&put(b"key", b"", b"v", 0), 9, 0);
            assert!(own_commit().put_into(&mut bytes, 9));
            write_u32(&mut bytes, HEADER_LEN + 4, behind);
            place(&mut bytes, 9, 0);
            let refused = decode_record(&bytes, 0).unwrap_err();
            assert!(matches!(refused, Damage::Field { field: "durable_behind", .. }), "{behind}");
        }
    }

    #[test]
    fn zeros_are_no_record() {
        assert!(decode(&[0; 4096], 0).is_err());
        assert!(decode(&[], 0).is_err());
    }

    #[test]
    fn a_commit_comes_back_and_no_flipped_bit_of_it_passes() {
        let commit = Commit {
            last_seqno: 12,
            durable_seqno: 9,
            clock_ms: 5,
            count: 3,
            group_bytes: 400,
            chain_crc: 0xabcd,
            writer_epoch: 4,
        };
        let mut bytes = Vec::new();
        commit.append_to(&mut bytes, 99);
        assert!(matches!(decode(&bytes, 99), Ok(Item::Commit(found)) if found == commit));
        for bit in 0..COMMIT_LEN * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad, 99).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_tombstone_with_a_value_is_refused() {
        let mut draft = put(b"k", b"", b"v", 0);
        draft.kind = Kind::Delete;
        let bytes = encode(&draft, 1, 0);
        assert!(matches!(decode_record(&bytes, 0), Err(Damage::Field { field: "value_len", .. })));
    }
}
