//! How long does it take from a directory to the first value, after a close and after a kill?
//!
//! Files are in the page cache. The stores were loaded 1,000 a commit; in the rows of one a commit, each
//! key was put by itself, which leaves a log of many commits to read. For a kill another process
//! loads the store, makes sure that no end of a process loses anything ([`crate::store::Store::persist`])
//! and is killed; each round opens a copy of what that left. The targets are for 10^6 keys.

use crate::contest::{Contest, PER_COMMIT, open_to_first_get};
use crate::data::Data;
use crate::machine::{calm, copy, disk_bytes, load_and_kill, remove};
use crate::report::{Better, Report, Series, Target};
use crate::store::{Setup, kinds};

/// What is loaded before a kill.
const LOADS: [(&str, &str); 2] = [("killed-1000", "1,000 a commit"), ("killed-1", "one a commit")];

pub fn run(contest: &Contest, report: &mut Report) {
    contest.ensure_loaded();
    let [closed] = contest.rounds(contest.arguments.rounds, |nth, _| {
        let kind = &contest.kinds[nth];
        let dir = contest.dir("main", kind.name);
        let open = || contest.open(kind, &dir, Setup::default());
        let (ms, store) = open_to_first_get(open, &contest.data);
        store.close();
        [ms]
    });
    let target = Target::Alone { must: 60.0, goal: 10.0 };
    report.row("open to the first get, closed", "ms", Better::Less, target, closed);
    for (part, load) in LOADS {
        load_all_and_kill(contest, part);
        let opened = killed(contest, part);
        let target = Target::Alone { must: 150.0, goal: 25.0 };
        let work = format!("open to the first get, killed after {load}");
        report.row(work, "ms", Better::Less, target, opened);
    }
    disk_after_single_puts(contest, report);
    for (part, _) in LOADS {
        remove(&contest.arguments.dir.join(part));
    }
}

/// All at once, since nothing is timed.
fn load_all_and_kill(contest: &Contest, part: &str) {
    std::thread::scope(|scope| {
        for kind in &contest.kinds {
            scope.spawn(move || {
                let what = format!("{part}/{}", kind.name);
                load_and_kill(&what, &contest.dir(part, kind.name), contest.data.len());
            });
        }
    });
}

fn killed(contest: &Contest, part: &str) -> Series {
    let [opened] = contest.rounds(contest.arguments.few_rounds(), |nth, _| {
        let kind = &contest.kinds[nth];
        let copied = contest.dir("copy", kind.name);
        copy(&contest.dir(part, kind.name), &copied);
        calm();
        let open = || contest.open(kind, &copied, Setup::default());
        let (ms, store) = open_to_first_get(open, &contest.data);
        store.close();
        remove(&copied);
        [ms]
    });
    opened
}

/// What a load of one a commit takes on disk once it was opened and closed in order.
fn disk_after_single_puts(contest: &Contest, report: &mut Report) {
    let [disk] = contest.rounds(1, |nth, _| {
        let kind = &contest.kinds[nth];
        let dir = contest.dir(LOADS[1].0, kind.name);
        contest.open(kind, &dir, Setup::default()).close();
        [disk_bytes(&dir) as f64 / contest.data.user_bytes() as f64]
    });
    let target = Target::Alone { must: 1.5, goal: 1.3 };
    report.row(
        "disk per user byte, loaded one a commit, killed, closed",
        "",
        Better::Less,
        target,
        disk,
    );
}

/// What the other process does: `what` is one of [`LOADS`] and a store.
pub fn load_and_wait(what: &str, dir: &std::path::Path, keys: usize) -> ! {
    let (part, name) = what.split_once('/').expect("a part and a store");
    let kind = kinds().into_iter().find(|kind| kind.name == name).expect("a store's name");
    let store = kind.open.expect("a store that was built")(dir, Setup::default());
    let keys = Data::new(keys).keys();
    let values = crate::data::Values::short();
    if part == LOADS[0].0 {
        store.put_batches(&keys, &values, PER_COMMIT);
    } else {
        store.puts(&keys, &values);
    }
    store.persist();
    println!("loaded");
    loop {
        std::thread::park();
    }
}
