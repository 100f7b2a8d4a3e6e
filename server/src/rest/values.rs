//! The value of one key: get, head, put, delete.
//!
//! A value goes out as bytes, without an envelope. It comes in as the body or as a part of a form, and
//! whatever type the request says it has, it is stored untouched. Conditions and ranges are for those
//! who send them; nobody else sees more of them than a few headers.

use std::borrow::Cow;

use hyper::StatusCode;
use hyper::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, HeaderValue,
    LAST_MODIFIED,
};
use kvast::{Namespace, PutOptions, ValueStream};
use serde_json::Value as Json;

use crate::body::{Inbound, UploadError};
use crate::call::Call;
use crate::commit::Write;
use crate::conditions::{self, Guard, Part as Range, Preconditions, Validators, Verdict};
use crate::envelope::{self, ApiError};
use crate::form::{self, Form, FormError, Kind};
use crate::limits::FORM_EXTRA_BYTES_MAX;
use crate::reply::{self, Reply};
use crate::rules::{self, Broken, Moment};
use crate::staging::Staged;
use crate::uri::query_value;

const EXPIRATION: HeaderName = HeaderName::from_static("expiration");

/// The longest metadata part that is read, in bytes: it may have white space that is not kept.
const METADATA_PART_BYTES_MAX: usize = 64 << 10;

/// `GET ../values/{key}`
pub(super) async fn get(call: &Call<'_>, namespace: &Namespace) -> Result<Reply, ApiError> {
    let value = match find(call, namespace).await? {
        Found::Value(value) => value,
        Found::Unchanged(reply) => return Ok(reply),
    };
    let len = value.len();
    let mut head = head_of(&value);
    let range = match conditions::part(call.headers(), value.version(), len) {
        Range::Whole => None,
        Range::Bytes(range) => {
            *head.status_mut() = StatusCode::PARTIAL_CONTENT;
            head.headers_mut().insert(CONTENT_RANGE, conditions::content_range(&range, len));
            Some(range)
        }
        Range::None => return Ok(no_such_range(len)),
    };
    let opened = call.app.bridge.open_value(value, range).await?;
    Ok(head.map(|_| opened.into_body()))
}

/// `HEAD ../values/{key}`: the value is not read.
pub(super) async fn get_head(call: &Call<'_>, namespace: &Namespace) -> Result<Reply, ApiError> {
    let value = match find(call, namespace).await? {
        Found::Value(value) => value,
        Found::Unchanged(reply) => return Ok(reply),
    };
    let mut head = head_of(&value);
    head.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(value.len()));
    Ok(head)
}

enum Found {
    Value(ValueStream),
    /// 304: the client has it.
    Unchanged(Reply),
}

/// The value that is asked for, if the conditions let it be seen.
async fn find(call: &Call<'_>, namespace: &Namespace) -> Result<Found, ApiError> {
    let key = super::key(call)?;
    let conditions = Preconditions::of(call.headers())?;
    let found = call.app.bridge.find(namespace, &key).await?;
    let value = found.ok_or_else(ApiError::no_such_key)?;
    match conditions.weigh_read(validators(&value)) {
        Verdict::Proceed => Ok(Found::Value(value)),
        Verdict::Failed => Err(precondition_failed()),
        Verdict::NotModified => {
            let mut reply = head_of(&value);
            *reply.status_mut() = StatusCode::NOT_MODIFIED;
            reply.headers_mut().remove(CONTENT_TYPE);
            Ok(Found::Unchanged(reply))
        }
    }
}

/// `PUT ../values/{key}`
pub(super) async fn put(
    call: &Call<'_>,
    namespace: Namespace,
    body: &mut Inbound<'_>,
) -> Result<Reply, ApiError> {
    let key = super::key(call)?;
    let (ttl, at) =
        (query_value(call.query(), "expiration_ttl"), query_value(call.query(), "expiration"));
    let moment = Moment::now(&namespace);
    let expires_s = moment.expiration(ttl.as_deref(), at.as_deref())?;
    let guard = guard(call, &namespace, &key).await?;
    let (staged, metadata) = stage(call, &namespace, &key, body).await?;
    let mut options = moment.expiring(guard.on(PutOptions::new()), expires_s);
    if let Some(metadata) = metadata {
        options = options.metadata(metadata);
    }
    let version = call.app.bridge.commit(staged, options).await?;
    let mut reply = envelope::result(Json::Null);
    reply.headers_mut().insert(ETAG, conditions::etag(version));
    Ok(reply)
}

/// `DELETE ../values/{key}`: a success whether or not there was one.
pub(super) async fn delete(call: &Call<'_>, namespace: Namespace) -> Result<Reply, ApiError> {
    let key = super::key(call)?;
    let write = match guard(call, &namespace, &key).await? {
        Guard::None => Some(Write::Delete { namespace, keys: vec![key] }),
        Guard::Version(version) => Some(Write::DeleteIf { namespace, key, version }),
        // Whoever wants it absent and finds it so has nothing left to do.
        Guard::Absent => {
            let found = call.app.bridge.find(&namespace, &key).await?;
            found.map_or(Ok(None), |_| Err(precondition_failed()))?
        }
    };
    if let Some(write) = write {
        call.app.bridge.write(write).await?;
    }
    Ok(envelope::result(Json::Null))
}

/// What the conditions of a write demand. The engine sees to it in the moment of writing.
async fn guard(call: &Call<'_>, namespace: &Namespace, key: &str) -> Result<Guard, ApiError> {
    let conditions = Preconditions::of(call.headers())?;
    if let Some(guard) = conditions.guard() {
        return Ok(guard);
    }
    let current = call.app.bridge.find(namespace, key).await?;
    let guard = conditions.weigh_write(current.as_ref().map(validators));
    guard.map_err(|_failed| precondition_failed())
}

/// Takes the value off the connection, and the metadata that may come with it.
async fn stage(
    call: &Call<'_>,
    namespace: &Namespace,
    key: &str,
    body: &mut Inbound<'_>,
) -> Result<(Staged, Option<String>), ApiError> {
    let max = call.app.limits.max_value_bytes;
    match form::kind(call.headers()) {
        Kind::Raw => Ok((call.app.bridge.stage(namespace, key, body, max).await?, None)),
        Kind::Form { boundary } => {
            stage_form(call, namespace, key, Form::new(body, boundary, max + FORM_EXTRA_BYTES_MAX)?)
                .await
        }
        Kind::NoBoundary => {
            Err(ApiError::bad_value("the type of the multipart form names no boundary"))
        }
    }
}

async fn stage_form(
    call: &Call<'_>,
    namespace: &Namespace,
    key: &str,
    mut form: Form<'_>,
) -> Result<(Staged, Option<String>), ApiError> {
    let (mut value, mut metadata) = (None, None);
    while let Some(mut part) = form.next().await? {
        match part.name() {
            Some("value") if value.is_some() => {
                return Err(ApiError::bad_value("the multipart form has two parts named value"));
            }
            Some("value") => {
                let (bridge, max) = (&call.app.bridge, call.app.limits.max_value_bytes);
                value = Some(bridge.stage(namespace, key, &mut part, max).await?);
            }
            Some("metadata") => {
                let json = part.collect(METADATA_PART_BYTES_MAX).await.map_err(long_metadata)?;
                metadata = rules::metadata(&json)?.map(Cow::into_owned);
            }
            _ => part.skip().await?,
        }
    }
    let value =
        value.ok_or_else(|| ApiError::bad_value("the multipart form has no part named value"))?;
    Ok((value, metadata))
}

fn long_metadata(error: FormError) -> ApiError {
    match error {
        FormError::Upload(UploadError::TooLong { len, .. }) => {
            Broken::MetadataTooLong { len: usize::try_from(len).unwrap_or(usize::MAX) }.into()
        }
        error => error.into(),
    }
}

fn validators(value: &ValueStream) -> Validators {
    Validators { version: value.version(), written_ms: value.written_at() }
}

/// What an answer says of a value besides its bytes.
fn head_of(value: &ValueStream) -> Reply {
    let mut reply = reply::done();
    reply::set(&mut reply, CONTENT_TYPE, "application/octet-stream");
    reply::set(&mut reply, ACCEPT_RANGES, "bytes");
    let headers = reply.headers_mut();
    headers.insert(ETAG, conditions::etag(value.version()));
    headers.insert(LAST_MODIFIED, conditions::last_modified(value.written_at()));
    if let Some(ms) = value.expires_at() {
        headers.insert(EXPIRATION, HeaderValue::from(ms / 1000));
    }
    reply
}

fn precondition_failed() -> ApiError {
    let reason = "the key is not at the version that the request names";
    ApiError::new(StatusCode::PRECONDITION_FAILED, 10029, reason)
}

fn no_such_range(len: u64) -> Reply {
    let reason = format!("the value has no such bytes; it has {len}");
    let refused = ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, 10029, reason).during("get");
    let mut reply = refused.into_reply();
    reply.headers_mut().insert(CONTENT_RANGE, conditions::no_range_of(len));
    reply
}
