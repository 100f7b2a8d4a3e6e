//! From sorted lists of records to the index, a range of the keys on each thread.
//!
//! ```text
//!   footers, logs ──cut at the same keys──> ranges ──merge each──> parts ──> index
//! ```
//!
//! What always holds: all records of a key are in one range, and a range knows the tombstones for
//! prefixes that began before it; so a range decides as a merge of everything would. What is found does
//! not depend on where the cuts are, nor on which thread is faster: parts are taken in the order of
//! their keys, and so is the first error. A store with few records is one range, and needs no thread.

use crate::address::Address;
use crate::error::{Corruption, Error};
use crate::format::footer::Entry;
use crate::format::record::Kind;
use crate::index::{BulkPart, Traits};
use crate::key;
use crate::keyspace::Keyspace;
use crate::merge::{Covers, Merge, Source};
use crate::segment::Segment;
use crate::segment::bins::{Binned, Cuts};
use crate::segment::scan::Found;
use crate::segment::sealed::Footer;
use crate::workers;

/// A range has no fewer records than this: what a thread does in the time that it takes to start a few.
const RANGE_RECORDS: u64 = if cfg!(test) { 10 } else { 16 << 10 };
/// So that a thread which is held up does not hold up the others for long.
const RANGES_PER_THREAD: u64 = 4;
/// One in so many records of a scan shows where the keys are; about one in so many of a footer's has a
/// fence.
const SAMPLED: usize = if cfg!(test) { 3 } else { 800 };

/// The records of one segment, in order.
pub(super) struct Input<'a> {
    pub(super) segment: &'a Segment,
    pub(super) list: List<'a>,
}

pub(super) enum List<'a> {
    Footer(&'a Footer),
    Log(&'a Binned, &'a Cuts),
    /// In the order of `scan::sort`.
    Scan(&'a [Found]),
}

impl<'a> Input<'a> {
    fn records(&self) -> u64 {
        match self.list {
            List::Footer(footer) => footer.trailer.record_count,
            List::Log(records, _) => records.records(),
            List::Scan(records) => records.len() as u64,
        }
    }

    /// Keys that divide the records into shares of about the same size.
    fn samples(&self, into: &mut Vec<Vec<u8>>) {
        match self.list {
            List::Footer(footer) => into.extend(footer.fence_keys().map(<[u8]>::to_vec)),
            List::Log(records, _) => into.extend(records.samples(SAMPLED).map(<[u8]>::to_vec)),
            List::Scan(records) => {
                let sampled = records.iter().step_by(SAMPLED);
                into.extend(sampled.map(|found| found.composite(&self.segment.body).to_vec()));
            }
        }
    }

    /// The records whose keys are `start` or greater.
    fn source(&self, start: &[u8]) -> Result<Source<'a>, Corruption> {
        let body = &self.segment.body;
        Ok(match self.list {
            List::Footer(footer) => Source::Footer(footer.entries_from(start)?),
            List::Log(records, cuts) => {
                Source::Rows { rows: records.rows_from(start, cuts), key: &[] }
            }
            List::Scan(records) => {
                let is_before = |found: &Found| *found.composite(body) < *start;
                Source::of_scan(&records[records.partition_point(is_before)..], body)
            }
        })
    }

    /// Appends the tombstones here whose prefix `key` begins with and is longer than, by their lengths.
    fn covers(&self, key: &[u8], into: &mut Vec<(usize, Entry)>) -> Result<(), Corruption> {
        if matches!(self.list, List::Footer(footer) if footer.trailer.tombstone_count == 0) {
            return Ok(());
        }
        let mut len = key::PREFIX_LEN;
        while len < key.len() {
            let mut source = self.source(&key[..len])?;
            loop {
                let Some(entry) = source.next()? else { return Ok(()) };
                if *source.key() != key[..len] {
                    break;
                }
                into.push((len, entry));
            }
            // No prefix of `key` is here up to the one that this record has, or comes next after it.
            let found = source.key();
            if found >= key {
                return Ok(());
            }
            let common = found.iter().zip(key).take_while(|(a, b)| a == b).count();
            len = if common == found.len() { common } else { common + 1 };
        }
        Ok(())
    }
}

/// A range of keys: from the first on, and before the second.
type Range = (Vec<u8>, Option<Vec<u8>>);

/// Ranges of about the same size that have all keys, in order.
fn ranges(inputs: &[Input<'_>], threads: usize) -> Vec<Range> {
    let records: u64 = inputs.iter().map(Input::records).sum();
    let wanted = (records / RANGE_RECORDS).min(threads as u64 * RANGES_PER_THREAD) as usize;
    let mut cuts = Vec::new();
    if threads > 1 && wanted > 1 {
        let mut samples = Vec::new();
        inputs.iter().for_each(|input| input.samples(&mut samples));
        samples.sort_unstable();
        let cut = |nth: usize| samples.get(nth * samples.len() / wanted).cloned();
        cuts.extend((1..wanted).filter_map(cut));
        cuts.dedup();
    }
    let starts = std::iter::once(Vec::new()).chain(cuts.iter().cloned());
    starts.zip(cuts.iter().cloned().map(Some).chain([None])).collect()
}

/// What came of a range.
struct Loaded {
    part: BulkPart,
    /// Live bytes by slot.
    live: Vec<u64>,
    /// The records that count and refer to an extent.
    held: Vec<(Entry, Box<[u8]>)>,
}

impl Loaded {
    /// Takes a record in that counts.
    fn push(&mut self, key: &[u8], entry: &Entry, segment: &Segment) {
        let address = Address::new(segment.slot, entry.offset);
        let has_metadata = entry.metadata_len > 0;
        self.part.push(key, address, Traits { expires_at_ms: entry.expires_ms, has_metadata });
        if entry.extent.is_some() {
            self.held.push((*entry, key.into()));
        }
        let slot = usize::from(segment.slot.0);
        if self.live.len() <= slot {
            self.live.resize(slot + 1, 0);
        }
        self.live[slot] += entry.record_len(key.len());
    }
}

/// Points the index at the newest record of each key; `hold` is told of each that refers to an extent, in
/// the order of the keys.
pub(super) fn fill(
    keyspace: &Keyspace,
    inputs: &[Input<'_>],
    mut hold: impl FnMut(&Entry, &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut writer = keyspace.writer();
    let ranges = ranges(inputs, workers::threads());
    let threads = workers::threads().min(ranges.len());
    let ranges = ranges.into_iter().map(|range| (range, writer.bulk_part())).collect();
    let loaded = workers::map(threads, ranges, |(range, part)| load(inputs, &range, part));
    let mut parts = Vec::new();
    for loaded in loaded {
        let Loaded { part, mut live, held } = loaded?;
        for (entry, key) in &held {
            hold(entry, key)?;
        }
        for input in inputs {
            // Taken, since a segment can have several inputs.
            let live = live.get_mut(usize::from(input.segment.slot.0)).map(std::mem::take);
            input.segment.add_live(live.unwrap_or(0));
        }
        parts.push(part);
    }
    writer.bulk_load(parts, threads);
    Ok(())
}

/// Merges the records of a range in key order and takes in the newest of each key.
fn load(inputs: &[Input<'_>], range: &Range, part: BulkPart) -> Result<Loaded, Corruption> {
    let (start, end) = range;
    let mut loaded = Loaded { part, live: Vec::new(), held: Vec::new() };
    let mut covers = covers_at(inputs, start)?;
    let mut sources = Vec::new();
    for input in inputs {
        sources.push((input.segment, input.source(start)?));
    }
    let (mut merge, mut decided) = (Merge::new(sources)?, Vec::new());
    while let Some(current) = merge.current() {
        if end.as_deref().is_some_and(|end| current.key >= end) {
            break;
        }
        covers.move_to(current.key);
        covers.take(current.key, &current.entry);
        let is_point = matches!(current.entry.kind, Kind::Put | Kind::Delete);
        if is_point && decided != current.key {
            decided.clear();
            decided.extend_from_slice(current.key);
            if current.entry.kind == Kind::Put && !covers.kill(current.entry.seqno) {
                loaded.push(current.key, &current.entry, current.segment);
            }
        }
        merge.advance()?;
    }
    Ok(loaded)
}

/// The tombstones for prefixes that a merge of everything would have met before `start`, and would still
/// stand in.
fn covers_at(inputs: &[Input<'_>], start: &[u8]) -> Result<Covers, Corruption> {
    let mut found = Vec::new();
    for input in inputs {
        input.covers(start, &mut found)?;
    }
    found.sort_by_key(|(len, _)| *len);
    let mut covers = Covers::default();
    found.iter().for_each(|(len, entry)| covers.take(&start[..*len], entry));
    Ok(covers)
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use crate::{Db, Durability, Options};

    fn open(dir: &Path) -> Db {
        let options = Options::new().durability(Durability::Os).background(false);
        options.segment_bytes(64 << 10).open(dir).unwrap()
    }

    fn assert_holds(dir: &Path, model: &BTreeMap<String, Vec<u8>>) {
        let db = open(dir);
        let users = db.namespace("users").unwrap();
        let found: Vec<_> = users.scan("").map(|entry| entry.unwrap().key.to_vec()).collect();
        assert!(
            found.iter().map(Vec::as_slice).eq(model.keys().map(String::as_bytes)),
            "{}",
            db.recovery()
        );
        for (key, value) in model {
            assert_eq!(users.get(key).unwrap().as_deref(), Some(&value[..]), "{key}");
        }
        assert!(db.verify(|_| {}).unwrap().is_sound());
        let live: u64 = db.stats().live_bytes;
        drop((users, db));
        let again = open(dir);
        assert_eq!(again.stats().live_bytes, live);
    }

    /// Ranges, bins and pieces are of a few records in tests, so that each opening has many of them.
    #[test]
    fn what_is_opened_does_not_depend_on_where_the_keys_are_cut() {
        for seed in 1..12u64 {
            let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mut below = |end: u64| {
                random ^= random >> 12;
                random ^= random << 25;
                random ^= random >> 27;
                (random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
            };
            let dir = tempfile::tempdir().unwrap();
            let (live, killed) = (dir.path().join("live"), dir.path().join("killed"));
            let mut db = open(&live);
            let mut model = BTreeMap::new();
            for step in 0..900u64 {
                let users = db.namespace("users").unwrap();
                let len = 1 + below(5);
                let key: String = (0..len).map(|_| ['a', 'b', 'c'][below(3) as usize]).collect();
                match below(40) {
                    0 if len > 1 => {
                        users.delete_prefix(&key).unwrap();
                        model.retain(|other: &String, _| !other.starts_with(&key));
                    }
                    1..=6 => {
                        users.delete(&key).unwrap();
                        model.remove(&key);
                    }
                    _ => {
                        let value = vec![step as u8; 1 + below(300) as usize];
                        users.put(&key, &value).unwrap();
                        model.insert(key, value);
                    }
                }
                drop(users);
                match below(300) {
                    0 => db.compact().unwrap(),
                    1 => {
                        db.close().unwrap();
                        db = open(&live);
                    }
                    _ => {}
                }
            }
            std::fs::create_dir(&killed).unwrap();
            for file in std::fs::read_dir(&live).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), killed.join(file.file_name())).unwrap();
            }
            assert_holds(&killed, &model);
            db.close().unwrap();
            assert_holds(&live, &model);
        }
    }
}
