//! How long do writes take that depend on what is there: on conditions, and new expiries?
//!
//! Varies: a put at the version that is there, at another one (refused), if absent; `set_expiry` of a
//! short value, which is copied, and of one in a blob, which is not; of a key that is absent. Fixed:
//! 22-byte keys at random, 10^5 of them, values of 100 B (in a blob 1 MiB), durability `Os`, one writer.
//! Leaves out: syncs, writers that compete for a key, conditions in a batch (batch.rs).
//! Run: `cargo bench --bench change`. Keep a result: benches/record/README.md.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kvast::{Expiry, PutOptions};

mod shape;

use shape::{Key, Random, VALUE, key, store};

const KEYS: u64 = 100_000;
/// Far away, and another one each time.
const SOME_DAY_MS: u64 = 4_102_444_800_000;

fn change(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("change");
    let (_dir, db, users) = store(KEYS, VALUE.len());
    let mut random = Random(7);
    let there: Vec<Key> = (0..KEYS).map(|_| key(2 * random.below(KEYS))).collect();
    let mut at = 0;
    group.throughput(Throughput::Elements(1));
    group.bench_function("put-at-its-version", |bencher| {
        // The same key again and again, so that its version is known without a get.
        let mut version = users.put(there[0], VALUE).unwrap();
        bencher.iter(|| {
            let options = PutOptions::new().if_version(version);
            version = users.put_with(there[0], VALUE, options).unwrap();
        });
    });
    group.bench_function("put-at-another-version", |bencher| {
        bencher.iter(|| {
            at = (at + 1) % there.len();
            let options = PutOptions::new().if_version(u64::MAX);
            assert!(users.put_with(there[at], VALUE, options).is_err());
        });
    });
    group.bench_function("put-if-absent", |bencher| {
        let mut next = 0u64;
        bencher.iter(|| {
            next += 1;
            let new = key(2 * (next.wrapping_mul(0x9E37_79B1) % (1 << 28)) + 1);
            users.put_with(new, VALUE, PutOptions::new().if_absent()).unwrap()
        });
    });
    let mut ms = SOME_DAY_MS;
    group.bench_function("set-expiry", |bencher| {
        bencher.iter(|| {
            (at, ms) = ((at + 1) % there.len(), ms + 1);
            users.set_expiry(there[at], Expiry::At(ms)).unwrap().unwrap()
        });
    });
    group.bench_function("set-expiry-of-an-absent-key", |bencher| {
        bencher.iter(|| assert!(users.set_expiry("absent", Expiry::Never).unwrap().is_none()));
    });
    let files = db.namespace("files").unwrap();
    for id in 0..100 {
        files.put(key(id), vec![b'v'; 1 << 20]).unwrap();
    }
    group.bench_function("set-expiry-of-a-value-in-a-blob", |bencher| {
        bencher.iter(|| {
            (at, ms) = ((at + 1) % 100, ms + 1);
            files.set_expiry(key(at as u64), Expiry::At(ms)).unwrap().unwrap()
        });
    });
    group.finish();
}

criterion_group!(benches, change);
criterion_main!(benches);
