//! The memory of the server's process, watched while something happens.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::mib;

/// What the process holds, in bytes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Memory {
    /// What it allocated.
    pub(crate) anonymous: u64,
    /// All that is in memory, pages of mapped files included.
    pub(crate) resident: u64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Memory {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
        };
        Memory { anonymous: bytes("RssAnon:"), resident: bytes("VmRSS:") }
    }

    fn max(self, other: Memory) -> Memory {
        Memory {
            anonymous: self.anonymous.max(other.anonymous),
            resident: self.resident.max(other.resident),
        }
    }
}

/// Does something, and returns its result and the most that the process held meanwhile.
pub(crate) fn peak<T>(pid: u32, act: impl FnOnce() -> T) -> (T, Memory) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = Memory::of(pid);
            while !is_over.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(10));
                most = most.max(Memory::of(pid));
            }
            most
        });
        let done = act();
        is_over.store(true, Ordering::Relaxed);
        (done, watcher.join().unwrap())
    })
}

/// A table of what was held when, compared with its first row.
pub(crate) fn table(rows: &[(&str, Memory)]) {
    let idle = rows[0].1;
    println!("| memory, MiB | RssAnon | above idle | VmRSS | above idle |\n|---|--:|--:|--:|--:|");
    for (name, held) in rows {
        println!(
            "| {name} | {:.1} | {:+.1} | {:.1} | {:+.1} |",
            mib(held.anonymous),
            mib(held.anonymous) - mib(idle.anonymous),
            mib(held.resident),
            mib(held.resident) - mib(idle.resident),
        );
    }
    println!();
}
