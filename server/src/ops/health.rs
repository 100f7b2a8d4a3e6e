//! `GET /healthz` and `GET /readyz`.
//!
//! Healthy is a process that answers: restarting it would help if it did not. Ready is a server
//! that should be sent requests: it is not about to stop, and its store takes writes.

use hyper::StatusCode;

use crate::call::Call;
use crate::reply::{self, Reply};

/// Always 200: that it comes is the news.
pub(super) fn health() -> Reply {
    reply::sentence(StatusCode::OK, "ok")
}

/// 200 or 503, and why.
pub(super) fn ready(call: &Call<'_>) -> Reply {
    if call.app.phase.is_draining() {
        return reply::sentence(StatusCode::SERVICE_UNAVAILABLE, "The server is stopping.");
    }
    match call.app.bridge.check_writable() {
        Ok(()) => reply::sentence(StatusCode::OK, "ok"),
        Err(failure) => reply::sentence(StatusCode::SERVICE_UNAVAILABLE, failure.tell().text),
    }
}
