//! One key: get, put, delete.

use std::borrow::Cow;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode};
use kvast::{Namespace, PutOptions};

use super::METADATA;
use crate::body::Inbound;
use crate::bridge::Opened;
use crate::call::Call;
use crate::commit::Write;
use crate::json;
use crate::reply::{self, Reply, ReplyBody};
use crate::rules::{self, Broken, Moment, Refusal};
use crate::staging::StageError;
use crate::uri::{decode_segment, query_value};

const EXPIRATION: HeaderName = HeaderName::from_static("cf-expiration");

/// `GET /{key}`
pub(super) async fn get(call: &Call<'_>, namespace: &Namespace) -> Result<Reply, Refusal> {
    let query = call.query();
    let key = key(call.asked.key, query)?;
    if let Some(cache_ttl) = query_value(query, "cache_ttl") {
        rules::check_cache_ttl(&cache_ttl)?;
    }
    Ok(match call.app.bridge.find(namespace, &key).await? {
        Some(value) => found(call.app.bridge.open_value(value, None).await?),
        None => not_found(),
    })
}

/// `PUT /{key}`
pub(super) async fn put(
    call: &Call<'_>,
    namespace: Namespace,
    body: &mut Inbound<'_>,
) -> Result<Reply, Refusal> {
    let key = key(call.asked.key, call.query())?;
    let options = put_options(&namespace, call.query(), call.headers())?;
    let bridge = &call.app.bridge;
    let staged = bridge.stage(&namespace, &key, body, call.app.limits.max_value_bytes).await;
    let staged = staged.map_err(|error| match error {
        StageError::Upload(error) => {
            error.into_refusal(|len, max| Broken::ValueTooLong { len, max }.into())
        }
        StageError::Engine(failure) => failure.into(),
    })?;
    bridge.commit(staged, options).await?;
    Ok(reply::done())
}

/// `DELETE /{key}`: 200 whether or not there was one.
pub(super) async fn delete(call: &Call<'_>, namespace: Namespace) -> Result<Reply, Refusal> {
    let keys = vec![key(call.asked.key, call.query())?.into_owned()];
    call.app.bridge.write(Write::Delete { namespace, keys }).await?;
    Ok(reply::done())
}

/// The key that a path segment spells: decoded if the query says that it is encoded.
fn key<'s>(segment: &'s str, query: Option<&str>) -> Result<Cow<'s, str>, Refusal> {
    let encoded =
        query_value(query, "urlencoded").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let key = if encoded { decode_segment(segment) } else { Some(Cow::Borrowed(segment)) };
    let key = key.ok_or(Broken::KeyUndecodable)?;
    rules::check_key(&key)?;
    Ok(key)
}

fn put_options(
    namespace: &Namespace,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<PutOptions, Refusal> {
    let ttl = query_value(query, "expiration_ttl");
    let at = query_value(query, "expiration");
    let moment = Moment::now(namespace);
    let expires_s = moment.expiration(ttl.as_deref(), at.as_deref())?;
    let mut options = moment.expiring(PutOptions::new(), expires_s);
    if let Some(metadata) = headers.get(METADATA).map(|header| rules::metadata(header.as_bytes()))
        && let Some(metadata) = metadata?
    {
        options = options.metadata(metadata.into_owned());
    }
    Ok(options)
}

fn found(value: Opened<'_>) -> Reply {
    let expires_at = value.rest.expires_at();
    let metadata = json::metadata(value.rest.metadata()).and_then(|json| metadata_header(&json));
    let mut reply = Response::new(value.into_body());
    reply::set(&mut reply, CONTENT_TYPE, "application/octet-stream");
    if let Some(ms) = expires_at {
        reply.headers_mut().insert(EXPIRATION, HeaderValue::from(ms / 1000));
    }
    if let Some(metadata) = metadata {
        reply.headers_mut().insert(METADATA, metadata);
    }
    reply
}

fn not_found() -> Reply {
    let mut reply = Response::new(ReplyBody::from(Bytes::from_static(b"Not Found")));
    *reply.status_mut() = StatusCode::NOT_FOUND;
    reply::set(&mut reply, CONTENT_TYPE, "text/plain;charset=utf-8");
    reply
}

/// Compact JSON has one byte that no header may: DEL, which can only stand inside a string.
fn metadata_header(json: &str) -> Option<HeaderValue> {
    let json = if json.contains('\x7f') {
        Cow::Owned(json.replace('\x7f', "\\u007f"))
    } else {
        Cow::Borrowed(json)
    };
    HeaderValue::from_bytes(json.as_bytes()).ok()
}
