//! How long does a page of `list` take, and what does a key of it cost?
//!
//! Varies: page length (10, 1,000), with and without metadata and expiry, from the first key of a
//! short prefix or from a cursor at a random place. Fixed: 10^6 22-byte keys, one reader, last byte of
//! each key read. Leaves out: many expired keys, several readers and other stores (see `rivals/`).
//! Run: `cargo bench --bench list`. Keep a result: benches/record/README.md.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kvast::{ListOptions, Namespace, PutOptions};

mod shape;

use shape::{Random, VALUE, key, store};

const KEYS: u64 = 1_000_000;

fn touch(users: &Namespace, options: &ListOptions) -> usize {
    let page = users.list(options).unwrap();
    for listed in page.iter() {
        black_box(listed.key.last());
    }
    page.len()
}

/// Pages of `limit` keys from places all over the namespace, in random order.
fn pages(users: &Namespace, limit: usize) -> Vec<ListOptions> {
    let (mut pages, mut at) = (Vec::new(), ListOptions::new().limit(1009));
    while let Some(cursor) = users.list(&at).unwrap().cursor() {
        pages.push(ListOptions::new().limit(limit).cursor(cursor));
        at = at.cursor(cursor);
    }
    pages.pop();
    let mut random = Random(7);
    for last in (1..pages.len()).rev() {
        pages.swap(last, random.below(last as u64 + 1) as usize);
    }
    pages
}

fn list(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("list");
    let (_dir, db, users) = store(KEYS, VALUE.len());
    let mut at = 0;
    for limit in [10, 1000] {
        let pages = pages(&users, limit);
        group.throughput(Throughput::Elements(limit as u64));
        group.bench_function(BenchmarkId::new("cursor", limit), |bencher| {
            bencher.iter(|| {
                at = (at + 1) % pages.len();
                touch(&users, &pages[at])
            });
        });
    }
    // Every second number is a key: a prefix of eight digits of nine has five.
    let prefixes: Vec<_> =
        (0..1000).map(|nth| ListOptions::new().prefix(&key(2 * nth * 997)[..13])).collect();
    group.throughput(Throughput::Elements(1));
    group.bench_function("prefix-of-5-keys", |bencher| {
        bencher.iter(|| {
            at = (at + 1) % prefixes.len();
            assert_eq!(touch(&users, &prefixes[at]), 5);
        });
    });

    let rich = db.namespace("rich").unwrap();
    let options = PutOptions::new().metadata(*b"{\"v\":1}").expires_in(Duration::from_secs(86_400));
    for nth in 0..100_000 {
        rich.put_with(key(2 * nth), VALUE, options.clone()).unwrap();
    }
    let pages = pages(&rich, 1000);
    group.throughput(Throughput::Elements(1000));
    group.bench_function("cursor-with-metadata-and-expiry/1000", |bencher| {
        bencher.iter(|| {
            at = (at + 1) % pages.len();
            touch(&rich, &pages[at])
        });
    });
    group.finish();
}

criterion_group!(benches, list);
criterion_main!(benches);
