//! Atomics, locks and cells: those of `std`, or loom's under `--cfg loom`.
//!
//! Every file that takes part in a concurrent protocol imports from here, so that the loom models
//! run the very code that ships. Absent on purpose: anything that only one of the two offers.

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Arc, Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering},
};
#[cfg(not(loom))]
pub(crate) use std::thread::yield_now;

#[cfg(loom)]
pub(crate) use loom::sync::{
    Arc, Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering},
};
#[cfg(loom)]
pub(crate) use loom::thread::yield_now;
