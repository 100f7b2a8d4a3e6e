//! One request from head to answer: framing rules, then the token, then the surface it is for.
//!
//! A request in Miniflare's form is unwrapped before anything looks at it.
//! Refusals come in that order on both surfaces, and a body that nobody read is drained behind
//! its answer. Absent on purpose: any knowledge of resources.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::body::{Body, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Request, StatusCode, Version, header};

use crate::app::App;
use crate::auth::{Denied, Grant};
use crate::binding;
use crate::body::Inbound;
use crate::call::Call;
use crate::native;
use crate::ops;
use crate::remote;
use crate::reply::Reply;
use crate::rest;
use crate::route::{Access, Asked, Line, Operation, Route, Surface, route};
use crate::rules::Refusal;
use crate::trace::{self, RequestId};

/// Stands on every request of a Workers runtime.
const RUNTIME: HeaderName = HeaderName::from_static("cf-kv-flprod-405");

/// Answers a request. What goes wrong is an answer too.
pub(crate) async fn serve(app: Arc<App>, request: Request<Incoming>) -> Result<Reply, Infallible> {
    let in_flight = app.metrics.begin();
    let (mut parts, body) = request.into_parts();
    let unwrapped = remote::unwrap(&mut parts);
    let asked = route(&parts.method, parts.uri.path(), is_from_runtime(&parts));
    let id = RequestId::of(&parts.headers);
    let mut body = Inbound::new(&app.uploads, &parts.headers, body);
    let mut reply = match unwrapped {
        Ok(()) => answer(&app, asked, &parts, &id, &mut body).await,
        Err(refusal) => binding::refuse(refusal),
    };
    body.finish();
    id.put_on(&mut reply);
    let took_ns = in_flight.answered(&asked.route, reply.status().as_u16());
    log(&app, &parts, &asked.route, &id, &reply, took_ns);
    Ok(reply)
}

async fn answer(
    app: &App,
    asked: Asked<'_>,
    parts: &Parts,
    id: &RequestId,
    body: &mut Inbound<'_>,
) -> Reply {
    if let Err(refusal) = check_framing(app, parts) {
        return binding::refuse(refusal);
    }
    match app.auth.check(&parts.headers) {
        Ok(grant) => dispatch(&Call { app, asked, parts, grant, id }, body).await,
        Err(_) if is_open(&asked.route) => {
            dispatch(&Call { app, asked, parts, grant: Grant::none(), id }, body).await
        }
        Err(denied) => deny(asked.route.surface(), denied, id),
    }
}

/// Failures are always logged, with the name that the client was told; the rest only if wanted.
fn log(app: &App, parts: &Parts, route: &Route, id: &RequestId, reply: &Reply, took_ns: u64) {
    let status = reply.status();
    macro_rules! event {
        ($level:ident, $message:literal) => {
            tracing::$level!(
                %id,
                trace_id = trace::trace_id(&parts.headers),
                method = %parts.method,
                path = parts.uri.path(),
                surface = route.surface().name(),
                operation = route.name(),
                status = status.as_u16(),
                bytes = reply.body().size_hint().exact(),
                took_us = took_ns / 1000,
                $message
            )
        };
    }
    if status.is_server_error() {
        event!(warn, "request failed");
    } else if app.access_log {
        event!(info, "request");
    } else {
        event!(debug, "request");
    }
}

fn check_framing(app: &App, parts: &Parts) -> Result<(), Refusal> {
    if parts
        .uri
        .path_and_query()
        .is_some_and(|target| target.as_str().len() > app.limits.line_bytes)
    {
        let text = format!("The target of a request has at most {} bytes.", app.limits.line_bytes);
        return Err(Refusal::new(StatusCode::URI_TOO_LONG, text));
    }
    if !has_one_host(parts.version, &parts.headers) {
        return Err(Refusal::bad("A request has exactly one Host header."));
    }
    if has_unknown_coding(&parts.headers) {
        let text = "The only transfer coding taken here is chunked.";
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, text));
    }
    Ok(())
}

/// A Workers runtime marks its requests; so does who names a namespace as it would.
fn is_from_runtime(parts: &Parts) -> bool {
    let headers = &parts.headers;
    parts.uri.query().is_some_and(|query| query.contains("urlencoded"))
        || headers.contains_key(binding::NAMESPACE)
        || headers.contains_key(RUNTIME)
}

fn is_open(route: &Route) -> bool {
    matches!(route, Route::Found(Line { access: Access::Open, .. }))
}

async fn dispatch(call: &Call<'_>, body: &mut Inbound<'_>) -> Reply {
    let line = match call.asked.route {
        Route::Found(line) => line,
        Route::WrongMethod { surface, allow } => return wrong_method(surface, call, allow),
        Route::Unknown { surface } => return unknown(surface, call),
    };
    if let Err(denied) = call.grant.covers(line.access) {
        return deny(line.surface, denied, call.id);
    }
    if !body.is_empty()
        && may_ignore_chunks(call.parts)
        && let Err(error) = body.read_ahead().await
    {
        let too_long = |_, _| Refusal::bad("The request body is too long.");
        return binding::refuse(error.into_refusal(too_long));
    }
    match line.operation {
        Operation::Binding(asked) => binding::serve(call, asked, body).await,
        Operation::Rest(asked) => rest::serve(call, asked, body).await,
        Operation::Native(asked) => native::serve(call, asked, body).await,
        Operation::Ops(asked) => ops::serve(call, asked).await,
    }
}

fn deny(surface: Surface, denied: Denied, id: &RequestId) -> Reply {
    let mut reply = match surface {
        Surface::Binding => binding::deny(denied),
        Surface::Rest => rest::deny(denied),
        Surface::Native => native::deny(denied, id),
        Surface::Ops => ops::deny(denied),
    };
    if reply.status() == StatusCode::UNAUTHORIZED {
        // RFC 9110 §15.5.2 asks for it.
        let challenge = reply.headers_mut().entry(header::WWW_AUTHENTICATE);
        challenge.or_insert(HeaderValue::from_static("Bearer"));
    }
    reply
}

fn wrong_method(surface: Surface, call: &Call<'_>, allow: &'static str) -> Reply {
    match surface {
        Surface::Binding => binding::wrong_method(allow),
        Surface::Rest => rest::wrong_method(&call.parts.method, allow),
        Surface::Native => native::wrong_method(allow, call.id),
        Surface::Ops => ops::wrong_method(allow),
    }
}

fn unknown(surface: Surface, call: &Call<'_>) -> Reply {
    match surface {
        Surface::Binding | Surface::Ops => binding::unknown(),
        Surface::Rest => rest::unknown(call.parts.uri.path()),
        Surface::Native => native::unknown(call.id),
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

/// Whether a request has chunks that nobody may read: they are not to be found bad only behind its
/// answer.
fn may_ignore_chunks(parts: &Parts) -> bool {
    let ignores = matches!(parts.method, Method::GET | Method::HEAD | Method::DELETE);
    ignores && parts.headers.contains_key(header::TRANSFER_ENCODING)
}

/// What the host is does not matter here, but two of them mean that somebody in between saw
/// another request than this server does. HTTP/1.0 knows no host, HTTP/2 has it elsewhere.
fn has_one_host(version: Version, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), None) => true,
        (None, _) => version != Version::HTTP_11,
        (Some(_), Some(_)) => false,
    }
}
