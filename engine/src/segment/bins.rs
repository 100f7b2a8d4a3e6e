//! The records of logs, copied beside their keys while they are warm, and put into bins by key.
//!
//! ```text
//!   log, in commit order ──copy──> bins, a range of the keys each ──sort each when it is its turn──> by key
//! ```
//!
//! Records of neighbouring keys lie anywhere in a log, and going there for each costs more than all else
//! that an opening does with it. A bin fits into a core's cache. What always holds: all records of a key
//! are in one bin, and the bins are in the order of their keys. Where they are cut decides about speed
//! and nothing else.

use super::Body;
use super::scan::Found;
use crate::format::footer::Entry;
use crate::key::{common, head_of};

/// Records that a bin should have: they and their keys fit into a megabyte or two.
const BIN_RECORDS: usize = if cfg!(test) { 8 } else { 16 << 10 };
/// One key in so many is looked at to place the cuts.
const SAMPLED: usize = if cfg!(test) { 3 } else { 256 };

/// Where bins are cut: keys in order, each the first of a bin.
pub(crate) struct Cuts {
    keys: Vec<Vec<u8>>,
    /// What all of them begin with.
    prefix: Vec<u8>,
    /// Eight bytes of each that follow.
    heads: Vec<u64>,
}

impl Cuts {
    /// Cuts for the records of some logs.
    pub(crate) fn of<'a>(logs: impl Iterator<Item = (&'a [Found], &'a Body)>) -> Cuts {
        let (mut samples, mut count) = (Vec::new(), 0);
        for (records, body) in logs {
            let sampled = records.iter().step_by(SAMPLED);
            samples.extend(sampled.map(|found| found.composite(body).to_vec()));
            count += records.len();
        }
        samples.sort_unstable();
        let bins = count / BIN_RECORDS + 1;
        let cut = |nth: usize| samples.get(nth * samples.len() / bins).cloned();
        let mut keys: Vec<Vec<u8>> = (1..bins).filter_map(cut).collect();
        keys.dedup();
        let prefix = match (keys.first(), keys.last()) {
            (Some(first), Some(last)) => first[..common(first, last)].to_vec(),
            _ => Vec::new(),
        };
        let heads = keys.iter().map(|key| head_of(&key[prefix.len()..])).collect();
        Cuts { keys, prefix, heads }
    }

    fn bins(&self) -> usize {
        self.keys.len() + 1
    }

    /// The bin in which a key belongs.
    fn bin_of(&self, key: &[u8]) -> usize {
        let Some(rest) = key.strip_prefix(&self.prefix[..]) else {
            return if *key < *self.prefix { 0 } else { self.keys.len() };
        };
        let head = head_of(rest);
        let first = self.heads.partition_point(|other| *other < head);
        let equal = self.heads[first..].iter().zip(&self.keys[first..]);
        first + equal.take_while(|(other, cut)| **other == head && cut[..] <= *key).count()
    }
}

/// A record, and where its composite key lies.
#[derive(Clone, Copy)]
struct Row {
    entry: Entry,
    key_at: u32,
    key_len: u16,
}

/// Some records of a range of keys, in no order.
#[derive(Default)]
struct Bin {
    rows: Vec<Row>,
    keys: Vec<u8>,
}

impl Bin {
    fn key(&self, row: &Row) -> &[u8] {
        &self.keys[row.key_at as usize..][..usize::from(row.key_len)]
    }
}

/// A piece of a log: a bin for each range.
pub(crate) struct Piece {
    bins: Vec<Bin>,
    /// The records that refer to an extent, in commit order.
    references: Vec<Found>,
}

impl Piece {
    /// Verifies the values of some records and puts them into bins; `None` if a value is damaged.
    pub(crate) fn of(records: &[Found], body: &Body, cuts: &Cuts) -> Option<Piece> {
        let room = records.len() / cuts.bins() + records.len() / cuts.bins() / 8;
        let bin = |_| Bin { rows: Vec::with_capacity(room), keys: Vec::new() };
        let mut bins: Vec<Bin> = (0..cuts.bins()).map(bin).collect();
        let (mut references, mut key) = (Vec::new(), Vec::new());
        for found in records {
            let record = found.record(body).ok()?;
            record.verify_value().ok()?;
            references.extend(record.header.extent.map(|_| *found));
            key.clear();
            key.extend_from_slice(&record.header.namespace.to_be_bytes());
            key.extend_from_slice(record.key);
            let Bin { rows, keys } = &mut bins[cuts.bin_of(&key)];
            let (key_at, key_len) = (keys.len() as u32, key.len() as u16);
            let entry = Entry::of(&record.header, found.offset());
            rows.push(Row { entry, key_at, key_len });
            keys.extend_from_slice(&key);
        }
        Some(Piece { bins, references })
    }
}

/// The records of a log.
#[derive(Default)]
pub(crate) struct Binned {
    pub(crate) pieces: Vec<Piece>,
}

impl Binned {
    pub(crate) fn records(&self) -> u64 {
        let bins = self.pieces.iter().flat_map(|piece| &piece.bins);
        bins.map(|bin| bin.rows.len() as u64).sum()
    }

    /// The records that refer to an extent, in commit order.
    pub(crate) fn references(&self) -> impl Iterator<Item = Found> {
        self.pieces.iter().flat_map(|piece| piece.references.iter().copied())
    }

    /// About one in `step` keys.
    pub(crate) fn samples(&self, step: usize) -> impl Iterator<Item = &[u8]> {
        let bins = self.pieces.iter().flat_map(|piece| &piece.bins);
        bins.flat_map(move |bin| bin.rows.iter().step_by(step).map(|row| bin.key(row)))
    }

    /// The records whose keys are `start` or greater, by key and the newest of a key first.
    pub(crate) fn rows_from<'a>(&'a self, start: &[u8], cuts: &Cuts) -> Rows<'a> {
        let mut rows =
            Rows { pieces: &self.pieces, bin: cuts.bin_of(start), order: Vec::new(), at: 0 };
        rows.sort_bin();
        rows.at = rows.order.partition_point(|place| rows.look(*place).0 < start);
        rows
    }
}

/// Walks the records of a log by key; each bin is sorted when the walk gets there.
pub(crate) struct Rows<'a> {
    pieces: &'a [Piece],
    bin: usize,
    order: Vec<Place>,
    /// How far in `order` the walk is.
    at: usize,
}

/// Where a row is, and eight bytes of its key.
#[derive(Clone, Copy)]
struct Place {
    head: u64,
    piece: u32,
    row: u32,
}

impl<'a> Rows<'a> {
    fn look(&self, place: Place) -> (&'a [u8], &'a Entry) {
        let bin = &self.pieces[place.piece as usize].bins[self.bin];
        let row = &bin.rows[place.row as usize];
        (bin.key(row), &row.entry)
    }

    /// Puts the rows of the bin in order.
    fn sort_bin(&mut self) {
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        self.at = 0;
        let (mut shared, mut first): (usize, Option<&[u8]>) = (0, None);
        for (piece, bins) in (0..).zip(self.pieces) {
            let Some(bin) = bins.bins.get(self.bin) else { continue };
            for (row, nth) in bin.rows.iter().zip(0..) {
                let key = bin.key(row);
                match first {
                    None => (first, shared) = (Some(key), key.len()),
                    Some(first) if !key.starts_with(&first[..shared]) => {
                        shared = common(&first[..shared], key);
                    }
                    Some(_) => {}
                }
                order.push(Place { head: 0, piece, row: nth });
            }
        }
        for place in &mut order {
            place.head = head_of(&self.look(*place).0[shared..]);
        }
        order.sort_unstable_by(|a, b| {
            a.head.cmp(&b.head).then_with(|| {
                let ((key_a, a), (key_b, b)) = (self.look(*a), self.look(*b));
                key_a.cmp(key_b).then_with(|| b.seqno.cmp(&a.seqno))
            })
        });
        self.order = order;
    }

    /// The next record and its composite key.
    pub(crate) fn next(&mut self) -> Option<(&'a [u8], Entry)> {
        while self.at == self.order.len() {
            if self.pieces.iter().all(|piece| self.bin + 1 >= piece.bins.len()) {
                return None;
            }
            self.bin += 1;
            self.sort_bin();
        }
        let (key, entry) = self.look(self.order[self.at]);
        self.at += 1;
        Some((key, *entry))
    }
}
