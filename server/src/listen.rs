//! Connections: taking them, serving them within limits, and letting them end.
//!
//! A connection is taken only when there is a place for it; until then it waits in the kernel's
//! queue. Once told to stop, no new one is taken, idle ones are closed, and those in the middle of
//! a request may finish it within a limit. Absent on purpose: TLS, which a proxy does better.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::app::App;
use crate::limits::Limits;
use crate::service;
use crate::wire::Wire;

/// How long to wait after the system refused a connection: it is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves connections until `stop` is ready, then drains them.
pub(crate) async fn serve(listener: TcpListener, app: Arc<App>, stop: impl Future) {
    let protocol = protocol(&app.limits);
    let places = Arc::new(Semaphore::new(app.limits.connections));
    let connections = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let (stream, place) = tokio::select! {
            _ = &mut stop => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let io = TokioIo::new(Wire::new(stream, app.limits.write_stall, app.limits.linger));
        let shared = Arc::clone(&app);
        let service = service_fn(move |request| service::serve(Arc::clone(&shared), request));
        let connection = connections.watch(protocol.serve_connection(io, service));
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    drain(connections, app.limits.drain_time).await;
}

fn protocol(limits: &Limits) -> http1::Builder {
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_header_size(limits.head_bytes)
        .max_buf_size(limits.connection_buffer_bytes)
        // A client that ends its side after the request still gets its answer.
        .half_close(true);
    protocol
}

/// The next connection, as soon as there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed, so this cannot fail.
    let place = Arc::clone(places).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Without this, the end of an answer can wait for the client's acknowledgement.
                let _ = stream.set_nodelay(true);
                return (stream, place);
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "the system gives no connection; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The client went away before it was taken.
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

async fn drain(connections: GracefulShutdown, limit: Duration) {
    let open = connections.count();
    tracing::info!(open, "no longer listening; requests in flight may end");
    if tokio::time::timeout(limit, connections.shutdown()).await.is_err() {
        tracing::warn!("requests did not end in time and are cut off");
    }
}
