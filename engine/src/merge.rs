//! Many sorted lists of records as one: the order in which recovery fills the index and compaction
//! writes runs.
//!
//! The order is by composite key, then from the newest to the oldest, so the first record of a key
//! is the one that counts, and a tombstone for a prefix comes before every key under it.

use std::cmp::Ordering;

use crate::error::Corruption;
use crate::format::footer::Entry;
use crate::format::record::Kind;
use crate::index::prefetch;
use crate::segment::bins::Rows;
use crate::segment::scan::Found;
use crate::segment::sealed::Entries;
use crate::segment::{Body, Segment};

/// One sorted list: a footer, the records of a log, or those of a segment whose footer is damaged.
pub(crate) enum Source<'a> {
    Footer(Entries<'a>),
    Rows { rows: Rows<'a>, key: &'a [u8] },
    Scan { records: std::slice::Iter<'a, Found>, body: &'a Body, key: Vec<u8> },
}

/// Records of a scan lie anywhere in their log, so their keys are fetched this far ahead.
const FETCHED_AHEAD: usize = 16;

impl<'a> Source<'a> {
    /// `records` are in the order of `scan::sort`.
    pub(crate) fn of_scan(records: &'a [Found], body: &'a Body) -> Source<'a> {
        Source::Scan { records: records.iter(), body, key: Vec::new() }
    }

    /// The next record, `None` after the last; [`Self::key`] is its composite key.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, Corruption> {
        match self {
            Source::Footer(entries) => entries.next(),
            Source::Rows { rows, key } => Ok(rows.next().map(|(found, entry)| {
                *key = found;
                entry
            })),
            Source::Scan { records, body, key } => {
                let Some(found) = records.next() else { return Ok(None) };
                if let Some(ahead) = records.as_slice().get(FETCHED_AHEAD) {
                    let start = body.bytes_from(ahead.offset()).as_ptr();
                    (0..2).for_each(|line| prefetch(start.wrapping_add(64 * line)));
                }
                let record = found.record(body)?;
                key.clear();
                key.extend_from_slice(&record.header.namespace.to_be_bytes());
                key.extend_from_slice(record.key);
                Ok(Some(Entry::of(&record.header, found.offset())))
            }
        }
    }

    pub(crate) fn key(&self) -> &[u8] {
        match self {
            Source::Footer(entries) => entries.key(),
            Source::Rows { key, .. } => key,
            Source::Scan { key, .. } => key,
        }
    }
}

struct Head<'a> {
    source: Source<'a>,
    entry: Entry,
    segment: &'a Segment,
}

impl Head<'_> {
    fn order(&self, other: &Head<'_>) -> Ordering {
        let keys = self.source.key().cmp(other.source.key());
        // Of two copies of one record, the one in the younger file counts: it knows where the value is.
        keys.then_with(|| other.entry.seqno.cmp(&self.entry.seqno))
            .then_with(|| other.segment.id().cmp(&self.segment.id()))
    }
}

/// The merged order: a binary heap whose root is the next record.
pub(crate) struct Merge<'a> {
    heap: Vec<Head<'a>>,
}

/// The record that the merge stands at.
pub(crate) struct Current<'m> {
    pub(crate) key: &'m [u8],
    pub(crate) entry: Entry,
    pub(crate) segment: &'m Segment,
}

impl<'a> Merge<'a> {
    pub(crate) fn new(
        sources: impl IntoIterator<Item = (&'a Segment, Source<'a>)>,
    ) -> Result<Merge<'a>, Corruption> {
        let mut heap = Vec::new();
        for (segment, mut source) in sources {
            if let Some(entry) = source.next()? {
                heap.push(Head { source, entry, segment });
            }
        }
        let mut merge = Merge { heap };
        for at in (0..merge.heap.len() / 2).rev() {
            merge.sift_down(at);
        }
        Ok(merge)
    }

    pub(crate) fn current(&self) -> Option<Current<'_>> {
        let head = self.heap.first()?;
        Some(Current { key: head.source.key(), entry: head.entry, segment: head.segment })
    }

    /// Moves on to the next record.
    pub(crate) fn advance(&mut self) -> Result<(), Corruption> {
        let Some(root) = self.heap.first_mut() else { return Ok(()) };
        match root.source.next()? {
            Some(entry) => root.entry = entry,
            None => {
                self.heap.swap_remove(0);
            }
        }
        self.sift_down(0);
        Ok(())
    }

    fn sift_down(&mut self, mut at: usize) {
        loop {
            let mut least = at;
            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.heap.len()
                    && self.heap[child].order(&self.heap[least]) == Ordering::Less
                {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.heap.swap(at, least);
            at = least;
        }
    }
}

/// The tombstones for prefixes that cover the key at which a merge stands.
#[derive(Default)]
pub(crate) struct Covers {
    /// Each prefix starts with the one below it.
    stack: Vec<(Vec<u8>, u64)>,
}

impl Covers {
    /// Drops the prefixes that `key` does not start with. Call it for each key, in order.
    pub(crate) fn move_to(&mut self, key: &[u8]) {
        while self.stack.last().is_some_and(|(prefix, _)| !key.starts_with(prefix)) {
            self.stack.pop();
        }
    }

    /// Takes a record at the current key in, if it is a tombstone for a prefix.
    pub(crate) fn take(&mut self, key: &[u8], entry: &Entry) {
        if matches!(entry.kind, Kind::DeletePrefix | Kind::DeleteNamespace) {
            self.stack.push((key.to_vec(), entry.seqno));
        }
    }

    /// Whether a record of the current key is dead because of a newer tombstone for its prefix.
    pub(crate) fn kill(&self, seqno: u64) -> bool {
        self.stack.iter().any(|(_, tombstone)| *tombstone > seqno)
    }
}
