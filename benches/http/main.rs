//! What do large and slow requests cost the server, and those beside them?
//!
//! - `large`: 64 slow clients at once, half of them uploading 25 MiB and half downloading, each at
//!   1 MiB/s. Shown: the server's memory, and small gets and puts, before and meanwhile. The control
//!   is a second server beside the same clients that answers small gets only: what they take longer
//!   there is the machine's share.
//! - `bulk`: a bulk put of 100 MB with 10,000 entries, and one whose last entry is bad. Shown: the
//!   server's memory, the time, and what was written.
//! - `puts`: puts of 1 KiB, alone and beside four clients that upload 25 MiB at 5 MiB/s, one upload in
//!   ten cut off in the middle. Shown: the small puts, memory, and dead bytes.
//!
//! Fixed: the real program with its defaults, writes synced, a store of its own for each; one client
//! for small requests that asks 1,000 times a second, 100-byte values and 10,000 keys. Memory is read
//! from `/proc` every 10 ms: `RssAnon` is what the server allocated, `VmRSS` has its mapped files too.
//! Leaves out: cold disk, TLS, HTTP/2, and how fast the server can be; every figure is one of load
//! that is far below that. Server and clients share the machine's cores.
//!
//! Run: `cargo bench --bench http`, about three minutes; `-- large` for one of them, `--dir DIR` to
//! choose a disk. Keep a result: benches/record/README.md.
#![allow(clippy::unwrap_used, reason = "a bench")]

mod bulk;
mod large;
mod memory;
mod puts;
#[allow(dead_code, reason = "made for tests")]
#[path = "../../tests/support/server.rs"]
mod server;
mod slow;
mod small;

use std::path::{Path, PathBuf};

use server::{Client, Server};
use tempfile::TempDir;

/// The length of a large value: the most that one may have.
const LARGE: usize = 25 << 20;

/// A part of the bench, and its name.
type Part = (&'static str, fn(&Store));

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut asked, mut dir) = (Vec::new(), std::env::temp_dir());
    while let Some(argument) = arguments.next() {
        match &argument[..] {
            "--dir" => dir = PathBuf::from(arguments.next().expect("--dir takes a directory")),
            _ => asked.push(argument),
        }
    }
    let all: [Part; 3] = [("large", large::run), ("bulk", bulk::run), ("puts", puts::run)];
    for (name, run) in all {
        if asked.is_empty() || asked.iter().any(|other| other == name) {
            println!("\n## {name}\n");
            run(&Store::new(&dir));
        }
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
        let answer = self.client().send("GET", "/metrics", b"").unwrap();
        let text = String::from_utf8(answer.body).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("there is no {name}")).parse().unwrap()
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
