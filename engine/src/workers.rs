//! Work that is shared between a few threads, and whose outcome does not show it: results come back in
//! the order of the items, whoever was done with what first.
//!
//! Absent on purpose: a pool. Opening a store needs threads once; a scope that ends with the work is all
//! it takes. A thread that cannot be started is one less, and no error.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, available_parallelism, scope};

/// More threads than this gain nothing on what is done here.
const THREADS_MAX: usize = 8;

/// How many threads may work at once.
pub(crate) fn threads() -> usize {
    // So that tests take the same ways on every machine.
    let found = if cfg!(test) { 3 } else { available_parallelism().map_or(1, usize::from) };
    found.min(THREADS_MAX)
}

/// Runs `work` on `threads` threads, of which this is one.
pub(crate) fn on_threads(threads: usize, work: impl Fn() + Sync) {
    scope(|scope| {
        for _ in 1..threads {
            let name = "kvast-open".to_owned();
            let _ = Builder::new().name(name).spawn_scoped(scope, &work);
        }
        work();
    });
}

/// What `work` makes of each item, in the order of the items.
pub(crate) fn map<T: Send, R: Send>(
    threads: usize,
    items: Vec<T>,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let threads = threads.min(items.len());
    if threads <= 1 {
        return items.into_iter().map(work).collect();
    }
    let mut done: Vec<Option<R>> = items.iter().map(|_| None).collect();
    let todo = Mutex::new(items.into_iter().zip(&mut done));
    on_threads(threads, || {
        loop {
            let next = lock(&todo).next();
            let Some((item, place)) = next else { return };
            *place = Some(work(item));
        }
    });
    drop(todo);
    done.into_iter().flatten().collect()
}

/// A panic elsewhere ends the scope; nothing is half done behind this lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        for threads in [0, 1, 2, 7] {
            let squares = map(threads, (0..100u64).collect(), |item| item * item);
            assert!(squares.into_iter().eq((0..100).map(|item| item * item)));
        }
        assert!(map(3, Vec::<u8>::new(), |item| item).is_empty());
    }
}
