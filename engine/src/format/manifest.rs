//! The witness file: which segments there must be, and how the last session ended;
//! `format-spec.md` §6.
//!
//! The manifest says nothing about keys. It exists so that a file that was lost is noticed, instead
//! of reviving what its records had replaced. Entries are appended and synced one by one; the
//! reader folds them into a [`Witness`].

use std::collections::{BTreeMap, BTreeSet};

use super::segment_header::SegmentKind;
use super::{
    Field, Seed, StoreId, VERSION, align8, assert_dense, crc32, crc32_from, field, read_u16,
    read_u32, read_u64, write_u16, write_u32, write_u64,
};
use crate::address::SegmentId;
use crate::error::Damage;

pub(crate) const HEADER_LEN: usize = 64;
pub(crate) const MAGIC: &[u8; 8] = b"kvastMAN";
pub(crate) const ENTRY_HEADER_LEN: usize = 16;
/// No entry is longer than this: 64 Ki inputs of a compaction.
const BODY_MAX: usize = 1 << 20;

/// The manifest's header, row for row as in §6.1.
pub(crate) const HEADER_FIELDS: [Field; 6] = [
    field("magic", 0, 8),
    field("version", 8, 2),
    field("reserved", 10, 6),
    field("store_id", 16, 16),
    field("reserved", 32, 28),
    field("header_crc", 60, 4),
];
const _: () = assert_dense(&HEADER_FIELDS, HEADER_LEN);

/// The head of an entry, row for row as in §6.2.
pub(crate) const ENTRY_FIELDS: [Field; 5] = [
    field("entry_crc", 0, 4),
    field("entry_kind", 4, 1),
    field("reserved", 5, 3),
    field("body_len", 8, 4),
    field("reserved", 12, 4),
];
const _: () = assert_dense(&ENTRY_FIELDS, ENTRY_HEADER_LEN);

/// A sealed segment as the manifest knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) segment: SegmentId,
    pub(crate) kind: SegmentKind,
    pub(crate) file_len: u64,
    /// Where the records end and the footer starts; in a blob, where the extents end.
    pub(crate) records_end: u64,
    /// 0 in blobs, which have none.
    pub(crate) footer_crc: u32,
    /// The last seqno that the log had reached; 0 in others.
    pub(crate) last_seqno: u64,
    /// The latest clock of its commits; 0 in others.
    pub(crate) clock_ms: u64,
}

/// How a session ended that closed its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) last_seqno: u64,
    /// The log that was active, and where its records end; segment 0 if there was none.
    pub(crate) segment: SegmentId,
    pub(crate) end: u64,
    pub(crate) clock_ms: u64,
    /// Of the footer behind the records of that log; 0 if there is none.
    pub(crate) footer_crc: u32,
}

/// One step in the life of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A log or blob file exists and may hold something from now on.
    Opened(SegmentId, SegmentKind),
    /// A log was given its footer, or a blob its length.
    Sealed(Sealed),
    /// A compaction put `outputs` in the place of `inputs`, all at once.
    Replaced { inputs: Vec<SegmentId>, outputs: Vec<Sealed> },
    /// A session begins to write.
    Writing { epoch: u32 },
    /// A session ended with everything durable.
    Closed(Closed),
    /// The first entry of a rewritten manifest: what its predecessors had counted up to.
    Counters { next_segment: u32, epoch: u32, last_seqno: u64, clock_ms: u64 },
}

/// What all entries together say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Witness {
    /// Logs without a footer, in the order of their ids.
    pub(crate) open_logs: BTreeSet<SegmentId>,
    /// Blobs that may still grow.
    pub(crate) open_blobs: BTreeSet<SegmentId>,
    pub(crate) sealed: BTreeMap<SegmentId, Sealed>,
    /// Segments that compaction replaced: files of these ids are leftovers.
    pub(crate) retired: BTreeSet<SegmentId>,
    pub(crate) next_segment: u32,
    pub(crate) epoch: u32,
    /// Every record up to this seqno was in a log that is sealed, and so is durable or was dropped
    /// by compaction.
    pub(crate) last_seqno: u64,
    /// The latest clock of the sealed logs.
    pub(crate) clock_ms: u64,
    /// Set if nothing was written since the store was closed.
    pub(crate) closed: Option<Closed>,
}

impl Witness {
    /// Takes one more entry in.
    pub(crate) fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Opened(segment, kind) => {
                self.count(*segment);
                match kind {
                    SegmentKind::Blob => self.open_blobs.insert(*segment),
                    _ => self.open_logs.insert(*segment),
                };
            }
            Entry::Sealed(sealed) => self.seal(sealed),
            Entry::Replaced { inputs, outputs } => {
                outputs.iter().for_each(|sealed| self.seal(sealed));
                for input in inputs {
                    self.open_logs.remove(input);
                    self.open_blobs.remove(input);
                    self.sealed.remove(input);
                    self.retired.insert(*input);
                }
            }
            Entry::Writing { epoch } => {
                self.epoch = self.epoch.max(*epoch);
                self.closed = None;
            }
            Entry::Closed(closed) => self.closed = Some(*closed),
            Entry::Counters { next_segment, epoch, last_seqno, clock_ms } => {
                self.next_segment = self.next_segment.max(*next_segment);
                self.epoch = self.epoch.max(*epoch);
                self.last_seqno = self.last_seqno.max(*last_seqno);
                self.clock_ms = self.clock_ms.max(*clock_ms);
            }
        }
    }

    fn seal(&mut self, sealed: &Sealed) {
        self.count(sealed.segment);
        self.last_seqno = self.last_seqno.max(sealed.last_seqno);
        self.clock_ms = self.clock_ms.max(sealed.clock_ms);
        self.open_logs.remove(&sealed.segment);
        self.open_blobs.remove(&sealed.segment);
        self.sealed.insert(sealed.segment, *sealed);
    }

    fn count(&mut self, segment: SegmentId) {
        self.next_segment = self.next_segment.max(segment.0 + 1);
    }

    /// The shortest list of entries that says the same, for a rewritten manifest.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let inputs: Vec<_> = self.retired.iter().copied().collect();
        let retired =
            (!inputs.is_empty()).then_some(Entry::Replaced { inputs, outputs: Vec::new() });
        let counters = Entry::Counters {
            next_segment: self.next_segment,
            epoch: self.epoch,
            last_seqno: self.last_seqno,
            clock_ms: self.clock_ms,
        };
        std::iter::once(counters)
            .chain(self.sealed.values().map(|sealed| Entry::Sealed(*sealed)))
            .chain(self.open_logs.iter().map(|id| Entry::Opened(*id, SegmentKind::Log)))
            .chain(self.open_blobs.iter().map(|id| Entry::Opened(*id, SegmentKind::Blob)))
            .chain(retired)
            .chain(self.closed.map(Entry::Closed))
            .collect()
    }
}

pub(crate) fn encode_header(store: &StoreId) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    out[..8].copy_from_slice(MAGIC);
    write_u16(&mut out, 8, VERSION);
    out[16..32].copy_from_slice(store);
    let crc = crc32(&out[..60]);
    write_u32(&mut out, 60, crc);
    out
}

/// What a manifest says, and how much of the file is sound.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) store: StoreId,
    pub(crate) witness: Witness,
    /// Where the next entry goes.
    pub(crate) end: u64,
    /// Bytes after `end` that are an entry which never was finished.
    pub(crate) torn: u64,
}

/// Why a manifest was refused: the place and the reason, or the version that wrote it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Damaged(u64, Damage),
    Unknown(String),
}

pub(crate) fn decode(file: &[u8]) -> Result<Decoded, Refusal> {
    let store = decode_header(file)?;
    let seed = Seed::of_manifest(&store);
    let mut witness = Witness { next_segment: 1, ..Witness::default() };
    let mut at = HEADER_LEN;
    while at < file.len() {
        match decode_entry(&file[at..], seed.at(at as u64)) {
            Ok((entry, len)) => {
                witness.apply(&entry);
                at += len;
            }
            Err(damage) if any_entry_after(file, at, seed) => {
                return Err(Refusal::Damaged(at as u64, damage));
            }
            Err(_) => break,
        }
    }
    Ok(Decoded { store, witness, end: at as u64, torn: (file.len() - at) as u64 })
}

fn decode_header(file: &[u8]) -> Result<StoreId, Refusal> {
    if file.len() < HEADER_LEN {
        let (wanted, found) = (HEADER_LEN as u64, file.len() as u64);
        let damage = Damage::CutShort { what: "manifest header", wanted, found };
        return Err(Refusal::Damaged(0, damage));
    }
    let (stored, computed) = (read_u32(file, 60), crc32(&file[..60]));
    if stored != computed {
        let of = "manifest header";
        return Err(Refusal::Damaged(0, Damage::Checksum { of, stored, computed }));
    }
    if &file[..8] != MAGIC {
        return Err(Refusal::Unknown("it is no kvast manifest".into()));
    }
    let version = read_u16(file, 8);
    if version != VERSION {
        return Err(Refusal::Unknown(format!("format version {version} is not known here")));
    }
    let mut store = [0; 16];
    store.copy_from_slice(&file[16..32]);
    Ok(store)
}

/// An entry that is followed by a sound one was finished, so it cannot be a torn tail.
fn any_entry_after(file: &[u8], at: usize, seed: Seed) -> bool {
    (at + 8..file.len()).step_by(8).any(|at| decode_entry(&file[at..], seed.at(at as u64)).is_ok())
}

fn decode_entry(input: &[u8], initial: u32) -> Result<(Entry, usize), Damage> {
    let cut = |wanted: usize| Damage::CutShort {
        what: "manifest entry",
        wanted: wanted as u64,
        found: input.len() as u64,
    };
    if input.len() < ENTRY_HEADER_LEN {
        return Err(cut(ENTRY_HEADER_LEN));
    }
    let len = read_u32(input, 8) as usize;
    if len > BODY_MAX {
        return Err(Damage::Field { field: "body_len", found: len as u64 });
    }
    let Some(covered) = input.get(4..ENTRY_HEADER_LEN + len) else {
        return Err(cut(ENTRY_HEADER_LEN + len));
    };
    let (stored, computed) = (read_u32(input, 0), crc32_from(initial, covered));
    if stored != computed {
        return Err(Damage::Checksum { of: "manifest entry", stored, computed });
    }
    let body = &covered[ENTRY_HEADER_LEN - 4..];
    let entry = decode_body(input[4], body)
        .ok_or(Damage::Field { field: "entry_kind", found: u64::from(input[4]) })?;
    Ok((entry, align8(ENTRY_HEADER_LEN + len)))
}

const OPENED: u8 = 1;
const SEALED: u8 = 2;
const REPLACED: u8 = 3;
const WRITING: u8 = 4;
const CLOSED: u8 = 5;
const COUNTERS: u8 = 6;
const SEALED_LEN: usize = 48;

fn decode_body(kind: u8, body: &[u8]) -> Option<Entry> {
    match (kind, body.len()) {
        (OPENED, 8) => {
            let kind = SegmentKind::from_byte(body[4]).filter(|kind| *kind != SegmentKind::Run)?;
            Some(Entry::Opened(SegmentId(read_u32(body, 0)), kind))
        }
        (SEALED, SEALED_LEN) => decode_sealed(body).map(Entry::Sealed),
        (REPLACED, 8..) => decode_replaced(body),
        (WRITING, 8) => Some(Entry::Writing { epoch: read_u32(body, 0) }),
        (CLOSED, 32) => Some(Entry::Closed(Closed {
            last_seqno: read_u64(body, 0),
            end: read_u64(body, 8),
            clock_ms: read_u64(body, 16),
            segment: SegmentId(read_u32(body, 24)),
            footer_crc: read_u32(body, 28),
        })),
        (COUNTERS, 24) => Some(Entry::Counters {
            next_segment: read_u32(body, 0),
            epoch: read_u32(body, 4),
            last_seqno: read_u64(body, 8),
            clock_ms: read_u64(body, 16),
        }),
        _ => None,
    }
}

fn decode_sealed(body: &[u8]) -> Option<Sealed> {
    Some(Sealed {
        segment: SegmentId(read_u32(body, 0)),
        kind: SegmentKind::from_byte(body[4])?,
        file_len: read_u64(body, 8),
        records_end: read_u64(body, 16),
        footer_crc: read_u32(body, 24),
        last_seqno: read_u64(body, 32),
        clock_ms: read_u64(body, 40),
    })
}

fn decode_replaced(body: &[u8]) -> Option<Entry> {
    let (inputs, outputs) = (read_u32(body, 0) as usize, read_u32(body, 4) as usize);
    let outputs_start = 8 + align8(inputs.checked_mul(4)?);
    if body.len() != outputs_start.checked_add(outputs.checked_mul(SEALED_LEN)?)? {
        return None;
    }
    let inputs = (0..inputs).map(|i| SegmentId(read_u32(body, 8 + 4 * i))).collect();
    let outputs =
        body[outputs_start..].chunks(SEALED_LEN).map(decode_sealed).collect::<Option<_>>()?;
    Some(Entry::Replaced { inputs, outputs })
}

impl Entry {
    /// Appends the entry that starts at byte `at` of the manifest.
    pub(crate) fn append_to(&self, out: &mut Vec<u8>, at: u64, seed: Seed) {
        let (kind, body) = self.body();
        let begin = out.len();
        out.resize(begin + ENTRY_HEADER_LEN, 0);
        out[begin + 4] = kind;
        write_u32(out, begin + 8, body.len() as u32);
        out.extend_from_slice(&body);
        let crc = crc32_from(seed.at(at), &out[begin + 4..]);
        write_u32(out, begin, crc);
        out.resize(begin + align8(out.len() - begin), 0);
    }

    fn body(&self) -> (u8, Vec<u8>) {
        match self {
            Entry::Opened(segment, kind) => {
                (OPENED, words(&[segment.0, u32::from(kind.to_byte())]))
            }
            Entry::Sealed(sealed) => (SEALED, sealed_body(sealed).to_vec()),
            Entry::Replaced { inputs, outputs } => {
                let mut body = words(&[inputs.len() as u32, outputs.len() as u32]);
                body.extend(inputs.iter().flat_map(|input| input.0.to_le_bytes()));
                body.resize(align8(body.len()), 0);
                outputs.iter().for_each(|sealed| body.extend_from_slice(&sealed_body(sealed)));
                (REPLACED, body)
            }
            Entry::Writing { epoch } => (WRITING, words(&[*epoch, 0])),
            Entry::Closed(closed) => {
                let mut body = vec![0; 32];
                write_u64(&mut body, 0, closed.last_seqno);
                write_u64(&mut body, 8, closed.end);
                write_u64(&mut body, 16, closed.clock_ms);
                write_u32(&mut body, 24, closed.segment.0);
                write_u32(&mut body, 28, closed.footer_crc);
                (CLOSED, body)
            }
            Entry::Counters { next_segment, epoch, last_seqno, clock_ms } => {
                let mut body = words(&[*next_segment, *epoch]);
                body.extend_from_slice(&last_seqno.to_le_bytes());
                body.extend_from_slice(&clock_ms.to_le_bytes());
                (COUNTERS, body)
            }
        }
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn sealed_body(sealed: &Sealed) -> [u8; SEALED_LEN] {
    let mut body = [0; SEALED_LEN];
    write_u32(&mut body, 0, sealed.segment.0);
    body[4] = sealed.kind.to_byte();
    write_u64(&mut body, 8, sealed.file_len);
    write_u64(&mut body, 16, sealed.records_end);
    write_u32(&mut body, 24, sealed.footer_crc);
    write_u64(&mut body, 32, sealed.last_seqno);
    write_u64(&mut body, 40, sealed.clock_ms);
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(segment: u32, kind: SegmentKind) -> Sealed {
        let segment = SegmentId(segment);
        let (last_seqno, clock_ms) = (55, 66);
        let (file_len, records_end, footer_crc) = (9000, 8000, 0xfeed);
        Sealed { segment, kind, file_len, records_end, footer_crc, last_seqno, clock_ms }
    }

    fn life() -> Vec<Entry> {
        let log = |id| sealed(id, SegmentKind::Log);
        vec![
            Entry::Writing { epoch: 3 },
            Entry::Opened(SegmentId(1), SegmentKind::Log),
            Entry::Opened(SegmentId(2), SegmentKind::Log),
            Entry::Opened(SegmentId(4), SegmentKind::Blob),
            Entry::Opened(SegmentId(5), SegmentKind::Blob),
            Entry::Sealed(sealed(4, SegmentKind::Blob)),
            Entry::Sealed(log(1)),
            Entry::Replaced {
                inputs: vec![SegmentId(1)],
                outputs: vec![sealed(3, SegmentKind::Run)],
            },
            Entry::Closed(Closed {
                last_seqno: 9,
                segment: SegmentId(2),
                end: 4444,
                clock_ms: 7,
                footer_crc: 77,
            }),
        ]
    }

    fn file(entries: &[Entry]) -> Vec<u8> {
        let store = [5; 16];
        let mut out = encode_header(&store).to_vec();
        for entry in entries {
            let at = out.len() as u64;
            entry.append_to(&mut out, at, Seed::of_manifest(&store));
        }
        out
    }

    #[test]
    fn a_manifest_tells_which_segments_there_must_be() {
        let decoded = decode(&file(&life())).unwrap();
        let witness = decoded.witness;
        assert_eq!(witness.open_logs.iter().map(|id| id.0).collect::<Vec<_>>(), [2]);
        assert_eq!(witness.open_blobs.iter().map(|id| id.0).collect::<Vec<_>>(), [5]);
        assert_eq!(witness.sealed.keys().map(|id| id.0).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(witness.retired.iter().map(|id| id.0).collect::<Vec<_>>(), [1]);
        assert_eq!((witness.next_segment, witness.epoch, decoded.torn), (6, 3, 0));
        assert_eq!(witness.closed.map(|closed| closed.end), Some(4444));
    }

    #[test]
    fn a_rewritten_manifest_says_the_same() {
        let before = decode(&file(&life())).unwrap().witness;
        let after = decode(&file(&before.entries())).unwrap().witness;
        assert_eq!(after, before);
    }

    #[test]
    fn writing_takes_back_that_the_store_was_closed() {
        let mut entries = life();
        entries.push(Entry::Writing { epoch: 4 });
        assert_eq!(decode(&file(&entries)).unwrap().witness.closed, None);
    }

    #[test]
    fn an_unfinished_last_entry_is_a_torn_tail_and_damage_before_sound_ones_is_not() {
        let whole = file(&life());
        let last = file(&life()[..8]).len();
        for len in last + 1..whole.len() {
            let decoded = decode(&whole[..len]).unwrap();
            assert_eq!((decoded.end, decoded.torn), (last as u64, (len - last) as u64));
        }
        for at in 0..last {
            let mut bad = whole.clone();
            bad[at] ^= 4;
            match decode(&bad) {
                Err(_) => {}
                Ok(decoded) => assert_eq!(decoded.witness, decode(&whole).unwrap().witness),
            }
        }
    }
}
