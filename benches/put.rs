//! How long does `put` take, with and without a sync, alone and in a batch?
//!
//! Varies: durability (`Os`, `Sync`), new keys or keys that are there, one put a commit or 1,000.
//! Fixed: 22-byte keys in random order, values of 100 B, one writer, background threads on. Leaves
//! out: several writers (see `rivals/`), long values, a full disk.
//! Run: `cargo bench --bench put`. Keep a result: benches/record/README.md.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kvast::{Durability, Options};

mod shape;

use shape::{Random, VALUE, key, store};

const KEYS: u64 = 100_000;

fn put(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("put");
    let (dir, db, users) = store(KEYS, VALUE.len());
    let mut random = Random(7);
    let there: Vec<_> = (0..KEYS).map(|_| key(2 * random.below(KEYS))).collect();
    let mut at = 0;
    group.throughput(Throughput::Elements(1));
    group.bench_function("os/there", |bencher| {
        bencher.iter(|| {
            at = (at + 1) % there.len();
            users.put(there[at], VALUE).unwrap()
        });
    });
    // Numbers that no key has yet, far apart: an odd factor visits each of 2^28 once. The key is made
    // outside of what is timed.
    let mut next = 1u64;
    group.bench_function("os/new", |bencher| {
        bencher.iter_batched(
            || {
                next += 1;
                key(2 * (next.wrapping_mul(0x9E37_79B1) % (1 << 28)) + 1)
            },
            |key| users.put(key, VALUE).unwrap(),
            BatchSize::SmallInput,
        );
    });
    group.throughput(Throughput::Elements(1000));
    group.bench_function("os/batch-of-1000", |bencher| {
        bencher.iter_batched(
            || {
                let mut batch = db.batch();
                for _ in 0..1000 {
                    at = (at + 1) % there.len();
                    batch.put(&users, there[at], VALUE).unwrap();
                }
                batch
            },
            |batch| batch.commit().unwrap(),
            BatchSize::LargeInput,
        );
    });
    drop(users);
    db.close().unwrap();

    let db = Options::new().durability(Durability::Sync).open(dir.path()).unwrap();
    let users = db.namespace("users").unwrap();
    group.throughput(Throughput::Elements(1));
    group.bench_function("sync/there", |bencher| {
        bencher.iter(|| {
            at = (at + 1) % there.len();
            users.put(there[at], VALUE).unwrap()
        });
    });
    group.finish();
}

criterion_group!(benches, put);
criterion_main!(benches);
