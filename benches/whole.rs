//! How long do those take that look at a whole store: verify, checkpoint, compaction, numbers?
//!
//! Varies: the work; compaction of a store of which every second record was written over. Fixed: 10^6
//! 22-byte keys, values of 100 B, files in the page cache, nothing else at work. Leaves out: cold disk,
//! where verify is as fast as the disk; a checkpoint to another file system, which copies; readers and
//! writers beside it (`rivals/`).
//! Run: `cargo bench --bench whole`. Keep a result: benches/record/README.md.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kvast::{Durability, Options};
use tempfile::TempDir;

mod shape;

use shape::{VALUE, fill, key, store};

const KEYS: u64 = 1_000_000;

fn reads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("whole");
    group.sample_size(10);
    let (dir, db, _users) = store(KEYS, VALUE.len());
    group.throughput(Throughput::Bytes(db.stats().record_bytes));
    group.bench_function("verify", |bencher| {
        bencher.iter(|| assert!(db.verify(|_| ()).unwrap().is_sound()));
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("checkpoint", |bencher| {
        let mut nth = 0;
        bencher.iter_batched(
            || {
                nth += 1;
                let copies = tempfile::tempdir_in(dir.path().parent().unwrap()).unwrap();
                (copies.path().join(nth.to_string()), copies)
            },
            |(copy, copies)| {
                db.checkpoint(copy).unwrap();
                copies
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("stats", |bencher| bencher.iter(|| black_box(db.stats())));
    group.bench_function("residency", |bencher| bencher.iter(|| black_box(db.residency())));
    group.finish();
}

/// A tenth of the keys, since each turn needs a store of its own.
fn compaction(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("whole");
    group.sample_size(10);
    let keys = KEYS / 10;
    group.throughput(Throughput::Elements(keys));
    let half_written_over = || {
        let dir: TempDir = tempfile::tempdir().unwrap();
        let options = Options::new().durability(Durability::Os).background(false);
        let db = options.segment_bytes(4 << 20).open(dir.path()).unwrap();
        let users = db.namespace("users").unwrap();
        fill(&db, &users, keys, VALUE.len(), 100);
        for id in (0..keys).step_by(2) {
            users.put(key(2 * id), VALUE).unwrap();
        }
        (dir, db)
    };
    group.bench_function("compact", |bencher| {
        bencher.iter_batched(
            half_written_over,
            |(dir, db)| {
                db.compact().unwrap();
                (dir, db)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, reads, compaction);
criterion_main!(benches);
