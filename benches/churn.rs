//! What do overwrites leave on disk, and what does compaction cost those who read meanwhile?
//!
//! Varies: puts one a commit or 100 a commit; for reads, what else goes on: nothing, a thread that
//! copies memory, or compaction as fast as it can. Fixed: 1,000,000 keys of 22 B with values of 100 B,
//! overwritten three times at random, then 10 s of rest; reads by one thread, at random, value and
//! checksum read. Leaves out: a cold disk, long values, keys that expire (see `compaction/`).
//! The rounds of reads take turns, and each ratio is that of a round; the medians are printed.
//! Run: `cargo bench --bench churn`. Keep a result: benches/record/README.md.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::hint::black_box;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kvast::{Db, Durability, Namespace, Options};

mod shape;

use shape::{Random, VALUE, fill, key};

const KEYS: u64 = 1_000_000;
const OVERWRITES: u64 = 3 * KEYS;
const ROUNDS: usize = 7;

fn main() {
    println!(
        "| puts a commit | disk / live | disk / user byte | copied / written | seconds of writing |"
    );
    println!("|--:|--:|--:|--:|--:|");
    for per_commit in [1, 100] {
        space(per_commit);
    }
    println!("\n| reads beside | p50 ns | p99 ns | p99.9 ns | p99 / alone |");
    println!("|---|--:|--:|--:|--:|");
    reads();
}

fn space(per_commit: u64) {
    let dir = tempfile::tempdir().unwrap();
    let db = Options::new().durability(Durability::Os).open(dir.path()).unwrap();
    let users = db.namespace("users").unwrap();
    fill(&db, &users, KEYS, VALUE.len(), 100);
    let began = Instant::now();
    let (before, mut random) = (db.stats(), Random(3));
    for _ in 0..OVERWRITES / per_commit {
        overwrite(&db, &users, per_commit, &mut random);
    }
    let took = began.elapsed();
    thread::sleep(Duration::from_secs(10));
    let (stats, disk) = (db.stats(), disk_bytes(dir.path()) as f64);
    println!(
        "| {per_commit} | {:.2} | {:.2} | {:.2} | {:.1} |",
        disk / stats.live_bytes as f64,
        disk / (KEYS * (22 + VALUE.len() as u64)) as f64,
        (stats.compaction_copied_bytes - before.compaction_copied_bytes) as f64
            / (stats.written_bytes - before.written_bytes) as f64,
        took.as_secs_f64(),
    );
}

fn overwrite(db: &Db, users: &Namespace, per_commit: u64, random: &mut Random) {
    if per_commit == 1 {
        users.put(key(2 * random.below(KEYS)), VALUE).unwrap();
        return;
    }
    let mut batch = db.batch();
    for _ in 0..per_commit {
        batch.put(users, key(2 * random.below(KEYS)), VALUE).unwrap();
    }
    batch.commit().unwrap();
}

/// Blocks that the store's files take.
fn disk_bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512).sum()
}

fn reads() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().durability(Durability::Os).background(false);
    let db = options.open(dir.path()).unwrap();
    let users = db.namespace("users").unwrap();
    fill(&db, &users, KEYS, VALUE.len(), 100);
    db.compact().unwrap();
    let mut random = Random(5);
    let mut rounds: [Vec<Times>; 3] = Default::default();
    for _ in 0..ROUNDS {
        (0..KEYS / 200).for_each(|_| overwrite(&db, &users, 100, &mut random));
        let began = Instant::now();
        rounds[2].push(beside(&users, || db.compact().unwrap()));
        let took = began.elapsed();
        rounds[0].push(beside(&users, || thread::sleep(took)));
        rounds[1].push(beside(&users, || copy_memory(took)));
    }
    for (name, times) in ["nothing", "a copy of memory", "compaction"].into_iter().zip(&rounds) {
        let of = |pick: fn(&Times) -> f64| median(times.iter().map(pick).collect());
        let ratios = times.iter().zip(&rounds[0]).map(|(these, alone)| these.p99 / alone.p99);
        println!(
            "| {name} | {:.0} | {:.0} | {:.0} | {:.2} |",
            of(|times| times.p50),
            of(|times| times.p99),
            of(|times| times.p999),
            median(ratios.collect()),
        );
    }
}

#[derive(Clone, Copy)]
struct Times {
    p50: f64,
    p99: f64,
    p999: f64,
}

/// Reads for as long as `work` takes in another thread.
fn beside(users: &Namespace, work: impl FnOnce() + Send) -> Times {
    let over = AtomicBool::new(false);
    let mut nanos = thread::scope(|scope| {
        scope.spawn(|| {
            work();
            over.store(true, Ordering::Relaxed);
        });
        let (mut nanos, mut random) = (Vec::with_capacity(4_000_000), Random(11));
        while !over.load(Ordering::Relaxed) {
            let key = key(2 * random.below(KEYS));
            let began = Instant::now();
            black_box(users.get(key).unwrap().unwrap().len());
            nanos.push(began.elapsed().as_nanos() as f64);
        }
        nanos
    });
    nanos.sort_by(f64::total_cmp);
    let at = |share: f64| nanos[(nanos.len() as f64 * share) as usize];
    Times { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
}

fn copy_memory(time: Duration) {
    let (from, mut to) = (vec![1u8; 64 << 20], vec![0u8; 64 << 20]);
    let began = Instant::now();
    while began.elapsed() < time {
        to.copy_from_slice(black_box(&from));
        black_box(&to);
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
