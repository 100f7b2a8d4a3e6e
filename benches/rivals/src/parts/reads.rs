//! How fast are gets and lists when everything is in memory and nothing is written?
//!
//! In each round all stores are asked for the same keys in the same order, as many as they manage in
//! the time; other rounds ask for other keys. The keys lie in a flat array in the order of the lookups.

use std::time::Duration;

use crate::contest::{Contest, Entrant, close, rate_for, settle};
use crate::data::{Data, Key, Random};
use crate::report::{Better, Report, Series, Target};
use crate::store::{Setup, Watch};

/// Keys in one call to a store, see [`crate::store::Store::gets`].
const PER_CALL: usize = 1000;
/// Keys in a get of many.
const MANY: usize = 16;
/// Keys that are made for each thread and round. Whoever is through begins again.
const LOOKUPS: usize = 400_000;
const LISTS_PER_CALL: usize = 10;

type Draw<'a> = &'a dyn Fn(&mut Random) -> Key;

pub fn run(contest: &Contest, report: &mut Report) {
    let mut entrants = contest.entrants(Setup::default());
    settle(&mut entrants, &contest.arguments.dir);
    let data = &contest.data;
    let beside = |rivals, must, goal| Target::Beside { rivals, must, goal };
    let draws: [(&str, Draw<'_>); 2] =
        [("uniform", &|random| data.uniform(random)), ("zipf 0.99", &|random| data.zipf(random))];
    for (name, draw) in draws {
        let alone = gets(contest, &entrants, draw, 1, true);
        let together = gets(contest, &entrants, draw, 2, true);
        let scaling = together.over(&alone);
        let target = beside(&["LMDB"], 2.0, 3.0);
        report.row(format!("get, {name}, 1 thread"), "gets/s", Better::More, target, alone);
        report.row(
            format!("get, {name}, 2 threads"),
            "gets/s",
            Better::More,
            Target::None,
            together,
        );
        let target = Target::Alone { must: 1.9, goal: 2.0 };
        report.row(format!("get, {name}, 2 threads over 1"), "x", Better::More, target, scaling);
    }
    let many = multi_gets(contest, &entrants);
    report.row(
        "multi-get of 16, uniform",
        "gets/s",
        Better::More,
        beside(&["LMDB"], 4.0, 8.0),
        many,
    );
    let absent: Draw<'_> = &|random| data.absent(random);
    let misses = gets(contest, &entrants, absent, 1, false);
    report.row("get, miss", "gets/s", Better::More, beside(&["RocksDB"], 2.0, 4.0), misses);
    let listed = lists(contest, &entrants);
    let target = beside(&["LMDB"], 4.0, 8.0);
    report.row("list of 1,000 from a random place", "keys/s", Better::More, target, listed);
    close(entrants);
}

/// Keys for each thread, the same for each store of a round.
fn lookups(draw: Draw<'_>, round: usize, threads: usize, count: usize) -> Vec<Vec<Key>> {
    let one = |thread| {
        let mut random = Random(1 + (round * 16 + thread) as u64);
        (0..count).map(|_| draw(&mut random)).collect()
    };
    (0..threads).map(one).collect()
}

/// The part of `keys` for a `call`, round and round.
pub fn some_of(keys: &[Key], call: usize, per_call: usize) -> &[Key] {
    &keys[call % (keys.len() / per_call) * per_call..][..per_call]
}

fn gets(
    contest: &Contest,
    entrants: &[Entrant],
    draw: Draw<'_>,
    threads: usize,
    are_there: bool,
) -> Series {
    let (mut asked, mut of_round) = (Vec::new(), usize::MAX);
    let [gets] = contest.rounds(contest.arguments.rounds, |nth, round| {
        if of_round != round {
            (asked, of_round) = (lookups(draw, round, threads, LOOKUPS), round);
        }
        let rate = rate_for(contest.arguments.slice, threads, |thread, call| {
            let keys = some_of(&asked[thread], call, PER_CALL);
            let found = entrants[nth].store.gets(keys, &mut Watch::default());
            assert_eq!(found, if are_there { PER_CALL } else { 0 }, "{}", entrants[nth].name);
            PER_CALL
        });
        [rate]
    });
    gets
}

fn multi_gets(contest: &Contest, entrants: &[Entrant]) -> Series {
    let draw: Draw<'_> = &|random| contest.data.uniform(random);
    let (mut asked, mut of_round) = (Vec::new(), usize::MAX);
    let [gets] = contest.rounds(contest.arguments.rounds, |nth, round| {
        if of_round != round {
            (asked, of_round) = (lookups(draw, round, 1, LOOKUPS), round);
        }
        let rate = rate_for(contest.arguments.slice, 1, |_, call| {
            let found = entrants[nth].store.multi_gets(some_of(&asked[0], call, PER_CALL), MANY);
            assert_eq!(found, PER_CALL, "{}", entrants[nth].name);
            found
        });
        [rate]
    });
    gets
}

fn lists(contest: &Contest, entrants: &[Entrant]) -> Series {
    let [lists] = contest.rounds(contest.arguments.rounds, |nth, round| {
        let starts = page_starts(&contest.data, round);
        [keys_listed(contest.arguments.slice, &entrants[nth], &starts)]
    });
    lists
}

/// Places to list from.
pub fn page_starts(data: &Data, round: usize) -> Vec<Key> {
    let mut random = Random(1 + round as u64);
    (0..10_000).map(|_| data.page_start(&mut random)).collect()
}

/// Keys listed a second, 1,000 from each place.
pub fn keys_listed(time: Duration, entrant: &Entrant, starts: &[Key]) -> f64 {
    rate_for(time, 1, |_, call| entrant.store.lists(some_of(starts, call, LISTS_PER_CALL)))
}

/// Gets a second of keys at random.
pub fn keys_got(time: Duration, entrant: &Entrant, keys: &[Key]) -> f64 {
    rate_for(time, 1, |_, call| {
        let keys = some_of(keys, call, PER_CALL);
        assert_eq!(entrant.store.gets(keys, &mut Watch::default()), PER_CALL, "{}", entrant.name);
        PER_CALL
    })
}
