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
use hyper::{HeaderMap, StatusCode};
use kvast::Namespace;

use crate::app::DEFAULT_NAMESPACE;
use crate::auth::Denied;
use crate::body::Inbound;
use crate::call::Call;
use crate::reply::{self, Reply};
use crate::route::Binding;
use crate::rules::Refusal;

/// Names the namespace of a request, by id or by title.
pub(crate) const NAMESPACE: HeaderName = HeaderName::from_static("x-kv-namespace");

/// Carries metadata, both ways.
pub(crate) const METADATA: HeaderName = HeaderName::from_static("cf-kv-metadata");

/// Answers a request.
pub(crate) async fn serve(call: &Call<'_>, asked: Binding, body: &mut Inbound<'_>) -> Reply {
    match answer(call, asked, body).await {
        Ok(reply) => reply,
        Err(refusal) => refuse(refusal),
    }
}

/// The answer to a request without a good enough token.
pub(crate) fn deny(denied: Denied) -> Reply {
    refuse(denied.into())
}

/// The answer to a method that a path does not have.
pub(crate) fn wrong_method(allow: &'static str) -> Reply {
    let text = format!("This path takes {allow}.");
    reply::allow(reply::sentence(StatusCode::METHOD_NOT_ALLOWED, text), allow)
}

/// The answer to a path that is none.
pub(crate) fn unknown() -> Reply {
    refuse(Refusal::bad(
        "No such path. A key is one path segment: send a slash in it as %2F, with ?urlencoded=true.",
    ))
}

/// The answer to a request that is refused.
pub(crate) fn refuse(refusal: Refusal) -> Reply {
    let reply = reply::sentence(
        refusal.status,
        match refusal.text {
            Cow::Borrowed(text) => Bytes::from_static(text.as_bytes()),
            Cow::Owned(text) => Bytes::from(text),
        },
    );
    if refusal.is_passing { reply::retry_later(reply) } else { reply }
}

async fn answer(call: &Call<'_>, asked: Binding, body: &mut Inbound<'_>) -> Result<Reply, Refusal> {
    let namespace = namespace(call).await?;
    match asked {
        Binding::Get => values::get(call, &namespace).await,
        Binding::Put => values::put(call, namespace, body).await,
        Binding::Delete => values::delete(call, namespace).await,
        Binding::List => keys::list(call, &namespace).await,
        Binding::BulkGet => bulk::get(call, &namespace, body).await,
        Binding::BulkDelete => bulk::delete(call, namespace, body).await,
    }
}

async fn namespace(call: &Call<'_>) -> Result<Namespace, Refusal> {
    let found = match named(call.headers())? {
        Some(named) => find(call, named)?,
        None => default_namespace(call).await?,
    };
    call.grant.covers_namespace(&found)?;
    Ok(found)
}

/// What the header says. Whoever adds a second one would otherwise decide nothing, or everything.
fn named(headers: &HeaderMap) -> Result<Option<&[u8]>, Refusal> {
    let mut named = headers.get_all(NAMESPACE).iter().map(|name| name.as_bytes());
    match (named.next(), named.next()) {
        (_, Some(_)) => Err(Refusal::bad("A request has at most one X-KV-Namespace header.")),
        (named, None) => Ok(named),
    }
}

fn find(call: &Call<'_>, named: &[u8]) -> Result<Namespace, Refusal> {
    let found = str::from_utf8(named).ok().and_then(|named| call.app.bridge.find_namespace(named));
    let Some(found) = found else {
        // Who may ask about some namespaces only does not learn which others there are.
        call.grant.covers_all_namespaces()?;
        return Err(Refusal::bad(format!(
            "There is no namespace \"{}\". X-KV-Namespace takes the id or the title of one.",
            String::from_utf8_lossy(named)
        )));
    };
    Ok(found)
}

/// The namespace of requests that name none. It is made when it is asked for, so that whoever deletes
/// it has an empty one and not a server that answers nobody.
async fn default_namespace(call: &Call<'_>) -> Result<Namespace, Refusal> {
    let bridge = &call.app.bridge;
    if let Some(found) = bridge.find_namespace(DEFAULT_NAMESPACE) {
        return Ok(found);
    }
    call.grant.covers_all_namespaces()?;
    Ok(bridge.namespace_or_new(DEFAULT_NAMESPACE).await?)
}
