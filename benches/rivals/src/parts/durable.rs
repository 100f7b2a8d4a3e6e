//! How fast are puts that are on disk when they return, by 1 thread and by 8?
//!
//! Keys that are there are overwritten, so that the stores do not grow. The bare append is a write of a
//! put's length and an `fdatasync` each, into blocks that were written before: what the disk allows one
//! thread that syncs each write. All the while a process of the lowest priority keeps each core awake: on
//! a virtual machine a core that fell asleep over a sync can take 3 ms to notice that it is done, which
//! says nothing about the store.

use crate::contest::{Contest, Entrant, close, rate_for, take_turns};
use crate::data::{Key, Random};
use crate::machine::{Awake, BareAppends, calm, sync};
use crate::report::{BARE, Better, Report, Series, Target};
use crate::store::Setup;

pub fn run(contest: &Contest, report: &mut Report) {
    let entrants = contest.entrants(Setup::DURABLE);
    let bare = BareAppends::new(&contest.arguments.dir.join("bare"));
    calm();
    sync(&contest.arguments.dir);
    let _awake = Awake::start();
    let alone = puts(contest, &entrants, &bare, 1);
    let target = Target::Beside { rivals: &[BARE], must: 0.95, goal: 1.0 };
    report.row("durable put, 1 thread", "puts/s", Better::More, target, alone);
    let together = puts(contest, &entrants, &bare, 8);
    let target = Target::Beside { rivals: &["RocksDB", "sled"], must: 1.2, goal: 2.0 };
    report.row("durable put, 8 threads", "puts/s", Better::More, target, together);
    close(entrants);
}

fn puts(contest: &Contest, entrants: &[Entrant], bare: &BareAppends, threads: usize) -> Series {
    let mut names: Vec<&'static str> = entrants.iter().map(|entrant| entrant.name).collect();
    names.push(BARE);
    let keys_of = |round, thread| -> Vec<Key> {
        let mut random = Random(1 + (round * 16 + thread) as u64);
        (0..20_000).map(|_| contest.data.uniform(&mut random)).collect()
    };
    let [puts] = take_turns(&names, contest.arguments.rounds, &mut |nth, round| {
        let keys: Vec<Vec<Key>> = (0..threads).map(|thread| keys_of(round, thread)).collect();
        calm();
        let time = 2 * contest.arguments.slice;
        let rate = match entrants.get(nth) {
            Some(entrant) => rate_for(time, threads, |thread, call| {
                let keys = &keys[thread];
                let nth = call % keys.len();
                entrant.store.puts(&keys[nth..=nth], &contest.values);
                1
            }),
            // There is one place to append at, so it is done by one thread in any case.
            None => rate_for(time, 1, |_, call| {
                bare.append(call);
                1
            }),
        };
        [rate]
    });
    puts
}
