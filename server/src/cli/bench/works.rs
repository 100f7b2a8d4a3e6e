//! What is done with the store, and in what order: load, close, open, read, put.
//!
//! Reads come before puts, so that they find the store as it was loaded; what is put goes to keys that
//! are there, and is bounded, so that the room that was asked for suffices.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kvast::{Db, Durability, Error, ListOptions, Namespace, Options};

use super::super::exit::Problem;
use super::keys::{self, KEY_BYTES, Key, Random, Shape};
use super::report::{Report, Work};
use super::scratch::Scratch;
use super::timing::{Figures, Latency, count_from, time_each};

/// How many rows are measured for a time.
pub(super) const TIMED: u32 = 10;
/// Records in a commit where they are put in batches.
const BATCH: usize = 1000;
/// Batches of more bytes are not needed to show anything.
const BATCH_BYTES: usize = 32 << 20;
/// Keys on a page.
const PAGE: usize = 1000;
const PAGES: u64 = 1000;
/// Large values: enough of them that no cache of a processor holds them.
const LARGE_BYTES: usize = 1 << 20;
const LARGE_COUNT: usize = 64;
/// What a record takes beside key and value, commit and footer included, and some more.
const RECORD_BYTES: u64 = 192;
/// The log that is begun, and what else does not grow with the keys.
const FIXED_BYTES: u64 = 512 << 20;
/// The length of what a durable put writes, and where it is written without a store.
const BARE_BYTES: usize = 256;
const BARE_FILE_BYTES: usize = 16 << 20;
const OPENINGS: usize = 3;
/// Of something as short as a get, between two looks at the clock.
const BUNDLE: usize = 256;

/// Bytes that are needed at most: what is loaded, what is put over it, and compaction.
pub(super) fn room(shape: &Shape) -> u64 {
    let record = KEY_BYTES as u64 + shape.value_bytes as u64 + RECORD_BYTES;
    3 * shape.keys * record + FIXED_BYTES
}

pub(super) struct Bench<'a> {
    shape: &'a Shape,
    scratch: &'a Scratch,
    /// The numbers of all keys in the order in which they are put.
    shuffled: Vec<u32>,
    value: Vec<u8>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(shape: &'a Shape, scratch: &'a Scratch) -> Bench<'a> {
        let (shuffled, value) = (keys::shuffled(shape.keys), vec![b'v'; shape.value_bytes]);
        Bench { shape, scratch, shuffled, value }
    }

    pub(super) fn run(&self, report: &mut Report) -> Result<(), Problem> {
        self.bare_disk(report)?;
        self.load(report)?;
        report.disk_bytes = bytes_below(&store_in(self.scratch.path()))?;
        let (db, values, large) = self.open_often(report)?;
        report.index_bytes = db.stats().index_bytes;
        self.gets(report, &values)?;
        self.lists(report, &values)?;
        self.large_gets(report, &large)?;
        let threads = self.shape.threads;
        for clients in [1, threads].into_iter().take(if threads == 1 { 1 } else { 2 }) {
            self.puts(report, Work::PutDurable, clients, &values)?;
        }
        drop((values, large));
        db.close()?;
        let (db, values) = self.open(Durability::Os)?;
        self.puts(report, Work::PutUnsynced, 1, &values)?;
        drop(values);
        Ok(db.close()?)
    }

    fn open(&self, durability: Durability) -> Result<(Db, Namespace), Error> {
        let options = Options::new().durability(durability);
        let db = self.scratch.make(|dir| options.open(store_in(dir)))?;
        let values = db.namespace("values")?;
        Ok((db, values))
    }

    /// The key that was put as the `nth`, beginning again after the last.
    fn put_key(&self, nth: usize) -> Key {
        keys::key(2 * u64::from(self.shuffled[nth % self.shuffled.len()]))
    }

    /// What the disk does without a store: a write into blocks that were written before, and a sync.
    fn bare_disk(&self, report: &mut Report) -> Result<(), Problem> {
        report.begin(Work::BareDisk, 1);
        let path = self.scratch.path().join("bare");
        let file = File::create(&path)?;
        let zeros = vec![0; LARGE_BYTES];
        for at in (0..BARE_FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, at as u64)?;
        }
        file.sync_all()?;
        let most = BARE_FILE_BYTES / BARE_BYTES;
        let figures = time_each(1, self.shape.time, most, |_, nth| {
            file.write_all_at(&[1; BARE_BYTES], (nth * BARE_BYTES) as u64)?;
            file.sync_data()
        })?;
        fs::remove_file(path)?;
        report.end(figures);
        Ok(())
    }

    fn load(&self, report: &mut Report) -> Result<(), Problem> {
        report.begin(Work::PutBatched, 1);
        let (db, values) = self.open(Durability::Os)?;
        let in_batch = BATCH.min(BATCH_BYTES / (self.value.len() + KEY_BYTES)).max(1);
        let begin = Instant::now();
        for some in self.shuffled.chunks(in_batch) {
            let mut batch = db.batch();
            for number in some {
                batch.put(&values, keys::key(2 * u64::from(*number)), &self.value)?;
            }
            batch.commit()?;
        }
        let per_second = self.shape.keys as f64 / begin.elapsed().as_secs_f64();
        report.end(Figures { per_second, latency: None });
        drop(values);
        Ok(db.close()?)
    }

    /// Opens the store some times, from nothing to the first value, and keeps it open the last time.
    fn open_often(&self, report: &mut Report) -> Result<(Db, Namespace, Namespace), Problem> {
        report.begin(Work::Open, 1);
        let mut times = Vec::new();
        loop {
            let begin = Instant::now();
            let (db, values) = self.open(Durability::Sync)?;
            expect_found(values.get(self.put_key(0))?.is_some());
            times.push(begin.elapsed());
            if times.len() < OPENINGS {
                drop(values);
                db.close()?;
                continue;
            }
            times.sort_unstable();
            report.end(Figures::of_one(times[OPENINGS / 2]));
            let large = db.namespace("large")?;
            return Ok((db, values, large));
        }
    }

    fn gets(&self, report: &mut Report, values: &Namespace) -> Result<(), Problem> {
        let (keys, time) = (self.shape.keys, self.shape.time);
        let mut row = |work: Work, threads: usize, asked: &[Key]| {
            report.begin(work, threads);
            let figures = count_from(threads, time, BUNDLE, |thread, nth| {
                let at = thread * asked.len() / threads + nth;
                let found = values.get(asked[at % asked.len()])?;
                expect_found(found.is_some() == (work != Work::GetAbsent));
                Ok::<(), Error>(())
            })?;
            report.end(figures);
            Ok::<(), Error>(())
        };
        let uniform = keys::uniform(keys);
        row(Work::GetUniform, 1, &uniform)?;
        if self.shape.cores > 1 {
            row(Work::GetUniform, self.shape.cores, &uniform)?;
        }
        drop(uniform);
        row(Work::GetZipf, 1, &keys::zipf(keys, &self.shuffled))?;
        Ok(row(Work::GetAbsent, 1, &keys::absent(keys))?)
    }

    fn lists(&self, report: &mut Report, values: &Namespace) -> Result<(), Problem> {
        report.begin(Work::List, 1);
        let in_page = PAGE.min(self.shape.keys as usize);
        let mut random = Random(10);
        let starts = self.shape.keys - in_page as u64 + 1;
        let from = |_| ListOptions::new().start(keys::key(2 * random.below(starts))).limit(in_page);
        let pages: Vec<ListOptions> = (0..PAGES).map(from).collect();
        let figures = count_from(1, self.shape.time, 1, |_, nth| {
            expect_found(values.list(&pages[nth % pages.len()])?.len() == in_page);
            Ok::<(), Error>(())
        })?;
        report.end(figures.times(in_page as f64));
        Ok(())
    }

    fn large_gets(&self, report: &mut Report, large: &Namespace) -> Result<(), Problem> {
        report.begin(Work::GetLarge, 1);
        let value = vec![b'l'; LARGE_BYTES];
        for nth in 0..LARGE_COUNT {
            large.put(keys::key(nth as u64), &value)?;
        }
        let figures = count_from(1, self.shape.time, 1, |_, nth| {
            // A get compares every byte with its checksum before it returns.
            let found = large.get(keys::key((nth % LARGE_COUNT) as u64))?;
            expect_found(found.is_some_and(|found| found.len() == LARGE_BYTES));
            Ok::<(), Error>(())
        })?;
        report.end(figures.times(LARGE_BYTES as f64));
        Ok(())
    }

    fn puts(
        &self,
        report: &mut Report,
        work: Work,
        threads: usize,
        values: &Namespace,
    ) -> Result<(), Problem> {
        report.begin(work, threads);
        let most = (self.shuffled.len() / 3).div_ceil(threads).max(1);
        let figures = time_each(threads, self.shape.time, most, |thread, nth| {
            values.put(self.put_key(nth * threads + thread), &self.value).map(drop)
        })?;
        report.end(figures);
        Ok(())
    }
}

/// What was put is there; anything else would be a defect of the store, and no figure is worth more.
fn expect_found(is_as_put: bool) {
    assert!(is_as_put, "the store does not have what was put into it");
}

fn store_in(dir: &Path) -> PathBuf {
    dir.join("data")
}

/// Bytes that the files of a directory take.
fn bytes_below(dir: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        bytes += entry?.metadata()?.blocks() * 512;
    }
    Ok(bytes)
}

impl Figures {
    fn of_one(time: Duration) -> Figures {
        let latency = Some(Latency { p50: time, p99: time });
        Figures { per_second: 1.0 / time.as_secs_f64(), latency }
    }

    /// Each time was so many of what the row counts.
    fn times(self, factor: f64) -> Figures {
        Figures { per_second: self.per_second * factor, ..self }
    }
}
