//! How often something can be done in a time, and how long one time takes.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// What a row is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figures {
    /// How often it could be done in a second.
    pub(super) per_second: f64,
    /// How long one took, for what is slow enough that looking at a clock costs it nothing.
    pub(super) latency: Option<Latency>,
}

/// Half of all took so long at most, and 99 of 100.
#[derive(Clone, Copy, Debug)]
pub(super) struct Latency {
    pub(super) p50: Duration,
    pub(super) p99: Duration,
}

impl Latency {
    fn of(mut times: Vec<Duration>) -> Option<Latency> {
        times.sort_unstable();
        let at = |share: usize| times.get(times.len() * share / 100).copied();
        Some(Latency { p50: at(50)?, p99: at(99)? })
    }
}

/// Does it for a time, `bundle` times between two looks at the clock, and returns how often it was done
/// in a second; `work` is told how often it was done before.
fn count<E>(
    time: Duration,
    bundle: usize,
    mut work: impl FnMut(usize) -> Result<(), E>,
) -> Result<f64, E> {
    let (begin, mut done) = (Instant::now(), 0);
    loop {
        for _ in 0..bundle {
            work(done)?;
            done += 1;
        }
        let elapsed = begin.elapsed();
        if elapsed >= time {
            return Ok(done as f64 / elapsed.as_secs_f64());
        }
    }
}

/// The same from several threads at once; `work` is told which one it is in.
pub(super) fn count_from<E: Send>(
    threads: usize,
    time: Duration,
    bundle: usize,
    work: impl Fn(usize, usize) -> Result<(), E> + Sync,
) -> Result<Figures, E> {
    let rates = together(threads, |thread| count(time, bundle, |nth| work(thread, nth)))?;
    Ok(Figures { per_second: rates.into_iter().sum(), latency: None })
}

/// Does it for a time, `most` times at most from each thread, and looks at the clock each time.
pub(super) fn time_each<E: Send>(
    threads: usize,
    time: Duration,
    most: usize,
    work: impl Fn(usize, usize) -> Result<(), E> + Sync,
) -> Result<Figures, E> {
    let begin = Instant::now();
    let times = together(threads, |thread| {
        let (mut times, mut last) = (Vec::new(), Instant::now());
        let until = last + time;
        while last < until && times.len() < most {
            work(thread, times.len())?;
            let now = Instant::now();
            times.push(now - last);
            last = now;
        }
        Ok(times)
    })?;
    let elapsed = begin.elapsed().as_secs_f64();
    let times = times.concat();
    Ok(Figures { per_second: times.len() as f64 / elapsed, latency: Latency::of(times) })
}

/// Runs it in several threads that begin at once.
fn together<T: Send, E: Send>(
    threads: usize,
    work: impl Fn(usize) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let barrier = Barrier::new(threads);
    thread::scope(|scope| {
        let spawn = |thread| {
            let (work, barrier) = (&work, &barrier);
            scope.spawn(move || {
                barrier.wait();
                work(thread)
            })
        };
        let threads: Vec<_> = (0..threads).map(spawn).collect();
        // A panic of a worker is a defect, and goes on here.
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_seen() {
        let times = (1..=100).rev().map(Duration::from_millis).collect();
        let latency = Latency::of(times).expect("there are some");
        assert_eq!((latency.p50.as_millis(), latency.p99.as_millis()), (51, 100));
        assert!(Latency::of(Vec::new()).is_none());
    }

    #[test]
    fn no_more_is_done_than_was_allowed() {
        let figures =
            time_each(2, Duration::from_secs(60), 5, |_, _| Ok::<(), ()>(())).expect("it runs");
        assert!(figures.per_second > 0.0 && figures.latency.is_some());
        let failing = |_: usize, _: usize| Err(());
        assert!(time_each(2, Duration::from_secs(60), 5, failing).is_err());
        assert!(count_from(2, Duration::from_secs(60), 1, failing).is_err());
    }
}
