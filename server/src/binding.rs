//! The binding surface: what a Workers runtime sends for `env.NAMESPACE.get()` and its siblings.
//!
//! An error is a status and a sentence. The runtime shows only the reason phrase, so the sentence
//! stands there as well as in the body. 404 means "no such key" and nothing else: whatever is wrong
//! with the request itself answers 400 or above. Absent on purpose: REST's envelope and codes.

mod bulk;
mod keys;
mod values;

use std::borrow::Cow;

use bytes::Bytes;
use hyper::header::HeaderName;
use hyper::http::request::Parts;
use hyper::{HeaderMap, StatusCode};
use kvast::Namespace;

use crate::app::{App, DEFAULT_NAMESPACE};
use crate::body::Inbound;
use crate::reply::{self, Reply};
use crate::route::Binding;
use crate::rules::Refusal;

/// Names the namespace of a request, by id or by title.
const NAMESPACE: HeaderName = HeaderName::from_static("x-kv-namespace");

/// Answers a request.
pub(crate) async fn serve(
    app: &App,
    asked: Binding<'_>,
    parts: &Parts,
    body: &mut Inbound<'_>,
) -> Reply {
    match answer(app, asked, parts, body).await {
        Ok(reply) => reply,
        Err(refusal) => refuse(refusal),
    }
}

/// The answer to a request that is refused.
pub(crate) fn refuse(refusal: Refusal) -> Reply {
    reply::sentence(
        refusal.status,
        match refusal.text {
            Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
            Cow::Owned(text) => Bytes::from(text),
        },
    )
}

async fn answer(
    app: &App,
    asked: Binding<'_>,
    parts: &Parts,
    body: &mut Inbound<'_>,
) -> Result<Reply, Refusal> {
    let query = parts.uri.query();
    let namespace = || namespace(app, &parts.headers);
    match asked {
        Binding::Get(key) => values::get(app, &namespace()?, key, query).await,
        Binding::Put(key) => values::put(app, namespace()?, key, query, &parts.headers, body).await,
        Binding::Delete(key) => values::delete(app, namespace()?, key, query).await,
        Binding::List => keys::list(app, &namespace()?, query),
        Binding::BulkGet => bulk::get(app, &namespace()?, body).await,
        Binding::BulkDelete => bulk::delete(app, namespace()?, body).await,
        Binding::WrongMethod { allow } => Ok(reply::allow(wrong_method(allow), allow)),
        Binding::Unknown => Err(Refusal::bad(
            "No such path. A key is one path segment: send a slash in it as %2F, with ?urlencoded=true.",
        )),
    }
}

fn wrong_method(allow: &str) -> Reply {
    let text = format!("This path takes {allow}.");
    reply::sentence(StatusCode::METHOD_NOT_ALLOWED, text)
}

fn namespace(app: &App, headers: &HeaderMap) -> Result<Namespace, Refusal> {
    // Whoever adds a second one would otherwise decide nothing, or everything.
    if headers.get_all(NAMESPACE).iter().nth(1).is_some() {
        return Err(Refusal::bad("A request has at most one X-KV-Namespace header."));
    }
    let named = headers.get(NAMESPACE).map_or(DEFAULT_NAMESPACE.as_bytes(), |name| name.as_bytes());
    let found = str::from_utf8(named).ok().and_then(|named| app.bridge.find(named));
    found.ok_or_else(|| {
        Refusal::bad(format!(
            "There is no namespace \"{}\". X-KV-Namespace takes the id or the title of one.",
            String::from_utf8_lossy(named)
        ))
    })
}
