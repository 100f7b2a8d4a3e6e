//! How much disk does a byte of keys and values take: after the load, and after all of it was overwritten
//! three times and ten seconds have passed?
//!
//! Blocks of all files of a store are counted, room that was set aside included; apparent lengths are
//! not. After the load the store is closed; after the overwrites it is open, and nothing is asked of it,
//! though the next store is being overwritten beside it. The overwrites come in random order, 1,000 a
//! commit, without sync. A user byte is one of a key or a value that is there. kvast's live bytes are
//! those of the records that a key points at, so headers are in them.

use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::contest::{Contest, PER_COMMIT, close};
use crate::data::{Key, Random};
use crate::machine::disk_bytes;
use crate::report::{Better, Report, Series, Target};
use crate::store::{Setup, Store};

const WAIT: Duration = Duration::from_secs(10);

pub fn run(contest: &Contest, report: &mut Report) {
    let user_bytes = contest.data.user_bytes() as f64;
    let [loaded] = contest.rounds(1, |nth, _| [contest.loaded_bytes(nth) / user_bytes]);
    let target = Target::Alone { must: 1.5, goal: 1.3 };
    let work = "disk per user byte, loaded 1,000 a commit, closed";
    report.row(work, "", Better::Less, target, loaded);
    let entrants = contest.entrants(Setup::default());
    let mut waiting: Vec<JoinHandle<u64>> = Vec::new();
    for entrant in &entrants {
        overwrite(contest, &*entrant.store);
        let dir = contest.dir("main", entrant.name);
        waiting.push(thread::spawn(move || later(&dir)));
    }
    let disk: Vec<u64> =
        waiting.into_iter().map(|thread| thread.join().expect("a number")).collect();
    let live_bytes = entrants[0].store.live_bytes().expect("kvast knows");
    let mut to_live = Series::new(&["kvast"]);
    to_live.push(vec![disk[0] as f64 / live_bytes as f64]);
    let work = "disk over live bytes, overwritten 3 times, 10 s later";
    report.row(work, "", Better::Less, target, to_live);
    let [churned] = contest.rounds(1, |nth, _| [disk[nth] as f64 / user_bytes]);
    let work = "disk per user byte, overwritten 3 times, 10 s later";
    report.row(work, "", Better::Less, Target::None, churned);
    close(entrants);
}

fn overwrite(contest: &Contest, store: &dyn Store) {
    let (mut random, mut keys): (Random, Vec<Key>) = (Random(3), contest.data.keys());
    for _ in 0..3 {
        for at in (1..keys.len()).rev() {
            keys.swap(at, random.below(at + 1));
        }
        store.put_batches(&keys, &contest.values, PER_COMMIT);
    }
}

/// Disk bytes when the wait is over.
fn later(dir: &Path) -> u64 {
    thread::sleep(WAIT);
    disk_bytes(dir)
}
