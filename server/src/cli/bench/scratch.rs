//! The directory that is measured in: new, with room enough, and gone afterwards.
//!
//! What always holds: nothing outside of it is written to or removed, and it is removed whatever ends
//! the run, but for a kill that no process can notice.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::{self, Runtime};
use tokio::signal::unix::SignalKind;

use super::super::exit::{Exit, Problem};
use super::super::signals::{Order, Signals, exit_code};
use crate::units::show_size;

/// What a store's directory has in it, and another one hardly ever.
const FILES_OF_STORES: [&str; 2] = ["MANIFEST", "LOCK"];
/// Followed by six letters and digits.
const PREFIX: &str = "kvast-bench-";
/// How often removing is tried while other threads still make files.
const REMOVALS: u32 = 100;

/// What `statfs` says of file systems that keep nothing on a disk: tmpfs and ramfs.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

pub(super) struct Scratch {
    dir: TempDir,
    below: PathBuf,
    /// A signal has come, and another thread removes the directory and ends the process.
    interrupted: Interrupted,
}

/// Whether it is so; held by whoever makes directories, since one that is made beside the removal would
/// be left behind.
type Interrupted = Arc<Mutex<bool>>;

fn hold(interrupted: &Mutex<bool>) -> MutexGuard<'_, bool> {
    interrupted.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scratch {
    /// Makes a directory below another one, on whose disk there must be so much room.
    pub(super) fn new(below: &Path, room: u64) -> Result<Scratch, Problem> {
        refuse_stores(below)?;
        let refused = |error| {
            let text = format!("{}: {error}; name another directory with --dir", below.display());
            Problem::new(Exit::Failure, text)
        };
        let free = rustix::fs::statvfs(below).map_err(|error| refused(error.into()))?;
        let free = free.f_bavail.saturating_mul(free.f_frsize);
        if free < room {
            let (room, free) = (show_mib(room), show_mib(free));
            let text = format!(
                "{} has {free} free, and up to {room} are needed; measure fewer keys (--keys), shorter \
                 values (--value-bytes), or another disk (--dir)",
                below.display()
            );
            return Err(Problem::new(Exit::Failure, text));
        }
        // Before there is something to remove.
        let signals = Listener::new()?;
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(below).map_err(refused)?;
        let interrupted = signals.remove_when_one_comes(dir.path().to_owned())?;
        Ok(Scratch { dir, below: below.to_owned(), interrupted })
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// What makes the figures worth less.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if is_in_memory(&self.below) {
            warnings.push(format!(
                "{} is in memory and not on a disk: rows that wait for the disk say nothing; name a \
                 directory on a disk with --dir",
                self.below.display()
            ));
        }
        for left in self.left_behind() {
            let text = format!("{} is of a run that was killed; remove it", left.display());
            warnings.push(text);
        }
        warnings
    }

    /// Directories of other runs. One of them may be going on, so they are not removed.
    fn left_behind(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.below) else { return Vec::new() };
        let others = entries.flatten().filter(|entry| {
            let name = entry.file_name();
            name.to_string_lossy().starts_with(PREFIX) && self.path().file_name() != Some(&name)
        });
        others.map(|entry| entry.path()).collect()
    }

    /// Does what can make directories. Never returns once a signal has the directory removed.
    pub(super) fn make<T>(&self, make: impl FnOnce(&Path) -> T) -> T {
        loop {
            let interrupted = hold(&self.interrupted);
            if !*interrupted {
                return make(self.path());
            }
            drop(interrupted);
            thread::park();
        }
    }

    /// Whoever uses the directory fails once a signal has it removed; nothing is said of that.
    pub(super) fn wait_if_interrupted(&self) {
        while *hold(&self.interrupted) {
            thread::park();
        }
    }

    pub(super) fn remove(self) -> Result<(), Problem> {
        let path = self.dir.path().to_owned();
        self.dir.close().map_err(|error| {
            let text = format!("{}: {error}; remove it by hand", path.display());
            Problem::new(Exit::Failure, text)
        })
    }
}

/// A store's directory is left alone, also by what would only lie in it.
fn refuse_stores(dir: &Path) -> Result<(), Problem> {
    if !FILES_OF_STORES.iter().any(|file| dir.join(file).exists()) {
        return Ok(());
    }
    let above = fs::canonicalize(dir).ok().and_then(|dir| Some(dir.parent()?.to_owned()));
    let above = above.unwrap_or_else(|| PathBuf::from(".."));
    let text = format!(
        "{} holds a store, and nothing is measured inside of one; the directory above it is on the \
         same disk as a rule: --dir {}",
        dir.display(),
        above.display()
    );
    Err(Problem::new(Exit::Usage, text))
}

fn is_in_memory(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| IN_MEMORY.contains(&(found.f_type as u64)))
}

/// In whole MiB, so that it reads well.
fn show_mib(bytes: u64) -> String {
    show_size(bytes >> 20 << 20)
}

/// The signals that end a process, from its making on.
struct Listener {
    runtime: Runtime,
    signals: Signals,
}

impl Listener {
    fn new() -> io::Result<Listener> {
        let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
        let signals = {
            let _inside = runtime.enter();
            Signals::install()?
        };
        Ok(Listener { runtime, signals })
    }

    /// Removes the directory and ends the process when a signal comes, and notes that it has come.
    fn remove_when_one_comes(mut self, path: PathBuf) -> io::Result<Interrupted> {
        let interrupted = Interrupted::default();
        let noted = Arc::clone(&interrupted);
        thread::Builder::new().name("signals".into()).spawn(move || {
            let signal = match self.runtime.block_on(self.signals.next()) {
                Order::Stop(signal) => signal,
                // The terminal has gone.
                Order::Reload => SignalKind::hangup(),
            };
            *hold(&noted) = true;
            let removed = remove_while_it_is_used(&path);
            eprintln!("kvast: interrupted{}", if removed { "" } else { "; remove what it left" });
            process::exit(exit_code(signal));
        })?;
        Ok(interrupted)
    }
}

/// A file may come into being while the others are removed. Once the directory is gone none can.
fn remove_while_it_is_used(path: &Path) -> bool {
    (0..REMOVALS).any(|_| {
        let removed = fs::remove_dir_all(path).is_ok() || !path.exists();
        if !removed {
            thread::sleep(Duration::from_millis(10));
        }
        removed
    })
}
