//! What time it is, and how far that is to be trusted.
//!
//! Two times are told apart. [`Timekeeper::now_ms`] decides what readers see. It never goes back
//! behind a time that was believed, so what has expired stays so; a jump ahead is seen while it
//! stands, and believed once it has stood for an hour. [`Timekeeper::guarded_ms`] decides what
//! compaction may destroy. It goes by believed time alone, and starts from what the store has
//! recorded, so a clock that is wrong for a moment costs nothing that cannot be had back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// How far the wall clock may run ahead of the monotonic one before it counts as a jump.
const JUMP_MS: u64 = 60_000;
/// How long a jump has to stand before it is believed.
const BELIEVED_AFTER_MS: u64 = 3_600_000;

/// The two readings that time is made of; a test moves them by hand.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970, as the system believes.
    fn wall_ms(&self) -> u64;
    /// Milliseconds since some moment, never going back.
    fn monotonic_ms(&self) -> u64;
}

/// The machine's own clocks.
pub(crate) struct SystemClock {
    start: Instant,
}

impl SystemClock {
    pub(crate) fn new() -> SystemClock {
        SystemClock { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn wall_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }

    fn monotonic_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}

/// The store's sense of time.
pub(crate) struct Timekeeper {
    clock: Arc<dyn Clock>,
    /// A time that readers have seen and believed.
    latest_ms: AtomicU64,
    seen: Mutex<Belief>,
    guarded: Mutex<Guarded>,
}

/// The time that may decide what is destroyed.
struct Guarded {
    belief: Belief,
    /// The wall clock when it was last asked for, and what was answered.
    wall_ms: u64,
    ms: u64,
}

/// A time that is believed, and since when the wall clock has been ahead of it.
struct Belief {
    ms: u64,
    at_monotonic_ms: u64,
    ahead_since_ms: Option<u64>,
}

impl Belief {
    /// Moves on to now: as far as the monotonic clock went, and to the wall clock if that is near or
    /// has stayed ahead for long.
    fn advance(&mut self, wall_ms: u64, monotonic_ms: u64) -> u64 {
        let elapsed = monotonic_ms.saturating_sub(self.at_monotonic_ms);
        self.at_monotonic_ms = monotonic_ms;
        let expected = self.ms + elapsed;
        if wall_ms <= expected + JUMP_MS {
            self.ahead_since_ms = None;
            self.ms = self.ms.max(wall_ms);
            return self.ms;
        }
        self.ms = expected;
        let since = *self.ahead_since_ms.get_or_insert(monotonic_ms);
        if monotonic_ms - since >= BELIEVED_AFTER_MS {
            self.ahead_since_ms = None;
            self.ms = wall_ms;
        }
        self.ms
    }
}

impl Timekeeper {
    /// Time goes on from `high_water_ms`, the latest guarded time that the store has recorded; 0 in
    /// a new store, which has nothing to guard yet. Readers believe the clock as it is now.
    pub(crate) fn new(clock: Arc<dyn Clock>, high_water_ms: u64) -> Timekeeper {
        let (wall_ms, at_monotonic_ms) = (clock.wall_ms(), clock.monotonic_ms());
        let belief = |ms| Belief { ms, at_monotonic_ms, ahead_since_ms: None };
        let latest_ms = wall_ms.max(high_water_ms);
        let guarded = belief(if high_water_ms == 0 { wall_ms } else { high_water_ms });
        Timekeeper {
            latest_ms: AtomicU64::new(latest_ms),
            seen: Mutex::new(belief(latest_ms)),
            guarded: Mutex::new(Guarded { ms: 0, belief: guarded, wall_ms: u64::MAX }),
            clock,
        }
    }

    /// The time that readers go by.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_by(self.clock.wall_ms())
    }

    fn now_by(&self, wall_ms: u64) -> u64 {
        let latest_ms = self.latest_ms.load(Ordering::Relaxed);
        if wall_ms <= latest_ms {
            return latest_ms;
        }
        let believed_ms = if wall_ms - latest_ms <= JUMP_MS {
            wall_ms
        } else {
            held(&self.seen).advance(wall_ms, self.clock.monotonic_ms())
        };
        // Written at most once in a millisecond, so readers do not fight over the line.
        self.latest_ms.fetch_max(believed_ms, Ordering::Relaxed);
        wall_ms.max(believed_ms)
    }

    /// The time that may decide what is destroyed: never later than what readers go by. Every commit
    /// asks for it, so it is worked out once in a millisecond.
    pub(crate) fn guarded_ms(&self) -> u64 {
        let wall_ms = self.clock.wall_ms();
        let mut guarded = held(&self.guarded);
        if guarded.wall_ms != wall_ms {
            let believed_ms = guarded.belief.advance(wall_ms, self.clock.monotonic_ms());
            guarded.ms = believed_ms.min(self.now_by(wall_ms));
            guarded.wall_ms = wall_ms;
        }
        guarded.ms
    }

    /// The wall clock as it is, for the write times of records.
    pub(crate) fn wall_ms(&self) -> u64 {
        self.clock.wall_ms()
    }
}

fn held<T>(belief: &Mutex<T>) -> MutexGuard<'_, T> {
    belief.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A clock that a test moves by hand.
#[cfg(any(test, feature = "testing"))]
#[derive(Default)]
pub struct ManualClock {
    wall_ms: AtomicU64,
    monotonic_ms: AtomicU64,
}

#[cfg(any(test, feature = "testing"))]
impl ManualClock {
    /// A clock that stands at `wall_ms`.
    pub fn new(wall_ms: u64) -> Arc<ManualClock> {
        let clock = ManualClock::default();
        clock.wall_ms.store(wall_ms, Ordering::SeqCst);
        Arc::new(clock)
    }

    /// Lets time pass.
    pub fn advance(&self, ms: u64) {
        self.wall_ms.fetch_add(ms, Ordering::SeqCst);
        self.monotonic_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Sets the wall clock without any time passing.
    pub fn jump_to(&self, wall_ms: u64) {
        self.wall_ms.store(wall_ms, Ordering::SeqCst);
    }
}

#[cfg(any(test, feature = "testing"))]
impl Clock for ManualClock {
    fn wall_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::SeqCst)
    }

    fn monotonic_ms(&self) -> u64 {
        self.monotonic_ms.load(Ordering::SeqCst)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000;

    #[test]
    fn readers_time_never_goes_back() {
        let clock = ManualClock::new(100 * DAY);
        let time = Timekeeper::new(clock.clone(), 99 * DAY);
        assert_eq!(time.now_ms(), 100 * DAY);
        clock.jump_to(50 * DAY);
        assert_eq!(time.now_ms(), 100 * DAY);
        assert_eq!(Timekeeper::new(clock, 100 * DAY).now_ms(), 100 * DAY);
    }

    #[test]
    fn readers_see_a_jump_ahead_while_it_stands_and_forget_it_after() {
        let clock = ManualClock::new(100 * DAY);
        let time = Timekeeper::new(clock.clone(), 100 * DAY);
        clock.jump_to(3650 * DAY);
        assert_eq!(time.now_ms(), 3650 * DAY);
        clock.jump_to(100 * DAY + 5);
        assert_eq!(time.now_ms(), 100 * DAY + 5);
        clock.advance(10 * DAY);
        assert_eq!(time.now_ms(), 110 * DAY + 5, "time that has passed is no jump");
        clock.jump_to(50 * DAY);
        assert_eq!(time.now_ms(), 110 * DAY + 5);
    }

    #[test]
    fn the_guarded_clock_believes_a_jump_after_an_hour() {
        let clock = ManualClock::new(100 * DAY);
        let time = Timekeeper::new(clock.clone(), 0);
        clock.jump_to(3650 * DAY);
        assert_eq!(time.guarded_ms(), 100 * DAY);
        clock.advance(BELIEVED_AFTER_MS / 2);
        assert_eq!(time.guarded_ms(), 100 * DAY + BELIEVED_AFTER_MS / 2);
        clock.advance(BELIEVED_AFTER_MS / 2);
        assert_eq!(time.guarded_ms(), 3650 * DAY + BELIEVED_AFTER_MS);
    }

    #[test]
    fn a_jump_that_is_taken_back_leaves_the_guarded_clock_alone() {
        let clock = ManualClock::new(100 * DAY);
        let time = Timekeeper::new(clock.clone(), 0);
        clock.jump_to(3650 * DAY);
        time.guarded_ms();
        clock.jump_to(100 * DAY + 5);
        assert_eq!(time.guarded_ms(), 100 * DAY + 5);
    }
}
