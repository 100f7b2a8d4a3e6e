//! Who takes part, where their data is, and how turns are taken.
//!
//! In each round every store does the same work, one after the other. The next round begins with the
//! next store, and every second one goes the other way round, so that nobody always comes after the
//! same one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Barrier, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::arguments::Arguments;
use crate::data::{Data, Values};
use crate::machine;
use crate::report::Series;
use crate::store::{Kind, Setup, Store, Watch, kinds};

/// Keys in a commit of a load.
pub const PER_COMMIT: usize = 1000;

pub struct Contest {
    pub arguments: Arguments,
    /// kvast is the first.
    pub kinds: Vec<Kind>,
    /// Rivals that were asked for and not built.
    pub absent: Vec<&'static str>,
    /// Rivals that were not asked for.
    pub left_out: Vec<&'static str>,
    pub data: Data,
    pub values: Values,
    /// Disk bytes of each store right after it was loaded and closed; empty before that.
    loaded: Mutex<BTreeMap<&'static str, u64>>,
}

/// A store that takes part, and is open.
pub struct Entrant {
    pub name: &'static str,
    pub store: Box<dyn Store>,
}

impl Contest {
    pub fn new(arguments: Arguments) -> Contest {
        let wanted = |kind: &Kind| kind.name == "kvast" || arguments.has_rival(kind.name);
        let (wanted, left_out): (Vec<Kind>, Vec<Kind>) = kinds().into_iter().partition(wanted);
        let (kinds, absent): (Vec<Kind>, Vec<Kind>) =
            wanted.into_iter().partition(|kind| kind.open.is_some());
        let names = |kinds: Vec<Kind>| kinds.iter().map(|kind| kind.name).collect();
        let (absent, left_out) = (names(absent), names(left_out));
        let data = Data::new(arguments.keys);
        let loaded = Mutex::default();
        Contest { arguments, kinds, absent, left_out, data, values: Values::short(), loaded }
    }

    pub fn dir(&self, part: &str, name: &str) -> PathBuf {
        self.arguments.dir.join(part).join(name)
    }

    pub fn open(&self, kind: &Kind, dir: &Path, setup: Setup) -> Box<dyn Store> {
        kind.open.expect("only stores that were built take part")(dir, setup)
    }

    /// One turn of each store in each round. A turn gives a number for each of `N` rows.
    pub fn rounds<const N: usize>(
        &self,
        rounds: usize,
        mut turn: impl FnMut(usize, usize) -> [f64; N],
    ) -> [Series; N] {
        let names: Vec<&'static str> = self.kinds.iter().map(|kind| kind.name).collect();
        take_turns(&names, rounds, &mut turn)
    }

    /// Loads the main data of each store into an empty directory, and says how fast.
    pub fn load(&self, kind: &Kind) -> f64 {
        let dir = self.dir("main", kind.name);
        machine::remove(&dir);
        let store = self.open(kind, &dir, Setup::default());
        let keys = self.data.keys();
        let rate = rate(|| {
            store.put_batches(&keys, &self.values, PER_COMMIT);
            keys.len()
        });
        store.close();
        self.loaded_lock().insert(kind.name, machine::disk_bytes(&dir));
        machine::calm();
        rate
    }

    fn loaded_lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.loaded.lock().expect("no panic while it is held")
    }

    /// Disk bytes of each store right after the load.
    pub fn loaded_bytes(&self, nth: usize) -> f64 {
        self.ensure_loaded();
        self.loaded_lock()[self.kinds[nth].name] as f64
    }

    pub fn ensure_loaded(&self) {
        let missing = |kind: &&Kind| !self.loaded_lock().contains_key(kind.name);
        let missing: Vec<Kind> = self.kinds.iter().filter(missing).copied().collect();
        for kind in missing {
            self.load(&kind);
        }
    }

    /// Opens the main data of all stores.
    pub fn entrants(&self, setup: Setup) -> Vec<Entrant> {
        self.ensure_loaded();
        let open = |kind: &Kind| {
            let store = self.open(kind, &self.dir("main", kind.name), setup);
            Entrant { name: kind.name, store }
        };
        self.kinds.iter().map(open).collect()
    }
}

/// See [`Contest::rounds`].
pub fn take_turns<const N: usize>(
    names: &[&'static str],
    rounds: usize,
    turn: &mut impl FnMut(usize, usize) -> [f64; N],
) -> [Series; N] {
    let mut all = [(); N].map(|()| Series::new(names));
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..names.len()).collect();
        order.rotate_left(round % names.len());
        if round % 2 == 1 {
            order.reverse();
        }
        let mut figures = [(); N].map(|()| vec![0.0; names.len()]);
        for nth in order {
            for (row, figure) in turn(nth, round).into_iter().enumerate() {
                figures[row][nth] = figure;
            }
        }
        for (series, figures) in all.iter_mut().zip(figures) {
            series.push(figures);
        }
    }
    all
}

/// Lets all stores, whose files are in `dir`, finish and settle.
pub fn settle(entrants: &mut [Entrant], dir: &Path) {
    for entrant in &mut *entrants {
        entrant.store.settle();
    }
    machine::calm();
    machine::sync(dir);
}

pub fn close(entrants: Vec<Entrant>) {
    for entrant in entrants {
        entrant.store.close();
    }
}

/// Operations a second.
pub fn rate(work: impl FnOnce() -> usize) -> f64 {
    let begin = Instant::now();
    let done = work();
    done as f64 / begin.elapsed().as_secs_f64()
}

/// Operations a second of several threads together, which go on until the time is up: from the start
/// of the first to the end of the last. `work` is given the thread and how often it was called there.
pub fn rate_for(
    time: Duration,
    threads: usize,
    work: impl Fn(usize, usize) -> usize + Sync,
) -> f64 {
    let barrier = Barrier::new(threads + 1);
    std::thread::scope(|scope| {
        let spawn = |thread| {
            let (work, barrier) = (&work, &barrier);
            scope.spawn(move || {
                barrier.wait();
                let until = Instant::now() + time;
                let (mut done, mut call) = (0, 0);
                while Instant::now() < until {
                    done += work(thread, call);
                    call += 1;
                }
                done
            })
        };
        let threads: Vec<_> = (0..threads).map(spawn).collect();
        barrier.wait();
        rate(|| threads.into_iter().map(|thread| thread.join().expect("a worker")).sum())
    })
}

/// Milliseconds from nothing to a value, and what was opened.
pub fn open_to_first_get(
    open: impl FnOnce() -> Box<dyn Store>,
    data: &Data,
) -> (f64, Box<dyn Store>) {
    let begin = Instant::now();
    let store = open();
    assert_eq!(store.gets(&[data.first()], &mut Watch::default()), 1);
    (begin.elapsed().as_secs_f64() * 1000.0, store)
}
