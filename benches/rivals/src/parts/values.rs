//! How fast are longer values written, 1 KiB, 16 KiB and 1 MiB, and how fast is 1 MiB read with each of
//! its bytes checked?
//!
//! Each length is loaded into an empty store, about 1 MiB of values a commit (8 of the longest), without
//! sync; what a store still has to do when the last commit has returned is not counted. The values of
//! 1 MiB are then read at random; kvast verifies its checksums in a get, and for the others the CRC-32 of
//! the value is taken with the same code, so that each side reads each byte once.

use crate::contest::{Contest, Entrant, close, rate, rate_for, settle};
use crate::data::{Key, Random, Values, key};
use crate::machine::{calm, remove};
use crate::report::{Better, Report, Target};
use crate::store::Setup;

/// Length, how many are in a commit, what it is called, what is to be reached.
const LOADS: [(usize, usize, &str, f64, f64); 3] = [
    (1 << 10, 1000, "1 KiB", 1.1, 2.0),
    (16 << 10, 64, "16 KiB", 1.1, 1.4),
    (1 << 20, 8, "1 MiB", 1.1, 1.4),
];

pub fn run(contest: &Contest, report: &mut Report) {
    for (len, per_commit, name, must, goal) in LOADS {
        let values = Values::of_len(len);
        let keys = keys(contest.arguments.value_bytes / len);
        let [loads] = contest.rounds(contest.arguments.few_rounds(), |nth, _| {
            let (kind, dir) = (&contest.kinds[nth], contest.dir("values", contest.kinds[nth].name));
            remove(&dir);
            let store = contest.open(kind, &dir, Setup::LONG_VALUES);
            calm();
            let puts = rate(|| {
                store.put_batches(&keys, &values, per_commit);
                keys.len()
            });
            store.persist();
            store.close();
            [puts * len as f64 / 1e6]
        });
        let target = Target::Beside { rivals: &["RocksDB"], must, goal };
        report.row(format!("load of values of {name}"), "MB/s", Better::More, target, loads);
    }
    read(contest, report);
    remove(&contest.arguments.dir.join("values"));
}

/// Reads what was loaded last.
fn read(contest: &Contest, report: &mut Report) {
    let open = |kind: &crate::store::Kind| {
        let store = contest.open(kind, &contest.dir("values", kind.name), Setup::LONG_VALUES);
        Entrant { name: kind.name, store }
    };
    let mut entrants: Vec<Entrant> = contest.kinds.iter().map(open).collect();
    settle(&mut entrants, &contest.arguments.dir);
    let keys = keys(contest.arguments.value_bytes >> 20);
    let [bytes] = contest.rounds(contest.arguments.rounds, |nth, round| {
        let mut random = Random(1 + round as u64);
        let asked: Vec<Key> = (0..1000).map(|_| keys[random.below(keys.len())]).collect();
        let rate = rate_for(contest.arguments.slice, 1, |_, call| {
            entrants[nth].store.verified_gets(&asked[call % 250 * 4..][..4])
        });
        [rate / 1e6]
    });
    let target = Target::Beside { rivals: &["LMDB"], must: 0.95, goal: 1.0 };
    report.row("get of 1 MiB, each byte verified", "MB/s", Better::More, target, bytes);
    close(entrants);
}

fn keys(count: usize) -> Vec<Key> {
    let mut keys: Vec<Key> = (0..count as u32).map(key).collect();
    let mut random = Random(9);
    for at in (1..keys.len()).rev() {
        keys.swap(at, random.below(at + 1));
    }
    keys
}
