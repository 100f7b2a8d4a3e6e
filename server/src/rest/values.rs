//! The value of one key: get, head, put, delete.
//!
//! A value goes out as bytes, without an envelope. It comes in as the body or as a part of a form, and
//! whatever type the request says it has, it is stored untouched. Conditions and ranges are for those
//! who send them; nobody else sees more of them than a few headers.

use std::borrow::Cow;

use hyper::header::{
    ACCEPT_RANGES, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, LAST_MODIFIED,
};
use hyper::{Response, StatusCode};
use kvast::{Namespace, PutOptions, ValueStream};
use serde_json::Value as Json;

use crate::body::{Inbound, UploadError};
use crate::call::Call;
use crate::commit::Write;
use crate::conditions::{self, Guard, Part as Range, Preconditions, Validators, Verdict};
use crate::envelope::{self, ApiError};
use crate::form::{self, Form, FormError, Kind};
use crate::limits::VALUE_BYTES_MAX;
use crate::reply::{self, Reply};
use crate::rules::{self, Broken, Moment};
use crate::staging::Staged;
use crate::uri::query_value;

const EXPIRATION: HeaderName = HeaderName::from_static("expiration");

/// The longest metadata part that is read, in bytes: it may have white space that is not kept.
const METADATA_PART_BYTES_MAX: usize = 64 << 10;

/// `GET ../values/{key}`, and `HEAD`
pub(super) async fn get(call: &Call<'_>, namespace: &Namespace) -> Result<Reply, ApiError> {
    let key = super::key(call)?;
    let conditions = Preconditions::of(call.headers())?;
    let found = call.app.bridge.find(namespace, &key).await?;
    let value = found.ok_or_else(ApiError::no_such_key)?;
    let headers = Headers::of(&value);
    match conditions.weigh_read(validators(&value)) {
        Verdict::Proceed => {}
        Verdict::NotModified => return Ok(headers.on(empty(StatusCode::NOT_MODIFIED))),
        Verdict::Failed => return Err(precondition_failed()),
    }
    let len = value.len();
    let mut reply = match conditions::part(call.headers(), value.version(), len) {
        Range::Whole => Response::new(call.app.bridge.open_value(value, None).await?.into_body()),
        Range::Bytes(part) => {
            let content_range = conditions::content_range(&part, len);
            let opened = call.app.bridge.open_value(value, Some(part)).await?;
            let mut reply = Response::new(opened.into_body());
            *reply.status_mut() = StatusCode::PARTIAL_CONTENT;
            reply.headers_mut().insert(CONTENT_RANGE, content_range);
            reply
        }
        Range::None => return Ok(no_such_range(len)),
    };
    reply::set(&mut reply, CONTENT_TYPE, "application/octet-stream");
    Ok(headers.on(reply))
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
    let expires_s = Moment::now(&namespace).expiration(ttl.as_deref(), at.as_deref())?;
    let guard = guard(call, &namespace, &key).await?;
    let (staged, metadata) = stage(call, &namespace, &key, body).await?;
    let mut options = guard.on(PutOptions::new());
    if let Some(seconds) = expires_s {
        options = options.expires_at_ms(seconds.saturating_mul(1000));
    }
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
    match form::kind(call.headers()) {
        Kind::Raw => {
            Ok((call.app.bridge.stage(namespace, key, body, VALUE_BYTES_MAX).await?, None))
        }
        Kind::Form { boundary } => {
            stage_form(call, namespace, key, Form::new(body, boundary)).await
        }
        Kind::NoBoundary => Err(ApiError::bad_value("the multipart form names no boundary")),
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
                let bridge = &call.app.bridge;
                value = Some(bridge.stage(namespace, key, &mut part, VALUE_BYTES_MAX).await?);
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
        FormError::Upload(UploadError::TooLong { len }) => {
            Broken::MetadataTooLong { len: usize::try_from(len).unwrap_or(usize::MAX) }.into()
        }
        error => error.into(),
    }
}

fn validators(value: &ValueStream) -> Validators {
    Validators { version: value.version(), written_ms: value.written_at() }
}

/// What an answer says of a value besides its bytes.
struct Headers {
    version: u64,
    written_ms: u64,
    expires_ms: Option<u64>,
}

impl Headers {
    fn of(value: &ValueStream) -> Headers {
        Headers {
            version: value.version(),
            written_ms: value.written_at(),
            expires_ms: value.expires_at(),
        }
    }

    fn on(self, mut reply: Reply) -> Reply {
        let headers = reply.headers_mut();
        headers.insert(ETAG, conditions::etag(self.version));
        headers.insert(LAST_MODIFIED, conditions::last_modified(self.written_ms));
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        if let Some(ms) = self.expires_ms {
            headers.insert(EXPIRATION, HeaderValue::from(ms / 1000));
        }
        reply
    }
}

fn empty(status: StatusCode) -> Reply {
    let mut reply = reply::done();
    *reply.status_mut() = status;
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
