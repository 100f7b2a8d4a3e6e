//! `kvast token`: make, list and revoke the tokens of a store, beside a running server too.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::{Timestamp, Unit};
use kvast::{Db, Namespace, NamespaceId};

use super::exit::{Exit, Problem};
use super::output::write_out;
use super::store::{StoreArgs, find_or_fail, open_to_read};
use crate::token::{self, Token};
use crate::units::parse_duration;

/// Make, list or revoke tokens
///
/// As soon as there is one, every request needs one. A running server sees changes within a second.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kvast token create --name backup --read-only --expires 90d
  kvast token create --namespace sessions --namespace users
  kvast token list
  kvast token revoke 3f9a1c07")]
pub(super) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Subcommand)]
enum TokenCommand {
    Create(CreateArgs),
    List(ListArgs),
    Revoke(RevokeArgs),
}

/// Print a new token to standard output, this once; only its hash is kept
#[derive(Args)]
struct CreateArgs {
    /// What it is for
    #[arg(long)]
    name: Option<String>,
    /// It may read, and change nothing
    #[arg(long)]
    read_only: bool,
    /// It is for this namespace alone, by title or id, whatever that is called later; can be repeated
    #[arg(long = "namespace", value_name = "NS")]
    namespaces: Vec<String>,
    /// How long it is good for, such as 30d, or never
    #[arg(long, value_name = "TIME|never", default_value = "never", value_parser = parse_life)]
    expires: Life,
    #[command(flatten)]
    store: StoreArgs,
}

/// List tokens: id, name, access, namespaces, day of making, end
#[derive(Args)]
struct ListArgs {
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// Accept a token no longer
#[derive(Args)]
struct RevokeArgs {
    /// Its id, which `kvast token list` shows
    id: String,
    #[command(flatten)]
    store: StoreArgs,
}

/// How long a token is good for; `None` is for ever.
#[derive(Clone, Copy)]
struct Life(Option<Duration>);

fn parse_life(text: &str) -> Result<Life, String> {
    match text {
        "never" => Ok(Life(None)),
        _ => parse_duration(text).map(|life| Life(Some(life))),
    }
}

pub(super) fn run(args: TokenArgs) -> Result<(), Problem> {
    match args.command {
        TokenCommand::Create(args) => create(args),
        TokenCommand::List(args) => list(&args),
        TokenCommand::Revoke(args) => revoke(&args),
    }
}

fn create(args: CreateArgs) -> Result<(), Problem> {
    let data = args.store.data()?;
    let namespaces = namespaces(&data, &args.namespaces)?;
    let created = now()?;
    let expires = args.expires.0.map(|life| created.checked_add(life)).transpose();
    let expires =
        expires.map_err(|_| Problem::new(Exit::Usage, "--expires is too far away; say never"))?;
    let (secret, hash) = token::generate()?;
    let id = token::id_of(&hash);
    let token = Token {
        id: id.clone(),
        name: args.name,
        hash,
        may_write: !args.read_only,
        namespaces,
        created,
        expires,
    };
    fs::create_dir_all(&data)?;
    token::change(&data, |tokens| tokens.push(token)).map_err(|error| unusable(&data, &error))?;
    writeln!(io::stdout(), "{}", secret.reveal())?;
    eprintln!("kvast: this is token {id}; it is shown this once and kept as a hash");
    Ok(())
}

/// Whole seconds: nobody revokes by milliseconds.
fn now() -> Result<Timestamp, Problem> {
    Timestamp::now().round(Unit::Second).map_err(|error| Problem::new(Exit::Failure, error))
}

/// The ids of namespaces; the store is only opened to look up titles.
fn namespaces(data: &Path, named: &[String]) -> Result<Option<Vec<NamespaceId>>, Problem> {
    if named.is_empty() {
        return Ok(None);
    }
    let ids: Result<Vec<NamespaceId>, _> = named.iter().map(|name| name.parse()).collect();
    if let Ok(ids) = ids {
        return Ok(Some(ids));
    }
    let db = open_to_read(data)?;
    let id = |name: &String| find_or_fail(&db, name).map(|namespace| namespace.id());
    named.iter().map(id).collect::<Result<_, _>>().map(Some)
}

fn list(args: &ListArgs) -> Result<(), Problem> {
    let data = args.store.data()?;
    let tokens = token::read(&data).map_err(|error| unusable(&data, &error))?.unwrap_or_default();
    if args.json {
        return write_out(|out| {
            tokens.iter().try_for_each(|token| writeln!(out, "{}", json(token)))
        });
    }
    if tokens.is_empty() && io::stderr().is_terminal() {
        eprintln!("kvast: there is no token in {}", data.display());
    }
    // Titles are a help, and no reason to fail.
    let is_scoped = tokens.iter().any(|token| token.namespaces.is_some());
    let db = if is_scoped { open_to_read(&data).ok() } else { None };
    let rows: Vec<[String; 6]> = tokens.iter().map(|token| row(token, db.as_ref())).collect();
    write_out(|out| write!(out, "{}", aligned(&rows)))
}

fn json(token: &Token) -> serde_json::Value {
    let ids = |ids: &Vec<NamespaceId>| ids.iter().map(NamespaceId::to_string).collect::<Vec<_>>();
    serde_json::json!({
        "id": token.id,
        "name": token.name,
        "access": access(token),
        "namespaces": token.namespaces.as_ref().map(ids),
        "created": token.created.to_string(),
        "expires": token.expires.map(|expires| expires.to_string()),
    })
}

fn access(token: &Token) -> &'static str {
    if token.may_write { "write" } else { "read" }
}

fn row(token: &Token, db: Option<&Db>) -> [String; 6] {
    let title = |id: &NamespaceId| {
        let namespace = db.and_then(|db| db.namespace_by_id(*id));
        namespace.as_ref().map_or_else(|| id.to_string(), Namespace::name)
    };
    let namespaces = token.namespaces.as_ref().map_or("all namespaces".to_owned(), |ids| {
        ids.iter().map(title).collect::<Vec<_>>().join(",")
    });
    let expires = match token.expires {
        None => "never expires".to_owned(),
        Some(at) if at <= Timestamp::now() => format!("expired {at}"),
        Some(at) => format!("until {at}"),
    };
    let name = token.name.clone().unwrap_or_else(|| "-".to_owned());
    let created = token.created.strftime("%Y-%m-%d").to_string();
    [token.id.clone(), name, access(token).to_owned(), namespaces, created, expires]
}

/// Rows of columns that stand one below the other; control characters are escaped.
fn aligned(rows: &[[String; 6]]) -> String {
    let shown: Vec<[String; 6]> =
        rows.iter().map(|row| row.clone().map(|cell| cell.escape_debug().to_string())).collect();
    let width = |nth: usize| shown.iter().map(|row| row[nth].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    shown.iter().map(line).collect()
}

fn revoke(args: &RevokeArgs) -> Result<(), Problem> {
    let data = args.store.data()?;
    let missing = || {
        let text = format!("there is no token {:?}; `kvast token list` shows all", args.id);
        Problem::new(Exit::NotFound, text)
    };
    let known = token::read(&data).map_err(|error| unusable(&data, &error))?.unwrap_or_default();
    if !known.iter().any(|token| token.id == args.id) {
        return Err(missing());
    }
    token::change(&data, |tokens| tokens.retain(|token| token.id != args.id))
        .map_err(|error| unusable(&data, &error))?;
    eprintln!("kvast: token {} is revoked", args.id);
    Ok(())
}

fn unusable(data: &Path, error: &io::Error) -> Problem {
    let text = format!("the tokens of {} cannot be used: {error}", data.display());
    Problem::new(Exit::Failure, text)
}
