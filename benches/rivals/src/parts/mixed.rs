//! How fast are 95 gets and 5 puts of a hundred, by two threads, without sync, one put a commit?
//!
//! The most wanted keys are read and written most (zipf 0.99). Each thread does 190 gets and then 10
//! puts at a time, and waits for nobody. The puts overwrite, so that no store grows but by its garbage.

use super::reads::some_of;
use crate::contest::{Contest, close, rate_for};
use crate::data::{Key, Random};
use crate::machine::calm;
use crate::report::{Better, Report, Target};
use crate::store::{Setup, Watch};

const OPERATIONS: usize = 200;
const GETS: usize = 190;

pub fn run(contest: &Contest, report: &mut Report) {
    let entrants = contest.entrants(Setup::default());
    let asked = |round, thread| -> Vec<Key> {
        let mut random = Random(1 + (round * 16 + thread) as u64);
        (0..200_000).map(|_| contest.data.zipf(&mut random)).collect()
    };
    let [mixed] = contest.rounds(contest.arguments.rounds, |nth, round| {
        let (store, keys) = (&entrants[nth].store, [asked(round, 0), asked(round, 1)]);
        calm();
        let rate = rate_for(contest.arguments.slice, 2, |thread, call| {
            let (gets, puts) = some_of(&keys[thread], call, OPERATIONS).split_at(GETS);
            assert_eq!(store.gets(gets, &mut Watch::default()), GETS, "{}", entrants[nth].name);
            store.puts(puts, &contest.values);
            OPERATIONS
        });
        [rate]
    });
    let target = Target::Beside { rivals: &["LMDB"], must: 1.5, goal: 2.0 };
    report.row("95 % get, 5 % put, zipf 0.99, 2 threads", "ops/s", Better::More, target, mixed);
    close(entrants);
}
