//! `kvast serve`: start, say where things are, wait for a signal, stop.

use std::fmt;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use kvast::Durability;
use tracing_subscriber::filter::LevelFilter;

use super::exit::Problem;
use super::signals::{self, Order, Signals};
use super::store::StoreArgs;
use super::supervisor;
use crate::config::{Config, ListenOn, parse_durability, parse_listen};
use crate::socket;
use crate::start::{self, Handle};

/// Serve a store over HTTP
///
/// Creates the store if there is none. A line `listening on http://ADDR:PORT` on standard output, one
/// for each place, says that it is ready; logs go to standard error. The first SIGTERM or SIGINT
/// lets requests in flight end and closes the store; a second one exits at once. SIGHUP reads the
/// certificate and its key again. Sockets that systemd has opened take the place of --listen.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kvast serve
  kvast serve --data /srv/kv --listen 127.0.0.1:9000 --durability interval:50ms
  kvast serve --listen 0.0.0.0:8787 --token-file /etc/kvast/tokens

  curl -X PUT --data-binary 'hello' http://127.0.0.1:8787/greeting
  curl http://127.0.0.1:8787/greeting")]
pub(super) struct ServeArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Where to listen; port 0 lets the system choose one
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "KVAST_LISTEN",
        default_value = "127.0.0.1:8787",
        value_parser = parse_listen
    )]
    listen: ListenOn,
    /// When a write is acknowledged: after a sync (survives power loss), or before, with a sync
    /// every so often or whenever the system gets round to it
    #[arg(
        long,
        value_name = "sync|os|interval:TIME",
        env = "KVAST_DURABILITY",
        default_value = "sync",
        value_parser = parse_durability
    )]
    durability: Durability,
    /// A file of accepted tokens, one per line; needed unless the address is loopback
    #[arg(long, value_name = "FILE", env = "KVAST_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// How logs are written
    #[arg(long, value_name = "FORMAT", env = "KVAST_LOG", default_value = "text")]
    log: LogFormat,
    /// The least level that is logged: error, warn, info, debug (every request) or trace
    #[arg(long, value_name = "LEVEL", env = "KVAST_LOG_LEVEL", default_value = "info")]
    log_level: LevelFilter,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// One JSON object per line
    Json,
}

/// Runs the server until it is told to stop.
pub(super) fn run(args: ServeArgs) -> Result<(), Problem> {
    start_log(args.log, args.log_level);
    let listen = if socket::are_passed() { ListenOn::Passed } else { args.listen };
    let config = Config {
        data: args.store.data,
        listen: vec![listen],
        durability: args.durability,
        token_file: args.token_file,
        ..Config::default()
    };
    let data = config.data.clone();
    let guarded = config.token_file.is_some();
    let is_new = is_absent_or_empty(&data);
    let began = Instant::now();
    let server = start::start(config)?;
    let opening = began.elapsed();

    let mut signals = server.block_on(async { Signals::install() })?;
    let banner = Banner { server: &server, data: &data, is_new, opening, guarded };
    announce(&banner)?;
    supervisor::ready(&server);
    supervisor::watch(&server);
    obey_until_stopped(&server, &mut signals);
    supervisor::stopping();
    tracing::info!("stopping; a second signal exits at once");
    exit_on_next(&server, signals);
    Ok(server.stop()?)
}

fn obey_until_stopped(server: &Handle, signals: &mut Signals) {
    while server.block_on(signals.next()) == Order::Reload {
        supervisor::reloading();
        match server.reload() {
            Ok(()) => tracing::info!("read again what may change"),
            Err(error) => tracing::error!(%error, "what was in use stays in use"),
        }
        supervisor::ready(server);
    }
}

fn start_log(format: LogFormat, level: LevelFilter) {
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}

fn is_absent_or_empty(dir: &Path) -> bool {
    fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none())
}

/// The banner is for people; the last lines are for programs, and always there.
fn announce(banner: &Banner<'_>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if out.is_terminal() {
        write!(out, "{banner}")?;
    }
    for url in banner.server.urls() {
        writeln!(out, "listening on {url}")?;
    }
    out.flush()
}

struct Banner<'s> {
    server: &'s Handle,
    data: &'s Path,
    is_new: bool,
    opening: Duration,
    guarded: bool,
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.server.url();
        write!(f, "kvast {}  data {}  ", env!("CARGO_PKG_VERSION"), self.data.display())?;
        if self.is_new {
            writeln!(f, "(new)")?;
        } else {
            let keys = self.server.db().stats().keys;
            writeln!(f, "({keys} keys, opened in {:.0?})", self.opening)?;
        }
        writeln!(f, "  binding   {url}/  namespace default; X-KV-Namespace names another")?;
        writeln!(f, "  v4 REST   {url}/client/v4  namespaces; any account")?;
        writeln!(f, "  token     {}", self.token_rule())?;
        let auth = if self.guarded { " -H \"Authorization: Bearer $TOKEN\"" } else { "" };
        writeln!(f, "  try       curl{auth} -X PUT --data-binary hello {url}/greeting")?;
        writeln!(f, "            curl{auth} {url}/greeting")
    }
}

impl Banner<'_> {
    fn token_rule(&self) -> &'static str {
        if self.guarded {
            "one of the token file, on every request"
        } else {
            "not needed on loopback; --token-file for anything else"
        }
    }
}

fn exit_on_next(server: &Handle, mut signals: Signals) {
    server.block_on(async {
        tokio::spawn(async move {
            loop {
                if let Order::Stop(signal) = signals.next().await {
                    tracing::warn!("exiting without waiting for requests in flight");
                    process::exit(signals::exit_code(signal));
                }
            }
        });
    });
}
