//! `kvast verify`: read everything, change nothing, say what was found.

use std::io::{self, Write};

use clap::Args;

use super::exit::Problem;
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
    let db = open_to_read(&args.store.data)?;
    let report = db.verify(|_| ())?;
    writeln!(io::stdout(), "{report}")?;
    Ok(())
}
