//! One key: get, head, put, change of the expiration, delete.
//!
//! A value is plain bytes with an entity tag; its metadata and expiration are in headers. A write
//! under conditions is refused before its body is read if they do not hold, and checked again by the
//! engine in the moment it is made. Absent on purpose: content types, which are not kept.

use std::borrow::Cow;

use hyper::StatusCode;
use hyper::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName,
    HeaderValue, LAST_MODIFIED,
};
use kvast::{Namespace, PutOptions, ValueStream};

use super::expiry;
use super::input::{self, Query, invalid_body, read_object, refuse_body};
use crate::body::Inbound;
use crate::call::Call;
use crate::commit::Write;
use crate::conditions::{self, Guard, Part, Preconditions, Validators, Verdict};
use crate::error::Failure;
use crate::json;
use crate::problem::{Problem, Trouble};
use crate::reply::{self, Reply};
use crate::staging::StageError;
use crate::uri::decode_segment;

const METADATA: HeaderName = HeaderName::from_static("kvast-metadata");
const EXPIRES: HeaderName = HeaderName::from_static("kvast-expires");

/// `GET /v1/namespaces/{namespace}/keys/{key}`
pub(super) async fn get(call: &Call<'_>, namespace: &Namespace) -> Result<Reply, Problem> {
    let value = match find(call, namespace).await? {
        Asked::Known(reply) => return Ok(reply),
        Asked::Value(value) => value,
    };
    let (len, headers) = (value.len(), call.headers());
    let range = match conditions::part(headers, value.version(), len) {
        Part::Whole => None,
        Part::Bytes(range) => Some(range),
        Part::None => {
            let detail = format!("The value has {len} bytes, and none of those asked for.");
            let problem = Problem::new(Trouble::RangeNotSatisfiable, detail);
            return Err(problem.header(CONTENT_RANGE, conditions::no_range_of(len)));
        }
    };
    let mut head = head(&value);
    let opened = call.app.bridge.open_value(value, range.clone()).await?;
    if let Some(range) = range {
        *head.status_mut() = StatusCode::PARTIAL_CONTENT;
        head.headers_mut().insert(CONTENT_RANGE, conditions::content_range(&range, len));
    }
    Ok(head.map(|_| opened.into_body()))
}

/// `HEAD /v1/namespaces/{namespace}/keys/{key}`: the value is not read.
pub(super) async fn get_head(call: &Call<'_>, namespace: &Namespace) -> Result<Reply, Problem> {
    let value = match find(call, namespace).await? {
        Asked::Known(reply) => return Ok(reply),
        Asked::Value(value) => value,
    };
    let mut head = head(&value);
    head.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(value.len()));
    Ok(head)
}

/// `PUT /v1/namespaces/{namespace}/keys/{key}`
pub(super) async fn put(
    call: &Call<'_>,
    namespace: &Namespace,
    body: &mut Inbound<'_>,
) -> Result<Reply, Problem> {
    let query = Query::of(call.query(), &["ttl", "expires_at"])?;
    let key = key(call)?;
    let options = put_options(call, &query)?;
    let conditions = Preconditions::of(call.headers())?;
    let bridge = &call.app.bridge;
    let guard = guard(call, namespace, &key, &conditions).await?;
    let most = call.app.limits.max_value_bytes;
    let max = namespace.settings().max_value_bytes.unwrap_or(most).min(most);
    let staged = bridge.stage(namespace, &key, body, max).await;
    let staged = staged.map_err(|error| refuse_value(error, max))?;
    let is_new = match guard {
        Guard::None => bridge.find(namespace, &key).await?.is_none(),
        Guard::Absent => true,
        Guard::Version(_) => false,
    };
    let version = bridge.commit(staged, guard.on(options)).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
    Ok(written(status, version))
}

/// `PATCH /v1/namespaces/{namespace}/keys/{key}`: the value and its metadata stay.
pub(super) async fn change_expiry(
    call: &Call<'_>,
    namespace: &Namespace,
    body: &mut Inbound<'_>,
) -> Result<Reply, Problem> {
    Query::of(call.query(), &[])?;
    let key = key(call)?;
    let conditions = Preconditions::of(call.headers())?;
    let members = read_object(call, body, &["ttl", "expires_at"]).await?;
    let expiry = expiry::read_json(members.get("ttl"), members.get("expires_at"))?;
    let expiry = expiry.ok_or_else(|| {
        invalid_body("Say \"ttl\", or \"expires_at\", where null stands for never.")
    })?;
    let bridge = &call.app.bridge;
    let version = match guard_existing(call, namespace, &key, &conditions).await? {
        Guard::Version(version) => Some(version),
        Guard::None | Guard::Absent => None,
    };
    let changed = bridge.set_expiry(namespace.clone(), key.clone().into_owned(), expiry, version);
    match changed.await {
        Ok(Some(version)) => Ok(written(StatusCode::NO_CONTENT, version)),
        Ok(None) => Err(not_found(&key)),
        Err(failure) => Err(refuse_existing(failure, &key)),
    }
}

/// `DELETE /v1/namespaces/{namespace}/keys/{key}`
pub(super) async fn delete(call: &Call<'_>, namespace: &Namespace) -> Result<Reply, Problem> {
    Query::of(call.query(), &[])?;
    let key = key(call)?;
    let conditions = Preconditions::of(call.headers())?;
    let guard = guard_existing(call, namespace, &key, &conditions).await?;
    let (namespace, owned) = (namespace.clone(), key.clone().into_owned());
    let write = match guard {
        Guard::Version(version) => Write::DeleteIf { namespace, key: owned, version },
        Guard::None | Guard::Absent => Write::Delete { namespace, keys: vec![owned] },
    };
    let deleted = call.app.bridge.write(write).await;
    deleted.map_err(|failure| refuse_existing(failure, &key))?;
    Ok(super::empty(StatusCode::NO_CONTENT))
}

/// What a read comes to before a byte of the value is read.
enum Asked {
    /// An answer without the value.
    Known(Reply),
    Value(ValueStream),
}

async fn find(call: &Call<'_>, namespace: &Namespace) -> Result<Asked, Problem> {
    Query::of(call.query(), &[])?;
    let key = key(call)?;
    let conditions = Preconditions::of(call.headers())?;
    let found = call.app.bridge.find(namespace, &key).await?;
    let value = found.ok_or_else(|| not_found(&key))?;
    match conditions.weigh_read(validators(&value)) {
        Verdict::Proceed => Ok(Asked::Value(value)),
        Verdict::Failed => Err(Problem::version_mismatch(Some(value.version()))),
        Verdict::NotModified => Ok(Asked::Known(not_modified(&value))),
    }
}

/// The key that the path names.
fn key<'c>(call: &Call<'c>) -> Result<Cow<'c, str>, Problem> {
    let key = decode_segment(call.asked.key).ok_or_else(|| {
        let detail = "The key in the path is not percent-encoded UTF-8; a % in it is sent as %25.";
        Problem::new(Trouble::InvalidKey, detail)
    })?;
    input::check_key(&key)?;
    Ok(key)
}

fn put_options(call: &Call<'_>, query: &Query<'_>) -> Result<PutOptions, Problem> {
    let mut options = PutOptions::new();
    if let Some(expiry) = expiry::read(query.get("ttl"), query.get("expires_at"))? {
        options = options.expiry(expiry);
    }
    let mut lines = call.headers().get_all(METADATA).iter();
    let (line, None) = (lines.next(), lines.next()) else {
        let detail = "A request has at most one Kvast-Metadata header.";
        return Err(Problem::new(Trouble::InvalidHeader, detail));
    };
    match line.map(|line| input::metadata(line.as_bytes())).transpose()?.flatten() {
        Some(metadata) => Ok(options.metadata(metadata)),
        None => Ok(options),
    }
}

fn validators(value: &ValueStream) -> Validators {
    Validators { version: value.version(), written_ms: value.written_at() }
}

/// What the conditions of a write come to. Those that do not hold already are refused here.
async fn guard(
    call: &Call<'_>,
    namespace: &Namespace,
    key: &str,
    conditions: &Preconditions,
) -> Result<Guard, Problem> {
    if conditions.guard() == Some(Guard::None) {
        return Ok(Guard::None);
    }
    let current = call.app.bridge.find(namespace, key).await?.as_ref().map(validators);
    weigh(conditions, current)
}

/// The same for a write that only a key that is there can have.
async fn guard_existing(
    call: &Call<'_>,
    namespace: &Namespace,
    key: &str,
    conditions: &Preconditions,
) -> Result<Guard, Problem> {
    let current = call.app.bridge.find(namespace, key).await?;
    let current = current.as_ref().map(validators).ok_or_else(|| not_found(key))?;
    weigh(conditions, Some(current))
}

fn weigh(conditions: &Preconditions, current: Option<Validators>) -> Result<Guard, Problem> {
    let version = current.map(|current| current.version);
    match conditions.weigh_write(current) {
        Ok(Guard::None) => Ok(Guard::None),
        Ok(Guard::Absent) if version.is_none() => Ok(Guard::Absent),
        Ok(Guard::Version(wanted)) if version == Some(wanted) => Ok(Guard::Version(wanted)),
        _ => Err(Problem::version_mismatch(version)),
    }
}

/// 304: no more than what a cache needs to know.
fn not_modified(value: &ValueStream) -> Reply {
    let mut reply = super::empty(StatusCode::NOT_MODIFIED);
    // May be kept, and is asked for again each time: a tag tells whether it is still right.
    reply::set(&mut reply, CACHE_CONTROL, "no-cache");
    let headers = reply.headers_mut();
    headers.insert(ETAG, conditions::etag(value.version()));
    headers.insert(LAST_MODIFIED, conditions::last_modified(value.written_at()));
    reply
}

/// The head of an answer with this value.
fn head(value: &ValueStream) -> Reply {
    let mut reply = not_modified(value);
    *reply.status_mut() = StatusCode::OK;
    reply::set(&mut reply, CONTENT_TYPE, "application/octet-stream");
    reply::set(&mut reply, ACCEPT_RANGES, "bytes");
    let headers = reply.headers_mut();
    if let Some(ms) = value.expires_at() {
        let moment = HeaderValue::try_from(expiry::show(ms)).expect("a moment is plain text");
        headers.insert(EXPIRES, moment);
    }
    let metadata = json::metadata(value.metadata()).map(|metadata| json::to_ascii(&metadata));
    if let Some(metadata) = metadata.and_then(|json| HeaderValue::try_from(json).ok()) {
        headers.insert(METADATA, metadata);
    }
    reply
}

fn written(status: StatusCode, version: u64) -> Reply {
    let mut reply = super::empty(status);
    reply.headers_mut().insert(ETAG, conditions::etag(version));
    reply
}

fn not_found(key: &str) -> Problem {
    Problem::new(Trouble::KeyNotFound, format!("There is no key {key:?}, or it has expired."))
}

/// A key that went away between the look at it and the write is as absent as one that never was.
fn refuse_existing(failure: Failure, key: &str) -> Problem {
    match failure {
        Failure::Engine(kvast::Error::VersionMismatch { current: None }) => not_found(key),
        failure => failure.into(),
    }
}

fn refuse_value(error: StageError, max: u64) -> Problem {
    match error {
        StageError::Engine(failure) => failure.into(),
        StageError::Upload(error) => refuse_body(error, |len| {
            let detail = format!("The value has {len} bytes; at most {max} are allowed here.");
            Problem::new(Trouble::ValueTooLarge, detail)
        }),
    }
}
