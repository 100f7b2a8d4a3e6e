//! What the black-box tests share: random numbers that can be replayed, a model of what a store
//! holds, disks that fail or lose what was not synced, and a server process.
#![allow(dead_code, reason = "each test file uses its own part")]

pub(crate) mod contents;
pub(crate) mod disk;
pub(crate) mod rng;
pub(crate) mod server;
