//! How long does it take from a directory to the first value?
//!
//! Varies: keys (10^4, 10^6), put one a commit or 1,000 a commit, closed in order or left open
//! without a close, as a kill leaves it. Fixed: 22-byte keys put in random order, values of 100 B,
//! files in the page cache, no background threads while it is measured. Leaves out: cold disk, damage.
//! Run: `cargo bench --bench reopen`. Keep a result: benches/record/README.md.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use kvast::{Durability, Options};

mod shape;

use shape::{VALUE, fill, key, open};

/// A copy of the directory of a store that is open is what a kill at this moment would leave. Pages
/// of zeros are left out, as they are in the original, where they were never written.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        let copy = File::create(to.join(file.file_name())).unwrap();
        copy.set_len(bytes.len() as u64).unwrap();
        for (nth, page) in bytes.chunks(4096).enumerate() {
            if page.iter().any(|byte| *byte != 0) {
                copy.write_all_at(page, nth as u64 * 4096).unwrap();
            }
        }
    }
}

fn first_get(dir: &Path) {
    let options = Options::new().durability(Durability::Os).background(false);
    let db = options.open(dir).unwrap();
    let users = db.namespace("users").unwrap();
    assert!(users.get(key(2)).unwrap().is_some());
    drop(users);
    db.close().unwrap();
}

fn reopen(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reopen");
    group.sample_size(10);
    for (keys, per_commit) in [(10_000, 1), (1_000_000, 1), (1_000_000, 1000)] {
        let dir = tempfile::tempdir().unwrap();
        let (closed, killed) = (dir.path().join("closed"), dir.path().join("killed"));
        let (db, users) = open(&closed);
        fill(&db, &users, keys, VALUE.len(), per_commit);
        copy(&closed, &killed);
        drop(users);
        db.close().unwrap();
        for (state, dir) in [("closed", &closed), ("killed", &killed)] {
            let shape = format!("{keys}-keys-{per_commit}-a-commit");
            group.bench_function(BenchmarkId::new(state, shape), |bencher| {
                bencher.iter(|| first_get(dir));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, reopen);
criterion_main!(benches);
