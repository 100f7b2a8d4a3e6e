//! Miniflare's form of a binding request, undone.
//!
//! Miniflare sends all requests of a remote KV binding to the one URL that it was given. The URL that
//! was meant stands in `MF-URL`, the headers that were meant behind `MF-Header-`, the name of the
//! binding in `MF-Binding`. What comes out is a request of the binding surface like any other.
//!
//! Miniflare can be given no header, so the URL's query may name a token and the namespace:
//! `http://host:port/?token=T&namespace=N`. Without that, `X-KV-Namespace` names the namespace, sent or
//! meant, and failing that the binding does. A token in `Authorization` wins; one that was meant for
//! somebody else is none. Absent on purpose: other kinds of remote bindings, and calls over WebSocket.

use hyper::Uri;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;

use crate::binding;
use crate::rules::Refusal;
use crate::uri::query_value;

const URL: HeaderName = HeaderName::from_static("mf-url");
const BINDING: HeaderName = HeaderName::from_static("mf-binding");

/// The headers that are taken over: with the framing and the credentials of the request that was
/// meant, this one would be another.
const MEANT: [(HeaderName, HeaderName); 2] = [
    (HeaderName::from_static("mf-header-cf-kv-metadata"), binding::METADATA),
    (HeaderName::from_static("mf-header-x-kv-namespace"), binding::NAMESPACE),
];

/// Turns a request into the one that it stands for. Any other stays as it is.
pub(crate) fn unwrap(parts: &mut Parts) -> Result<(), Refusal> {
    let Some(url) = parts.headers.get(URL) else { return check_is_no_call(parts) };
    let meant = url.to_str().ok().and_then(meant_target).ok_or_else(|| {
        Refusal::bad("MF-URL must be the absolute URL of a request to a KV binding.")
    })?;
    let headers = &mut parts.headers;
    for (from, to) in MEANT {
        replace(headers, to, |headers| headers.get(from).cloned());
    }
    if !headers.contains_key(binding::NAMESPACE) {
        replace(headers, binding::NAMESPACE, |headers| headers.get(BINDING).cloned());
    }
    let query = parts.uri.query();
    let named = query_value(query, "namespace");
    replace(headers, binding::NAMESPACE, |_| HeaderValue::from_bytes(named?.as_bytes()).ok());
    if !headers.contains_key(AUTHORIZATION) {
        let token = query_value(query, "token");
        replace(headers, AUTHORIZATION, |_| bearer(&token?));
    }
    parts.uri = meant;
    Ok(())
}

/// A call of a method comes as a WebSocket, and would read as a request for all keys.
fn check_is_no_call(parts: &Parts) -> Result<(), Refusal> {
    match query_value(parts.uri.query(), "MF-Binding") {
        None => Ok(()),
        Some(_) => Err(Refusal::bad(
            "Only the HTTP requests of a remote KV binding are served; deleteBulk is none of them.",
        )),
    }
}

/// Path and query of an absolute URL. The path may be missing, even before a query.
fn meant_target(url: &str) -> Option<Uri> {
    let url: Uri = url.parse().ok()?;
    url.authority()?;
    let query = url.query().map(|query| format!("?{query}"));
    format!("{}{}", url.path(), query.unwrap_or_default()).parse().ok()
}

fn replace(
    headers: &mut HeaderMap,
    name: HeaderName,
    value: impl FnOnce(&HeaderMap) -> Option<HeaderValue>,
) {
    if let Some(value) = value(headers) {
        headers.insert(name, value);
    }
}

fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_lack_its_path() {
        for (url, target) in [
            ("https://fake-host", Some("/")),
            ("https://fake-host?prefix=a", Some("/?prefix=a")),
            ("https://fake-host/a%2Fb[|]?urlencoded=true", Some("/a%2Fb[|]?urlencoded=true")),
            ("/k?urlencoded=true", None),
            ("", None),
        ] {
            let found = meant_target(url).map(|target| target.to_string());
            assert_eq!(found.as_deref(), target, "{url}");
        }
    }
}
