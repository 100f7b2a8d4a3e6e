//! Which store a command works on, and how it is opened.
//!
//! Reading opens the store read-only, so it works beside a running server and shows the moment of
//! opening. Only writing takes the store's lock and makes a store where there is none.

use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use kvast::{Db, Namespace, Options};

use super::exit::{Exit, Problem};
use super::flags::Flags;
use crate::token;

/// Where the store is.
#[derive(Args)]
pub(super) struct StoreArgs {
    /// The store's directory; without it, the one that `kvast serve` would use
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Look for the directory in this file instead of ./kvast.toml or /etc/kvast/kvast.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl StoreArgs {
    /// The directory.
    pub(super) fn data(&self) -> Result<PathBuf, Problem> {
        match &self.data {
            Some(data) => Ok(data.clone()),
            None => Ok(Flags::none(self.config.clone()).settle()?.settings.config.data),
        }
    }
}

/// Opens a store that is there, without writing to it.
pub(super) fn open_to_read(data: &Path) -> Result<Db, Problem> {
    check_exists(data)?;
    Ok(Options::new().read_only(true).open(data)?)
}

/// Refuses a directory that is not there or has tokens only, before opening would make a store of it.
pub(super) fn check_exists(data: &Path) -> Result<(), Problem> {
    let is_of_store =
        |entry: io::Result<DirEntry>| entry.is_ok_and(|entry| entry.file_name() != token::FILE);
    if fs::read_dir(data).is_ok_and(|mut entries| entries.any(is_of_store)) {
        return Ok(());
    }
    let text = format!("there is no store in {}; name it with --data DIR", data.display());
    Err(Problem::new(Exit::Failure, text))
}

/// The namespace of a title or an id.
pub(super) fn find(db: &Db, title_or_id: &str) -> Option<Namespace> {
    let by_id = title_or_id.parse().ok().and_then(|id| db.namespace_by_id(id));
    by_id.or_else(|| db.find_namespace(title_or_id))
}

/// The same; what there is instead goes into the error.
pub(super) fn find_or_fail(db: &Db, title_or_id: &str) -> Result<Namespace, Problem> {
    find(db, title_or_id).ok_or_else(|| {
        let names: Vec<String> = db.namespaces().iter().map(Namespace::name).collect();
        let text = format!("there is no namespace {title_or_id:?}; there are {names:?}");
        Problem::new(Exit::NotFound, text)
    })
}
