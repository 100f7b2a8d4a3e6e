//! From which length on should a value lie in a blob instead of in the log?
//!
//! - `lengths`: values of 64 KiB to 4 MiB, each put in a batch of 8 MiB without a sync, put by itself with
//!   one, got with every byte verified and looked at, and put again in random order three times over with
//!   compaction. Shown for the log and for a blob: MiB a second, processor time, syncs for each durable put,
//!   bytes that compaction copied for each byte put, and bytes on disk for each live one.
//! - `beside`: durable puts of 1 KiB, 250 a second, alone and beside four uploads of 25 MiB at 5 MiB/s,
//!   one in ten given up, with those in blobs and in the log. Shown: the puts, dead bytes, and memory.
//!
//! Fixed: 64 MiB of live data for each length; both take turns in each round, and the medians are shown.
//! Leaves out: cold reads (see `cold/`), and the server (`http/` has `puts` over HTTP).
//!
//! Run: `cargo bench --bench large`, about three minutes; `-- beside` for one part, `--dir DIR` for a disk,
//! `--rounds N` (5). Keep a result: benches/record/README.md.
#![allow(clippy::unwrap_used, reason = "a bench")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kvast::{Db, Durability, Namespace, Options, PutOptions, Stats};
use rustix::time::{ClockId, clock_gettime};

#[path = "shape/mod.rs"]
mod shape;

use shape::{Random, key};

const MIB: f64 = (1 << 20) as f64;
const LIVE: usize = 64 << 20;
const BATCH: usize = 8 << 20;
const LENGTHS: [usize; 4] = [64 << 10, 256 << 10, 1 << 20, 4 << 20];
/// Where values lie: the length from which on they lie in blobs.
const PLACES: [(&str, u64); 2] = [("log", 64 << 20), ("blob", 1)];
/// So often is everything put again.
const AGAIN: usize = 3;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut asked, mut dir, mut rounds) = (Vec::new(), std::env::temp_dir(), 5);
    while let Some(argument) = arguments.next() {
        match &argument[..] {
            "--dir" => dir = PathBuf::from(arguments.next().expect("--dir takes a directory")),
            "--rounds" => rounds = arguments.next().unwrap().parse().expect("a number"),
            _ => asked.push(argument),
        }
    }
    let is_asked = |part: &str| asked.is_empty() || asked.iter().any(|other| other == part);
    if is_asked("lengths") {
        lengths(&dir, rounds);
    }
    if is_asked("beside") {
        beside(&dir);
    }
}

fn open(dir: &Path, from: u64, durability: Durability, background: bool) -> (Db, Namespace) {
    let options = Options::new().durability(durability).background(background);
    let db = options.large_value_bytes(from).open(dir).unwrap();
    let values = db.namespace("values").unwrap();
    (db, values)
}

/// What one round gives.
type Row = [f64; 9];

fn lengths(dir: &Path, rounds: usize) {
    println!("\n## lengths\n");
    println!(
        "| value | in the | load, MiB/s | CPU, ms | durable puts/s | syncs each | get, MiB/s | CPU, ms | put again, MiB/s | copied/put | disk/live |"
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for len in LENGTHS {
        let mut rows: [Vec<Row>; PLACES.len()] = Default::default();
        for _ in 0..rounds {
            for (rows, (_, from)) in rows.iter_mut().zip(PLACES) {
                rows.push(one_length(dir, len, from));
            }
        }
        for (rows, (place, _)) in rows.iter().zip(PLACES) {
            let [load, load_cpu, durable, syncs, get, get_cpu, again, copied, disk] =
                std::array::from_fn(|field| median(rows.iter().map(|row| row[field])));
            println!(
                "| {} KiB | {place} | {load:.0} | {load_cpu:.0} | {durable:.0} | {syncs:.2} | {get:.0} | {get_cpu:.0} | {again:.0} | {copied:.2} | {disk:.2} |",
                len >> 10
            );
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn one_length(dir: &Path, len: usize, from: u64) -> Row {
    let dir = tempfile::tempdir_in(dir).unwrap();
    let path = dir.path().join("store");
    let (count, value) = (LIVE / len, vec![b'v'; len]);
    let (db, values) = open(&path, from, Durability::Os, true);
    let (load, load_cpu) = timed(|| {
        for first in (0..count).step_by(BATCH / len) {
            let mut batch = db.batch();
            for id in first..count.min(first + BATCH / len) {
                batch.put(&values, key(id as u64), &value).unwrap();
            }
            batch.commit().unwrap();
        }
    });
    let (get, get_cpu) = timed(|| {
        for _ in 0..AGAIN {
            (0..count).for_each(|id| look(&values, id));
        }
    });
    let mut random = Random(11);
    let (again, _) = timed(|| {
        for _ in 0..AGAIN * count {
            values.put(key(random.below(count as u64)), &value).unwrap();
        }
    });
    db.compact().unwrap();
    let Stats { live_bytes, compaction_copied_bytes, .. } = db.stats();
    let put = ((1 + AGAIN) * LIVE) as f64;
    let (copied, disk) =
        (compaction_copied_bytes as f64 / put, disk_bytes(&path) as f64 / live_bytes as f64);
    drop(values);
    db.close().unwrap();
    let (durable, syncs) = durable(&dir.path().join("durable"), &value, from);
    let mib = LIVE as f64 / MIB;
    [
        mib / load,
        load_cpu * 1e3,
        durable,
        syncs,
        mib * AGAIN as f64 / get,
        get_cpu * 1e3,
        mib * AGAIN as f64 / again,
        copied,
        disk,
    ]
}

/// Puts one at a time, each with its syncs; how many a second, and syncs by the log and by blobs.
fn durable(path: &Path, value: &[u8], from: u64) -> (f64, f64) {
    let (db, values) = open(path, from, Durability::Sync, false);
    let count = (16 << 20) / value.len();
    values.put("before", value).unwrap();
    let before = syncs(&db);
    let (time, _) = timed(|| {
        for id in 0..count {
            values.put(key(id as u64), value).unwrap();
        }
    });
    let in_blob = if from == 1 { count as u64 } else { 0 };
    (count as f64 / time, (syncs(&db) - before + in_blob) as f64 / count as f64)
}

fn syncs(db: &Db) -> u64 {
    db.stats().syncs.count()
}

/// Gets a value and looks at every byte, each block while it is near.
fn look(values: &Namespace, id: usize) {
    let mut stream = values.get_stream(key(id as u64)).unwrap().unwrap();
    let mut sum = 0u64;
    while let Some(block) = stream.next_block() {
        let block = block.unwrap();
        let words = block.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
        sum = words.fold(sum, u64::wrapping_add);
    }
    std::hint::black_box(sum);
}

/// How long something takes, and of the processors' time.
fn timed(work: impl FnOnce()) -> (f64, f64) {
    let processor = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let (began, used) = (Instant::now(), processor());
    work();
    (began.elapsed().as_secs_f64(), processor() - used)
}

fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = fs::read_dir(dir).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512).sum()
}

const UPLOADERS: usize = 4;
const UPLOAD: usize = 25 << 20;
const PIECE: usize = 128 << 10;
const RATE: usize = 5 << 20;
const GIVE_UP_ONE_IN: usize = 10;
const TIME: Duration = Duration::from_secs(15);
const PACE: Duration = Duration::from_millis(4);

fn beside(dir: &Path) {
    println!("\n## beside\n");
    println!(
        "| uploads of 25 MiB | how many | put p50, µs | p99 | p99.9 | longest | memory, MiB | dead, MiB |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    for (place, from) in [("none", 1), ("in blobs", 1 << 20), ("in the log", 64 << 20)] {
        let dir = tempfile::tempdir_in(dir).unwrap();
        let (db, values) = open(dir.path(), from, Durability::Sync, true);
        let (is_over, begun) = (AtomicBool::new(false), AtomicUsize::new(0));
        let memory = memory();
        let (mut took, peak) = thread::scope(|scope| {
            for id in 0..UPLOADERS {
                let (values, is_over, begun) = (&values, &is_over, &begun);
                scope.spawn(move || {
                    while place != "none" && !is_over.load(Ordering::Relaxed) {
                        upload(values, id, begun);
                    }
                });
            }
            let took = puts(&values);
            is_over.store(true, Ordering::Relaxed);
            took
        });
        took.sort_unstable();
        let at = |part: f64| took[(took.len() as f64 * part) as usize].as_secs_f64() * 1e6;
        println!(
            "| {place} | {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} |",
            begun.load(Ordering::Relaxed),
            at(0.5),
            at(0.99),
            at(0.999),
            took.last().unwrap().as_secs_f64() * 1e6,
            (peak - memory.min(peak)) as f64 / MIB,
            db.stats().dead_bytes as f64 / MIB,
        );
        drop(values);
        db.close().unwrap();
    }
}

/// Puts at their pace; from when each was due, and the most memory meanwhile.
fn puts(values: &Namespace) -> (Vec<Duration>, u64) {
    let (value, began) = ([b'v'; 1024], Instant::now());
    let (mut took, mut peak, mut due) = (Vec::new(), 0, began);
    while began.elapsed() < TIME {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        values.put(key(took.len() as u64 % 10_000), value).unwrap();
        took.push(due.elapsed());
        if took.len() % 20 == 0 {
            peak = peak.max(memory());
        }
        due += PACE;
    }
    (took, peak)
}

fn upload(values: &Namespace, id: usize, begun: &AtomicUsize) {
    let turn = 1 + begun.fetch_add(1, Ordering::Relaxed);
    let end = if turn.is_multiple_of(GIVE_UP_ONE_IN) { UPLOAD / 2 } else { UPLOAD };
    let mut upload = values.put_stream(format!("up:{id}"), Some(UPLOAD as u64)).unwrap();
    let (piece, mut due) = ([b'l'; PIECE], Instant::now());
    while (upload.len() as usize) < end {
        upload.write(&piece[..PIECE.min(UPLOAD - upload.len() as usize)]).unwrap();
        due += Duration::from_secs_f64(PIECE as f64 / RATE as f64);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    if end == UPLOAD {
        upload.commit(PutOptions::new()).unwrap();
    }
}

/// What this process has allocated, in bytes.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
