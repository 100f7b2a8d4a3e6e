//! How fast compaction works while others write.
//!
//! Copying takes the disk and a processor from those who write. While anybody does, it is held to a
//! number of bytes in a second; while nobody does, there is nobody to spare. Two things are never
//! slowed down: what a caller asked for and waits for, and the way back under the ceiling on space,
//! which writers wait for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So much is copied between two rests.
const STRIDE: u64 = 1 << 20;
/// Freeing a file's blocks takes a disk this part of the time that writing them takes.
const REMOVAL: u64 = 16;
/// The longest rest, so that a store can be closed.
const REST_MAX: Duration = Duration::from_millis(250);

pub(super) struct Pace {
    bytes_per_second: u64,
    /// Done since the last rest.
    debt: AtomicU64,
    last: Mutex<Last>,
}

/// How it was at the last rest.
struct Last {
    at: Instant,
    version: u64,
}

impl Pace {
    pub(super) fn new(bytes_per_second: u64) -> Pace {
        let last = Mutex::new(Last { at: Instant::now(), version: 0 });
        Pace { bytes_per_second, debt: AtomicU64::new(0), last }
    }

    /// Notes that so many bytes were copied. Returns whether it is time to rest.
    pub(super) fn copied(&self, bytes: u64) -> bool {
        self.debt.fetch_add(bytes, Ordering::Relaxed) + bytes >= STRIDE
    }

    /// The same for a file that was removed.
    pub(super) fn removed(&self, bytes: u64) -> bool {
        self.copied(bytes / REMOVAL)
    }

    /// How long to rest for what was done since the last time: not at all if nobody has written
    /// meanwhile, which `version`, the last one that was given out, tells.
    pub(super) fn rest(&self, version: u64) -> Duration {
        let debt = self.debt.swap(0, Ordering::Relaxed);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, is_idle) = (Instant::now(), last.version == version);
        let worked = now - last.at;
        let rest =
            if is_idle { Duration::ZERO } else { self.time_for(debt).saturating_sub(worked) };
        *last = Last { at: now + rest, version };
        rest
    }

    fn time_for(&self, bytes: u64) -> Duration {
        let micros = u128::from(bytes) * 1_000_000 / u128::from(self.bytes_per_second);
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)).min(REST_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_a_writer_what_was_copied_takes_the_time_that_the_budget_gives_it() {
        let pace = Pace::new(100 << 20);
        pace.rest(7);
        assert!(!pace.copied(STRIDE - 1), "too little to rest for");
        assert!(pace.copied(1));
        let rest = pace.rest(8);
        assert!(rest <= Duration::from_millis(10), "a MiB of 100 in a second");
        assert_eq!(pace.rest(9), Duration::ZERO, "nothing was copied since");
    }

    #[test]
    fn while_nobody_writes_there_is_no_rest() {
        let pace = Pace::new(1 << 20);
        pace.rest(7);
        assert!(pace.copied(64 << 20));
        assert_eq!(pace.rest(7), Duration::ZERO);
    }

    #[test]
    fn no_rest_is_long() {
        assert_eq!(Pace::new(1).time_for(1 << 40), REST_MAX);
        assert_eq!(Pace::new(u64::MAX).time_for(1 << 40), Duration::ZERO);
    }

    #[test]
    fn a_file_that_is_removed_counts_for_a_part_of_its_length() {
        let pace = Pace::new(1 << 20);
        assert!(!pace.removed(REMOVAL * STRIDE - REMOVAL));
        assert!(pace.removed(REMOVAL));
    }
}
