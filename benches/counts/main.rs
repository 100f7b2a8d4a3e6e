//! How many instructions does an operation take?
//!
//! Counts and not times: they are the same on a busy machine, so they can be a test. `check` runs this
//! under callgrind and holds it to `expected.txt`. Varies: the operation. Fixed: 20,000 22-byte keys,
//! values of 100 B, one thread, no threads of the store's own, durability `Os`, a clock that stands
//! still. Leaves out: what the kernel does, and what a count cannot show: misses of the caches,
//! mispredictions, waiting.
//! Run: `benches/counts/check`.
//!
//! Each operation is done [`TIMES`] times, or to that many keys, between [`begin`] and [`end`]; callgrind
//! writes down its count whenever it gets to one of the two.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::hint::black_box;
use std::time::Duration;

use kvast::testing::ManualClock;
use kvast::{Db, Durability, ListOptions, Namespace, Options, PutOptions};

#[path = "../shape/mod.rs"]
mod shape;

use shape::{Key, Random, VALUE, fill, key};

const KEYS: u64 = 20_000;
/// `check` divides by this.
const TIMES: usize = 10_000;
const PAGE: usize = 1000;
/// A moment for the stores to live in.
const NOW_MS: u64 = 1_800_000_000_000;

#[inline(never)]
fn begin() {
    black_box("begin");
}

#[inline(never)]
fn end() {
    black_box("end");
}

/// Says on standard output what is counted, for `check`, and does it.
fn count(operation: &str, work: impl FnOnce()) {
    println!("{operation}");
    begin();
    work();
    end();
}

/// Pages of [`PAGE`] keys with [`TIMES`] keys in all.
fn pages(namespace: &Namespace) -> Vec<ListOptions> {
    let (mut pages, mut at) = (Vec::new(), ListOptions::new().limit(PAGE));
    while pages.len() < TIMES / PAGE {
        pages.push(at.clone());
        let page = namespace.list(&at).unwrap();
        at = at.cursor(page.cursor().expect("more keys than that"));
    }
    pages
}

fn list(namespace: &Namespace, pages: &[ListOptions]) {
    for options in pages {
        let page = namespace.list(options).unwrap();
        assert_eq!(page.len(), PAGE);
        for listed in page.iter() {
            black_box(listed.key.last());
        }
    }
}

fn reads(users: &Namespace, there: &[Key], absent: &[Key]) {
    count("get", || {
        for key in there {
            let value = users.get(key).unwrap().unwrap();
            black_box((value.first(), value.last()));
        }
    });
    count("get absent", || {
        for key in absent {
            assert!(users.get(key).unwrap().is_none());
        }
    });
    count("get as one of 16", || {
        for some in there.chunks_exact(16) {
            for value in users.get_many(some).unwrap() {
                black_box(value.expect("it is there").last());
            }
        }
    });
    let pages = pages(users);
    count("listed key", || list(users, &pages));
}

fn writes(db: &Db, users: &Namespace, there: &[Key], new: &[Key]) {
    let put = |keys: &[Key]| {
        for key in keys {
            users.put(key, VALUE).unwrap();
        }
    };
    count("put of a key that is there", || put(there));
    count("put of a new key", || put(new));
    count("put in a batch of 1,000", || {
        for some in there.chunks(1000) {
            let mut batch = db.batch();
            for key in some {
                batch.put(users, key, VALUE).unwrap();
            }
            batch.commit().unwrap();
        }
    });
    count("delete", || {
        for key in new {
            assert!(users.delete(key).unwrap());
        }
    });
}

fn rich_list(db: &Db) {
    let rich = db.namespace("rich").unwrap();
    let options = PutOptions::new().metadata(*b"{\"v\":1}").expires_in(Duration::from_secs(86_400));
    for nth in 0..KEYS {
        rich.put_with(key(2 * nth), VALUE, options.clone()).unwrap();
    }
    let pages = pages(&rich);
    count("listed key with metadata and expiry", || list(&rich, &pages));
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new().durability(Durability::Os).background(false);
    let db = options.clock(ManualClock::new(NOW_MS)).open(dir.path()).unwrap();
    let users = db.namespace("users").unwrap();
    fill(&db, &users, KEYS, VALUE.len(), 100);
    db.compact().unwrap();
    let mut random = Random(7);
    let mut draw =
        |odd: u64| -> Vec<Key> { (0..TIMES).map(|_| key(2 * random.below(KEYS) + odd)).collect() };
    let (there, absent) = (draw(0), draw(1));
    reads(&users, &there, &absent);
    // Beyond those that are there, and in no order: an odd factor visits each of 2^28 once.
    let new = |nth: u64| key(2 * (KEYS + nth.wrapping_mul(0x9E37_79B1) % (1 << 28)));
    let new: Vec<Key> = (1..=TIMES as u64).map(new).collect();
    writes(&db, &users, &there, &new);
    rich_list(&db);
}
