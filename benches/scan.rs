//! How long does it take to walk many keys, with and without their values?
//!
//! Varies: forward, backward, forward with a get of each value, and a walk that finds nine of ten keys
//! deleted. Fixed: 10^6 22-byte keys that were put in random order, values of 100 B, one reader, last
//! byte of each key read. Leaves out: the first page alone (list.rs), cold disk, writers meanwhile.
//! Run: `cargo bench --bench scan`. Keep a result: benches/record/README.md.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kvast::{ListOptions, Namespace};

mod shape;

use shape::{VALUE, key, store};

const KEYS: u64 = 1_000_000;

fn walk(users: &Namespace, options: &ListOptions) -> u64 {
    let mut keys = 0;
    for entry in users.scan_with(options.clone()) {
        black_box(entry.unwrap().key.last());
        keys += 1;
    }
    keys
}

fn scan(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scan");
    group.sample_size(10);
    let (_dir, _db, users) = store(KEYS, VALUE.len());
    group.throughput(Throughput::Elements(KEYS));
    for (name, reverse) in [("forward", false), ("backward", true)] {
        let options = ListOptions::new().reverse(reverse);
        group.bench_function(name, |bencher| {
            bencher.iter(|| assert_eq!(walk(&users, &options), KEYS));
        });
    }
    group.bench_function("forward-with-values", |bencher| {
        bencher.iter(|| {
            for entry in users.scan("") {
                let value = users.get(entry.unwrap().key).unwrap().unwrap();
                black_box(value.last());
            }
        });
    });
    for id in (0..KEYS).filter(|id| id % 10 != 0) {
        users.delete(key(2 * id)).unwrap();
    }
    group.throughput(Throughput::Elements(KEYS / 10));
    group.bench_function("nine-of-ten-deleted", |bencher| {
        bencher.iter(|| assert_eq!(walk(&users, &ListOptions::new()), KEYS / 10));
    });
    group.finish();
}

criterion_group!(benches, scan);
criterion_main!(benches);
