//! How long does a get take beside a writer at full speed, and how long without one?
//!
//! One thread gets keys at random, each timed by itself; another overwrites keys at random, one a commit
//! without sync. The clock is in all figures. The slowest hundredth is looked at; where the cores are
//! fewer than the threads at work, waiting for a core begins behind it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::reads::some_of;
use crate::contest::{Contest, Entrant, close, settle};
use crate::data::{Key, Random};
use crate::machine::calm;
use crate::report::{Better, Report, Target};
use crate::store::{Setup, Watch};

const PER_CALL: usize = 1000;
const PUTS_PER_CALL: usize = 20;

pub fn run(contest: &Contest, report: &mut Report) {
    let mut entrants = contest.entrants(Setup::default());
    settle(&mut entrants, &contest.arguments.dir);
    let slice = contest.arguments.slice;
    let draw = |seed: usize| -> Vec<Key> {
        let mut random = Random(1 + seed as u64);
        (0..200_000).map(|_| contest.data.uniform(&mut random)).collect()
    };
    let [alone, beside, writer] = contest.rounds(contest.arguments.rounds, |nth, round| {
        let (store, asked, written) = (&entrants[nth], draw(2 * round), draw(2 * round + 1));
        calm();
        let alone = p99(store, &asked, slice);
        let stop = AtomicBool::new(false);
        let (beside, writer) = std::thread::scope(|scope| {
            let write = || overwrite(contest, store, &written, &stop);
            let writer = scope.spawn(write);
            let beside = p99(store, &asked, slice);
            stop.store(true, Ordering::Relaxed);
            (beside, writer.join().expect("a writer"))
        });
        [alone, beside, writer]
    });
    let ratio = beside.over(&alone);
    report.row(
        "get beside a writer, p99 over that of alone",
        "x",
        Better::Less,
        Target::Alone { must: 2.0, goal: 1.2 },
        ratio,
    );
    report.row("get alone, p99", "ns", Better::Less, Target::None, alone);
    report.row("get beside a writer, p99", "ns", Better::Less, Target::None, beside);
    report.row("put by that writer", "puts/s", Better::More, Target::None, writer);
    close(entrants);
}

/// Nanoseconds that 99 of 100 gets stay within.
fn p99(entrant: &Entrant, keys: &[Key], time: Duration) -> f64 {
    let (mut nanos, until) = (Vec::new(), Instant::now() + time);
    for call in 0.. {
        if Instant::now() >= until {
            break;
        }
        let mut watch = Watch::started();
        entrant.store.gets(some_of(keys, call, PER_CALL), &mut watch);
        // The first one has the opening of the transaction in it.
        nanos.extend_from_slice(&watch.nanos[1..]);
    }
    let at = nanos.len() * 99 / 100;
    f64::from(*nanos.select_nth_unstable(at).1)
}

/// Puts until it is told to stop, and says how many a second.
fn overwrite(contest: &Contest, entrant: &Entrant, keys: &[Key], stop: &AtomicBool) -> f64 {
    let (begin, mut done) = (Instant::now(), 0);
    for call in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        entrant.store.puts(some_of(keys, call, PUTS_PER_CALL), &contest.values);
        done += PUTS_PER_CALL;
    }
    done as f64 / begin.elapsed().as_secs_f64()
}
