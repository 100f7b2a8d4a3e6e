//! Reclamation: who frees what readers may still see, and when.
//!
//! The writer takes something out of the readers' reach, hands it to [`Reclaimer::retire`], and gets
//! it back from [`Reclaimer::ready`] once nobody can hold a reference to it. In between lies one
//! deferred closure of crossbeam-epoch per batch, and all the closure does is set a flag.
//!
//! ```text
//!   retire ──> open ──batch full, or flush──> waiting ──every older pin is gone──> ready
//!                     defer(set the flag)               the flag is set
//! ```
//!
//! Why not `defer(free)`: whichever thread pins next runs the deferred closures, so readers would pay
//! for the writer's garbage (57 us at p99.9, measured). Here a reader at most sets a flag, and what is
//! done with the item, and how many at a time, is the writer's decision.
//!
//! What holds: an item given back by `ready` was retired before its flag was deferred, and the flag
//! is set only after every pin older than that is gone. So the caller owes one thing: take the item
//! out of the readers' reach *before* retiring it. Nothing here drops an item by itself.
//!
//! Absent on purpose: a thread of its own, a bound on what waits (the index counts its bytes, and the
//! engine slows down its writer), and `unsafe`.
//!
//! Modelled in loom with the real crossbeam-epoch: a reader pins, looks and uses while the writer
//! swaps, retires and frees; two threads, every interleaving of up to two preemptions, 3 seconds.

use std::collections::VecDeque;
use std::ops::Deref;

use crate::sync::{Arc, AtomicBool, Ordering};

/// Keeps everything that can be reached from the index alive while it exists. Short is good: one
/// get, one page of a list.
///
/// A type of its own, because a guard of another collector than the process's default one would
/// protect nothing, and crossbeam's type does not tell the two apart.
pub(crate) struct Guard(Pinned);

enum Pinned {
    Default(crossbeam_epoch::Guard),
    /// For models in which nothing is freed, so that they need not explore crossbeam-epoch too.
    #[cfg(loom)]
    NothingIsFreed,
}

impl Guard {
    /// Pins the calling thread.
    #[inline]
    pub(crate) fn pin() -> Guard {
        Guard(Pinned::Default(crossbeam_epoch::pin()))
    }

    #[cfg(loom)]
    pub(super) fn of_a_model_that_frees_nothing() -> Guard {
        Guard(Pinned::NothingIsFreed)
    }
}

impl Deref for Guard {
    type Target = crossbeam_epoch::Guard;

    fn deref(&self) -> &crossbeam_epoch::Guard {
        match &self.0 {
            Pinned::Default(guard) => guard,
            #[cfg(loom)]
            Pinned::NothingIsFreed => unreachable!("such a model has no use for the epoch"),
        }
    }
}

/// Holds retired items until no reader can see them.
pub(crate) struct Reclaimer<T> {
    batch_len: usize,
    /// Retired, and not yet under a flag.
    open: Vec<T>,
    /// Under a flag; oldest first, and flags are set oldest first.
    waiting: VecDeque<Batch<T>>,
    /// Seen by nobody but the owner.
    ready: Vec<T>,
}

struct Batch<T> {
    unseen: Flag,
    items: Vec<T>,
}

/// Set once, by whichever thread comes to run the deferred closure. Whoever sees it set also sees
/// that all older pins are gone.
#[derive(Clone)]
struct Flag(Arc<AtomicBool>);

impl Flag {
    fn new() -> Flag {
        Flag(Arc::new(AtomicBool::new(false)))
    }

    fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl<T> Reclaimer<T> {
    /// One flag for every `batch_len` items: many for blocks of memory, one for whole files.
    pub(crate) fn new(batch_len: usize) -> Reclaimer<T> {
        assert!(batch_len > 0, "a batch of nothing is never full");
        Reclaimer { batch_len, open: Vec::new(), waiting: VecDeque::new(), ready: Vec::new() }
    }

    /// Takes an item that readers which pin from now on cannot reach any more.
    pub(crate) fn retire(&mut self, item: T) {
        self.open.push(item);
        if self.open.len() >= self.batch_len {
            self.flush();
        }
    }

    /// How many batches wait for readers.
    #[inline]
    pub(crate) fn batches(&self) -> usize {
        self.waiting.len()
    }

    /// Gives back one item that no reader can see any more.
    #[inline]
    pub(crate) fn ready(&mut self) -> Option<T> {
        if self.ready.is_empty() {
            self.take_unseen();
        }
        self.ready.pop()
    }

    /// Puts what is open under a flag and helps the epoch along by one step. A flag is set after
    /// two or three steps if nobody is pinned; in a busy store readers take them by themselves.
    pub(crate) fn flush(&mut self) {
        let guard = crossbeam_epoch::pin();
        if !self.open.is_empty() {
            let unseen = Flag::new();
            let flag = unseen.clone();
            guard.defer(move || flag.set());
            let items = std::mem::replace(&mut self.open, Vec::with_capacity(self.batch_len));
            self.waiting.push_back(Batch { unseen, items });
        }
        guard.flush();
    }

    /// How many items were retired and not given back.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let waiting: usize = self.waiting.iter().map(|batch| batch.items.len()).sum();
        self.open.len() + waiting + self.ready.len()
    }

    /// Everything retired, seen or not. The caller vouches that no reader is left.
    pub(crate) fn into_items(self) -> impl Iterator<Item = T> {
        let waiting = self.waiting.into_iter().flat_map(|batch| batch.items);
        self.ready.into_iter().chain(waiting).chain(self.open)
    }

    #[cold]
    fn take_unseen(&mut self) {
        while self.waiting.front().is_some_and(|batch| batch.unseen.is_set()) {
            if let Some(batch) = self.waiting.pop_front() {
                self.ready.extend(batch.items);
            }
        }
    }
}

/// A count that one thread keeps and any thread may read. Statistics, not protocol: its loads and
/// stores order nothing, so it is std's even under loom, where it would only add to what is explored.
#[derive(Default)]
pub(super) struct Gauge(std::sync::atomic::AtomicU64);

impl Gauge {
    pub(super) fn get(&self) -> u64 {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Only the writer calls this, so load and store need not be one step.
    #[inline]
    pub(super) fn add(&self, amount: usize) {
        self.0.store(self.get() + amount as u64, std::sync::atomic::Ordering::Relaxed);
    }

    /// Only the writer calls this.
    #[inline]
    pub(super) fn set(&self, amount: u64) {
        self.0.store(amount, std::sync::atomic::Ordering::Relaxed);
    }

    /// Only the writer calls this.
    #[inline]
    pub(super) fn subtract(&self, amount: usize) {
        debug_assert!(self.get() >= amount as u64, "a count fell below zero");
        self.0.store(self.get() - amount as u64, std::sync::atomic::Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn ready_after_some_steps<T>(reclaimer: &mut Reclaimer<T>) -> Option<T> {
        // Other tests of this process pin the same collector, so the steps may take a while.
        for _ in 0..10_000 {
            reclaimer.flush();
            if let Some(item) = reclaimer.ready() {
                return Some(item);
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        None
    }

    #[test]
    fn an_item_is_not_ready_while_an_older_pin_lives() {
        let mut reclaimer = Reclaimer::new(1);
        let guard = Guard::pin();
        reclaimer.retire("segment");
        for _ in 0..100 {
            reclaimer.flush();
            assert_eq!(reclaimer.ready(), None);
        }
        drop(guard);
        assert_eq!(ready_after_some_steps(&mut reclaimer), Some("segment"));
        assert_eq!(reclaimer.len(), 0);
    }

    #[test]
    fn a_batch_waits_until_it_is_full_or_flushed() {
        let mut reclaimer = Reclaimer::new(3);
        reclaimer.retire(1);
        reclaimer.retire(2);
        assert!(reclaimer.waiting.is_empty());
        reclaimer.retire(3);
        assert_eq!(reclaimer.waiting.len(), 1);
        reclaimer.retire(4);
        assert_eq!(reclaimer.len(), 4);
        let mut items: Vec<_> = reclaimer.into_items().collect();
        items.sort_unstable();
        assert_eq!(items, [1, 2, 3, 4]);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use crate::sync::AtomicPtr;

    /// What the reader looks at; loom reports a read that is not ordered before the freeing write.
    struct Item(loom::cell::UnsafeCell<u64>);

    /// Here the reader sets the flag by hand, as it does when the epoch has it run the closure: the
    /// writer then learns from the flag alone that the reader is done.
    #[test]
    #[expect(unsafe_code, reason = "the model frees by hand what the reclaimer gives back")]
    fn loom_a_flag_tells_the_writer_that_the_reader_is_done() {
        loom::model(|| {
            let item = Arc::new(Item(loom::cell::UnsafeCell::new(1)));
            let unseen = Flag::new();
            let reader = {
                let (item, flag) = (Arc::clone(&item), unseen.clone());
                loom::thread::spawn(move || {
                    // SAFETY: nobody writes before the flag is set.
                    assert_eq!(unsafe { item.0.with(|x| *x) }, 1);
                    flag.set();
                })
            };
            let mut reclaimer = Reclaimer::new(1);
            reclaimer.waiting.push_back(Batch { unseen, items: vec![item] });
            if let Some(item) = reclaimer.ready() {
                // SAFETY: the reader is done, says the flag: the very claim that loom checks here.
                unsafe { item.0.with_mut(|x| *x = 99) };
            }
            reader.join().unwrap();
        });
    }

    #[test]
    #[expect(unsafe_code, reason = "the model frees by hand what the reclaimer gives back")]
    fn loom_nothing_is_freed_under_a_pinned_reader() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| {
            let new_item = |x| Box::into_raw(Box::new(Item(loom::cell::UnsafeCell::new(x))));
            let place = Arc::new(AtomicPtr::new(new_item(1)));
            let reader = {
                let place = Arc::clone(&place);
                loom::thread::spawn(move || {
                    let guard = Guard::pin();
                    let item = place.load(Ordering::Acquire);
                    // SAFETY: the item was reachable after the pin, so it is not freed before the
                    // guard is dropped: the very claim that loom checks here.
                    let seen = unsafe { (*item).0.with(|x| *x) };
                    assert!(seen == 1 || seen == 2);
                    drop(guard);
                })
            };
            let mut reclaimer = Reclaimer::new(1);
            let old = place.load(Ordering::Relaxed);
            place.store(new_item(2), Ordering::Release);
            reclaimer.retire(old);
            let free = |item: *mut Item| {
                // SAFETY: the item is out of reach, and the reclaimer (or the join below) says that
                // no reader is left. The write makes loom check that.
                unsafe {
                    (*item).0.with_mut(|x| *x = 99);
                    drop(Box::from_raw(item));
                }
            };
            for _ in 0..3 {
                reclaimer.flush();
                if let Some(item) = reclaimer.ready() {
                    free(item);
                }
            }
            reader.join().unwrap();
            reclaimer.into_items().for_each(free);
            free(place.load(Ordering::Relaxed));
        });
    }
}
