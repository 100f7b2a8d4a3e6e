//! Connections: taking them, serving them within limits, and letting them end.
//!
//! A connection is served only when there is a place for it. One at a time waits for that here, so that
//! idle ones go; the others wait in the kernel's queue, whichever socket they came to. Where there is a certificate, TCP connections begin with a
//! handshake, which holds up nobody else, and may choose HTTP/2; there is no HTTP/2 without TLS.
//! Once the server drains, no new connection is taken, idle ones are closed, and those in the
//! middle of a request may finish it within a limit. Absent on purpose: what is served.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};

use crate::app::App;
use crate::limits::Limits;
use crate::phase::{Follower, Told};
use crate::places::{Place, Places};
use crate::reply::{Reply, ReplyBody};
use crate::service;
use crate::socket::{Arrival, Socket};
use crate::streams::{Outlook, Sent, Streams};
use crate::tls::{self, Tls};
use crate::wire::Wire;

/// How long to wait after the system refused a connection: it is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// hyper wants at least this much for a connection.
const BUFFER_BYTES_MIN: usize = 8192;

/// How often a silent HTTP/2 client is asked whether it is there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_LIMIT: Duration = Duration::from_secs(20);
/// The least time between two looks at an HTTP/2 connection.
const LOOK_MIN: Duration = Duration::from_millis(10);
/// What a client of HTTP/2 may open and give up again before the server has looked at it.
const RESETS_MAX: usize = 20;
/// How many of its requests may break the rules of HTTP/2.
const FAULTS_MAX: usize = 100;
/// The largest window that HTTP/2 has a place for.
const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;
/// What is buffered of one HTTP/2 answer.
const STREAM_BUFFER_BYTES: usize = 128 << 10;

/// Serves connections until the server drains, and then until they have ended.
pub(crate) async fn serve(sockets: Vec<Socket>, tls: Option<Arc<Tls>>, app: Arc<App>) {
    let places = Places::new(&app.limits);
    let (http1, http2) = (http1(&app.limits), http2(&app.limits));
    let host = Arc::new(Host { http1, http2, tls, app, places });
    let mut follower = host.app.phase.follow();
    for turn in 0.. {
        let (arrival, place) = tokio::select! {
            () = follower.drain() => break,
            arrived = host.arrive(&sockets, turn) => arrived,
        };
        host.welcome(arrival, place);
    }
    drop((sockets, follower));
    drain(&host.app).await;
}

fn http1(limits: &Limits) -> http1::Builder {
    let mut protocol = http1::Builder::new();
    protocol
        // The wire does it, and tells a head that is slow from a client that has nothing to ask.
        .header_read_timeout(None)
        .max_header_size(limits.head_bytes)
        .max_buf_size(limits.connection_buffer_bytes.max(BUFFER_BYTES_MIN))
        // A client that ends its side after the request still gets its answer.
        .half_close(true);
    protocol
}

fn http2(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut protocol = http2::Builder::new(TokioExecutor::new());
    protocol
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(FAULTS_MAX)
        .initial_stream_window_size(limits.stream_window_bytes.min(WINDOW_BYTES_MAX))
        .initial_connection_window_size(limits.connection_window_bytes.min(WINDOW_BYTES_MAX))
        .max_send_buf_size(STREAM_BUFFER_BYTES)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_LIMIT);
    protocol
}

/// The next connection.
async fn next(sockets: &[Socket], turn: usize) -> Arrival {
    loop {
        match accept(sockets, turn).await {
            Ok(arrival) => return arrival,
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "the system gives no connection; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Each socket is the first to be asked in its turn, so that none keeps the others waiting.
fn accept(sockets: &[Socket], turn: usize) -> impl Future<Output = io::Result<Arrival>> {
    let (after, before) = sockets.split_at(turn % sockets.len().max(1));
    poll_fn(move |cx| {
        let in_turn = before.iter().chain(after);
        let accepted = in_turn.map(|socket| socket.poll_accept(cx)).find(Poll::is_ready);
        accepted.unwrap_or(Poll::Pending)
    })
}

/// The client went away before it was taken.
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

/// What all connections need.
struct Host {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    tls: Option<Arc<Tls>>,
    app: Arc<App>,
    places: Places,
}

impl Host {
    /// The next connection, as soon as there is a place for it.
    async fn arrive(&self, sockets: &[Socket], turn: usize) -> (Arrival, Place) {
        let arrival = next(sockets, turn).await;
        (arrival, self.places.take(&self.app.phase).await)
    }

    /// Serves a connection in a task of its own.
    fn welcome(self: &Arc<Self>, arrival: Arrival, place: Place) {
        let (host, follower) = (Arc::clone(self), self.app.phase.follow());
        match arrival {
            Arrival::Tcp(stream) => {
                // Without this, the end of an answer can wait for the client's acknowledgement.
                let _ = stream.set_nodelay(true);
                match &self.tls {
                    None => spawn(place, async move { host.serve_http1(stream, follower).await }),
                    Some(tls) => {
                        let tls = Arc::clone(tls);
                        spawn(place, async move { host.serve_tls(&tls, stream, follower).await });
                    }
                }
            }
            Arrival::Unix(stream) => {
                spawn(place, async move { host.serve_http1(stream, follower).await });
            }
        }
    }

    async fn serve_tls(&self, tls: &Tls, stream: TcpStream, mut follower: Follower) {
        let handshake = timeout(self.app.limits.handshake_time, tls.accept(stream));
        let shaken = tokio::select! {
            shaken = handshake => shaken,
            () = follower.drain() => return,
        };
        match shaken {
            Ok(Ok(stream)) if tls::speaks_http2(&stream) => {
                self.serve_http2(stream, follower).await;
            }
            Ok(Ok(stream)) => self.serve_http1(stream, follower).await,
            Ok(Err(error)) => tracing::debug!(%error, "a handshake failed"),
            Err(_) => tracing::debug!("a handshake took too long"),
        }
    }

    async fn serve_http1<S>(&self, stream: S, mut follower: Follower)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let io =
            TokioIo::new(Wire::of_requests(stream, &self.app.limits, self.places.idle_limit()));
        let service = service_fn(|request| service::serve(Arc::clone(&self.app), request));
        let mut connection = pin!(self.http1.serve_connection(io, service));
        let ended = loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => break ended,
                // Who was called asks its wire again.
                told = follower.told() => if told == Told::Drain {
                    connection.as_mut().graceful_shutdown();
                    break connection.await;
                }
            }
        };
        log_end(ended);
    }

    async fn serve_http2<S>(&self, stream: S, mut follower: Follower)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let limits = &self.app.limits;
        let streams = Streams::new(limits, self.places.idle_limit());
        let io = TokioIo::new(Wire::of_anything(stream, limits));
        let service = service_fn(|request| answer(Arc::clone(&self.app), &streams, request));
        let mut connection = pin!(self.http2.serve_connection(io, service));
        let mut look = interval((limits.write_stall.min(limits.idle_time) / 2).max(LOOK_MIN));
        let mut is_ending = false;
        loop {
            let told = tokio::select! {
                biased;
                ended = connection.as_mut() => return log_end(ended),
                told = follower.told(), if !is_ending => told,
                _ = look.tick() => Told::Called,
            };
            let ends = told == Told::Drain
                || match streams.outlook() {
                    Outlook::Stalled => {
                        tracing::debug!("a client takes nothing of an answer");
                        return;
                    }
                    // A farewell wants an answer, which this client does not give.
                    Outlook::Quiet | Outlook::Idle if is_ending => return,
                    outlook => matches!(outlook, Outlook::Idle | Outlook::Old),
                };
            if ends && !is_ending {
                is_ending = true;
                connection.as_mut().graceful_shutdown();
                look.reset_after(limits.linger);
            }
        }
    }
}

fn spawn(place: Place, connection: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(async move {
        connection.await;
        drop(place);
    });
}

fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Answers a request of an HTTP/2 connection.
fn answer(
    app: Arc<App>,
    streams: &Arc<Streams>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Sent<ReplyBody>>, Infallible>> + use<> {
    let stream = streams.open();
    async move {
        let reply: Reply = service::serve(app, request).await?;
        Ok(reply.map(|body| stream.send(body)))
    }
}

async fn drain(app: &App) {
    let open = app.phase.followers();
    tracing::info!(open, "no longer listening; requests in flight may end");
    if timeout(app.limits.drain_time, app.phase.ended()).await.is_err() {
        tracing::warn!("requests did not end in time and are cut off");
    }
}
