//! What does it cost to read and write a large value whole, and piece by piece?
//!
//! Varies: value length (64 KiB, 1 MiB, 25 MiB), whole (`get`, `put`) or in pieces of 64 KiB
//! (`get_stream`, `put_stream`), and 4 KiB out of the middle. Fixed: 64 MiB of values or four, in the page
//! cache, every byte verified, the first byte of each piece read, durability `Os`, one thread. Leaves out:
//! where the bytes go from there (`http/`), cold disk, values that are stored beside others.
//! Run: `cargo bench --bench stream`. Keep a result: benches/record/README.md.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kvast::{Namespace, PutOptions};

mod shape;

use shape::{key, open};

const PIECE: usize = 64 << 10;

fn read_stream(files: &Namespace, id: u64) {
    let mut stream = files.get_stream(key(id)).unwrap().unwrap();
    while let Some(block) = stream.next_block() {
        black_box(block.unwrap().first());
    }
}

fn read_range(files: &Namespace, id: u64, middle: u64) {
    let stream = files.get_stream(key(id)).unwrap().unwrap();
    let mut range = stream.range(middle..middle + 4096);
    while let Some(block) = range.next_block() {
        black_box(block.unwrap().first());
    }
}

fn put_stream(files: &Namespace, id: u64, value: &[u8]) {
    let mut upload = files.put_stream(key(id), Some(value.len() as u64)).unwrap();
    for piece in value.chunks(PIECE) {
        upload.write(piece).unwrap();
    }
    upload.commit(PutOptions::new()).unwrap();
}

fn stream(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stream");
    group.sample_size(20);
    for (name, len) in [("64KiB", 64 << 10), ("1MiB", 1 << 20), ("25MiB", 25 << 20)] {
        let dir = tempfile::tempdir().unwrap();
        let (_db, files) = open(dir.path());
        let (count, value) = ((64u64 << 20).div_ceil(len as u64).max(4), vec![b'v'; len]);
        for id in 0..count {
            files.put(key(id), &value).unwrap();
        }
        let mut at = 0;
        let mut next = || {
            at = (at + 1) % count;
            at
        };
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("get", name), |bencher| {
            bencher.iter(|| black_box(files.get(key(next())).unwrap().unwrap().first().copied()));
        });
        group.bench_function(BenchmarkId::new("get-stream", name), |bencher| {
            bencher.iter(|| read_stream(&files, next()));
        });
        group.bench_function(BenchmarkId::new("put", name), |bencher| {
            bencher.iter(|| files.put(key(next()), &value).unwrap());
        });
        group.bench_function(BenchmarkId::new("put-stream", name), |bencher| {
            bencher.iter(|| put_stream(&files, next(), &value));
        });
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("range-of-4KiB", name), |bencher| {
            bencher.iter(|| read_range(&files, next(), len as u64 / 2));
        });
    }
    group.finish();
}

criterion_group!(benches, stream);
criterion_main!(benches);
