//! `kvast put`, `get`, `delete` and `list`, on a directory.
//!
//! Values are bytes, in and out. A namespace comes into being with its first put. Absent on
//! purpose: the API's rule that a key lives for at least a minute.

use std::ffi::OsString;
use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgGroup, Args};
use kvast::{Entry, Options, PutOptions};

use super::exit::{Exit, Problem};
use super::output::{Out, write_out};
use super::store::{StoreArgs, check_exists, find, find_or_fail, open_to_read};
use crate::json;
use crate::rules;
use crate::units::parse_duration;

/// Write a value under a key
///
/// The value is the third argument, a file, or standard input. It replaces what was there: value,
/// metadata and expiry.
#[derive(Args)]
#[command(
    group = ArgGroup::new("source").args(["value", "file"]),
    group = ArgGroup::new("expiry").args(["ttl", "expires"]),
    after_help = "\
Examples:
  kvast put sessions user/42 '{\"name\":\"Ada\"}' --ttl 30s
  kvast put assets logo.png --file logo.png --metadata '{\"type\":\"image/png\"}'
  tar c site | kvast put backups site.tar --file -"
)]
pub(super) struct PutArgs {
    /// The namespace, by title or id
    #[arg(value_name = "NS")]
    namespace: String,
    /// The key
    key: String,
    /// The value
    #[arg(allow_hyphen_values = true)]
    value: Option<OsString>,
    /// Take the value from a file, or from standard input if it is -
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Let the key expire after a time, such as 30s, 5m, 2h or 7d
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    ttl: Option<Duration>,
    /// Let the key expire at a time in Unix seconds
    #[arg(long, value_name = "UNIX")]
    expires: Option<u64>,
    /// Store JSON beside the value
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    #[command(flatten)]
    store: StoreArgs,
}

/// Write a key's value to standard output, byte for byte
#[derive(Args)]
#[command(after_help = "\
Examples:
  kvast get sessions user/42
  kvast get assets logo.png > logo.png
  kvast get assets logo.png --metadata")]
pub(super) struct GetArgs {
    /// The namespace, by title or id
    #[arg(value_name = "NS")]
    namespace: String,
    /// The key
    key: String,
    /// Write the metadata instead, `null` if there is none
    #[arg(long)]
    metadata: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Delete a key
#[derive(Args)]
#[command(after_help = "\
Example:
  kvast delete sessions user/42")]
pub(super) struct DeleteArgs {
    /// The namespace, by title or id
    #[arg(value_name = "NS")]
    namespace: String,
    /// The key
    key: String,
    #[command(flatten)]
    store: StoreArgs,
}

/// List keys in byte order, one per line
#[derive(Args)]
#[command(after_help = "\
Examples:
  kvast list sessions --prefix user/ --limit 10
  kvast list sessions --long
  kvast list sessions --json | jq .name")]
pub(super) struct ListArgs {
    /// The namespace, by title or id
    #[arg(value_name = "NS")]
    namespace: String,
    /// Only keys that start so
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: String,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Before each key, its expiration in Unix seconds and its metadata, `-` for none, with tabs
    #[arg(long, conflicts_with = "json")]
    long: bool,
    /// One JSON object per line: name, expiration, metadata. Safe for keys with line breaks
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

pub(super) fn put(args: PutArgs) -> Result<(), Problem> {
    rules::check_key(&args.key).map_err(|broken| Problem::new(Exit::Usage, broken.to_string()))?;
    let options = put_options(&args)?;
    let value = value(args.value, args.file.as_deref())?;
    let db = Options::new().open(&args.store.data()?)?;
    let namespace = match find(&db, &args.namespace) {
        Some(namespace) => namespace,
        None => {
            eprintln!("kvast: creating namespace {:?}", args.namespace);
            db.create_namespace(&args.namespace)?
        }
    };
    namespace.put_with(&args.key, value, options)?;
    Ok(db.close()?)
}

pub(super) fn get(args: &GetArgs) -> Result<(), Problem> {
    let db = open_to_read(&args.store.data()?)?;
    let namespace = find_or_fail(&db, &args.namespace)?;
    let value = namespace.get(&args.key)?.ok_or_else(|| no_such_key(&args.namespace, &args.key))?;
    if args.metadata {
        let metadata = json::metadata(value.metadata());
        return write_out(|out| writeln!(out, "{}", metadata.as_deref().unwrap_or("null")));
    }
    write_out(|out| out.write_all(&value))
}

pub(super) fn delete(args: &DeleteArgs) -> Result<(), Problem> {
    check_exists(&args.store.data()?)?;
    let db = Options::new().open(&args.store.data()?)?;
    let deleted = find_or_fail(&db, &args.namespace)?.delete(&args.key)?;
    db.close()?;
    if deleted { Ok(()) } else { Err(no_such_key(&args.namespace, &args.key)) }
}

pub(super) fn list(args: &ListArgs) -> Result<(), Problem> {
    let db = open_to_read(&args.store.data()?)?;
    let entries = find_or_fail(&db, &args.namespace)?.scan(&args.prefix);
    let print = if args.json {
        print_json
    } else if args.long {
        print_long
    } else {
        print_key
    };
    let mut failed = None;
    let listed = entries.take(args.limit.unwrap_or(usize::MAX));
    write_out(|out| {
        for entry in listed {
            match entry {
                Ok(entry) => print(out, &entry)?,
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        Ok(())
    })?;
    failed.map_or(Ok(()), |error| Err(Problem::from(error)))
}

fn no_such_key(namespace: &str, key: &str) -> Problem {
    Problem::new(Exit::NotFound, format!("there is no key {key:?} in namespace {namespace:?}"))
}

fn put_options(args: &PutArgs) -> Result<PutOptions, Problem> {
    let mut options = PutOptions::new();
    if let Some(ttl) = args.ttl {
        options = options.expires_in(ttl);
    }
    if let Some(at) = args.expires {
        if i64::try_from(at).is_ok_and(|at| at <= rules::now_s()) {
            return Err(Problem::new(Exit::Usage, format!("--expires {at} is in the past")));
        }
        options = options.expires_at_ms(at.saturating_mul(1000));
    }
    if let Some(metadata) = &args.metadata {
        let compact = json::compact(metadata.as_bytes())
            .ok_or_else(|| Problem::new(Exit::Usage, "--metadata is not valid JSON"))?;
        if compact != "null" {
            options = options.metadata(compact.into_owned());
        }
    }
    Ok(options)
}

fn value(argument: Option<OsString>, file: Option<&Path>) -> Result<Vec<u8>, Problem> {
    match (argument, file) {
        (Some(value), _) => Ok(value.into_vec()),
        (None, Some(path)) if path != Path::new("-") => fs::read(path).map_err(|error| {
            Problem::new(Exit::Failure, format!("cannot read {}: {error}", path.display()))
        }),
        (None, None) if io::stdin().is_terminal() => {
            Err(Problem::new(Exit::Usage, "give a value, --file FILE, or something to read"))
        }
        (None, _) => {
            let mut value = Vec::new();
            io::stdin().lock().read_to_end(&mut value)?;
            Ok(value)
        }
    }
}

fn print_key(out: &mut Out, entry: &Entry) -> io::Result<()> {
    out.write_all(&entry.key)?;
    out.write_all(b"\n")
}

fn print_long(out: &mut Out, entry: &Entry) -> io::Result<()> {
    match entry.expires_at {
        Some(ms) => write!(out, "{}", ms / 1000)?,
        None => write!(out, "-")?,
    }
    let metadata = json::metadata(entry.metadata.as_deref());
    write!(out, "\t{}\t", metadata.as_deref().unwrap_or("-"))?;
    print_key(out, entry)
}

fn print_json(out: &mut Out, entry: &Entry) -> io::Result<()> {
    let mut line = b"{\"name\":".to_vec();
    json::push(&mut line, &*String::from_utf8_lossy(&entry.key));
    if let Some(ms) = entry.expires_at {
        line.extend_from_slice(b",\"expiration\":");
        json::push(&mut line, &(ms / 1000));
    }
    if let Some(metadata) = json::metadata(entry.metadata.as_deref()) {
        line.extend_from_slice(b",\"metadata\":");
        line.extend_from_slice(metadata.as_bytes());
    }
    line.extend_from_slice(b"}\n");
    out.write_all(&line)
}
