//! `kvast serve`: start, say where things are, wait for a signal, stop.

use std::fmt;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process;
use std::time::{Duration, Instant};

use clap::Args;
use tracing_subscriber::filter::LevelFilter;

use super::exit::Problem;
use super::flags::Flags;
use super::signals::{self, Order, Signals};
use super::supervisor;
use crate::config::ListenOn;
use crate::settings::{LogFormat, Read};
use crate::socket;
use crate::start::{self, Handle};

/// Serve a store over HTTP
///
/// Creates the store if there is none. A line `listening on http://ADDR:PORT` on standard output, one
/// for each place, says that it is ready; logs go to standard error. The first SIGTERM or SIGINT
/// lets requests in flight end and closes the store; a second one exits at once. SIGHUP reads
/// tokens, the certificate and its key again. Sockets that systemd has opened take the place of --listen.
///
/// Each setting is a flag, a variable (KVAST_HEAD_TIME for --head-time) and a key of kvast.toml; the
/// first of these that is given counts, and `kvast config show --origin` says which one that was. A
/// token in plain text comes from KVAST_TOKEN or KVAST_TOKEN_FILE. The defaults are in brackets.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kvast serve
  kvast serve --data /srv/kv --listen 127.0.0.1:9000 --durability interval:50ms
  kvast token create && kvast serve --listen 0.0.0.0:8787
  KVAST_DATA=/srv/kv KVAST_HEAD_TIME=5s kvast serve

  curl -X PUT --data-binary 'hello' http://127.0.0.1:8787/greeting
  curl http://127.0.0.1:8787/greeting")]
pub(super) struct ServeArgs {
    #[command(flatten)]
    flags: Flags,
}

/// Runs the server until it is told to stop.
pub(super) fn run(args: ServeArgs) -> Result<(), Problem> {
    let Read { settings, file, warnings, .. } = args.flags.settle()?;
    start_log(settings.log, settings.log_level);
    if let Some(file) = &file {
        tracing::info!(file = %file.display(), "configuration");
    }
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let mut config = settings.config;
    if socket::are_passed() {
        config.listen = vec![ListenOn::Passed];
    }
    let data = config.data.clone();
    let is_new = is_absent_or_empty(&data);
    let began = Instant::now();
    let server = start::start(config)?;
    let opening = began.elapsed();

    let mut signals = server.block_on(async { Signals::install() })?;
    let banner = Banner { server: &server, data: &data, file: file.as_deref(), is_new, opening };
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
    file: Option<&'s Path>,
    is_new: bool,
    opening: Duration,
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
        if let Some(file) = self.file {
            writeln!(f, "  config    {}", file.display())?;
        }
        writeln!(f, "  binding   {url}/  namespace default; X-KV-Namespace names another")?;
        writeln!(f, "  v4 REST   {url}/client/v4  any account")?;
        writeln!(f, "  native    {url}/v1")?;
        writeln!(f, "  metrics   {url}/metrics  and /healthz, /readyz")?;
        let needs_token = self.server.needs_token();
        let rule = if needs_token { "needed" } else { "not needed until `kvast token create`" };
        writeln!(f, "  token     {rule}")?;
        let auth = if needs_token { " -H \"Authorization: Bearer $TOKEN\"" } else { "" };
        writeln!(f, "  try       curl{auth} -X PUT --data-binary hello {url}/greeting")?;
        writeln!(f, "            curl{auth} {url}/greeting")
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
