//! How does kvast compare with LMDB at what LMDB does best, and at what it does not?
//!
//! Varies: the store; the work (get, miss, zipf, list, put with and without sync, reopen); 1, 2 and
//! 8 threads. Fixed: 22-byte keys `user:{id:09}:profile` of which every second id is there, loaded in
//! random order, values of 100 bytes, both stores in the page cache, kvast's defaults but for the
//! durability that a row names. Leaves out: cold disk, long values, HTTP, other rivals.
//!
//! Each row is measured in rounds; in each round both stores do the very same work one after the
//! other, and take turns at going first. Shown are the medians, and the median, least and greatest of
//! the rounds' ratios.
//!
//! How each store is used:
//! - LMDB: MDB_NORDAHEAD always; reads, and puts without sync, with MDB_WRITEMAP and MDB_NOSYNC;
//!   durable puts with the defaults. A thread opens one read transaction and does all gets of its round
//!   in it, which is the fastest way there is; a server would open one for each request.
//! - kvast: one `get` and one `list` call each, checksums verified, background threads on; a page
//!   copies its keys and makes its cursor.
//! - While durable puts are measured, a process of the lowest priority keeps each core awake: on a
//!   virtual machine a core that fell asleep over a sync can take 3 ms to notice that it is done, which
//!   says nothing about the store.
//! - Of each value the first and the last byte are read, of each listed key the last.
//!
//! Run: `cargo run --release` here, about four minutes; `-- --quick` for a look, `-- --dir DIR` to
//! choose a disk. Keep a result: `../record/README.md`.

mod count;
mod data;
mod kvast_store;
mod lmdb_store;
mod report;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use data::{Data, KEY_LEN, Key, Random, VALUE_LEN};
use kvast_store::KvastStore;
use lmdb_store::LmdbStore;
use report::{Goal, Pairs, Report};

#[global_allocator]
static HEAP: count::Counting = count::Counting;

/// What both stores can do. Each call does many operations, so that nothing is dispatched for each.
trait Store: Sync + Sized {
    fn open(dir: &Path, durable: bool) -> Self;
    /// Lets the background finish its work.
    fn settle(&self);
    fn close(self);
    /// Gets each key and returns how many were there.
    fn gets(&self, keys: &[Key]) -> usize;
    /// Lists 1,000 keys from each of these places, see [`data::Data::places`]; returns how many.
    fn lists(&self, places: &[usize]) -> usize;
    /// Puts each key in a commit of its own, until `until`; returns how many were put.
    fn puts(&self, keys: &[Key], until: Option<Instant>) -> usize;
    /// Puts all keys, 1,000 in a commit.
    fn put_batches(&self, keys: &[Key]);
}

struct Arguments {
    keys: usize,
    rounds: usize,
    dir: PathBuf,
    /// Only keep a core awake.
    spin: bool,
    /// Only load this store in `dir`, say so and wait to be killed.
    load: Option<String>,
}

fn main() {
    let arguments = arguments();
    while arguments.spin {
        std::hint::spin_loop();
    }
    let dir = &arguments.dir;
    if let Some(store) = &arguments.load {
        match &store[..] {
            "kvast" => load_and_wait::<KvastStore>(dir, arguments.keys),
            _ => load_and_wait::<LmdbStore>(dir, arguments.keys),
        }
    }
    let _ = std::fs::remove_dir_all(dir);
    let data = Data::new(arguments.keys);
    let mut report = Report::new(arguments.keys, arguments.rounds);
    loads(&arguments, &data, &mut report);
    reads(&arguments, &data, &mut report);
    durable_puts(&arguments, &data, &mut report);
    space_and_reopen(&arguments, &data, &mut report);
    let _ = std::fs::remove_dir_all(dir);
    print!("{report}");
}

fn arguments() -> Arguments {
    let mut arguments = Arguments {
        keys: 1_000_000,
        rounds: 9,
        dir: std::env::temp_dir().join(format!("kvast-rivals-{}", std::process::id())),
        spin: false,
        load: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match &word[..] {
            "--quick" => (arguments.keys, arguments.rounds) = (100_000, 3),
            "--keys" => arguments.keys = value().parse().expect("a number of keys"),
            "--rounds" => arguments.rounds = value().parse().expect("a number of rounds"),
            "--dir" => arguments.dir = PathBuf::from(value()).join("kvast-rivals"),
            "--spin" => arguments.spin = true,
            "--load" => {
                arguments.load = Some(value());
                arguments.dir = PathBuf::from(words.next().expect("a directory"));
            }
            _ => panic!("unknown argument {word}"),
        }
    }
    arguments
}

/// Runs both sides in rounds and takes turns at who goes first. A side returns what it did and how
/// long that took.
fn rounds(
    rounds: usize,
    mut kvast: impl FnMut(usize) -> f64,
    mut lmdb: impl FnMut(usize) -> f64,
) -> Pairs {
    let mut pairs = Pairs::default();
    for round in 0..rounds {
        let pair = if round % 2 == 0 {
            let kvast = kvast(round);
            (kvast, lmdb(round))
        } else {
            let lmdb = lmdb(round);
            (kvast(round), lmdb)
        };
        pairs.push(pair);
    }
    pairs
}

/// Operations a second.
fn rate(work: impl FnOnce() -> usize) -> f64 {
    let begin = Instant::now();
    let done = work();
    done as f64 / begin.elapsed().as_secs_f64()
}

/// The same of several threads together, from the start of the first to the end of the last.
fn rate_of_threads(threads: usize, work: impl Fn(usize) -> usize + Sync) -> f64 {
    let barrier = Barrier::new(threads + 1);
    std::thread::scope(|scope| {
        let spawn = |thread| {
            let (work, barrier) = (&work, &barrier);
            scope.spawn(move || {
                barrier.wait();
                work(thread)
            })
        };
        let threads: Vec<_> = (0..threads).map(spawn).collect();
        barrier.wait();
        rate(|| threads.into_iter().map(|thread| thread.join().expect("a worker")).sum())
    })
}

fn loads(arguments: &Arguments, data: &Data, report: &mut Report) {
    let rounds_of_load = arguments.rounds.div_ceil(3);
    let (mut kvast, mut lmdb) = dirs(&arguments.dir, "batch");
    let load = |dir: &Path, batched: bool, is_kvast: bool| {
        let _ = std::fs::remove_dir_all(dir);
        if is_kvast {
            timed_load::<KvastStore>(dir, data, batched)
        } else {
            timed_load::<LmdbStore>(dir, data, batched)
        }
    };
    let pairs = rounds(rounds_of_load, |_| load(&kvast, true, true), |_| load(&lmdb, true, false));
    report.row("put without sync, 1,000 a commit, random order", "puts/s", Goal::More, pairs);
    remove(&[&kvast, &lmdb]);
    (kvast, lmdb) = dirs(&arguments.dir, "main");
    let pairs =
        rounds(rounds_of_load, |_| load(&kvast, false, true), |_| load(&lmdb, false, false));
    report.row("put without sync, one a commit, random order", "puts/s", Goal::More, pairs);
}

fn timed_load<S: Store>(dir: &Path, data: &Data, batched: bool) -> f64 {
    let store = S::open(dir, false);
    let rate = rate(|| {
        if batched {
            store.put_batches(&data.keys);
            data.keys.len()
        } else {
            store.puts(&data.keys, None)
        }
    });
    store.close();
    rate
}

fn dirs(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    (dir.join(name).join("kvast"), dir.join(name).join("lmdb"))
}

fn remove(dirs: &[&Path]) {
    for dir in dirs {
        let _ = std::fs::remove_dir_all(dir);
    }
}

fn reads(arguments: &Arguments, data: &Data, report: &mut Report) {
    let (kvast_dir, lmdb_dir) = dirs(&arguments.dir, "main");
    let (kvast, lmdb) = (KvastStore::open(&kvast_dir, false), LmdbStore::open(&lmdb_dir, false));
    kvast.settle();
    lmdb.settle();
    let per_round = 500_000.min(2 * arguments.keys);
    let mut random = Random(7);
    let works: [(&str, Box<dyn Fn(&mut Random) -> Key>, usize); 5] = [
        ("get, uniform, 1 thread", Box::new(|random| data.uniform(random)), 1),
        ("get, uniform, 2 threads", Box::new(|random| data.uniform(random)), 2),
        ("get, zipf 0.99, 1 thread", Box::new(|random| data.zipf(random)), 1),
        ("get, zipf 0.99, 2 threads", Box::new(|random| data.zipf(random)), 2),
        ("get, key absent, 1 thread", Box::new(|random| data.absent(random)), 1),
    ];
    for (work, draw, threads) in &works {
        // A flat array in the order of the lookups: reading it costs both the same, and next to nothing.
        let lookups: Vec<Vec<Key>> =
            (0..*threads).map(|_| (0..per_round).map(|_| draw(&mut random)).collect()).collect();
        let there = if work.contains("absent") { 0 } else { per_round };
        let check = |found: usize| {
            assert_eq!(found, there, "{work}");
            per_round
        };
        let pairs = rounds(
            arguments.rounds,
            |_| rate_of_threads(*threads, |thread| check(kvast.gets(&lookups[thread]))),
            |_| rate_of_threads(*threads, |thread| check(lmdb.gets(&lookups[thread]))),
        );
        report.row(work, "gets/s", Goal::More, pairs);
    }
    let places: Vec<usize> = (0..2000).map(|_| random.below(data.places())).collect();
    for threads in [1, 2] {
        let pairs = rounds(
            arguments.rounds,
            |_| rate_of_threads(threads, |_| kvast.lists(&places)),
            |_| rate_of_threads(threads, |_| lmdb.lists(&places)),
        );
        let work = format!("list of 1,000 from a random place, {threads} thread(s)");
        report.row(&work, "keys/s", Goal::More, pairs);
    }
    report.note(format!(
        "Index of kvast after the load in random order: {:.1} bytes a key, keys included.",
        kvast.index_bytes() as f64 / data.keys.len() as f64
    ));
    kvast.close();
    lmdb.close();
}

fn durable_puts(arguments: &Arguments, data: &Data, report: &mut Report) {
    let (kvast_dir, lmdb_dir) = dirs(&arguments.dir, "main");
    let (kvast, lmdb) = (KvastStore::open(&kvast_dir, true), LmdbStore::open(&lmdb_dir, true));
    kvast.settle();
    lmdb.settle();
    let _awake = Awake::start();
    // Keys that are there, so that the stores do not grow from round to round.
    let mut random = Random(11);
    let keys: Vec<Key> = (0..200_000).map(|_| data.uniform(&mut random)).collect();
    let share = keys.len() / 8;
    let time = Duration::from_millis(if arguments.keys < 1_000_000 { 300 } else { 1000 });
    let puts = |store: &dyn Fn(&[Key], Option<Instant>) -> usize, thread: usize| {
        store(&keys[thread * share..][..share], Some(Instant::now() + time))
    };
    for threads in [1, 8] {
        let pairs = rounds(
            arguments.rounds,
            |_| {
                rate_of_threads(threads, |thread| {
                    puts(&|keys, until| kvast.puts(keys, until), thread)
                })
            },
            |_| {
                rate_of_threads(threads, |thread| {
                    puts(&|keys, until| lmdb.puts(keys, until), thread)
                })
            },
        );
        let work = format!("durable put, {threads} thread(s)");
        report.row(&work, "puts/s", Goal::More, pairs);
    }
    let floor_file = arguments.dir.join("floor");
    let pairs = rounds(
        arguments.rounds,
        |_| rate(|| puts(&|keys, until| kvast.puts(keys, until), 0)),
        |_| bare_appends(&floor_file, time),
    );
    report.row_beside(
        "durable put, 1 thread",
        "bare 208 B write + fdatasync into written blocks",
        "puts/s",
        Goal::More,
        pairs,
    );
    kvast.close();
    lmdb.close();
}

/// Processes that keep the cores awake, and are killed when this is dropped.
struct Awake(Vec<Child>);

impl Awake {
    fn start() -> Awake {
        let binary = std::env::current_exe().expect("the path of this binary");
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let spin = |_| {
            let mut command = Command::new("chrt");
            command.args(["--idle", "0"]).arg(&binary).arg("--spin");
            command.spawn().expect("chrt, of util-linux, which sets the priority")
        };
        Awake((0..cores).map(spin).collect())
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().expect("to kill it");
            child.wait().expect("it to be gone");
        }
    }
}

/// What the disk allows: writes of the length of a put into blocks that were written before.
fn bare_appends(path: &Path, time: Duration) -> f64 {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::create(path).expect("a file to write to");
    for page in 0..2048 {
        file.write_all_at(&[0; 4096], page * 4096).expect("room for zeros");
    }
    file.sync_all().expect("the disk to sync");
    rate(|| {
        let (until, mut written) = (Instant::now() + time, 0);
        while Instant::now() < until && written < 40_000 {
            file.write_all_at(&[1; 208], written * 208).expect("room for a record");
            file.sync_data().expect("the disk to sync");
            written += 1;
        }
        written as usize
    })
}

fn space_and_reopen(arguments: &Arguments, data: &Data, report: &mut Report) {
    let (kvast_dir, lmdb_dir) = dirs(&arguments.dir, "reopen");
    timed_load::<KvastStore>(&kvast_dir, data, false);
    timed_load::<LmdbStore>(&lmdb_dir, data, false);
    let user = (data.keys.len() * (KEY_LEN + VALUE_LEN)) as f64;
    let mut pairs = Pairs::default();
    pairs.push((disk_bytes(&kvast_dir) as f64 / user, disk_bytes(&lmdb_dir) as f64 / user));
    report.row("disk bytes per user byte, loaded and closed", "", Goal::Less, pairs);
    let pairs = rounds(
        arguments.rounds,
        |_| reopen::<KvastStore>(&kvast_dir, data),
        |_| reopen::<LmdbStore>(&lmdb_dir, data),
    );
    report.row("open to the first get, closed in order", "ms", Goal::Less, pairs);

    let (kvast_dir, lmdb_dir) = dirs(&arguments.dir, "killed");
    load_and_kill("kvast", &kvast_dir, arguments.keys);
    load_and_kill("lmdb", &lmdb_dir, arguments.keys);
    let pairs = rounds(
        arguments.rounds,
        |_| reopen_quietly(&kvast_dir, data),
        |_| reopen::<LmdbStore>(&lmdb_dir, data),
    );
    report.row("open to the first get, killed after the load", "ms", Goal::Less, pairs);

    let ((store, heap), keys) =
        (count::heap_of(|| KvastStore::open(&kvast_dir, false)), data.keys.len());
    report.note(format!(
        "After the reopening: index {:.1} bytes a key, keys included; heap of the whole store by a \
         counting allocator {:.1} bytes a key.",
        store.index_bytes() as f64 / keys as f64,
        heap as f64 / keys as f64,
    ));
    store.close();
}

/// Milliseconds from nothing to a value.
fn reopen<S: Store>(dir: &Path, data: &Data) -> f64 {
    let begin = Instant::now();
    let store = S::open(dir, false);
    assert_eq!(store.gets(&data.keys[..1]), 1);
    let took = begin.elapsed();
    store.close();
    took.as_secs_f64() * 1000.0
}

/// The same without background threads, so that nothing mends what the kill left behind.
fn reopen_quietly(dir: &Path, data: &Data) -> f64 {
    let begin = Instant::now();
    let store = KvastStore::open_without_background(dir);
    assert_eq!(store.gets(&data.keys[..1]), 1);
    let took = begin.elapsed();
    store.close();
    took.as_secs_f64() * 1000.0
}

fn load_and_wait<S: Store>(dir: &Path, keys: usize) -> ! {
    let store = S::open(dir, false);
    store.puts(&Data::new(keys).keys, None);
    println!("loaded");
    loop {
        std::thread::park();
    }
}

fn load_and_kill(store: &str, dir: &Path, keys: usize) {
    let binary = std::env::current_exe().expect("the path of this binary");
    let mut child = Command::new(binary)
        .args(["--keys", &keys.to_string(), "--load", store])
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("a second process");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("it is piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("a word");
    assert_eq!(line, "loaded\n");
    child.kill().expect("to kill it");
    child.wait().expect("it to be gone");
}

/// Bytes of the blocks that the files of `dir` take.
fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = std::fs::read_dir(dir).expect("the store's directory");
    files.map(|file| file.and_then(|file| file.metadata()).expect("a file").blocks() * 512).sum()
}
