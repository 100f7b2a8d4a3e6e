//! Walks a log's commit groups in order, for recovery, sealing and verification.
//!
//! A group counts only when its commit is read and fits: the seqnos follow on each other, count,
//! length and chain are right, and each value is sound. The walk stops at the first thing that is
//! not so and says what it was; it never decides whether that is a torn tail or rot, and never
//! skips anything.

use std::collections::BTreeMap;

use super::Body;
use crate::error::{Corruption, Damage};
use crate::format::footer::{TRAILER_LEN, Trailer};
use crate::format::record::{self, COMMIT_LEN, Commit, Item, OwnCommit, Record};
use crate::format::segment_header::RECORDS_START;
use crate::key::{self, common, head_of};

/// One record that was found, whose checksum held. What it says stands in the segment's map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// Where it starts, in units of eight bytes.
    place: u32,
    namespace: u32,
    /// What [`sort`] compares first.
    head: u64,
}

impl Found {
    fn of(record: &Record<'_>, offset: u64) -> Found {
        Found { place: (offset / 8) as u32, namespace: record.header.namespace, head: 0 }
    }

    pub(crate) fn offset(self) -> u64 {
        u64::from(self.place) * 8
    }

    /// The record, whose checksum was verified when it was found.
    pub(crate) fn record(self, body: &Body) -> Result<Record<'_>, Corruption> {
        let offset = self.offset();
        record::decode_again(body.bytes_from(offset))
            .map_err(|damage| body.corruption(offset, damage))
    }

    pub(crate) fn key(self, body: &Body) -> &[u8] {
        record::key_of(body.bytes_from(self.offset()))
    }

    pub(crate) fn composite(self, body: &Body) -> key::Composite {
        key::Composite::new(self.namespace, self.key(body))
    }
}

/// How far a log is sound.
#[derive(Debug)]
pub(crate) struct LogScan {
    /// Records of whole groups, in commit order and in pieces that may be looked at one by one.
    pub(crate) records: Vec<Vec<Found>>,
    /// Where the last whole group ends.
    pub(crate) end: u64,
    /// The seqno of the last whole group, 0 if there is none.
    pub(crate) last_seqno: u64,
    /// The seqno that the log begins with, if it has a whole group.
    pub(crate) first_seqno: Option<u64>,
    /// What the last commit of the log promised to be durable.
    pub(crate) durable_seqno: u64,
    pub(crate) clock_ms: u64,
    pub(crate) chain: u32,
    pub(crate) commits: u64,
    /// What stopped the walk, and where, unless only zeros or the footer follow.
    pub(crate) stop: Option<(u64, Damage)>,
}

/// How carefully to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Values {
    /// Verify each value.
    Verify,
    /// Only the headers: the values are known to have been sound, or are looked at later.
    Trust,
}

/// A piece of a scan has so many records, and those of a group that began in it.
const PIECE_RECORDS: usize = if cfg!(test) { 20 } else { 64 << 10 };

/// Walks the log in `body` up to its published end.
pub(crate) fn scan_log(body: &Body, values: Values) -> LogScan {
    scan_until(body, values, None)
}

/// The same for a log whose record at this place is known to be unsound, by something outside of it.
pub(crate) fn scan_log_until(body: &Body, (at, damage): (u64, Damage)) -> LogScan {
    scan_until(body, Values::Trust, Some((at, damage)))
}

fn scan_until(body: &Body, values: Values, unsound: Option<(u64, Damage)>) -> LogScan {
    let chain = body.seed.base();
    let mut scan = LogScan {
        records: vec![Vec::new()],
        end: RECORDS_START,
        last_seqno: 0,
        first_seqno: None,
        durable_seqno: 0,
        clock_ms: 0,
        chain,
        commits: 0,
        stop: None,
    };
    loop {
        if scan.last_piece().len() >= PIECE_RECORDS {
            scan.records.push(Vec::with_capacity(PIECE_RECORDS));
        }
        let whole = scan.last_piece().len();
        match scan_group(body, &mut scan, values, unsound.as_ref()) {
            Ok(()) => {}
            Err(mut stop) => {
                scan.last_piece().truncate(whole);
                if values == Values::Trust {
                    // A value before that place may be what is damaged first.
                    stop = scan_group(body, &mut scan, Values::Verify, unsound.as_ref())
                        .err()
                        .unwrap_or(stop);
                    scan.last_piece().truncate(whole);
                }
                let (offset, damage) = stop;
                scan.stop = (!ends_cleanly(body, scan.end)).then_some((offset, damage));
                return scan;
            }
        }
    }
}

/// Takes one group in, or says where it breaks.
fn scan_group(
    body: &Body,
    scan: &mut LogScan,
    values: Values,
    unsound: Option<&(u64, Damage)>,
) -> Result<(), (u64, Damage)> {
    let start = scan.end;
    let (mut at, mut chain) = (start, scan.chain);
    let mut first = scan.first_seqno.map(|_| scan.last_seqno + 1);
    let mut count = 0;
    loop {
        let item = body.item(at).map_err(|damage| (at, damage))?;
        let next = count + *first.get_or_insert_with(|| begins_with(&item));
        match item {
            Item::Record(record) => {
                if record.header.seqno != next {
                    let found = record.header.seqno;
                    return Err((at, Damage::Gap { expected: next, found }));
                }
                if let Some((_, damage)) = unsound.filter(|(place, _)| *place == at) {
                    return Err((at, damage.clone()));
                }
                if values == Values::Verify {
                    record.verify_value().map_err(|damage| (at, damage))?;
                }
                let bytes = body.bytes_from(at);
                let own = OwnCommit::of(&record.header, bytes);
                if let Some(own) = &own {
                    check_own_commit(own, count, chain).map_err(|damage| (at, damage))?;
                }
                chain = record::chain(chain, crate::format::read_u32(bytes, 0));
                scan.last_piece().push(Found::of(&record, at));
                count += 1;
                at += item.len() as u64;
                if let Some(own) = own {
                    scan.first_seqno = scan.first_seqno.or(Some(next));
                    scan.accept(at, next, own.durable_seqno, own.clock_ms, chain);
                    return Ok(());
                }
            }
            Item::Commit(commit) => {
                check_commit(&commit, count, at - start, next - 1, chain)
                    .map_err(|damage| (at, damage))?;
                scan.first_seqno = scan.first_seqno.or(Some(next - count));
                let Commit { last_seqno, durable_seqno, clock_ms, .. } = commit;
                let end = at + COMMIT_LEN as u64;
                scan.accept(end, last_seqno, durable_seqno, clock_ms, chain);
                return Ok(());
            }
        }
    }
}

/// The first seqno of a log that begins with `item`: an empty group has none of its own.
fn begins_with(item: &Item<'_>) -> u64 {
    match item {
        Item::Record(record) => record.header.seqno,
        Item::Commit(commit) => commit.last_seqno.saturating_add(1),
    }
}

fn check_commit(
    commit: &Commit,
    count: u64,
    bytes: u64,
    last: u64,
    chain: u32,
) -> Result<(), Damage> {
    if u64::from(commit.count) != count {
        return Err(Damage::Field { field: "count", found: u64::from(commit.count) });
    }
    if u64::from(commit.group_bytes) != bytes {
        return Err(Damage::Field { field: "group_bytes", found: u64::from(commit.group_bytes) });
    }
    if commit.last_seqno != last {
        return Err(Damage::Gap { expected: last, found: commit.last_seqno });
    }
    check_chain(commit.chain_crc, chain)
}

/// `before` records of its group stand before it, which there must not be.
fn check_own_commit(commit: &OwnCommit, before: u64, chain: u32) -> Result<(), Damage> {
    if before != 0 {
        return Err(Damage::Field { field: "count", found: before + 1 });
    }
    check_chain(commit.chain_before, chain)
}

fn check_chain(stored: u32, computed: u32) -> Result<(), Damage> {
    if stored != computed {
        return Err(Damage::Checksum { of: "commit chain", stored, computed });
    }
    Ok(())
}

impl LogScan {
    fn last_piece(&mut self) -> &mut Vec<Found> {
        let last = self.records.len() - 1;
        &mut self.records[last]
    }

    /// Where the first record starts whose seqno is higher; the end if there is none.
    pub(crate) fn start_after(&self, seqno: u64) -> u64 {
        // The seqnos of a log follow on each other.
        let nth = (seqno + 1).saturating_sub(self.first_seqno.unwrap_or(0)) as usize;
        self.records.iter().flatten().nth(nth).map_or(self.end, |found| found.offset())
    }

    fn accept(&mut self, end: u64, last_seqno: u64, durable_seqno: u64, clock_ms: u64, chain: u32) {
        self.end = end;
        self.last_seqno = last_seqno;
        self.durable_seqno = self.durable_seqno.max(durable_seqno);
        self.clock_ms = self.clock_ms.max(clock_ms);
        self.chain = chain;
        self.commits += 1;
    }
}

/// Whether nothing follows `end` but zeros, or the footer of a seal that was not finished.
fn ends_cleanly(body: &Body, end: u64) -> bool {
    let rest = body.bytes_from(end);
    // A page at a time, without a branch for each byte: a copied log can have 100 MiB of zeros.
    if rest.chunks(4096).all(|page| page.iter().fold(0, |seen, byte| seen | byte) == 0) {
        return true;
    }
    Trailer::is_present(body.map.bytes())
        && Trailer::decode(body.map.bytes(), body.seed)
            .is_ok_and(|trailer| trailer.footer_offset == end && rest.len() > TRAILER_LEN)
}

/// The highest durable watermark in any sound commit from `from` on, wherever it stands: the proof
/// that what lies before was promised. The value behind a commit in a record may be damaged: the
/// commit is covered by the header's checksum.
pub(crate) fn watermark_after(body: &Body, from: u64) -> u64 {
    let bytes = body.map.bytes();
    let start = (from as usize).next_multiple_of(8);
    (start..bytes.len())
        .step_by(8)
        .filter(|at| record::may_commit(&bytes[*at..]))
        .filter_map(|at| match body.item(at as u64) {
            Ok(Item::Commit(commit)) => Some(commit.durable_seqno),
            Ok(Item::Record(record)) => {
                OwnCommit::of(&record.header, &bytes[at..]).map(|own| own.durable_seqno)
            }
            Err(_) => None,
        })
        .max()
        .unwrap_or(0)
}

/// Reads every record of a sealed segment, up to `end` and in the order of the file. It needs no
/// footer, so it is the way to go on when that is damaged.
pub(crate) fn scan_sealed(body: &Body, end: u64) -> Result<Vec<Found>, (u64, Damage)> {
    let mut records = Vec::new();
    let mut at = RECORDS_START;
    while at < end {
        let item = body.item(at).map_err(|damage| (at, damage))?;
        if let Item::Record(record) = &item {
            records.push(Found::of(record, at));
        }
        at += item.len() as u64;
    }
    Ok(records)
}

/// Puts records into the order of a footer: by key, the newest of one key first.
pub(crate) fn sort(records: &mut [Found], body: &Body) {
    // Eight bytes of each key, beside each other: going to the records for each comparison would
    // miss the cache each time.
    note_heads(records, body);
    let seqno = |found: &Found| found.record(body).map_or(0, |record| record.header.seqno);
    records.sort_unstable_by(|a, b| {
        (a.namespace, a.head)
            .cmp(&(b.namespace, b.head))
            .then_with(|| a.key(body).cmp(b.key(body)).then_with(|| seqno(b).cmp(&seqno(a))))
    });
}

/// Notes for each record the eight bytes of its key that follow what all keys of its namespace begin
/// with.
fn note_heads(records: &mut [Found], body: &Body) {
    let mut shared: BTreeMap<u32, &[u8]> = BTreeMap::new();
    let (mut namespace, mut prefix, mut settled) = (0, &[][..], 0);
    for (nth, found) in records.iter_mut().enumerate() {
        let key = found.key(body);
        if found.namespace != namespace {
            shared.insert(namespace, prefix);
            namespace = found.namespace;
            prefix = shared.get(&namespace).copied().unwrap_or(key);
        }
        if !key.starts_with(prefix) {
            prefix = &prefix[..common(prefix, key)];
            settled = nth;
        }
        found.head = head_of(&key[prefix.len()..]);
    }
    shared.insert(namespace, prefix);
    // Those before the last that shortened a prefix may have been noted with a longer one.
    for found in &mut records[..settled] {
        let prefix = shared.get(&found.namespace).map_or(0, |prefix| prefix.len());
        found.head = head_of(&found.key(body)[prefix..]);
    }
}
