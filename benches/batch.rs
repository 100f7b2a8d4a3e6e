//! What does a write in a batch cost, and from how many writes on is a batch worth it?
//!
//! Varies: writes in a batch (1 to 10,000), durability (`Os`, `Sync`), whether the batch also checks the
//! version of each key. Fixed: puts of 100 B to 22-byte keys that are there, 10^5 of them, in random
//! order; making the batch is timed too. Leaves out: deletes (delete.rs), several writers (put.rs).
//! Run: `cargo bench --bench batch`. Keep a result: benches/record/README.md.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kvast::{Db, Durability, Namespace, Options};

mod shape;

use shape::{Key, Random, VALUE, key, store};

const KEYS: u64 = 100_000;

fn put_all(db: &Db, users: &Namespace, keys: &[Key]) {
    let mut batch = db.batch();
    for key in keys {
        batch.put(users, key, VALUE).unwrap();
    }
    batch.commit().unwrap();
}

/// The same if each key is where it was looked up.
fn put_all_checked(db: &Db, users: &Namespace, keys: &[Key]) {
    let mut batch = db.batch();
    for key in keys {
        let version = users.get(key).unwrap().map(|value| value.version());
        batch.check(users, key, version).unwrap();
        batch.put(users, key, VALUE).unwrap();
    }
    batch.commit().unwrap();
}

fn batch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch");
    let (dir, db, users) = store(KEYS, VALUE.len());
    let mut random = Random(7);
    let keys: Vec<Key> = (0..KEYS).map(|_| key(2 * random.below(KEYS))).collect();
    drop(users);
    db.close().unwrap();
    for (name, durability) in [("os", Durability::Os), ("sync", Durability::Sync)] {
        let db = Options::new().durability(durability).open(dir.path()).unwrap();
        let users = db.namespace("users").unwrap();
        for len in [1, 10, 100, 1000, 10_000] {
            let mut chunks = keys.chunks(len).cycle();
            group.throughput(Throughput::Elements(len as u64));
            group.bench_function(BenchmarkId::new(name, len), |bencher| {
                bencher.iter(|| put_all(&db, &users, chunks.next().unwrap()));
            });
        }
        let mut chunks = keys.chunks(100).cycle();
        group.throughput(Throughput::Elements(100));
        group.bench_function(BenchmarkId::new(format!("{name}-checked"), 100), |bencher| {
            bencher.iter(|| put_all_checked(&db, &users, chunks.next().unwrap()));
        });
        drop(users);
        db.close().unwrap();
    }
    group.finish();
}

criterion_group!(benches, batch);
criterion_main!(benches);
