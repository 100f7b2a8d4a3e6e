//! One request from head to answer: framing rules, then the token, then the surface it is for.
//!
//! Refusals come in that order on both surfaces, and a body that nobody read is drained behind
//! its answer. Absent on purpose: any knowledge of resources.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Request, StatusCode, Version, header};

use crate::app::App;
use crate::auth::Denied;
use crate::binding;
use crate::body::Inbound;
use crate::reply::Reply;
use crate::rest;
use crate::route::{Route, route};
use crate::rules::Refusal;

/// Answers a request. What goes wrong is an answer too.
pub(crate) async fn serve(app: Arc<App>, request: Request<Incoming>) -> Result<Reply, Infallible> {
    let (parts, body) = request.into_parts();
    let mut body = Inbound::new(&app.uploads, &parts.headers, body);
    let reply = answer(&app, &parts, &mut body).await;
    body.finish();
    tracing::debug!(
        method = %parts.method,
        path = parts.uri.path(),
        status = reply.status().as_u16(),
        "request"
    );
    Ok(reply)
}

async fn answer(app: &App, parts: &Parts, body: &mut Inbound<'_>) -> Reply {
    if !has_one_host(parts.version, &parts.headers) {
        return binding::refuse(Refusal::bad("A request has exactly one Host header."));
    }
    if has_unknown_coding(&parts.headers) {
        let text = "The only transfer coding taken here is chunked.";
        return binding::refuse(Refusal::new(StatusCode::NOT_IMPLEMENTED, text));
    }
    let route = route(&parts.method, parts.uri.path());
    if let Err(denied) = app.auth.check(&parts.headers) {
        return deny(&route, denied);
    }
    match route {
        Route::Binding(asked) => binding::serve(app, asked, parts, body).await,
        Route::Rest(asked) => rest::serve(app, asked, parts, body).await,
    }
}

fn deny(route: &Route<'_>, denied: Denied) -> Reply {
    let status = match denied {
        Denied::Missing => StatusCode::UNAUTHORIZED,
        Denied::Wrong => StatusCode::FORBIDDEN,
    };
    match route {
        Route::Binding(_) => binding::refuse(Refusal::new(status, denied.to_string())),
        Route::Rest(_) => rest::deny(status, denied),
    }
}

/// A body in another coding would be stored as it is on the wire; RFC 9112 §6.1 asks to refuse it.
fn has_unknown_coding(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => false,
        (Some(coding), None) => !coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => true,
    }
}

/// What the host is does not matter here, but two of them mean that somebody in between saw
/// another request than this server does. HTTP/1.0 knows no host.
fn has_one_host(version: Version, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), None) => true,
        (None, _) => version < Version::HTTP_11,
        (Some(_), Some(_)) => false,
    }
}
