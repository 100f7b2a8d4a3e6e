//! Places for connections: as many as the limits say, and a connection that idles gives its own up to
//! who waits for one.
//!
//! An idle connection costs next to nothing, so it may stay for long, until all places are taken.
//! Then whoever has idled longest goes first: while a client waits, the time that a connection may idle
//! is halved again and again, but never below a second, so that a client in the middle of its work
//! keeps its connection. Nothing is counted per request: connections look at the time when they are
//! called, and they are called only while a client waits. Absent on purpose: places by address, since
//! many clients can stand behind one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::limits::Limits;
use crate::phase::Phase;

/// No connection that has idled for less than this is closed for another.
const IDLE_MIN: Duration = Duration::from_secs(1);
/// How long those that were called have to go before others are called.
const CALL_EVERY: Duration = Duration::from_millis(250);

/// A place that is taken, until it is dropped.
pub(crate) type Place = Option<OwnedSemaphorePermit>;

/// All places of a server.
pub(crate) struct Places {
    free: Arc<Semaphore>,
    idle_time: Duration,
    idle_limit: Arc<IdleLimit>,
}

/// How long a connection may idle at this moment.
pub(crate) struct IdleLimit(AtomicU64);

impl IdleLimit {
    pub(crate) fn new(limit: Duration) -> IdleLimit {
        IdleLimit(AtomicU64::new(millis(limit)))
    }

    pub(crate) fn get(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, limit: Duration) {
        self.0.store(millis(limit), Ordering::Relaxed);
    }
}

fn millis(limit: Duration) -> u64 {
    u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)
}

impl Places {
    pub(crate) fn new(limits: &Limits) -> Places {
        Places {
            free: Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS))),
            idle_time: limits.idle_time,
            idle_limit: Arc::new(IdleLimit::new(limits.idle_time)),
        }
    }

    pub(crate) fn idle_limit(&self) -> Arc<IdleLimit> {
        Arc::clone(&self.idle_limit)
    }

    /// Takes a place, for which connections that idle may have to go: `phase` calls them.
    pub(crate) async fn take(&self, phase: &Phase) -> Place {
        if let Ok(place) = Arc::clone(&self.free).try_acquire_owned() {
            return Some(place);
        }
        let _restored = Restored(self);
        let mut limit = self.idle_time;
        loop {
            limit = (limit / 2).max(IDLE_MIN).min(self.idle_time);
            self.idle_limit.set(limit);
            phase.call();
            // The semaphore is never closed, so this fails only if nobody has gone yet.
            if let Ok(place) = timeout(CALL_EVERY, Arc::clone(&self.free).acquire_owned()).await {
                return place.ok();
            }
        }
    }
}

/// Nobody waits any more, whether or not there was a place.
struct Restored<'p>(&'p Places);

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        self.0.idle_limit.set(self.0.idle_time);
    }
}
