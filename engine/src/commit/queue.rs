//! Who waits for whom: writers join a group, the first of them leads it.
//!
//! ```text
//!   join ──> open group ──(nobody leads)──> I lead: take it, work, tell its members
//!                 │
//!                 └──(somebody leads)─────> wait: either my group is done, or it is my turn to lead
//! ```
//!
//! Those whose group went to the disk and is done are let run before the next group is led: they come
//! back with their next write and join it. Without that, writers that wait for the disk fall into two
//! halves, each of which sees only every other sync; with it, 8 of them do a tenth more and 32 almost half more.
//!
//! What always holds: groups are led one at a time and in the order in which they were opened; a
//! group that is led takes no more members; every member of a group gets the outcome of that group
//! and of no other. A writer that meets nobody neither switches threads nor allocates. Loom
//! explores this file in `loom_` tests.
//!
//! Absent on purpose: what a group contains and what leading it does; see `commit`.

use std::collections::VecDeque;

use crate::sync::{Condvar, Mutex, MutexGuard, yield_now};

pub(crate) struct Queue<G, R> {
    state: Mutex<State<G, R>>,
    /// Members wait on the one of their group's parity, so that telling one group its outcome does
    /// not wake the next.
    turns: [Condvar; 2],
}

struct State<G, R> {
    /// Groups that nobody leads yet, oldest first.
    open: VecDeque<Pending<G>>,
    next_id: u64,
    leading: bool,
    /// Outcomes that not every member has picked up.
    done: VecDeque<Outcome<R>>,
    /// Emptied groups, whose buffers are used again.
    spare: Vec<G>,
}

struct Pending<G> {
    id: u64,
    group: G,
    members: usize,
    closed: bool,
}

struct Outcome<R> {
    id: u64,
    result: R,
    waiting: usize,
}

/// A group of writes: `Default` makes an empty one.
pub(crate) trait Group: Default {
    /// Whether it takes another member.
    fn has_room(&self) -> bool;
    /// Whether leading it takes so long that the next group had better be a large one.
    fn is_slow(&self) -> bool;
    /// Empties it for its next use.
    fn clear(&mut self);
}

impl<G: Group, R: Clone> Queue<G, R> {
    pub(crate) fn new() -> Queue<G, R> {
        let state = State {
            open: VecDeque::new(),
            next_id: 0,
            leading: false,
            done: VecDeque::new(),
            spare: Vec::new(),
        };
        Queue { state: Mutex::new(state), turns: [Condvar::new(), Condvar::new()] }
    }

    /// Joins a group and returns when it is done. `join` adds to the group and returns what this
    /// member wants to remember, for example its place in it; `alone` keeps others out of the
    /// group. `lead` is called if it falls to this writer to lead, outside of the lock.
    pub(crate) fn run<T>(
        &self,
        alone: bool,
        join: impl FnOnce(&mut G) -> T,
        lead: impl FnOnce(&mut G) -> R,
    ) -> (T, R) {
        let mut state = self.lock();
        let (id, ticket) = state.join(alone, join);
        loop {
            if let Some(result) = state.pick_up(id) {
                return (ticket, result);
            }
            // Groups are led in order, so the front one is either mine or comes before mine, and
            // then one of its own members leads it.
            if !state.leading && state.open.front().is_some_and(|front| front.id == id) {
                return (ticket, self.lead(state, lead));
            }
            state = wait(&self.turns[parity(id)], state);
        }
    }

    fn lead<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<G, R>>,
        lead: impl FnOnce(&mut G) -> R,
    ) -> R {
        let Some(mut pending) = state.open.pop_front() else {
            unreachable!("the caller saw its group at the front")
        };
        state.leading = true;
        drop(state);
        let result = lead(&mut pending.group);
        let is_slow = pending.group.is_slow();
        pending.group.clear();
        let mut state = self.lock();
        if state.spare.len() < 2 {
            state.spare.push(pending.group);
        }
        let others = pending.members - 1;
        if others > 0 {
            let outcome = Outcome { id: pending.id, result: result.clone(), waiting: others };
            state.done.push_back(outcome);
            self.turns[parity(pending.id)].notify_all();
            if is_slow {
                drop(state);
                yield_now();
                state = self.lock();
            }
        }
        state.leading = false;
        if let Some(next) = state.open.front() {
            // Any member of the next group can lead it; those of later groups with the same parity
            // would go back to sleep, so all are woken when there is more than one group.
            let turn = &self.turns[parity(next.id)];
            if state.open.len() > 1 { turn.notify_all() } else { turn.notify_one() }
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, State<G, R>> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn wait<'a, T>(turn: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    turn.wait(guard).unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn parity(id: u64) -> usize {
    (id % 2) as usize
}

impl<G: Group, R: Clone> State<G, R> {
    fn join<T>(&mut self, alone: bool, join: impl FnOnce(&mut G) -> T) -> (u64, T) {
        let fits = |pending: &Pending<G>| !alone && !pending.closed && pending.group.has_room();
        if !self.open.back().is_some_and(fits) {
            let group = self.spare.pop().unwrap_or_default();
            self.open.push_back(Pending { id: self.next_id, group, members: 0, closed: alone });
            self.next_id += 1;
        }
        let Some(pending) = self.open.back_mut() else { unreachable!("one was just pushed") };
        pending.members += 1;
        (pending.id, join(&mut pending.group))
    }

    fn pick_up(&mut self, id: u64) -> Option<R> {
        let at = self.done.iter().position(|outcome| outcome.id == id)?;
        let outcome = &mut self.done[at];
        outcome.waiting -= 1;
        if outcome.waiting > 0 {
            return Some(outcome.result.clone());
        }
        self.done.remove(at).map(|outcome| outcome.result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that were joined; at most `MAX` of them.
    #[derive(Default)]
    struct Numbers(Vec<u32>);

    impl Group for Numbers {
        fn has_room(&self) -> bool {
            self.0.len() < 2
        }

        fn is_slow(&self) -> bool {
            true
        }

        fn clear(&mut self) {
            self.0.clear();
        }
    }

    fn run(queue: &Queue<Numbers, Vec<u32>>, alone: bool, number: u32) -> Vec<u32> {
        let join = |group: &mut Numbers| group.0.push(number);
        queue.run(alone, join, |group| group.0.clone()).1
    }

    #[cfg(not(loom))]
    #[test]
    fn a_writer_that_meets_nobody_leads_its_own_group() {
        let queue = Queue::new();
        assert_eq!(run(&queue, false, 1), [1]);
        assert_eq!(run(&queue, true, 2), [2]);
    }

    #[cfg(not(loom))]
    #[test]
    fn every_member_gets_the_outcome_of_its_own_group() {
        let queue = Queue::new();
        std::thread::scope(|scope| {
            for number in 0..8 {
                let queue = &queue;
                scope.spawn(move || {
                    for round in 0..500 {
                        let mine = number * 1000 + round;
                        let got = run(queue, round % 7 == 0, mine);
                        assert!(got.contains(&mine) && got.len() <= 2);
                        assert!(round % 7 != 0 || got.len() == 1, "alone means alone");
                    }
                });
            }
        });
    }

    /// Three writers, every interleaving: nobody waits for ever, nobody gets another's outcome, and
    /// no two lead at once. Bounds: 3 threads, one write each, preemptions up to 3.
    #[cfg(loom)]
    #[test]
    fn loom_three_writers_each_get_the_outcome_of_their_group() {
        use loom::sync::Arc;
        use loom::sync::atomic::{AtomicUsize, Ordering};
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let queue = Arc::new(Queue::<Numbers, Vec<u32>>::new());
            let leaders = Arc::new(AtomicUsize::new(0));
            let write = |number: u32| {
                let (queue, leaders) = (queue.clone(), leaders.clone());
                move || {
                    let join = |group: &mut Numbers| group.0.push(number);
                    let (_, got) = queue.run(false, join, |group| {
                        assert_eq!(leaders.fetch_add(1, Ordering::SeqCst), 0, "two lead at once");
                        let numbers = group.0.clone();
                        leaders.fetch_sub(1, Ordering::SeqCst);
                        numbers
                    });
                    assert!(got.contains(&number));
                }
            };
            let others = [loom::thread::spawn(write(1)), loom::thread::spawn(write(2))];
            write(3)();
            for other in others {
                other.join().unwrap();
            }
        });
    }
}
