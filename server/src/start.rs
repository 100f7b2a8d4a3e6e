//! A running server: what has to hold before it listens, and how it ends.
//!
//! Starting checks what needs no disk first (the token file, the address), then takes the port,
//! then opens the store: a wrong flag never touches data, and clients that come during a long
//! recovery wait instead of being refused. Stopping goes the other way round. Absent on purpose:
//! signals and exit codes, which belong to the command line.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kvast::{Db, Options};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::app::{App, DEFAULT_NAMESPACE};
use crate::auth::Auth;
use crate::body::Uploads;
use crate::bridge::Bridge;
use crate::config::{Config, ListenOn};
use crate::listen;
use crate::metrics::Metrics;
use crate::spool::Spool;

/// How long blocking calls may hold up the end of the runtime, after all requests have ended.
const RUNTIME_GRACE: Duration = Duration::from_secs(1);

/// A server that is listening. It stops when it is told to, or dropped.
pub struct Handle {
    addr: SocketAddr,
    app: Arc<App>,
    running: Option<Running>,
}

struct Running {
    runtime: Runtime,
    serving: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

/// Why a server did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The address is not loopback, and there is no token file.
    Unprotected(SocketAddr),
    /// The token file cannot be used.
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The address cannot be listened on.
    Listen {
        /// The address.
        addr: SocketAddr,
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
            StartError::Unprotected(addr) => write!(
                f,
                "{addr} can be reached from other machines, so a token is needed: write one to a \
                 file and pass --token-file FILE, or listen on 127.0.0.1"
            ),
            StartError::TokenFile { path, source } => write!(
                f,
                "the token file {} cannot be used: {source}; it holds one token per line",
                path.display()
            ),
            StartError::Listen { addr, source } => {
                write!(f, "cannot listen on {addr}: {source}; choose another with --listen")
            }
            StartError::Threads(source) => write!(f, "cannot start threads: {source}"),
            StartError::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StartError::Unprotected(_) => None,
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
    let auth = auth(&config)?;
    let runtime = runtime(&config).map_err(StartError::Threads)?;
    let listen = first_tcp(&config);
    let (listener, addr) = runtime
        .block_on(listen_on(listen))
        .map_err(|source| StartError::Listen { addr: listen, source })?;

    let db = Options::new().durability(config.durability).open(&config.data)?;
    for line in db.recovery().to_string().lines() {
        tracing::info!("recovery: {line}");
    }
    db.namespace(DEFAULT_NAMESPACE)?;

    let uploads = Arc::new(Uploads::new(&config.limits));
    let spool = Spool::new(config.data.clone(), config.limits.upload_wait);
    let bridge = Bridge::new(db, config.durability, &config.limits, Arc::clone(&uploads), spool)
        .map_err(StartError::Threads)?;
    let (metrics, access_log) = (Metrics::new(), config.access_log);
    let app = Arc::new(App { bridge, uploads, auth, metrics, access_log, limits: config.limits });
    let (stop, stopped) = oneshot::channel();
    let serving = runtime.spawn(listen::serve(listener, Arc::clone(&app), stopped));
    runtime.spawn(watch(Arc::clone(&app)));
    tracing::info!(%addr, data = %config.data.display(), "listening");
    Ok(Handle { addr, app, running: Some(Running { runtime, serving, stop }) })
}

impl Handle {
    /// Where the server listens: the real port, if the system chose it.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The origin of every URL of this server, for example `http://127.0.0.1:8787`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The store that is served.
    #[must_use]
    pub fn db(&self) -> &Db {
        self.app.bridge.db()
    }

    /// Runs a future on the server's runtime, for example to wait for a signal.
    ///
    /// # Panics
    /// If called from asynchronous code.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.running.as_ref().expect("it runs until it is stopped").runtime.block_on(future)
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
        let Some(Running { runtime, serving, stop }) = self.running.take() else { return Ok(()) };
        // Fails only if serving has ended by itself, which is a panic that was reported.
        let _ = stop.send(());
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

fn first_tcp(config: &Config) -> SocketAddr {
    let tcp = config.listen.iter().find_map(|on| match on {
        ListenOn::Tcp(addr) => Some(*addr),
        ListenOn::Unix(_) => None,
    });
    tcp.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
}

fn auth(config: &Config) -> Result<Auth, StartError> {
    match &config.token_file {
        Some(path) => Auth::from_file(path)
            .map_err(|source| StartError::TokenFile { path: path.clone(), source }),
        None if first_tcp(config).ip().to_canonical().is_loopback() => Ok(Auth::open()),
        None => Err(StartError::Unprotected(first_tcp(config))),
    }
}

fn runtime(config: &Config) -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .enable_all()
        .thread_name("kvast-http")
        .max_blocking_threads(config.limits.blocking_calls.max(1))
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

async fn listen_on(addr: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(addr).await?;
    let addr = listener.local_addr()?;
    Ok((listener, addr))
}
