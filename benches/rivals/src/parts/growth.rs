//! How do get, list, open, memory and disk grow with the number of keys?
//!
//! kvast, and LMDB beside it if it takes part: a tenth of the keys, all, ten times as many, and on to
//! `--growth-to` by steps of three and ten; a size that needs more memory than can be had is named and
//! left out. Loaded 1,000 a commit in random order. All sizes are open together and take turns in each
//! round, so that a busy minute of the machine meets them all.

use std::fmt::Write;

use super::reads::{keys_got, keys_listed, page_starts};
use crate::contest::{Contest, Entrant, PER_COMMIT, close, open_to_first_get, settle, take_turns};
use crate::data::{Data, KEY_LEN, Key, Random, VALUE_LEN};
use crate::machine::{available_bytes, disk_bytes, remove};
use crate::report::{Better, Report, Series, Target};
use crate::store::{Kind, KvastStore, Setup, Store};

/// Keys that are asked for in a turn, and once more if there is time.
const LOOKUPS: usize = 200_000;

/// One store at one size.
struct Grown {
    entrant: Entrant,
    /// Which of the sizes it has.
    size: usize,
    disk_per_user_byte: f64,
    /// Of kvast only.
    index_bytes_per_key: Option<f64>,
    open_ms: f64,
}

pub fn run(contest: &Contest, report: &mut Report) {
    let sizes = sizes(contest, report);
    let kinds: Vec<&Kind> =
        contest.kinds.iter().filter(|kind| ["kvast", "LMDB"].contains(&kind.name)).collect();
    let data: Vec<Data> = sizes.iter().map(|size| Data::new(*size)).collect();
    let mut grown = Vec::new();
    for (size, data) in data.iter().enumerate() {
        grown.extend(kinds.iter().map(|kind| grow(contest, kind, size, data)));
    }
    let (names, sizes_of): (Vec<_>, Vec<usize>) =
        grown.iter().map(|grown| (grown.entrant.name, grown.size)).unzip();
    let [gets, lists] = take_turns(&names, contest.arguments.rounds, &mut |nth, round| {
        let (entrant, data) = (&grown[nth].entrant, &data[sizes_of[nth]]);
        let mut random = Random(1 + round as u64);
        let asked: Vec<Key> = (0..LOOKUPS).map(|_| data.uniform(&mut random)).collect();
        let slice = contest.arguments.slice;
        let got = keys_got(slice, entrant, &asked);
        let listed = keys_listed(slice, entrant, &page_starts(data, round));
        [1e9 / got, 1e9 / listed]
    });
    report.table(table(&sizes, &grown, &gets, &lists));
    match sizes.iter().position(|size| *size == 10 * contest.data.len()) {
        Some(last) => rows(report, &sizes, last, &kinds, [&gets, &lists]),
        None => {
            report.note("growth: without ten times the keys its rows have no figure.".to_owned())
        }
    }
    close(grown.into_iter().map(|grown| grown.entrant).collect());
    remove(&contest.arguments.dir.join("growth"));
}

/// How much more time a get and a list take at size `last` than at the one before.
fn rows(report: &mut Report, sizes: &[usize], last: usize, kinds: &[&Kind], all: [&Series; 2]) {
    for (what, series, must, goal) in [("get", all[0], 1.6, 1.3), ("list", all[1], 1.3, 1.1)] {
        let (from, to) = (sizes[last - 1], sizes[last]);
        let work = format!("growth from {from} to {to} keys, time of {what}");
        let target = Target::Alone { must, goal };
        report.row(work, "x", Better::Less, target, growth(series, kinds, last));
    }
}

fn sizes(contest: &Contest, report: &mut Report) -> Vec<usize> {
    let keys = contest.data.len();
    let mut sizes = vec![keys / 10, keys, 10 * keys, 30 * keys, 100 * keys];
    sizes.retain(|size| *size <= contest.arguments.growth_to.max(keys));
    // Both stores' files, the keys, and the memory of the index, with room to spare.
    let needed = |size: usize| size as u64 * 600;
    while let Some(size) = sizes.last().copied().filter(|size| needed(*size) > available_bytes()) {
        report.note(format!(
            "growth: {size} keys are left out, since they need {} GiB of memory.",
            needed(size) >> 30
        ));
        sizes.pop();
    }
    sizes
}

fn grow(contest: &Contest, kind: &Kind, size: usize, data: &Data) -> Grown {
    let dir = contest.dir("growth", &format!("{}-{}", kind.name, data.len()));
    let store = contest.open(kind, &dir, Setup::default());
    for some in data.keys().chunks(100 * PER_COMMIT) {
        store.put_batches(some, &contest.values, PER_COMMIT);
    }
    store.close();
    let disk = disk_bytes(&dir) as f64 / (data.len() * (KEY_LEN + VALUE_LEN)) as f64;
    let index_bytes_per_key = (kind.name == "kvast").then(|| {
        let store = Box::new(KvastStore::open(&dir, Setup::default()));
        let bytes = store.stats().index_bytes as f64 / data.len() as f64;
        store.close();
        bytes
    });
    let open = || contest.open(kind, &dir, Setup::default());
    let (open_ms, store) = open_to_first_get(open, data);
    let mut entrant = [Entrant { name: kind.name, store }];
    settle(&mut entrant, &dir);
    let [entrant] = entrant;
    Grown { entrant, size, disk_per_user_byte: disk, index_bytes_per_key, open_ms }
}

/// Of each store, the time at size `last` over that at the one before.
fn growth(all: &Series, kinds: &[&Kind], last: usize) -> Series {
    let names: Vec<&'static str> = kinds.iter().map(|kind| kind.name).collect();
    let per_size = kinds.len();
    let mut growth = Series::new(&names);
    for round in all.rounds() {
        let time = |size: usize, nth: usize| round[size * per_size + nth];
        growth.push((0..per_size).map(|nth| time(last, nth) / time(last - 1, nth)).collect());
    }
    growth
}

fn table(sizes: &[usize], grown: &[Grown], gets: &Series, lists: &Series) -> String {
    let mut table =
        "## Growth\n\n| keys | store | get, ns | list, ns a key | open to the first get, ms | \
                     index, B a key | disk per user byte |\n|--:|---|--:|--:|--:|--:|--:|\n"
            .to_owned();
    let (gets, lists) = (gets.medians(), lists.medians());
    for (nth, grown) in grown.iter().enumerate() {
        let index =
            grown.index_bytes_per_key.map_or("–".to_owned(), |bytes| format!("{bytes:.1}"));
        writeln!(
            table,
            "| {} | {} | {:.0} | {:.2} | {:.1} | {index} | {:.2} |",
            sizes[grown.size],
            grown.entrant.name,
            gets[nth],
            lists[nth],
            grown.open_ms,
            grown.disk_per_user_byte,
        )
        .expect("a string takes everything");
    }
    table
}
