//! Promise: readers and lists beside a writer, with compaction going on under both, see each key that
//! is there throughout exactly once and in order, and never a value that was not written under its
//! key. A value that was read stays as it was while its segment is compacted away. Of two writers that
//! ask for the same version, one wins.
//!
//! How it is attacked: a writer overwrites, deletes and makes keys as fast as it can in segments of
//! 64 KiB, with the store's own threads on, while others read, list and hold on to what they read.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kvast::{Code, Durability, ListOptions, Namespace, Options, PutOptions, Value};

mod support;

use support::rng::{self, Rng};
use support::scratch_dir;

const FIXED: u64 = 500;

fn fixed_key(nth: u64) -> String {
    format!("{nth:04}:fixed")
}

/// Says which key it belongs to, and cannot be mistaken for half of another.
fn value_of(key: &str, rng: &mut Rng) -> Vec<u8> {
    let times = 1 + rng.len(20);
    format!("<{key}>").repeat(times).into_bytes()
}

fn belongs_to(value: &[u8], key: &str) -> bool {
    let unit = format!("<{key}>").into_bytes();
    !value.is_empty() && value.chunks(unit.len()).all(|chunk| chunk == unit)
}

fn write(users: &Namespace, seed: u64, over: &AtomicBool) -> u64 {
    let (mut rng, mut writes) = (Rng::new(seed), 0);
    while !over.load(Ordering::Relaxed) {
        let nth = rng.below(FIXED);
        let fixed = fixed_key(nth);
        users.put(&fixed, value_of(&fixed, &mut rng)).expect("overwrite");
        let moving = format!("{nth:04}:moving:{}", rng.below(3));
        match rng.below(3) {
            0 => drop(users.delete(&moving).expect("delete")),
            1 => {
                let options = PutOptions::new().expires_in(Duration::from_millis(rng.below(40)));
                users.put_with(&moving, value_of(&moving, &mut rng), options).expect("put");
            }
            _ => drop(users.put(&moving, value_of(&moving, &mut rng)).expect("put")),
        }
        writes += 2;
    }
    writes
}

fn read(users: &Namespace, seed: u64, over: &AtomicBool) -> u64 {
    let (mut rng, mut reads) = (Rng::new(seed), 0);
    let mut held: Vec<(Value, Vec<u8>)> = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let nth = rng.below(FIXED);
        let fixed = fixed_key(nth);
        let value = users.get(&fixed).expect("get").expect("a key that is always there");
        assert!(belongs_to(&value, &fixed), "{fixed} has the value of another key");
        if rng.one_in(50) {
            let bytes = value.to_vec();
            held.push((value, bytes));
        }
        let moving = format!("{nth:04}:moving:0");
        if let Some(value) = users.get(&moving).expect("get") {
            assert!(belongs_to(&value, &moving));
        }
        if held.len() > 100 {
            assert!(held.iter().all(|(value, bytes)| **value == **bytes), "a held value changed");
            held.clear();
        }
        reads += 2;
    }
    reads
}

fn list(users: &Namespace, seed: u64, over: &AtomicBool) -> u64 {
    let (mut rng, mut lists) = (Rng::new(seed), 0);
    while !over.load(Ordering::Relaxed) {
        let mut options = ListOptions::new().limit(1 + rng.len(300));
        let (mut last, mut next_fixed) = (Vec::new(), 0);
        loop {
            let page = users.list(&options).expect("list");
            for listed in page.iter() {
                assert!(listed.key > &last[..], "keys ascend, and none comes twice");
                last = listed.key.to_vec();
                if listed.key.ends_with(b":fixed") {
                    assert_eq!(listed.key, fixed_key(next_fixed).as_bytes(), "one was left out");
                    next_fixed += 1;
                }
            }
            let Some(cursor) = page.cursor() else { break };
            options = options.cursor(cursor);
        }
        assert_eq!(next_fixed, FIXED, "a list ended before its end");
        lists += 1;
    }
    lists
}

#[test]
fn readers_and_lists_beside_a_writer_and_compaction_miss_nothing_and_see_nothing_twice() {
    let seed = rng::seed();
    println!("SEED={seed}");
    let dir = scratch_dir();
    let options = Options::new().durability(Durability::Os).segment_bytes(64 << 10);
    let db = options.open(dir.path()).expect("open");
    let users = db.namespace("users").expect("create");
    let mut rng = Rng::new(seed);
    for nth in 0..FIXED {
        users.put(fixed_key(nth), value_of(&fixed_key(nth), &mut rng)).expect("put");
    }
    let over = AtomicBool::new(false);
    let (writes, reads, lists) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(&users, seed + 1, &over));
        let readers = [2, 3].map(|nth| {
            let (users, over) = (&users, &over);
            scope.spawn(move || read(users, seed + nth, over))
        });
        let lister = scope.spawn(|| list(&users, seed + 4, &over));
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(3) && !writer.is_finished() {
            std::thread::sleep(Duration::from_millis(20));
        }
        over.store(true, Ordering::Relaxed);
        let reads: u64 = readers.map(|it| it.join().expect("a reader failed")).iter().sum();
        (writer.join().expect("the writer failed"), reads, lister.join().expect("a list failed"))
    });
    let stats = db.stats();
    println!("{writes} writes, {reads} reads, {lists} lists; {stats:?}");
    assert!(stats.compaction_freed_bytes > 0, "compaction took part");
    assert_eq!(stats.background_error, None);
}

#[test]
fn of_writers_that_ask_for_the_same_version_one_wins() {
    let dir = scratch_dir();
    let db = Options::new().durability(Durability::Os).open(dir.path()).expect("open");
    let counters = db.namespace("counters").expect("create");
    counters.put("n", 0u64.to_le_bytes()).expect("put");
    let conflicts = AtomicU64::new(0);
    let add_one = || {
        loop {
            let value = counters.get("n").expect("get").expect("it is there");
            let number = u64::from_le_bytes(value.as_ref().try_into().expect("eight bytes"));
            let options = PutOptions::new().if_version(value.version());
            match counters.put_with("n", (number + 1).to_le_bytes(), options) {
                Ok(_) => return,
                Err(error) => {
                    assert_eq!(error.code(), Code::VersionMismatch);
                    conflicts.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..500).for_each(|_| add_one()));
        }
    });
    let value = counters.get("n").expect("get").expect("it is there");
    assert_eq!(value.as_ref(), 2000u64.to_le_bytes(), "{conflicts:?} conflicts");
}

#[test]
fn writers_that_share_a_commit_share_its_sync() {
    let dir = tempfile::tempdir().expect("make a directory");
    let db = Options::new().open(dir.path()).expect("open");
    let users = db.namespace("users").expect("create");
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let users = &users;
            scope.spawn(move || {
                for nth in 0..50 {
                    users.put(format!("{writer}:{nth}"), b"v").expect("put");
                }
            });
        }
    });
    let stats = db.stats();
    assert_eq!(stats.durable_version, stats.last_version, "all that was acknowledged is on disk");
    assert_eq!(users.scan("").count(), 400);
}

/// A put may find that space is short and wait, so the ceiling holds however fast it is written; what is
/// under way when it is reached comes on top.
#[test]
fn a_writer_that_is_faster_than_compaction_is_slowed_down_before_space_runs_away() {
    const SEGMENT: u64 = 64 << 10;
    /// Those that one compaction reads are there until their copies are.
    const UNDER_WAY: u64 = 2 * 16;
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().durability(Durability::Os).segment_bytes(SEGMENT);
    // As slow as it can be told to be: only the ceiling makes it hurry.
    let db = options.compaction_bytes_per_second(1 << 20).open(dir.path().join("data")).unwrap();
    let users = db.namespace("users").unwrap();
    let value = vec![b'v'; 4000];
    for round in 0..6000u32 {
        users.put(format!("k{}", round % 100), &value).unwrap();
        if round % 20 == 0 {
            let stats = db.stats();
            let ceiling = 1.6 * stats.live_bytes as f64 + ((8 + 8 + UNDER_WAY) * SEGMENT) as f64;
            assert!((stats.record_bytes as f64) < ceiling, "after {round} puts: {stats:?}");
        }
    }
}
