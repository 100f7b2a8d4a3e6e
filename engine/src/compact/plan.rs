//! Which segments to compact: numbers in, a choice out. No disk, so tests and simulations need none.
//!
//! The bound is on space: the records of all sealed segments take at most `bound` times the live
//! ones. While they take more, the segments that give back most for least copying go first, old
//! ones before young ones, several at a time. Segments with nothing alive go at once, whatever the
//! bound says, since they cost no copying. Copies are written before the originals go: so what is
//! copied at once fits into half of what the disk has left, unless it is of one segment.
//!
//! When a record expires decides which run it goes to, and not which segment goes first. Runs of one
//! window die as a whole and save up to 18 % of what is written, and now and then nothing. To count what expires soon as dead, or
//! to wait for it, saves nothing beyond that: both were tried in the simulator of `benches/compaction`,
//! beside the choice of the most dead first and the textbook's of cost and benefit, which copy more.

use crate::address::SegmentId;

/// What the plan knows of a sealed segment; all in bytes of records, without the commits between them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) id: SegmentId,
    pub(crate) records: u64,
    /// Pointed at by the index and not expired.
    pub(crate) live: u64,
    /// Tombstones that are known to be needed still.
    pub(crate) kept_tombstones: u64,
}

impl Candidate {
    /// What compacting it would give back.
    fn dead(&self) -> u64 {
        self.records.saturating_sub(self.live + self.kept_tombstones)
    }
}

/// The upper ends of the expiry windows, in ms from now: an hour, a day, a week, a month, more.
const WINDOWS_MS: [u64; 4] = [3_600_000, 86_400_000, 7 * 86_400_000, 30 * 86_400_000];

/// Which run a survivor goes to; 0 is for records that never expire.
pub(crate) fn window(expires_ms: u64, now_ms: u64) -> u8 {
    if expires_ms == 0 {
        return 0;
    }
    let left = expires_ms.saturating_sub(now_ms);
    1 + WINDOWS_MS.iter().filter(|end| left > **end).count() as u8
}

/// How much one compaction may read.
const INPUT_BYTES_MAX: u64 = 512 << 20;
const INPUTS_MAX: usize = 16;
/// Once the bound is broken, compaction goes on to this share of the allowed excess.
const HYSTERESIS: f64 = 0.7;

/// The segments to compact next, on a disk that has `free` bytes left; empty if the bound holds and no
/// segment is wholly dead.
pub(crate) fn plan(candidates: &[Candidate], bound: f64, free: u64) -> Vec<SegmentId> {
    let mut chosen: Vec<&Candidate> = candidates
        .iter()
        .filter(|candidate| candidate.live + candidate.kept_tombstones == 0)
        .take(INPUTS_MAX)
        .collect();
    let total: u64 = candidates.iter().map(|candidate| candidate.records).sum();
    let live: u64 = candidates.iter().map(|candidate| candidate.live).sum();
    let kept: u64 = candidates.iter().map(|candidate| candidate.kept_tombstones).sum();
    let floor = (live + kept) as f64;
    if total as f64 > floor * bound {
        choose_best(candidates, floor, bound, total, free / 2, &mut chosen);
    }
    chosen.iter().map(|candidate| candidate.id).collect()
}

fn choose_best<'a>(
    candidates: &'a [Candidate],
    floor: f64,
    bound: f64,
    total: u64,
    copied_max: u64,
    chosen: &mut Vec<&'a Candidate>,
) {
    let target = (floor * (1.0 + (bound - 1.0) * HYSTERESIS)) as u64;
    let newest = candidates.iter().map(|candidate| candidate.id.get()).max().unwrap_or(0);
    let score = |candidate: &Candidate| {
        let age = f64::from(newest - candidate.id.get() + 1).sqrt();
        candidate.dead() as f64 / (candidate.live + candidate.kept_tombstones + 1) as f64 * age
    };
    let mut rest: Vec<&Candidate> = candidates
        .iter()
        .filter(|candidate| candidate.dead() > 0)
        .filter(|candidate| chosen.iter().all(|taken| taken.id != candidate.id))
        .collect();
    rest.sort_by(|a, b| score(b).total_cmp(&score(a)));
    let mut left = total - chosen.iter().map(|candidate| candidate.dead()).sum::<u64>();
    let mut input: u64 = chosen.iter().map(|candidate| candidate.live).sum();
    for candidate in rest {
        let is_enough = left <= target || chosen.len() >= INPUTS_MAX || input >= INPUT_BYTES_MAX;
        if is_enough || (input > 0 && input + candidate.live > copied_max) {
            return;
        }
        left -= candidate.dead();
        input += candidate.live;
        chosen.push(candidate);
    }
}

/// Whether to end a segment that is being written early: it has enough that is dead to be worth it, and
/// what is dead breaks the bound. While there are writes, `counted` is what is dead in this segment alone;
/// while there are none, in all.
pub(crate) fn active_is_mostly_dead(
    dead: u64,
    counted: u64,
    all_live: u64,
    segment_bytes: u64,
    bound: f64,
) -> bool {
    dead as f64 > segment_bytes as f64 / 16.0 && counted as f64 > all_live as f64 * (bound - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(id: u32, records: u64, live: u64) -> Candidate {
        Candidate { id: SegmentId(id), records, live, kept_tombstones: 0 }
    }

    fn ids(candidates: &[Candidate]) -> Vec<u32> {
        plan(candidates, 1.3, u64::MAX).iter().map(|id| id.get()).collect()
    }

    #[test]
    fn nothing_is_done_while_the_bound_holds() {
        assert!(ids(&[candidate(1, 100, 90), candidate(2, 100, 80)]).is_empty());
        assert!(ids(&[]).is_empty());
    }

    #[test]
    fn a_segment_with_nothing_alive_goes_at_once() {
        assert_eq!(ids(&[candidate(1, 1000, 1000), candidate(2, 10, 0)]), [2]);
    }

    #[test]
    fn the_segment_that_gives_back_most_for_least_goes_first() {
        let chosen = ids(&[candidate(1, 100, 60), candidate(2, 100, 10), candidate(3, 100, 90)]);
        assert_eq!(chosen[0], 2);
        assert!(!chosen.contains(&3));
    }

    #[test]
    fn of_two_alike_the_older_goes_first() {
        assert_eq!(ids(&[candidate(1, 100, 50), candidate(2, 100, 50)])[0], 1);
    }

    #[test]
    fn on_a_disk_that_is_almost_full_no_more_is_copied_at_once_than_fits() {
        let candidates = [candidate(1, 100, 50), candidate(2, 100, 40), candidate(3, 100, 30)];
        let chosen = |free| plan(&candidates, 1.3, free).len();
        assert_eq!([1000, 240, 239, 140, 139, 0].map(chosen), [3, 3, 2, 2, 1, 1]);
    }

    #[test]
    fn tombstones_that_are_needed_are_not_picked_again_and_again() {
        let needed = Candidate { kept_tombstones: 100, ..candidate(1, 100, 0) };
        assert!(ids(&[needed]).is_empty());
    }

    #[test]
    fn a_log_full_of_overwrites_is_ended_early() {
        let mib = |dead: u64, counted: u64, live: u64| {
            active_is_mostly_dead(dead << 20, counted << 20, live << 20, 128 << 20, 1.3)
        };
        assert!(mib(99, 99, 2));
        assert!(!mib(1, 1, 1 << 10), "what is dead does not matter");
        assert!(!mib(1, 99, 2), "there is too little in this one");
        assert!(mib(20, 40, 100), "with the others it is too much, and there are no writes");
    }

    #[test]
    fn what_expires_within_one_window_goes_into_one_run() {
        let (hour, day) = (3_600_000, 86_400_000);
        let after = |left: u64| window(1_000 + left, 1_000);
        assert_eq!(window(0, 1_000), 0, "no expiry");
        assert_eq!([1, hour, hour + 1, day, day + 1].map(after), [1, 1, 2, 2, 3]);
        assert_eq!([7 * day, 7 * day + 1, 30 * day, 30 * day + 1].map(after), [3, 4, 4, 5]);
        assert_eq!(window(500, 1_000), 1, "it has expired already");
    }
}
