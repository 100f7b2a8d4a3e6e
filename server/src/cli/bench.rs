//! `kvast bench`: what this machine and this disk give, measured with the engine itself.
//!
//! Everything lies in one new directory, which is removed at the end, after a failure and after a
//! signal. What the disk does without a store is measured first, so that the other rows can be held
//! to it. Absent on purpose: HTTP, which has load generators of its own, and other stores.

mod keys;
mod report;
mod scratch;
mod timing;
mod works;

use std::io::Write;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::Args;

use super::exit::Problem;
use super::output::write_out;
use crate::units::parse_size;
use keys::Shape;
use report::Report;
use scratch::Scratch;
use works::Bench;

/// The longest value that is measured; longer ones say no more.
const VALUE_BYTES_MAX: u64 = 1 << 20;

/// Measure what this machine and its disk give
///
/// Makes a store in a new directory, measures it, says what the figures mean, and removes the
/// directory; nothing else is touched. Takes about half a minute. Let the machine do nothing else.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kvast bench
  kvast bench --dir /srv --value-bytes 1KiB
  kvast bench --keys 10000000 --threads 32 --seconds 60
  kvast bench --json > bench.json")]
pub(super) struct BenchArgs {
    /// A directory on the disk to measure; a new one is made below it
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// How many keys, of 22 bytes
    #[arg(long, value_name = "N", default_value_t = 1_000_000,
        value_parser = clap::value_parser!(u64).range(1..=500_000_000))]
    keys: u64,
    /// How long the values are, up to 1MiB
    #[arg(long, value_name = "SIZE", default_value = "100", value_parser = value_bytes)]
    value_bytes: u64,
    /// How many clients put at once in the row of several
    #[arg(long, value_name = "N", default_value_t = 8,
        value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// How many seconds to measure in all; loading and opening come on top
    #[arg(long, value_name = "N", default_value = "15", value_parser = seconds)]
    seconds: Duration,
    /// Write JSON: every figure in its base unit
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &BenchArgs) -> Result<(), Problem> {
    let shape = Shape {
        keys: args.keys,
        value_bytes: args.value_bytes as usize,
        threads: args.threads.into(),
        cores: thread::available_parallelism().map_or(1, usize::from),
        time: args.seconds / works::TIMED,
    };
    let scratch = Scratch::new(&args.dir, works::room(&shape))?;
    let mut report = Report::new(&shape, &args.dir);
    scratch.warnings().iter().for_each(|warning| eprintln!("kvast: {warning}"));
    let done = Bench::new(&shape, &scratch).run(&mut report);
    scratch.wait_if_interrupted();
    done?;
    scratch.remove()?;
    write_out(|out| match args.json {
        true => writeln!(out, "{}", report.json()),
        false => write!(out, "{report}"),
    })
}

fn value_bytes(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        bytes if bytes <= VALUE_BYTES_MAX => Ok(bytes),
        _ => Err("it must be 1MiB at most".into()),
    }
}

/// Seconds, and parts of them for who is in a hurry.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.01..=3600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "say a number from 0.01 to 3600".into())
}
