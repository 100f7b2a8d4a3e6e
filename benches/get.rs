//! How long does `get` take when the value is in the page cache?
//!
//! Varies: value length (64 B, 4 KiB, 1 MiB), keys (10^4, 10^6; for 1 MiB 100), present or absent, one
//! key a call or 16, 100, as `get_many` takes them.
//! Fixed: 22-byte keys at random, one reader, checksum verified, first and last byte read. Leaves out:
//! cold disk, several readers and other stores (see `rivals/`), HTTP.
//! Run: `cargo bench --bench get`. Keep a result: benches/record/README.md.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

mod shape;

use shape::{Random, key, store};

fn get(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("get");
    for (keys, value_len) in [(10_000, 64), (1_000_000, 64), (10_000, 4096), (100, 1 << 20)] {
        let (_dir, _db, users) = store(keys, value_len);
        // In the order of the lookups, so that fetching the key to look up costs nothing.
        let mut random = Random(7);
        let asked: Vec<_> = (0..100_000).map(|_| key(2 * random.below(keys))).collect();
        let absent: Vec<_> = (0..100_000).map(|_| key(2 * random.below(keys) + 1)).collect();
        let mut at = 0;
        if value_len > 4096 {
            group.throughput(Throughput::Bytes(value_len as u64));
        } else {
            group.throughput(Throughput::Elements(1));
        }
        let shape = format!("{keys}x{value_len}");
        group.bench_function(BenchmarkId::new("present", &shape), |bencher| {
            bencher.iter(|| {
                at = (at + 1) % asked.len();
                let value = users.get(asked[at]).unwrap().unwrap();
                black_box((value.first(), value.last()));
            });
        });
        if value_len <= 4096 {
            for many in [16, 100] {
                let mut chunks = asked.chunks_exact(many).cycle();
                group.throughput(Throughput::Elements(many as u64));
                group.bench_function(BenchmarkId::new(format!("many-{many}"), &shape), |bencher| {
                    bencher.iter(|| {
                        for value in users.get_many(chunks.next().unwrap()).unwrap() {
                            black_box(
                                value.map(|value| (value.first().copied(), value.last().copied())),
                            );
                        }
                    });
                });
            }
        }
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("absent", &shape), |bencher| {
            bencher.iter(|| {
                at = (at + 1) % absent.len();
                black_box(users.get(absent[at]).unwrap().is_none())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, get);
criterion_main!(benches);
