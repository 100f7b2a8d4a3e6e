//! What time it is, and how far that is to be trusted.
//!
//! Two clocks are told apart. [`Timekeeper::now_ms`] decides what readers see: it never goes back
//! while the store is open, so what was once seen expired stays so. [`Timekeeper::guarded_ms`]
//! decides what compaction may destroy: it believes a jump forward only after the jump has stood
//! for an hour, so a clock that is wrong for a moment costs nothing that cannot be had back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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
    latest_ms: AtomicU64,
    guard: Mutex<Guard>,
}

/// The guarded clock: where it stood, and since when the wall clock has been ahead of it.
struct Guard {
    trusted_ms: u64,
    at_monotonic_ms: u64,
    ahead_since_ms: Option<u64>,
}

impl Timekeeper {
    /// Time goes on from `high_water_ms`, the latest guarded time that the store has recorded; 0 in
    /// a new store, which has nothing to guard yet.
    pub(crate) fn new(clock: Arc<dyn Clock>, high_water_ms: u64) -> Timekeeper {
        let trusted_ms = if high_water_ms == 0 { clock.wall_ms() } else { high_water_ms };
        let at_monotonic_ms = clock.monotonic_ms();
        Timekeeper {
            latest_ms: AtomicU64::new(high_water_ms),
            guard: Mutex::new(Guard { trusted_ms, at_monotonic_ms, ahead_since_ms: None }),
            clock,
        }
    }

    /// The time that readers go by.
    pub(crate) fn now_ms(&self) -> u64 {
        let wall = self.clock.wall_ms();
        let latest = self.latest_ms.load(Ordering::Relaxed);
        if wall <= latest {
            return latest;
        }
        // Written at most once in a millisecond, so readers do not fight over the line.
        self.latest_ms.fetch_max(wall, Ordering::Relaxed);
        wall
    }

    /// The time that may decide what is destroyed.
    pub(crate) fn guarded_ms(&self) -> u64 {
        let (wall, monotonic) = (self.clock.wall_ms(), self.clock.monotonic_ms());
        let mut guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = monotonic.saturating_sub(guard.at_monotonic_ms);
        guard.at_monotonic_ms = monotonic;
        let expected = guard.trusted_ms + elapsed;
        if wall <= expected + JUMP_MS {
            guard.ahead_since_ms = None;
            guard.trusted_ms = guard.trusted_ms.max(wall);
            return guard.trusted_ms;
        }
        guard.trusted_ms = expected;
        let since = *guard.ahead_since_ms.get_or_insert(monotonic);
        if monotonic - since >= BELIEVED_AFTER_MS {
            guard.ahead_since_ms = None;
            guard.trusted_ms = wall;
        }
        guard.trusted_ms
    }

    /// The wall clock as it is, for the write times of records.
    pub(crate) fn wall_ms(&self) -> u64 {
        self.clock.wall_ms()
    }
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
