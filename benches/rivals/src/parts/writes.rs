//! How fast are puts of new keys and deletes of them, one a commit, without sync, in a store that holds
//! all keys already?
//!
//! A turn puts new keys in random order until its time is up or a tenth of all keys was put, and then
//! deletes them. So every store is as it was when the next turn begins, but for its garbage. Before each
//! turn the stores' own threads come to rest; what they do later for a turn is not counted in it.

use std::time::Instant;

use crate::contest::{Contest, close, rate};
use crate::machine::calm;
use crate::report::{Better, Report, Target};
use crate::store::Setup;

const PER_CALL: usize = 100;

pub fn run(contest: &Contest, report: &mut Report) {
    let entrants = contest.entrants(Setup::default());
    let [puts, deletes] = contest.rounds(contest.arguments.rounds, |nth, round| {
        let (store, keys) =
            (&entrants[nth].store, contest.data.fresh(round, contest.data.len() / 10));
        calm();
        let (until, mut put) = (Instant::now() + 2 * contest.arguments.slice, 0);
        let puts = rate(|| {
            for some in keys.chunks(PER_CALL).take_while(|_| Instant::now() < until) {
                store.puts(some, &contest.values);
                put += some.len();
            }
            put
        });
        calm();
        let deletes = rate(|| {
            store.deletes(&keys[..put]);
            put
        });
        [puts, deletes]
    });
    let target = Target::Beside { rivals: &["LMDB"], must: 1.3, goal: 2.0 };
    report.row("put without sync, one a commit", "puts/s", Better::More, target, puts);
    let target = Target::Beside { rivals: &["RocksDB"], must: 2.0, goal: 4.0 };
    report.row("delete without sync, one a commit", "deletes/s", Better::More, target, deletes);
    close(entrants);
}
