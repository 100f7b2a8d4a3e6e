//! How should a log be laid out ahead of its records?
//!
//! Varies: what was done to the file before it is written to (nothing, so that it grows; its length set;
//! blocks allocated by `fallocate`; zeros written 4 KiB or 4 MiB at a time), and whether a sync follows
//! each write. Fixed: writes of 168 B, the length of a put of a 22-byte key and 100 B, one behind the
//! other, one thread, no engine. Leaves out: what laying out costs, other file systems than that of the
//! temporary directory, and what writers in parallel do.
//! What came of it: a log's length is set, and zeros run ahead of it 4 KiB at a time while it is synced
//! (`engine/src/segment/active.rs`).
//! Run: `cargo bench --bench preallocate`. Keep a result: benches/record/README.md.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const RECORD: [u8; 168] = [b'r'; 168];
/// What is laid out, and written to before there is a new file.
const LEN: u64 = 16 << 20;

#[derive(Clone, Copy, Debug)]
enum Layout {
    Grows,
    LengthSet,
    Fallocated,
    ZerosBy(usize),
}

impl Layout {
    fn name(self) -> String {
        match self {
            Layout::Grows => "grows".into(),
            Layout::LengthSet => "length-set".into(),
            Layout::Fallocated => "fallocated".into(),
            Layout::ZerosBy(len) => format!("zeros-by-{}KiB", len >> 10),
        }
    }

    /// A new file, on disk as it is.
    fn lay_out(self, path: &Path) -> File {
        let file = File::create(path).unwrap();
        match self {
            Layout::Grows => {}
            Layout::LengthSet => file.set_len(LEN).unwrap(),
            Layout::Fallocated => {
                let mut fallocate = Command::new("fallocate");
                let done = fallocate.args(["-l", &LEN.to_string()]).arg(path).status();
                assert!(done.expect("fallocate, of util-linux").success());
            }
            Layout::ZerosBy(len) => {
                let zeros = vec![0; len];
                for at in (0..LEN).step_by(len) {
                    file.write_all_at(&zeros, at).unwrap();
                }
            }
        }
        file.sync_all().unwrap();
        file
    }
}

/// Writes records, in new files as the old ones are full; only the writing counts.
fn write(layout: Layout, sync: bool, path: &Path, records: u64) -> Duration {
    let (mut took, mut left) = (Duration::ZERO, records);
    while left > 0 {
        let file = layout.lay_out(path);
        let now = left.min(LEN / RECORD.len() as u64);
        let begun = Instant::now();
        for nth in 0..now {
            file.write_all_at(&RECORD, nth * RECORD.len() as u64).unwrap();
            if sync {
                file.sync_data().unwrap();
            }
        }
        took += begun.elapsed();
        left -= now;
    }
    took
}

fn preallocate(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let layouts = [
        Layout::Grows,
        Layout::LengthSet,
        Layout::Fallocated,
        Layout::ZerosBy(4 << 10),
        Layout::ZerosBy(4 << 20),
    ];
    for (name, sync) in [("append", false), ("append-and-sync", true)] {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(1)).sample_size(20);
        for layout in layouts {
            group.bench_function(layout.name(), |bencher| {
                bencher.iter_custom(|records| write(layout, sync, &path, records));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, preallocate);
criterion_main!(benches);
