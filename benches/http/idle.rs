//! What a server holds that has nothing to do: with many keys, and for each connection that idles.

use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::contenders::{Contender, Dialect};
use crate::driver::{Driver, Requests};
use crate::memory::Memory;
use crate::mib;
use crate::report::Report;

const KEYS: usize = 1_000_000;
/// Below the default limit.
const CONNECTIONS: usize = 900;

const LOADED: &str = "memory above the index, 10^6 keys, after their puts";
const OPENED: &str = "memory above the index, 10^6 keys, just opened";
const CONNECTION: &str = "memory of an idle connection";

pub(crate) fn measure(dir: &Path, only: &str, report: &mut Report) {
    let keys = [LOADED, OPENED].iter().any(|name| name.contains(only));
    if keys {
        let flags = ["--durability", "os"];
        let kvast = Contender::kvast(dir, "kvast", &flags);
        fill(&kvast);
        thread::sleep(Duration::from_secs(2));
        report.size(LOADED, 16.0, "MiB", above_index(&kvast), None);
        let kvast = kvast.restart(&flags);
        thread::sleep(Duration::from_secs(2));
        report.size(OPENED, 16.0, "MiB", above_index(&kvast), None);
    }
    if CONNECTION.contains(only) {
        let kvast = of_a_connection(&Contender::kvast(dir, "kvast", &[]));
        let floor = of_a_connection(&Contender::floor(dir));
        report.size(CONNECTION, 16.0, "KiB", kvast, Some(floor));
    }
}

fn key(id: usize) -> String {
    format!("user:{id:09}:profile")
}

fn fill(kvast: &Contender) {
    let mut puts = Requests::new(200, 0);
    for id in 0..KEYS {
        puts.push("PUT", &Dialect::Binding.put(&key(id)), &[b'v'; 100]);
    }
    Driver::connect(kvast.address, 32).send(&puts, puts.len());
}

/// What the process has allocated beside the index, in MiB.
fn above_index(kvast: &Contender) -> f64 {
    let held = Memory::of(kvast.pid()).anonymous;
    mib(held) - mib(crate::metric(kvast.address, "kvast_index_bytes"))
}

/// What the process allocates for a connection that has asked once, in KiB.
fn of_a_connection(server: &Contender) -> f64 {
    let mut gets = Requests::new(404, 0);
    gets.push("GET", &Dialect::Binding.get("gone"), b"");
    Driver::connect(server.address, 1).send(&gets, 1000);
    thread::sleep(Duration::from_millis(500));
    let before = Memory::of(server.pid()).anonymous;
    let mut driver = Driver::connect(server.address, CONNECTIONS);
    driver.send(&gets, CONNECTIONS);
    thread::sleep(Duration::from_millis(500));
    let grown = Memory::of(server.pid()).anonymous.saturating_sub(before);
    grown as f64 / 1024.0 / CONNECTIONS as f64
}
