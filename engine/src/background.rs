//! The store's own threads: one that keeps time, one that compacts.
//!
//! The first one makes logs ahead of need, syncs for [`Durability::Interval`], writes the watermark
//! once the store falls idle, looks which segments are in memory, and frees what readers have let go
//! of. The second one seals and
//! compacts, which can take long. Both stop when they are dropped, at the next step.
//!
//! An error here is no reason to stop serving: it is kept for [`Background::last_error`], and a failed
//! write or sync has poisoned the store already.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::commit::Committer;
use crate::compact::Compactor;
use crate::error::Error;
use crate::keyspace::Keyspace;
use crate::options::Durability;

const TICK: Duration = Duration::from_millis(100);
/// Without writes for this long, the store writes its watermark.
const IDLE: Duration = Duration::from_secs(1);
/// How often the store looks which segments are in memory.
const LOOK: Duration = Duration::from_secs(1);
/// Looking takes at most one part in this many of a processor's time.
const LOOK_SHARE: u32 = 50;
/// After a failure, compaction rests this long.
const REST: Duration = Duration::from_secs(5);

pub(crate) struct Background {
    signal: Arc<Signal>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Signal {
    stopped: Mutex<bool>,
    changed: Condvar,
    last_error: Mutex<Option<Error>>,
}

impl Signal {
    /// Sleeps, and returns whether to stop.
    fn sleep(&self, time: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(stopped, time, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn note<T>(&self, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(done) => Some(done),
            Err(error) => {
                let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
                *last = Some(error);
                None
            }
        }
    }
}

impl Background {
    pub(crate) fn start(
        keyspace: &Arc<Keyspace>,
        committer: &Arc<Committer>,
        compactor: &Arc<Compactor>,
        durability: Durability,
    ) -> std::io::Result<Background> {
        let signal = Arc::new(Signal::default());
        let mut background = Background { signal: Arc::clone(&signal), threads: Vec::new() };
        let (keyspace, committer) = (Arc::clone(keyspace), Arc::clone(committer));
        let tend = {
            let signal = Arc::clone(&signal);
            move || tend(&signal, &keyspace, &committer, durability)
        };
        // From now on, and not from its first step: much can be written until then.
        compactor.watch(true);
        let compactor = Arc::clone(compactor);
        let compact = move || compact(&signal, &compactor);
        background.spawn("kvast-tend", tend)?;
        background.spawn("kvast-compact", compact)?;
        Ok(background)
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        self.threads.push(thread);
        Ok(())
    }

    /// The last thing that went wrong.
    pub(crate) fn last_error(&self) -> Option<Error> {
        self.signal.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        *self.signal.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.signal.changed.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so on stderr; there is nothing left to stop.
            let _ = thread.join();
        }
    }
}

fn tend(signal: &Signal, keyspace: &Keyspace, committer: &Committer, durability: Durability) {
    let interval = match durability {
        Durability::Interval(interval) => interval.max(Duration::from_millis(1)),
        Durability::Sync | Durability::Os => TICK,
    };
    let (mut seen, mut since) = (0, Instant::now());
    let mut synced = Instant::now();
    let (mut looked, mut until_look) = (Instant::now(), LOOK);
    while !signal.sleep(interval.min(TICK)) {
        if looked.elapsed() >= until_look {
            let began = Instant::now();
            keyspace.catalog.look();
            looked = Instant::now();
            until_look = LOOK.max((looked - began) * LOOK_SHARE);
        }
        // A store that is only read is not written to, whatever an earlier process left unsynced.
        if committer.check_poison().is_err() || !committer.has_begun() {
            continue;
        }
        if matches!(durability, Durability::Interval(_)) && synced.elapsed() >= interval {
            synced = Instant::now();
            signal.note(committer.sync());
        }
        signal.note(committer.prepare());
        let (last, _) = committer.counts().versions();
        if last != seen {
            (seen, since) = (last, Instant::now());
        } else if since.elapsed() >= IDLE && last > 0 {
            signal.note(committer.sync().and_then(|()| committer.record_watermark()));
            keyspace.writer().collect();
            keyspace.catalog.collect();
        }
    }
}

fn compact(signal: &Signal, compactor: &Compactor) {
    let mut pause = TICK;
    while !signal.sleep(pause) {
        pause = match signal.note(compactor.step_beside_writers()) {
            Some(true) => Duration::ZERO,
            Some(false) => TICK,
            None => REST,
        };
    }
    compactor.watch(false);
}
