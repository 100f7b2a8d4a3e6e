//! How fast do all keys go into an empty store, 1,000 in a commit, in random order, without sync? What a
//! store still has to do when the last commit has returned is not counted.

use crate::contest::Contest;
use crate::report::{Better, Report, Target};

pub fn run(contest: &Contest, report: &mut Report) {
    let [puts] = contest
        .rounds(contest.arguments.few_rounds(), |nth, _| [contest.load(&contest.kinds[nth])]);
    let target = Target::Beside { rivals: &["RocksDB"], must: 1.5, goal: 3.0 };
    report.row("put without sync, 1,000 a commit", "puts/s", Better::More, target, puts);
}
