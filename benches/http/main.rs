//! What do large and slow requests cost the server, and those beside them?
//!
//! - `large`: 64 slow clients at once, half of them uploading 25 MiB and half downloading, each at
//!   1 MiB/s. Shown: the server's memory, and small gets and puts, before and meanwhile. The control
//!   is a second server beside the same clients that answers small gets only: what they take longer
//!   there is the machine's share.
//! - `bulk`: a bulk put of 100 MB with 10,000 entries, and one whose last entry is bad. Shown: the
//!   server's memory, the time, and what was written.
//! - `floor`: requests as fast as one core can take them, against the floor (hyper over a map in memory),
//!   and against webdis + Redis (Debian: `redis-server`, `webdis`) and Miniflare (`npm install` in
//!   `tests/clients`) where they are installed. Shown: the table of what must hold, with ratios.
//! - `puts`: puts of 1 KiB, alone and beside four clients that upload 25 MiB at 5 MiB/s, one upload in
//!   ten cut off in the middle. Shown: the small puts, memory, and dead bytes.
//!
//! Fixed: the real program with its defaults, writes synced, a store of its own for each; one client
//! for small requests that asks 1,000 times a second, 100-byte values and 10,000 keys. Memory is read
//! from `/proc` every 10 ms: `RssAnon` is what the server allocated, `VmRSS` has its mapped files too.
//! In `floor` each server has core 0 for itself and the clients have core 1; 100,000 keys (Miniflare: 5,000),
//! 9 rounds of 0.4 s taken in turns, and a rate is one per second of the server's processor time, so that
//! what else the machine does counts for less.
//! Leaves out: cold disk, TLS, HTTP/2, more than one core, and in the other parts how fast the server can be:
//! every figure there is one of load that is far below that, and server and clients share the cores.
//!
//! Run: `cargo bench --bench http`, about eight minutes; `-- large` for one of them, `-- floor --rows TEXT` for
//! rows whose names contain it, `--dir DIR` to choose a disk. Keep a result: benches/record/README.md.
#![allow(clippy::unwrap_used, reason = "a bench")]

mod baseline;
mod bulk;
mod contenders;
mod driver;
mod floor;
mod idle;
mod large;
mod memory;
mod puts;
mod report;
#[allow(dead_code, reason = "made for tests")]
#[path = "../../tests/support/server.rs"]
mod server;
mod slow;
mod small;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use server::{Client, Server};
use tempfile::TempDir;

/// The length of a large value: the most that one may have.
const LARGE: usize = 25 << 20;

/// Makes this program the server that is the floor.
const SERVE_FLOOR: &str = "serve-floor";

/// A part of the bench, and its name.
type Part = (&'static str, fn(&Store));

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut asked, mut rows, mut dir) = (Vec::new(), String::new(), std::env::temp_dir());
    while let Some(argument) = arguments.next() {
        match &argument[..] {
            SERVE_FLOOR => return baseline::serve(),
            "--rows" => rows = arguments.next().expect("--rows takes a text"),
            "--dir" => dir = PathBuf::from(arguments.next().expect("--dir takes a directory")),
            _ => asked.push(argument),
        }
    }
    let all: [Part; 3] = [("large", large::run), ("bulk", bulk::run), ("puts", puts::run)];
    let is_asked = |name: &str| asked.is_empty() || asked.iter().any(|other| other == name);
    for (name, run) in all {
        if is_asked(name) {
            println!("\n## {name}\n");
            run(&Store::new(&dir));
        }
    }
    // The last, since it leaves this process with one core.
    if is_asked("floor") {
        println!("\n## floor\n");
        floor::run(&dir, &rows);
    }
}

/// A server with a store of its own.
struct Store {
    server: Server,
    dir: TempDir,
}

impl Store {
    fn new(dir: &Path) -> Store {
        let dir = tempfile::tempdir_in(dir).unwrap();
        let server = Server::start(&dir.path().join("data"), &[]);
        Store { server, dir }
    }

    /// One more, on the same disk.
    fn another(&self) -> Store {
        Store::new(self.dir.path())
    }

    fn address(&self) -> &str {
        &self.server.address
    }

    fn client(&self) -> Client {
        self.server.client().unwrap()
    }

    /// One of the server's metrics.
    fn metric(&self, name: &str) -> u64 {
        metric(self.address().parse().unwrap(), name)
    }
}

/// One of a server's metrics.
fn metric(address: SocketAddr, name: &str) -> u64 {
    let text = String::from_utf8(fetch(address, "/metrics")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("there is no {name}")).parse().unwrap()
}

/// The body of an answer.
fn fetch(address: SocketAddr, target: &str) -> Vec<u8> {
    let answer = Client::connect(&address.to_string()).unwrap().send("GET", target, b"").unwrap();
    assert_eq!(answer.status, 200);
    answer.body
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
