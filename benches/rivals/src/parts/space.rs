//! How much disk does a byte of keys and values take: after the load, and after all of it was overwritten
//! three times and ten seconds have passed?
//!
//! Blocks of all files of a store are counted, room that was set aside included; apparent lengths are not. After
//! the load the store is closed; after the overwrites it is open, and nothing is asked of it. The overwrites
//! come in random order, 1,000 a commit, without sync. A user byte is one of a key or a value that is there.
//! kvast's live bytes are those of the records that a key points at, so headers are in them.

use std::thread;
use std::time::Duration;

use crate::contest::{Contest, PER_COMMIT};
use crate::data::{Key, Random};
use crate::machine::disk_bytes;
use crate::report::{Better, Report, Series, Target};
use crate::store::{KvastStore, Setup, Store};

const WAIT: Duration = Duration::from_secs(10);

pub fn run(contest: &Contest, report: &mut Report) {
    let user_bytes = contest.data.user_bytes() as f64;
    let [loaded] = contest.rounds(1, |nth, _| [contest.loaded_bytes(nth) / user_bytes]);
    let target = Target::Alone { must: 1.5, goal: 1.3 };
    report.row(
        "disk per user byte, loaded 1,000 a commit, closed",
        "",
        Better::Less,
        target,
        loaded,
    );
    let mut live_bytes = 0.0;
    let [churned] = contest.rounds(1, |nth, _| {
        let kind = &contest.kinds[nth];
        let dir = contest.dir("main", kind.name);
        if nth > 0 {
            let store = contest.open(kind, &dir, Setup::default());
            let churned = overwrite(contest, &*store, &dir);
            store.close();
            return [churned];
        }
        let store = Box::new(KvastStore::open(&dir, Setup::default()));
        let churned = overwrite(contest, &*store, &dir);
        live_bytes = store.stats().live_bytes as f64;
        store.close();
        [churned]
    });
    let mut to_live = Series::new(&["kvast"]);
    to_live.push(vec![churned.median_of("kvast").expect("it takes part") / live_bytes]);
    let target = Target::Alone { must: 1.5, goal: 1.3 };
    let work = "disk over live bytes, overwritten 3 times, 10 s later";
    report.row(work, "", Better::Less, target, to_live);
    let work = "disk per user byte, overwritten 3 times, 10 s later";
    report.row(work, "", Better::Less, Target::None, churned.map(|bytes| bytes / user_bytes));
}

/// Disk bytes after the overwrites and the wait.
fn overwrite(contest: &Contest, store: &dyn Store, dir: &std::path::Path) -> f64 {
    let mut random = Random(3);
    for _ in 0..3 {
        let mut keys: Vec<Key> = contest.data.keys();
        for at in (1..keys.len()).rev() {
            keys.swap(at, random.below(at + 1));
        }
        store.put_batches(&keys, &contest.values, PER_COMMIT);
    }
    thread::sleep(WAIT);
    disk_bytes(dir) as f64
}
