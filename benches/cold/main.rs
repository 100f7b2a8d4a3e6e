//! Do reads of what is in memory keep their pace while others wait for the disk?
//!
//! One thread serves, as a thread of a server does: small reads of hot keys that are due at a steady
//! pace, and reads of cold keys for clients that each wait for one at a time. What would wait for the disk is
//! handed to a pool of 32 threads, if the way of reading can tell:
//!
//! - `map`: every value is read where it is mapped, on the serving thread.
//! - `map+gate`: the same if it is in memory; if not, a thread of the pool brings just this value into
//!   memory and reads it. What kvast's server does.
//! - `pread`: a thread of the pool reads it into a buffer that is used again.
//! - `nowait`: `preadv2` with `RWF_NOWAIT` on the serving thread, and the pool if that would wait.
//!
//! Varies: the length of a value, and how much data there is for a limit of memory, which a cgroup sets
//! on the process that reads. Fixed: the keys are asked for with zipf 0.99 among the hot ones (1 %) and evenly
//! among the others; every value is verified; both preads are told where a value lies and what its
//! checksum is, so they save a look-up and the read of a header; the ways take turns in one process.
//! Shown: from when a hot read was due until it was done; cold reads, and for each of them what came from
//! disk and what time of the processors went by; and that time for hot reads with nothing beside them. Leaves out: sockets, writers, and disks other than
//! yours.
//!
//! Run: `cargo bench --bench cold`, about six minutes, as root or where a cgroup may be made; see
//! `--help`. Keep a result: benches/record/README.md.
#![allow(clippy::unwrap_used, reason = "a bench")]

mod data;
mod group;
mod serve;
mod ways;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use group::Group;

const HELP: &str = "\
cargo bench --bench cold -- [1KiB] [16KiB] [1MiB] [--limit MIB] [--seconds S] [--rounds N] [--dir DIR]

  --limit    memory of the process that reads, in MiB: 256
  --seconds  how long one way has its turn: 2
  --rounds   how many turns each has: 3
  --dir      where the data lies: the directory for temporary files";

/// How much data there is, times the limit.
const RATIOS: [f64; 3] = [0.5, 1.0, 4.0];
const LENGTHS: [(&str, usize); 3] = [("1KiB", 1 << 10), ("16KiB", 16 << 10), ("1MiB", 1 << 20)];

struct Plan {
    lengths: Vec<(&'static str, usize)>,
    limit: u64,
    turn: Duration,
    rounds: usize,
    dir: PathBuf,
}

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [first, rest @ ..] = &arguments[..]
        && first == "--inside"
    {
        return serve::main(rest);
    }
    let Some(plan) = plan(arguments) else { return println!("{HELP}") };
    let group = match Group::new(plan.limit) {
        Ok(group) => group,
        Err(why) => return println!("{why}"),
    };
    println!("limit {} MiB ({})\n", plan.limit >> 20, group.kind());
    println!("{}", serve::HEAD);
    for (name, len) in &plan.lengths {
        for ratio in RATIOS {
            let keys = (plan.limit as f64 * ratio) as usize / len;
            let dir = tempfile::tempdir_in(&plan.dir).unwrap();
            data::write(dir.path(), keys, *len);
            let turn = plan.turn.as_millis().to_string();
            let status = Command::new(std::env::current_exe().unwrap())
                .args(["--inside", group.path(), dir.path().to_str().unwrap(), name])
                .args([&len.to_string(), &ratio.to_string(), &turn, &plan.rounds.to_string()])
                .status();
            assert!(status.unwrap().success(), "the process that reads has failed");
        }
    }
}

fn plan(arguments: Vec<String>) -> Option<Plan> {
    let mut plan = Plan {
        lengths: Vec::new(),
        limit: 256 << 20,
        turn: Duration::from_secs(2),
        rounds: 3,
        dir: std::env::temp_dir(),
    };
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match &argument[..] {
            "--limit" => plan.limit = arguments.next()?.parse::<u64>().ok()? << 20,
            "--seconds" => plan.turn = Duration::from_secs_f64(arguments.next()?.parse().ok()?),
            "--rounds" => plan.rounds = arguments.next()?.parse().ok()?,
            "--dir" => plan.dir = PathBuf::from(arguments.next()?),
            name => plan.lengths.push(*LENGTHS.iter().find(|(known, _)| *known == name)?),
        }
    }
    if plan.lengths.is_empty() {
        plan.lengths = LENGTHS.to_vec();
    }
    Some(plan)
}
