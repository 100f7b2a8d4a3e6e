//! How long does it take to delete a key, one by one, by condition, and by prefix?
//!
//! Varies: keys that are there or absent, in a commit each or 1,000 a commit, with and without a
//! version, a prefix of 100 keys. Fixed: 22-byte keys in random order, values of 100 B, 10^6 keys
//! beside those that are deleted, durability `Os`, one writer, background threads on. Leaves out: syncs
//! (those of puts: put.rs), what compaction does with it later, values in blobs.
//! Run: `cargo bench --bench delete`. Keep a result: benches/record/README.md.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kvast::{Db, Namespace};

mod shape;

use shape::{Key, Random, VALUE, key, store};

const KEYS: u64 = 1_000_000;
const MANY: usize = 1000;

/// Puts `count` of the keys that are there once more, so that each is there whatever was deleted.
fn present(db: &Db, users: &Namespace, random: &mut Random, count: usize) -> Vec<Key> {
    let first = random.below(KEYS);
    // An odd step far from the keys' order; it meets no key twice.
    let number = |nth: u64| 2 * ((first + nth * 618_033) % KEYS);
    let keys: Vec<Key> = (0..count as u64).map(|nth| key(number(nth))).collect();
    let mut batch = db.batch();
    keys.iter().for_each(|key| batch.put(users, key, VALUE).unwrap());
    batch.commit().unwrap();
    keys
}

fn delete(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("delete");
    let (_dir, db, users) = store(KEYS, VALUE.len());
    let mut random = Random(7);
    group.throughput(Throughput::Elements(MANY as u64));
    group.bench_function("there", |bencher| {
        bencher.iter_batched(
            || present(&db, &users, &mut random, MANY),
            |keys| keys.iter().for_each(|key| assert!(users.delete(key).unwrap())),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("there-at-a-version", |bencher| {
        bencher.iter_batched(
            || {
                let keys = present(&db, &users, &mut random, MANY);
                let version = |key: Key| (key, users.get(key).unwrap().unwrap().version());
                keys.into_iter().map(version).collect::<Vec<_>>()
            },
            |keys| keys.iter().for_each(|(key, version)| users.delete_if(key, *version).unwrap()),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("batch-of-1000", |bencher| {
        bencher.iter_batched(
            || {
                let mut batch = db.batch();
                for key in present(&db, &users, &mut random, MANY) {
                    batch.delete(&users, key).unwrap();
                }
                batch
            },
            |batch| batch.commit().unwrap(),
            BatchSize::PerIteration,
        );
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("absent", |bencher| {
        let absent: Vec<Key> = (0..100_000).map(|_| key(2 * random.below(KEYS) + 1)).collect();
        let mut at = 0;
        bencher.iter(|| {
            at = (at + 1) % absent.len();
            assert!(!users.delete(absent[at]).unwrap());
        });
    });
    group.throughput(Throughput::Elements(100));
    group.bench_function("prefix-of-100-keys", |bencher| {
        bencher.iter_batched(
            || {
                let mut batch = db.batch();
                // Seven digits of nine are the same for a hundred numbers.
                let first = 100 * random.below(KEYS / 100);
                (first..first + 100).for_each(|id| batch.put(&users, key(id), VALUE).unwrap());
                batch.commit().unwrap();
                key(first)[..12].to_vec()
            },
            |prefix| users.delete_prefix(prefix).unwrap(),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, delete);
criterion_main!(benches);
