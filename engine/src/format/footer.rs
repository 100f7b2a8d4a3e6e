//! The sorted, complete list of a segment's records, and the trailer that finds it;
//! `format-spec.md` §5.
//!
//! The footer is the hint file, the tombstone oracle and the on-disk index in one: it names every
//! physical record, dead ones and tombstones too, ordered by key and then from the newest to the
//! oldest. Keys here are composite: the namespace as four big-endian bytes, then the key.

use super::record::{Extent, Header, Kind};
use super::varint;
use super::{
    Field, Seed, align8, assert_dense, crc32_from, field, read_u32, read_u64, write_u32, write_u64,
};
use crate::address::SegmentId;
use crate::error::Damage;

/// Blocks are closed once they hold this many bytes.
pub(crate) const BLOCK_TARGET: usize = 16 * 1024;
pub(crate) const BLOCK_HEADER_LEN: usize = 16;
pub(crate) const TRAILER_LEN: usize = 96;
pub(crate) const TRAILER_MAGIC: &[u8; 8] = b"kvastEND";

/// The header of a footer block, row for row as in §5.1.
pub(crate) const BLOCK_FIELDS: [Field; 4] = [
    field("block_crc", 0, 4),
    field("payload_len", 4, 4),
    field("entry_count", 8, 4),
    field("reserved", 12, 4),
];
const _: () = assert_dense(&BLOCK_FIELDS, BLOCK_HEADER_LEN);

/// The trailer, row for row as in §5.3.
pub(crate) const TRAILER_FIELDS: [Field; 16] = [
    field("footer_offset", 0, 8),
    field("fence_offset", 8, 8),
    field("record_count", 16, 8),
    field("min_seqno", 24, 8),
    field("max_seqno", 32, 8),
    field("max_expires_ms", 40, 8),
    field("clock_ms", 48, 8),
    field("segment_id", 56, 4),
    field("block_count", 60, 4),
    field("tombstone_count", 64, 4),
    field("reserved", 68, 4),
    field("footer_crc", 72, 4),
    field("chain_crc", 76, 4),
    field("trailer_crc", 80, 4),
    field("reserved", 84, 4),
    field("magic", 88, 8),
];
const _: () = assert_dense(&TRAILER_FIELDS, TRAILER_LEN);

/// What the footer says of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) seqno: u64,
    pub(crate) offset: u64,
    pub(crate) expires_ms: u64,
    pub(crate) metadata_len: u16,
    pub(crate) value_len: u32,
    /// Where the value lies, if it is not in the record.
    pub(crate) extent: Option<Extent>,
    /// The record has its commit inside.
    pub(crate) commits_itself: bool,
}

impl Entry {
    pub(crate) fn of(header: &Header, offset: u64) -> Entry {
        Entry {
            kind: header.kind,
            seqno: header.seqno,
            offset,
            expires_ms: header.expires_ms,
            metadata_len: header.metadata_len,
            value_len: header.value_len,
            extent: header.extent,
            commits_itself: header.commits_itself,
        }
    }

    /// The record's whole length, padding included. `composite_len` counts the namespace.
    pub(crate) fn record_len(&self, composite_len: usize) -> u64 {
        let header = Header {
            kind: self.kind,
            seqno: self.seqno,
            written_ms: 0,
            namespace: 0,
            expires_ms: self.expires_ms,
            key_len: (composite_len - 4) as u16,
            metadata_len: self.metadata_len,
            value_len: self.value_len,
            value_crc: 0,
            extent: self.extent,
            commits_itself: self.commits_itself,
        };
        header.record_len() as u64
    }
}

const TAG_EXPIRES: u8 = 1 << 3;
const TAG_METADATA: u8 = 1 << 4;
const TAG_REFERENCE: u8 = 1 << 5;
const TAG_COMMITS: u8 = 1 << 6;

/// What a footer's last 96 bytes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) segment: SegmentId,
    /// Where the records end and the footer starts.
    pub(crate) footer_offset: u64,
    pub(crate) fence_offset: u64,
    pub(crate) record_count: u64,
    pub(crate) min_seqno: u64,
    pub(crate) max_seqno: u64,
    /// The latest expiry of a put; `u64::MAX` if one never expires, 0 without puts.
    pub(crate) max_expires_ms: u64,
    /// The latest clock of the commits.
    pub(crate) clock_ms: u64,
    pub(crate) block_count: u32,
    pub(crate) tombstone_count: u32,
    pub(crate) footer_crc: u32,
    /// The last commit's chain; 0 in runs.
    pub(crate) chain_crc: u32,
}

impl Trailer {
    fn encode(&self, initial: u32) -> [u8; TRAILER_LEN] {
        let mut out = [0; TRAILER_LEN];
        write_u64(&mut out, 0, self.footer_offset);
        write_u64(&mut out, 8, self.fence_offset);
        write_u64(&mut out, 16, self.record_count);
        write_u64(&mut out, 24, self.min_seqno);
        write_u64(&mut out, 32, self.max_seqno);
        write_u64(&mut out, 40, self.max_expires_ms);
        write_u64(&mut out, 48, self.clock_ms);
        write_u32(&mut out, 56, self.segment.0);
        write_u32(&mut out, 60, self.block_count);
        write_u32(&mut out, 64, self.tombstone_count);
        write_u32(&mut out, 72, self.footer_crc);
        write_u32(&mut out, 76, self.chain_crc);
        let crc = crc32_from(initial, &out[..80]);
        write_u32(&mut out, 80, crc);
        out[88..].copy_from_slice(TRAILER_MAGIC);
        out
    }

    /// Whether `file` ends like a sealed segment. Says nothing about its soundness.
    pub(crate) fn is_present(file: &[u8]) -> bool {
        file.ends_with(TRAILER_MAGIC)
    }

    /// Decodes the trailer at the end of the whole file `file`.
    pub(crate) fn decode(file: &[u8], seed: Seed) -> Result<Trailer, Damage> {
        let Some(start) = file.len().checked_sub(TRAILER_LEN) else {
            let (wanted, found) = (TRAILER_LEN as u64, file.len() as u64);
            return Err(Damage::CutShort { what: "trailer", wanted, found });
        };
        let bytes = &file[start..];
        let (stored, computed) = (read_u32(bytes, 80), crc32_from(seed.base(), &bytes[..80]));
        if stored != computed {
            return Err(Damage::Checksum { of: "trailer", stored, computed });
        }
        if !bytes.ends_with(TRAILER_MAGIC) {
            return Err(Damage::Field { field: "magic", found: read_u64(bytes, 88) });
        }
        let trailer = Trailer {
            segment: SegmentId(read_u32(bytes, 56)),
            footer_offset: read_u64(bytes, 0),
            fence_offset: read_u64(bytes, 8),
            record_count: read_u64(bytes, 16),
            min_seqno: read_u64(bytes, 24),
            max_seqno: read_u64(bytes, 32),
            max_expires_ms: read_u64(bytes, 40),
            clock_ms: read_u64(bytes, 48),
            block_count: read_u32(bytes, 60),
            tombstone_count: read_u32(bytes, 64),
            footer_crc: read_u32(bytes, 72),
            chain_crc: read_u32(bytes, 76),
        };
        let start = start as u64;
        if !trailer.footer_offset.is_multiple_of(8) || trailer.footer_offset > trailer.fence_offset
        {
            return Err(Damage::Field { field: "footer_offset", found: trailer.footer_offset });
        }
        if !trailer.fence_offset.is_multiple_of(8) || trailer.fence_offset > start {
            return Err(Damage::Field { field: "fence_offset", found: trailer.fence_offset });
        }
        Ok(trailer)
    }
}

/// Builds a footer from entries in order.
pub(crate) struct Builder {
    seed: Seed,
    start: u64,
    out: Vec<u8>,
    block: Block,
    fences: Block,
    last_key: Vec<u8>,
    trailer: Trailer,
}

/// A block under construction: its payload and the number of its entries.
#[derive(Default)]
struct Block {
    payload: Vec<u8>,
    entries: u32,
}

impl Builder {
    /// A footer that will start at byte `start` of the segment.
    pub(crate) fn new(segment: SegmentId, seed: Seed, start: u64) -> Builder {
        let trailer = Trailer {
            segment,
            footer_offset: start,
            fence_offset: 0,
            record_count: 0,
            min_seqno: u64::MAX,
            max_seqno: 0,
            max_expires_ms: 0,
            clock_ms: 0,
            block_count: 0,
            tombstone_count: 0,
            footer_crc: seed.base(),
            chain_crc: 0,
        };
        Builder {
            seed,
            start,
            out: Vec::new(),
            block: Block::default(),
            fences: Block::default(),
            last_key: Vec::new(),
            trailer,
        }
    }

    /// Adds an entry; keys ascend, and of one key the newest comes first.
    pub(crate) fn push(&mut self, key: &[u8], entry: &Entry) {
        debug_assert!(self.last_key.as_slice() <= key || self.trailer.record_count == 0);
        if self.block.payload.len() >= BLOCK_TARGET {
            self.close_block();
        }
        if self.block.entries == 0 {
            self.last_key.clear();
            let at = self.start + self.out.len() as u64;
            varint::put(&mut self.fences.payload, key.len() as u64);
            self.fences.payload.extend_from_slice(key);
            varint::put(&mut self.fences.payload, at / 8);
            self.fences.entries += 1;
        }
        push_key(&mut self.block.payload, &self.last_key, key);
        push_entry(&mut self.block.payload, entry);
        self.block.entries += 1;
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        self.count(entry);
    }

    fn count(&mut self, entry: &Entry) {
        let trailer = &mut self.trailer;
        trailer.record_count += 1;
        trailer.min_seqno = trailer.min_seqno.min(entry.seqno);
        trailer.max_seqno = trailer.max_seqno.max(entry.seqno);
        if entry.kind == Kind::Put {
            let expires = if entry.expires_ms == 0 { u64::MAX } else { entry.expires_ms };
            trailer.max_expires_ms = trailer.max_expires_ms.max(expires);
        } else {
            trailer.tombstone_count += 1;
        }
    }

    fn close_block(&mut self) {
        let block = std::mem::take(&mut self.block);
        self.trailer.block_count += 1;
        self.append(&block);
    }

    fn append(&mut self, block: &Block) {
        let at = self.start + self.out.len() as u64;
        let begin = self.out.len();
        self.out.resize(begin + BLOCK_HEADER_LEN, 0);
        write_u32(&mut self.out, begin + 4, block.payload.len() as u32);
        write_u32(&mut self.out, begin + 8, block.entries);
        self.out.extend_from_slice(&block.payload);
        let crc = crc32_from(self.seed.at(at), &self.out[begin + 4..]);
        write_u32(&mut self.out, begin, crc);
        self.trailer.footer_crc = crc32_from(self.trailer.footer_crc, &crc.to_le_bytes());
        self.out.resize(align8(self.out.len()), 0);
    }

    /// The footer's bytes, fences and trailer included, and what the trailer says.
    pub(crate) fn finish(mut self, clock_ms: u64, chain_crc: u32) -> (Vec<u8>, Trailer) {
        if self.block.entries > 0 {
            self.close_block();
        }
        self.trailer.fence_offset = self.start + self.out.len() as u64;
        self.trailer.clock_ms = clock_ms;
        self.trailer.chain_crc = chain_crc;
        if self.trailer.record_count == 0 {
            self.trailer.min_seqno = 0;
        }
        let fences = std::mem::take(&mut self.fences);
        self.append(&fences);
        let trailer = self.trailer.encode(self.seed.base());
        self.out.extend_from_slice(&trailer);
        (self.out, self.trailer)
    }
}

/// A key without what it begins and ends with like the one before.
fn push_key(out: &mut Vec<u8>, last: &[u8], key: &[u8]) {
    let start = last.iter().zip(key).take_while(|(a, b)| a == b).count();
    let (last, rest) = (&last[start..], &key[start..]);
    let end = last.iter().rev().zip(rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let middle = &rest[..rest.len() - end];
    varint::put(out, start as u64);
    varint::put(out, end as u64);
    varint::put(out, middle.len() as u64);
    out.extend_from_slice(middle);
}

/// Makes the key before into the next one.
fn take_key(input: &mut &[u8], key: &mut Vec<u8>) -> Option<()> {
    let mut len = || usize::try_from(varint::take(input)?).ok();
    let (start, end, middle_len) = (len()?, len()?, len()?);
    let end = key.len().checked_sub(end).filter(|end| start <= *end)?;
    let (middle, rest) = input.split_at_checked(middle_len)?;
    *input = rest;
    if middle_len == end - start {
        key[start..end].copy_from_slice(middle);
    } else {
        key.splice(start..end, middle.iter().copied());
    }
    Some(())
}

fn push_entry(out: &mut Vec<u8>, entry: &Entry) {
    let tag = entry.kind as u8
        | if entry.expires_ms == 0 { 0 } else { TAG_EXPIRES }
        | if entry.metadata_len == 0 { 0 } else { TAG_METADATA }
        | if entry.extent.is_none() { 0 } else { TAG_REFERENCE }
        | if entry.commits_itself { TAG_COMMITS } else { 0 };
    out.push(tag);
    varint::put(out, entry.seqno);
    varint::put(out, entry.offset / 8);
    varint::put(out, u64::from(entry.value_len));
    if entry.expires_ms != 0 {
        varint::put(out, entry.expires_ms);
    }
    if entry.metadata_len != 0 {
        varint::put(out, u64::from(entry.metadata_len));
    }
    if let Some(extent) = entry.extent {
        varint::put(out, u64::from(extent.segment().get()));
        varint::put(out, u64::from(extent.page()));
    }
}

/// Decodes the entries of one block, whose checksum holds.
pub(crate) struct BlockReader<'a> {
    payload: &'a [u8],
    left: u32,
    /// The key of the entry that [`Self::next`] returned last.
    pub(crate) key: Vec<u8>,
}

impl BlockReader<'_> {
    /// The next entry, `None` after the last.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, Damage> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let entry = take_entry(&mut self.payload, &mut self.key)
            .ok_or(Damage::Field { field: "entry", found: u64::from(self.left) })?;
        Ok(Some(entry))
    }
}

fn take_entry(input: &mut &[u8], key: &mut Vec<u8>) -> Option<Entry> {
    take_key(input, key)?;
    let (&tag, rest) = input.split_first()?;
    *input = rest;
    let kind = Kind::from_byte(tag & 7)?;
    let seqno = varint::take(input)?;
    let offset = varint::take(input)?.checked_mul(8)?;
    let value_len = u32::try_from(varint::take(input)?).ok()?;
    let expires_ms = if tag & TAG_EXPIRES == 0 { 0 } else { varint::take(input)? };
    let metadata_len =
        if tag & TAG_METADATA == 0 { 0 } else { u16::try_from(varint::take(input)?).ok()? };
    let extent = if tag & TAG_REFERENCE == 0 { None } else { Some(take_extent(input)?) };
    let commits_itself = tag & TAG_COMMITS != 0;
    let entry =
        Entry { kind, seqno, offset, expires_ms, metadata_len, value_len, extent, commits_itself };
    (key.len() >= 4).then_some(entry)
}

fn take_extent(input: &mut &[u8]) -> Option<Extent> {
    let segment = u32::try_from(varint::take(input)?).ok()?;
    Extent::from_fields(segment, u32::try_from(varint::take(input)?).ok()?)
}

/// The first key of each block and where the block starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fence {
    pub(crate) first_key: Box<[u8]>,
    pub(crate) offset: u64,
}

/// Decodes the block that starts at byte `offset` of the whole file `file`; its payload is checked.
/// Returns the reader and the block's checksum.
pub(crate) fn open_block(
    file: &[u8],
    offset: u64,
    seed: Seed,
) -> Result<(BlockReader<'_>, u32), Damage> {
    let cut = |found: usize| Damage::CutShort {
        what: "footer block",
        wanted: BLOCK_HEADER_LEN as u64,
        found: found as u64,
    };
    let input = usize::try_from(offset).ok().and_then(|at| file.get(at..)).ok_or(cut(0))?;
    if input.len() < BLOCK_HEADER_LEN {
        return Err(cut(input.len()));
    }
    let len = read_u32(input, 4) as usize;
    let Some(covered) = input.get(4..BLOCK_HEADER_LEN + len) else {
        let found = input.len() as u64;
        return Err(Damage::CutShort { what: "footer block", wanted: len as u64, found });
    };
    let (stored, computed) = (read_u32(input, 0), crc32_from(seed.at(offset), covered));
    if stored != computed {
        return Err(Damage::Checksum { of: "footer block", stored, computed });
    }
    let payload = &covered[BLOCK_HEADER_LEN - 4..];
    Ok((BlockReader { payload, left: read_u32(input, 8), key: Vec::new() }, stored))
}

/// Decodes the fences, and with them proves that the footer is whole: the checksums of all blocks
/// together are the trailer's.
pub(crate) fn read_fences(
    file: &[u8],
    trailer: &Trailer,
    seed: Seed,
) -> Result<Vec<Fence>, (u64, Damage)> {
    let at = trailer.fence_offset;
    let (reader, fence_crc) = open_block(file, at, seed).map_err(|damage| (at, damage))?;
    let mut input = reader.payload;
    let mut fences = Vec::with_capacity(reader.left as usize % 0x10_0000);
    for _ in 0..reader.left {
        let fence = take_fence(&mut input)
            .ok_or((at, Damage::Field { field: "fence", found: fences.len() as u64 }))?;
        fences.push(fence);
    }
    if fences.len() as u64 != u64::from(trailer.block_count) {
        let found = fences.len() as u64;
        return Err((at, Damage::Field { field: "block_count", found }));
    }
    let mut crc = seed.base();
    for fence in &fences {
        let stored = file
            .get(fence.offset as usize..fence.offset as usize + 4)
            .map(|bytes| read_u32(bytes, 0))
            .ok_or((at, Damage::Field { field: "fence", found: fence.offset }))?;
        crc = crc32_from(crc, &stored.to_le_bytes());
    }
    crc = crc32_from(crc, &fence_crc.to_le_bytes());
    if crc == trailer.footer_crc {
        return Ok(fences);
    }
    let (stored, computed) = (trailer.footer_crc, crc);
    Err((at, Damage::Checksum { of: "footer", stored, computed }))
}

fn take_fence(input: &mut &[u8]) -> Option<Fence> {
    let len = usize::try_from(varint::take(input)?).ok()?;
    if len > input.len() {
        return None;
    }
    let (key, rest) = input.split_at(len);
    *input = rest;
    let offset = varint::take(input)?.checked_mul(8)?;
    Some(Fence { first_key: key.into(), offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 4096;

    fn entry(seqno: u64) -> Entry {
        let (expires_ms, metadata_len) =
            if seqno.is_multiple_of(3) { (seqno * 1000, 7) } else { (0, 0) };
        let (kind, value_len) =
            if seqno.is_multiple_of(5) { (Kind::Delete, 0) } else { (Kind::Put, 9) };
        let is_reference = kind == Kind::Put && seqno.is_multiple_of(4);
        let place = || Extent::new(SegmentId(seqno as u32), 4096 * (1 + seqno % 900));
        let extent = if is_reference { place() } else { None };
        let offset = START + 8 * seqno;
        let commits_itself = seqno.is_multiple_of(7);
        Entry { kind, seqno, offset, expires_ms, metadata_len, value_len, extent, commits_itself }
    }

    fn key(number: u64) -> Vec<u8> {
        [&1u32.to_be_bytes()[..], format!("user:{number:06}:profile").as_bytes()].concat()
    }

    #[test]
    fn keys_of_every_shape_come_back() {
        let keys: [&[u8]; 9] = [
            b"aaaa",
            b"aaaaaa",
            b"aaaab",
            b"aaaabaaaab",
            b"aaaabb",
            b"user:1:profile",
            b"user:10:profile",
            b"user:2:profile",
            b"user:2:profiles",
        ];
        let (mut out, mut last) = (Vec::new(), &[][..]);
        for key in keys {
            push_key(&mut out, last, key);
            last = key;
        }
        let (mut input, mut found) = (&out[..], Vec::new());
        for key in keys {
            take_key(&mut input, &mut found).unwrap();
            assert_eq!(found, key);
        }
        assert!(input.is_empty());
        // What is shared cannot be more than there was.
        assert!(take_key(&mut &[2, 2, 0][..], &mut b"abc".to_vec()).is_none());
        assert!(take_key(&mut &[0, 4, 0][..], &mut b"abc".to_vec()).is_none());
        assert!(take_key(&mut &[0, 0, 1][..], &mut b"abc".to_vec()).is_none());
    }

    /// A whole file: zeros where the records would be, then the footer of `count` entries.
    fn file(count: u64) -> (Vec<u8>, Trailer, Seed) {
        let seed = Seed::of_segment(&[3; 16], 8);
        let mut builder = Builder::new(SegmentId(8), seed, START);
        for number in 1..=count {
            builder.push(&key(number), &entry(number));
        }
        let (footer, trailer) = builder.finish(55, 66);
        ([vec![0; START as usize], footer].concat(), trailer, seed)
    }

    #[test]
    fn a_footer_comes_back_entry_by_entry() {
        for count in [0, 1, 5000] {
            let (file, trailer, seed) = file(count);
            assert_eq!(Trailer::decode(&file, seed), Ok(trailer.clone()));
            let fences = read_fences(&file, &trailer, seed).unwrap();
            assert_eq!(count > 1000, fences.len() > 1);
            let mut number = 0;
            for fence in fences {
                let (mut block, _) = open_block(&file, fence.offset, seed).unwrap();
                while let Some(found) = block.next().unwrap() {
                    number += 1;
                    assert_eq!((found, &block.key), (entry(number), &key(number)));
                }
            }
            assert_eq!(number, count);
            assert_eq!(trailer.record_count, count);
        }
    }

    #[test]
    fn every_flipped_byte_of_a_footer_is_noticed_but_in_the_padding() {
        let (good, _, seed) = file(900);
        let read = |file: &[u8]| -> Result<u64, ()> {
            let trailer = Trailer::decode(file, seed).map_err(drop)?;
            let mut entries = 0;
            for fence in read_fences(file, &trailer, seed).map_err(drop)? {
                let (mut block, _) = open_block(file, fence.offset, seed).map_err(drop)?;
                while block.next().map_err(drop)?.is_some() {
                    entries += 1;
                }
            }
            Ok(entries)
        };
        for at in START as usize..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            // Padding, and the trailer's reserved tail, may hold anything.
            assert!(matches!(read(&bad), Err(()) | Ok(900)), "byte {at}");
        }
    }

    #[test]
    fn every_cut_of_a_sealed_file_is_noticed() {
        let (good, _, seed) = file(40);
        for len in 0..good.len() {
            assert!(Trailer::decode(&good[..len], seed).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn an_entry_knows_the_length_of_its_record() {
        use super::super::record::{Draft, value_checksum};
        let inline = Draft {
            kind: Kind::Put,
            namespace: 1,
            written_ms: 1,
            expires_ms: 5,
            key: b"abc",
            metadata: b"{}",
            value: b"0123456789",
            value_crc: value_checksum(b"0123456789"),
            extent: None,
        };
        let extent = Extent::new(SegmentId(3), 8192);
        let reference = Draft { value: b"", extent: extent.map(|at| (at, 70_000)), ..inline };
        for (draft, value_len) in [(inline, 10), (reference, 70_000)] {
            let entry = Entry {
                kind: Kind::Put,
                seqno: 1,
                offset: 4096,
                expires_ms: 5,
                metadata_len: 2,
                value_len,
                extent: draft.extent.map(|(extent, _)| extent),
                commits_itself: false,
            };
            assert_eq!(entry.record_len(4 + 3), draft.record_len() as u64);
        }
    }
}
