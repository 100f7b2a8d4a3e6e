//! Numbers about a store, and how they are counted.
//!
//! Reads count nothing, so that no two of them meet on a line. Commits are counted by whoever leads
//! a group, of whom there is one at a time; whoever asks for the numbers waits for no writer.
//! Absent on purpose: names and formats of any monitoring system.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Numbers about a store, as of the moment they were asked for. What is counted, is counted since
/// the store was opened.
///
/// ```
/// # fn main() -> Result<(), kvast::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = kvast::Db::open(dir.path())?;
/// db.namespace("users")?;
/// let stats = db.stats();
/// assert_eq!(stats.last_version, stats.durable_version, "durability is `Sync`");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Keys in the index, expired ones that still take space included.
    pub keys: u64,
    /// Segment files.
    pub segments: usize,
    /// Bytes of records and commits on disk, live and dead, without footers.
    pub record_bytes: u64,
    /// Bytes of the records that a key points at.
    pub live_bytes: u64,
    /// The other bytes of `record_bytes`: what compaction could give back at most.
    pub dead_bytes: u64,
    /// Bytes of removed segments that a value still keeps.
    pub pinned_bytes: u64,
    /// Bytes of memory that the index takes, keys included.
    pub index_bytes: u64,
    /// Bytes of memory that the index no longer needs and readers may still see.
    pub index_retired_bytes: u64,
    /// Bytes of the records and large values that were written. What compaction has copied, divided by
    /// this, is how much it adds to the disk's work.
    pub written_bytes: u64,
    /// Bytes that compaction has copied.
    pub compaction_copied_bytes: u64,
    /// Bytes of files that compaction has removed.
    pub compaction_freed_bytes: u64,
    /// Commits by how many records each wrote: their count is that of the commits, their sum that of
    /// the records.
    pub commits: Histogram,
    /// Syncs of the log by how many microseconds each took.
    pub syncs: Histogram,
    /// The version of the last write.
    pub last_version: u64,
    /// Every write up to this version is on disk.
    pub durable_version: u64,
    /// The last thing that went wrong in the background.
    pub background_error: Option<String>,
}

/// How often something was how large.
///
/// ```
/// # fn main() -> Result<(), kvast::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = kvast::Db::open(dir.path())?;
/// db.namespace("users")?.put("42", b"Ada")?;
/// let commits = db.stats().commits;
/// assert_eq!((commits.count(), commits.sum), (2, 3), "the namespace is two records");
/// assert_eq!(commits.buckets[..2], [(1, 1), (2, 1)]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Histogram {
    /// The upper bound of each bucket, which belongs to it, and how many fell in it and in none
    /// before. The last bound is `u64::MAX`.
    pub buckets: Vec<(u64, u64)>,
    /// The sum of all that was counted.
    pub sum: u64,
}

impl Histogram {
    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

/// How much of the store's files is in memory; see [`crate::Db::residency`].
///
/// ```
/// # fn main() -> Result<(), kvast::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = kvast::Db::open(dir.path())?;
/// let residency = db.residency();
/// assert!(residency.resident_bytes <= residency.mapped_bytes);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Residency {
    /// Bytes of the segments that readers may look at, by whole pages.
    pub mapped_bytes: u64,
    /// How many of them are in the page cache.
    pub resident_bytes: u64,
}

/// The upper bounds of [`Stats::commits`], in records.
const RECORDS: [u64; 10] = [1, 2, 4, 8, 16, 32, 64, 256, 1024, u64::MAX];
/// The upper bounds of [`Stats::syncs`], in microseconds.
const MICROS: [u64; 14] = [
    50,
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    1_000_000,
    u64::MAX,
];

/// What the committer counts. Only whoever holds the writer adds, so adding is no contended step.
pub(crate) struct WriteCounts {
    commits: Counts<10>,
    syncs: Counts<14>,
    written_bytes: AtomicU64,
    last_version: AtomicU64,
    durable_version: AtomicU64,
}

impl WriteCounts {
    pub(crate) fn new(last_version: u64, durable_version: u64) -> WriteCounts {
        WriteCounts {
            commits: Counts::new(&RECORDS),
            syncs: Counts::new(&MICROS),
            written_bytes: AtomicU64::new(0),
            last_version: AtomicU64::new(last_version),
            durable_version: AtomicU64::new(durable_version),
        }
    }

    pub(crate) fn count_commit(&self, records: usize) {
        self.commits.add(records as u64);
    }

    /// Counts bytes of records, or of a large value, that a user wrote.
    pub(crate) fn count_written(&self, bytes: u64) {
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn count_sync(&self, time: Duration) {
        self.syncs.add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Notes how far the log is; neither ever goes back.
    pub(crate) fn note_versions(&self, last: u64, durable: u64) {
        self.last_version.store(last, Ordering::Release);
        self.durable_version.store(durable, Ordering::Release);
    }

    /// The last version and the last durable one, which is never the later of the two.
    pub(crate) fn versions(&self) -> (u64, u64) {
        let durable = self.durable_version.load(Ordering::Acquire);
        (self.last_version.load(Ordering::Acquire), durable)
    }

    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn commits(&self) -> Histogram {
        self.commits.get()
    }

    pub(crate) fn syncs(&self) -> Histogram {
        self.syncs.get()
    }
}

/// A histogram that one thread at a time adds to.
struct Counts<const N: usize> {
    bounds: &'static [u64; N],
    counts: [AtomicU64; N],
    sum: AtomicU64,
}

impl<const N: usize> Counts<N> {
    fn new(bounds: &'static [u64; N]) -> Counts<N> {
        let counts = std::array::from_fn(|_| AtomicU64::new(0));
        Counts { bounds, counts, sum: AtomicU64::new(0) }
    }

    fn add(&self, size: u64) {
        let add = |place: &AtomicU64, more: u64| {
            place.store(place.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
        };
        // The last bound is the largest number there is.
        let bucket = self.bounds.partition_point(|bound| *bound < size);
        add(&self.counts[bucket], 1);
        add(&self.sum, size);
    }

    fn get(&self) -> Histogram {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        Histogram {
            buckets: self.bounds.iter().copied().zip(counts).collect(),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_falls_in_the_first_bucket_that_holds_it() {
        let counts = Counts::new(&[1, 4, u64::MAX]);
        [0, 1, 2, 4, 5, 1 << 40].into_iter().for_each(|size| counts.add(size));
        let histogram = counts.get();
        assert_eq!(histogram.buckets, [(1, 2), (4, 2), (u64::MAX, 2)]);
        assert_eq!((histogram.count(), histogram.sum), (6, 12 + (1 << 40)));
    }

    #[test]
    fn the_bounds_ascend_to_the_largest_number() {
        assert!(RECORDS.is_sorted_by(|a, b| a < b) && MICROS.is_sorted_by(|a, b| a < b));
        assert_eq!((RECORDS.last(), MICROS.last()), (Some(&u64::MAX), Some(&u64::MAX)));
    }
}
