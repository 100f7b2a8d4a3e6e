//! How long does it take from a directory to the first value, after a close and after a kill?
//!
//! Files are in the page cache. All stores were loaded 1,000 a commit. For a kill another process loads
//! the store, makes sure that no end of a process loses anything ([`crate::store::Store::persist`]) and is
//! killed; each round opens a copy of what that left. kvast is also loaded with one put a commit, since
//! what it reads after a kill is the log of all commits; the rivals' files know little of commits
//! that long ago, and some would load for minutes. The targets are for 10^6 keys.

use std::path::Path;

use crate::contest::{Contest, PER_COMMIT, open_to_first_get, take_turns};
use crate::data::{Data, Values};
use crate::machine::{calm, copy, disk_bytes, load_and_kill, remove};
use crate::report::{Better, Report, Series, Target};
use crate::store::{Kind, Setup, kinds};

/// Loaded 1,000 a commit, and killed.
const BATCHES: &str = "killed-batches";
/// Loaded one a commit, and killed.
const SINGLES: &str = "killed-singles";

const CLOSED_TARGET: Target = Target::Alone { must: 60.0, goal: 10.0 };
const KILLED_TARGET: Target = Target::Alone { must: 150.0, goal: 25.0 };

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
    report.row("open to the first get, closed", "ms", Better::Less, CLOSED_TARGET, closed);
    let opened = killed(contest, &contest.kinds, BATCHES);
    let work = "open to the first get, killed after 1,000 a commit";
    report.row(work, "ms", Better::Less, KILLED_TARGET, opened);
    let kvast = &contest.kinds[..1];
    let opened = killed(contest, kvast, SINGLES);
    let work = "open to the first get, killed after one a commit";
    report.row(work, "ms", Better::Less, KILLED_TARGET, opened);
    disk_of_singles(contest, &kvast[0], report);
    for part in [BATCHES, SINGLES] {
        remove(&contest.arguments.dir.join(part));
    }
}

fn killed(contest: &Contest, kinds: &[Kind], part: &str) -> Series {
    // All at once, since nothing is timed.
    std::thread::scope(|scope| {
        for kind in kinds {
            scope.spawn(move || {
                let what = format!("{part}/{}", kind.name);
                load_and_kill(&what, &contest.dir(part, kind.name), contest.data.len());
            });
        }
    });
    let names: Vec<&'static str> = kinds.iter().map(|kind| kind.name).collect();
    let [opened] = take_turns(&names, contest.arguments.few_rounds(), &mut |nth, _| {
        let kind = &kinds[nth];
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
fn disk_of_singles(contest: &Contest, kvast: &Kind, report: &mut Report) {
    let dir = contest.dir(SINGLES, kvast.name);
    contest.open(kvast, &dir, Setup::default()).close();
    let mut disk = Series::new(&[kvast.name]);
    disk.push(vec![disk_bytes(&dir) as f64 / contest.data.user_bytes() as f64]);
    let target = Target::Alone { must: 1.5, goal: 1.3 };
    report.row("disk per user byte, loaded one a commit, closed", "", Better::Less, target, disk);
}

/// What the other process does: `what` is [`BATCHES`] or [`SINGLES`], and a store.
pub fn load_and_wait(what: &str, dir: &Path, keys: usize) -> ! {
    let (part, name) = what.split_once('/').expect("a part and a store");
    let kind = kinds().into_iter().find(|kind| kind.name == name).expect("a store's name");
    let store = kind.open.expect("a store that was built")(dir, Setup::default());
    let keys = Data::new(keys).keys();
    let values = Values::short();
    if part == BATCHES {
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
