//! What the black-box tests share: random numbers that can be replayed, a model of what a store
//! holds, disks that fail or lose what was not synced, and a server process.
#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod contents;
pub(crate) mod disk;
pub(crate) mod rng;
pub(crate) mod server;

/// A directory of its own, in memory where the system has that: what is tested is what the store asks
/// of the disk, and not the disk.
pub(crate) fn scratch_dir() -> tempfile::TempDir {
    let in_memory = tempfile::tempdir_in("/dev/shm");
    in_memory.or_else(|_| tempfile::tempdir()).expect("make a directory")
}
