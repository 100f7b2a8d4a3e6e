//! A running server: what has to hold before it listens, and how it ends.
//!
//! Starting checks what needs no disk first (the tokens, the certificate, the addresses), then
//! takes the sockets, then opens the store: a wrong flag never touches data, and clients that come
//! during a long recovery wait instead of being refused. Stopping goes the other way round. Absent
//! on purpose: signals and exit codes, which belong to the command line.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kvast::{Db, Options};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::app::{App, DEFAULT_NAMESPACE};
use crate::auth::{Auth, Unusable};
use crate::body::Uploads;
use crate::bridge::Bridge;
use crate::config::{Config, ListenOn};
use crate::listen;
use crate::metrics::Metrics;
use crate::phase::Phase;
use crate::socket::{self, Passed, Socket};
use crate::spool::Spool;
use crate::tls::{Tls, TlsError};

/// How long blocking calls may hold up the end of the runtime, after all requests have ended.
const RUNTIME_GRACE: Duration = Duration::from_secs(1);

/// A server that is listening. It stops when it is told to, or dropped.
pub struct Handle {
    addrs: Vec<SocketAddr>,
    urls: Vec<String>,
    app: Arc<App>,
    tls: Option<Arc<Tls>>,
    running: Option<Running>,
}

struct Running {
    runtime: Runtime,
    serving: JoinHandle<()>,
}

/// Why a server did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// These limits make no sense; a sentence for each.
    Limits(Vec<String>),
    /// Other machines reach this place, and there is no token.
    Unprotected(String),
    /// A file of tokens cannot be used.
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The certificate and key cannot be used.
    Tls(TlsError),
    /// There is no place to listen.
    Nowhere,
    /// A place cannot be listened on.
    Listen {
        /// The place.
        on: ListenOn,
        /// What the system said.
        source: io::Error,
    },
    /// The system gives no threads.
    Threads(io::Error),
    /// The store does not open.
    Store(kvast::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Limits(wrong) => f.write_str(&wrong.join("; ")),
            StartError::Unprotected(place) => write!(
                f,
                "{place} can be reached from other machines, so a token is needed: make one with \
                 `kvast token create`, pass --token-file FILE, or listen on 127.0.0.1; --insecure \
                 does without"
            ),
            StartError::TokenFile { path, source } => {
                write!(f, "the token file {} cannot be used: {source}", path.display())
            }
            StartError::Tls(error) => write!(
                f,
                "no TLS: {error}; both files are PEM, the certificate's with its chain, and the \
                 key is that of the first certificate"
            ),
            StartError::Nowhere => f.write_str("no place to listen; name one with --listen"),
            StartError::Listen { on, source } => {
                write!(f, "cannot listen on {on}: {source}; choose another with --listen")
            }
            StartError::Threads(source) => write!(f, "cannot start threads: {source}"),
            StartError::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::Limits(_) | StartError::Unprotected(_) | StartError::Nowhere => None,
            StartError::Tls(error) => Some(error),
            StartError::TokenFile { source, .. }
            | StartError::Listen { source, .. }
            | StartError::Threads(source) => Some(source),
            StartError::Store(error) => Some(error),
        }
    }
}

impl From<kvast::Error> for StartError {
    fn from(error: kvast::Error) -> StartError {
        StartError::Store(error)
    }
}

/// Opens the store and serves it on threads of its own. Blocks until it is listening.
///
/// # Errors
/// What keeps the server from serving safely; the store is then closed again.
pub fn start(config: Config) -> Result<Handle, StartError> {
    check_limits(&config)?;
    let auth = Auth::new(&config).map_err(unusable)?;
    let tls = config.tls.clone().map(Tls::load).transpose().map_err(StartError::Tls)?;
    let tls = tls.map(Arc::new);
    let passed = passed(&config)?;
    let runtime = runtime(&config).map_err(StartError::Threads)?;
    let sockets = {
        let _in_runtime = runtime.enter();
        sockets(&config, passed)?
    };
    check_protection(&config, &auth, &sockets)?;

    let db = Options::new()
        .durability(config.durability)
        .max_value_bytes(config.limits.max_value_bytes)
        .open(&config.data)?;
    for line in db.recovery().to_string().lines() {
        tracing::info!("recovery: {line}");
    }
    db.namespace(DEFAULT_NAMESPACE)?;

    let uploads = Arc::new(Uploads::new(&config.limits));
    let spool = Spool::new(config.data.clone(), &config.limits);
    let bridge = Bridge::new(db, config.durability, &config.limits, Arc::clone(&uploads), spool)
        .map_err(StartError::Threads)?;
    let app = Arc::new(App {
        bridge,
        uploads,
        auth,
        metrics: Metrics::new(),
        phase: Phase::serving(),
        access_log: config.access_log,
        limits: config.limits,
    });
    let addrs = sockets.iter().filter_map(Socket::addr).collect();
    let urls: Vec<String> = sockets.iter().map(|socket| url(socket, tls.is_some())).collect();
    tracing::info!(on = urls.join(" "), data = %config.data.display(), "listening");
    let serving = runtime.spawn(listen::serve(sockets, tls.clone(), Arc::clone(&app)));
    runtime.spawn(watch(Arc::clone(&app)));
    runtime.spawn(watch_tokens(Arc::clone(&app)));
    Ok(Handle { addrs, urls, app, tls, running: Some(Running { runtime, serving }) })
}

impl Handle {
    /// The first TCP address: the real port, if the system chose it.
    ///
    /// # Panics
    /// If the server listens on Unix sockets only.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        *self.addrs.first().expect("a TCP address to listen on")
    }

    /// All TCP addresses, in the order of the configuration.
    #[must_use]
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// The origin of the URLs of this server, for example `http://127.0.0.1:8787`: the first, if it
    /// listens on several places.
    #[must_use]
    pub fn url(&self) -> &str {
        self.urls.first().map_or("", String::as_str)
    }

    /// All places where the server listens: origins of URLs, and `unix:` with a path.
    #[must_use]
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// The store that is served.
    #[must_use]
    pub fn db(&self) -> &Db {
        self.app.bridge.db()
    }

    /// Whether a request needs a token now.
    #[must_use]
    pub fn needs_token(&self) -> bool {
        self.app.auth.is_guarded()
    }

    /// Runs a future on the server's runtime, for example to wait for a signal.
    ///
    /// # Panics
    /// If called from asynchronous code.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.running.as_ref().expect("it runs until it is stopped").runtime.block_on(future)
    }

    /// Reads again what may change while the server runs: tokens, the certificate, its key. Connections
    /// that are open keep theirs; what cannot be used changes nothing.
    ///
    /// # Errors
    /// Why something stays as it was.
    pub fn reload(&self) -> Result<(), StartError> {
        self.app.auth.refresh().map_err(unusable)?;
        self.tls.as_ref().map_or(Ok(()), |tls| tls.reload()).map_err(StartError::Tls)
    }

    /// Takes no more connections, lets requests in flight end within the limit, and closes the
    /// store. Blocks until all that is done.
    ///
    /// # Errors
    /// If the store does not close cleanly.
    pub fn stop(mut self) -> Result<(), kvast::Error> {
        self.shut_down()
    }

    fn shut_down(&mut self) -> Result<(), kvast::Error> {
        let Some(Running { runtime, serving }) = self.running.take() else { return Ok(()) };
        self.app.phase.drain();
        // Fails only if serving has ended by itself, which is a panic that was reported.
        let _ = runtime.block_on(serving);
        let closed = self.app.bridge.close();
        runtime.shutdown_timeout(RUNTIME_GRACE);
        tracing::info!(clean = closed.is_ok(), "stopped");
        closed
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.shut_down() {
            tracing::error!(%error, "the store did not close cleanly");
        }
    }
}

fn check_limits(config: &Config) -> Result<(), StartError> {
    let wrong = config.limits.check();
    if wrong.is_empty() { Ok(()) } else { Err(StartError::Limits(wrong)) }
}

fn unusable(Unusable { path, source }: Unusable) -> StartError {
    StartError::TokenFile { path, source }
}

/// The sockets that a service manager has opened, if they are wanted.
fn passed(config: &Config) -> Result<Vec<Passed>, StartError> {
    if !config.listen.contains(&ListenOn::Passed) {
        return Ok(Vec::new());
    }
    socket::take_passed().map_err(|source| StartError::Listen { on: ListenOn::Passed, source })
}

/// Listens on all places.
fn sockets(config: &Config, passed: Vec<Passed>) -> Result<Vec<Socket>, StartError> {
    let mut sockets = Vec::new();
    let failed = |on: &ListenOn| {
        let on = on.clone();
        move |source| StartError::Listen { on, source }
    };
    for on in &config.listen {
        match on {
            ListenOn::Tcp(addr) => sockets.push(Socket::tcp(*addr).map_err(failed(on))?),
            ListenOn::Unix(path) => sockets.push(Socket::unix(path).map_err(failed(on))?),
            ListenOn::Passed => {}
        }
    }
    for passed in passed {
        sockets.push(Socket::passed(passed).map_err(failed(&ListenOn::Passed))?);
    }
    if sockets.is_empty() { Err(StartError::Nowhere) } else { Ok(sockets) }
}

/// What other machines reach needs a token, unless somebody has said that it does not.
fn check_protection(config: &Config, auth: &Auth, sockets: &[Socket]) -> Result<(), StartError> {
    if auth.is_guarded() || config.insecure {
        return Ok(());
    }
    match sockets.iter().find(|socket| !socket.is_local()) {
        Some(open) => Err(StartError::Unprotected(open.to_string())),
        None => Ok(()),
    }
}

fn url(socket: &Socket, has_tls: bool) -> String {
    match socket {
        Socket::Tcp(..) if has_tls => format!("https://{socket}"),
        Socket::Tcp(..) => format!("http://{socket}"),
        Socket::Unix(..) => socket.to_string(),
    }
}

fn runtime(config: &Config) -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .enable_all()
        .thread_name("kvast-http")
        // More than any system has are as good as no limit.
        .max_blocking_threads(config.limits.blocking_calls.clamp(1, 1 << 16))
        .build()
}

/// How often the store is asked what went wrong in its own threads.
const WATCH_EVERY: Duration = Duration::from_secs(5);

/// Logs each new trouble of the store's own threads: what fails there fails no request.
async fn watch(app: Arc<App>) {
    let (mut tick, mut known) = (tokio::time::interval(WATCH_EVERY), None);
    loop {
        tick.tick().await;
        let asked = Arc::clone(&app);
        // The answer can have to wait for a sync.
        let stats = tokio::task::spawn_blocking(move || asked.bridge.db().stats()).await;
        let trouble = stats.ok().and_then(|stats| stats.background_error);
        if let Some(error) = &trouble
            && trouble != known
        {
            tracing::error!(%error, "the store has trouble in the background");
        }
        known = trouble;
    }
}

/// How often the files of tokens are looked at, so that a token is revoked within a second.
const WATCH_TOKENS_EVERY: Duration = Duration::from_millis(500);

async fn watch_tokens(app: Arc<App>) {
    let mut tick = tokio::time::interval(WATCH_TOKENS_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let asked = Arc::clone(&app);
        match tokio::task::spawn_blocking(move || asked.auth.refresh()).await {
            Ok(Ok(true)) => tracing::info!("the tokens have changed"),
            Ok(Ok(false)) | Err(_) => {}
            Ok(Err(Unusable { path, source })) => {
                let path = path.display();
                tracing::error!(%path, error = %source, "the tokens stay as they were");
            }
        }
    }
}
