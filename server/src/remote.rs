//! Miniflare's form of a binding request, undone.
//!
//! Miniflare sends all requests of a remote KV binding to one URL: the URL that was meant stands in
//! `MF-URL`, each header that was meant behind `MF-Header-`, and the binding's name in `MF-Binding`,
//! which names the namespace here unless an `X-KV-Namespace` does. What is left is a request of
//! the binding surface like any other; its token counts as any other's. Absent on purpose: Miniflare's
//! other kinds of remote bindings.

use hyper::Uri;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName};
use hyper::http::request::Parts;

use crate::binding;
use crate::rules::Refusal;

const URL: HeaderName = HeaderName::from_static("mf-url");
const BINDING: HeaderName = HeaderName::from_static("mf-binding");
const MEANT: &str = "mf-header-";

/// Turns a request into the one that it stands for. Any other stays as it is.
pub(crate) fn unwrap(parts: &mut Parts) -> Result<(), Refusal> {
    let Some(url) = parts.headers.get(URL) else { return Ok(()) };
    let target = url.to_str().ok().and_then(|url| url.parse::<Uri>().ok());
    let target = target.and_then(|url| url.path_and_query().cloned());
    let Some(target) = target else {
        return Err(Refusal::bad("MF-URL must be the absolute URL of a request to a KV binding."));
    };
    parts.uri = Uri::from(target);
    let meant = meant_headers(&parts.headers);
    if let Some(name) = parts.headers.remove(BINDING)
        && !parts.headers.contains_key(binding::NAMESPACE)
    {
        parts.headers.insert(binding::NAMESPACE, name);
    }
    for name in meant.keys() {
        parts.headers.remove(name);
    }
    for (name, value) in &meant {
        parts.headers.append(name, value.clone());
    }
    Ok(())
}

/// The headers of the request that was meant, except those that belong to a connection. Its token is
/// the outer one's, if there is one.
fn meant_headers(outer: &HeaderMap) -> HeaderMap {
    let mut meant = HeaderMap::new();
    for (name, value) in outer {
        let name = name.as_str().strip_prefix(MEANT).and_then(|name| name.parse().ok());
        let Some(name): Option<HeaderName> = name else { continue };
        let is_token_given = name == AUTHORIZATION && outer.contains_key(AUTHORIZATION);
        if !is_token_given && !is_of_the_connection(&name) {
            meant.append(name, value.clone());
        }
    }
    meant
}

/// The outer request's framing is the one that holds.
fn is_of_the_connection(name: &HeaderName) -> bool {
    const NAMES: [&str; 8] = [
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "te",
        "transfer-encoding",
        "upgrade",
    ];
    NAMES.contains(&name.as_str())
}
