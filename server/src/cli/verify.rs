//! `kvast verify`: read everything, change nothing, say what was found.

use std::io::{self, IsTerminal, Write};

use clap::Args;
use kvast::VerifyProgress;

use super::exit::{Exit, Problem};
use super::store::{StoreArgs, open_to_read};

/// Read a whole store and check every byte of it
///
/// Changes nothing. Exits with 6 and names the place if something is damaged.
#[derive(Args)]
#[command(after_help = "\
Example:
  kvast verify --data /srv/kv")]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    store: StoreArgs,
}

pub(super) fn run(args: &VerifyArgs) -> Result<(), Problem> {
    let db = open_to_read(&args.store.data()?)?;
    let report = db.verify(show)?;
    if !report.is_sound() {
        return Err(Problem::new(Exit::Damaged, report));
    }
    writeln!(io::stdout(), "{report}")?;
    Ok(())
}

/// Progress, for a person who waits.
fn show(progress: VerifyProgress) {
    let mut err = io::stderr();
    if err.is_terminal() {
        let (done, all) = (progress.segments_done, progress.segments);
        let mib = progress.bytes_done >> 20;
        let end = if done == all { "\n" } else { "" };
        // Nothing depends on whether progress could be shown.
        let _ = write!(err, "\r{done} of {all} segments, {mib} MiB{end}");
    }
}
