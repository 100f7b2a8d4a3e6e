//! What the system tells about this process, under the names that Prometheus' own libraries use.
//!
//! Read from `/proc`; where there is none, or it says something else, the numbers are left out.

use std::fs;
use std::path::Path;

use crate::exposition::{Kind, Text};

/// Writes what can be found out.
pub(crate) fn write_to(text: &mut Text) {
    if let Some(bytes) = resident_bytes() {
        let help = "Memory in use, mapped segments in the page cache included.";
        text.single(Kind::Gauge, "process_resident_memory_bytes", help, bytes);
    }
    if let Some(bytes) = status_bytes("RssAnon:") {
        let help = "Memory in use that is no file's.";
        text.single(Kind::Gauge, "process_anonymous_memory_bytes", help, bytes);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        let help = "Files and sockets that are open.";
        text.single(Kind::Gauge, "process_open_fds", help, open.count());
    }
    if let Some(limit) = open_files_max() {
        let help = "Files and sockets that may be open.";
        text.single(Kind::Gauge, "process_max_fds", help, limit);
    }
}

/// The limit that holds, the first of the two in its line of `/proc/self/limits`.
fn open_files_max() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn resident_bytes() -> Option<u64> {
    status_bytes("VmRSS:")
}

/// A line of `/proc/self/status`, which says its numbers in KiB.
fn status_bytes(name: &str) -> Option<u64> {
    let status = fs::read_to_string(Path::new("/proc/self/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
