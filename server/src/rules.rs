//! What the Workers KV API refuses, in its exact words.
//!
//! These are rules of the interface: the words are what an application sees as its error, so they
//! are kept letter for letter, the odd ones too. Pure functions over text and the time; the engine
//! has rules of its own, which are wider. Absent on purpose: HTTP headers and bodies.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::StatusCode;

use crate::error::Failure;
use crate::limits::{
    CACHE_TTL_MIN_S, KEY_BYTES_MAX, LIFETIME_MIN_S, LIST_KEYS_MAX, METADATA_BYTES_MAX,
    VALUE_BYTES_MAX,
};

/// An answer of the binding surface that is an error.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) text: Cow<'static, str>,
    /// The same request may succeed a little later.
    pub(crate) is_passing: bool,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { status, text: text.into(), is_passing: false }
    }

    /// The server has no memory to spare for a body.
    pub(crate) fn busy() -> Refusal {
        let text = "The server is busy with other uploads; try again in a few seconds.";
        Refusal { is_passing: true, ..Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text) }
    }

    pub(crate) fn bad(text: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, text)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        let told = failure.tell();
        Refusal::new(told.binding_status, told.text)
    }
}

/// A key of its own right.
pub(crate) fn check_key(key: &str) -> Result<(), Refusal> {
    match key {
        "" => Err(Refusal::bad("Key names must not be empty")),
        "." | ".." => {
            Err(Refusal::bad(format!("Illegal key name \"{key}\". Please use a different name.")))
        }
        _ => check_key_length(key),
    }
}

/// The length of a key or of a list prefix.
pub(crate) fn check_key_length(key: &str) -> Result<(), Refusal> {
    if key.len() <= KEY_BYTES_MAX {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::URI_TOO_LONG,
        format!(
            "UTF-8 encoded length of {} exceeds key length limit of {KEY_BYTES_MAX}.",
            key.len()
        ),
    ))
}

/// How long an edge may cache; checked, and then of no use to a server that has no edge.
pub(crate) fn check_cache_ttl(text: &str) -> Result<(), Refusal> {
    if integer(text).is_some_and(|seconds| seconds >= CACHE_TTL_MIN_S) {
        return Ok(());
    }
    Err(Refusal::bad(format!(
        "Invalid cache_ttl of {text}. Cache TTL must be at least {CACHE_TTL_MIN_S}."
    )))
}

/// When a key that is put now expires, in Unix seconds. A lifetime wins over a point in time,
/// which then is not even looked at.
pub(crate) fn expiration(
    ttl: Option<&str>,
    at: Option<&str>,
    now_s: i64,
) -> Result<Option<u64>, Refusal> {
    let expires_s = match (ttl, at) {
        (Some(ttl), _) => now_s.saturating_add(lifetime(ttl)?),
        (None, Some(at)) => point_in_time(at, now_s)?,
        (None, None) => return Ok(None),
    };
    Ok(u64::try_from(expires_s).ok())
}

fn lifetime(text: &str) -> Result<i64, Refusal> {
    match integer(text) {
        Some(seconds) if seconds >= LIFETIME_MIN_S => Ok(seconds),
        Some(1..) => Err(Refusal::bad(format!(
            "Invalid expiration_ttl of {text}. Expiration TTL must be at least {LIFETIME_MIN_S}."
        ))),
        _ => Err(Refusal::bad(format!(
            "Invalid expiration_ttl of {text}. Please specify integer greater than 0."
        ))),
    }
}

fn point_in_time(text: &str, now_s: i64) -> Result<i64, Refusal> {
    match integer(text) {
        Some(at) if at >= now_s.saturating_add(LIFETIME_MIN_S) => Ok(at),
        Some(at) if at > now_s => Err(Refusal::bad(format!(
            "Invalid expiration of {text}. Expiration times must be at least {LIFETIME_MIN_S} \
             seconds in the future."
        ))),
        _ => Err(Refusal::bad(format!(
            "Invalid expiration of {text}. Please specify integer greater than the current number \
             of seconds since the UNIX epoch."
        ))),
    }
}

/// The length of metadata in compact JSON.
pub(crate) fn check_metadata_length(json: &str) -> Result<(), Refusal> {
    if json.len() <= METADATA_BYTES_MAX {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("Metadata length of {} exceeds limit of {METADATA_BYTES_MAX}.", json.len()),
    ))
}

/// A value that is longer than any may be.
pub(crate) fn value_too_large(len: u64) -> Refusal {
    Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("Value length of {len} exceeds limit of {VALUE_BYTES_MAX}."),
    )
}

/// How many keys a list page has.
pub(crate) fn key_count_limit(text: Option<&str>) -> Result<usize, Refusal> {
    let Some(text) = text else { return Ok(LIST_KEYS_MAX) };
    match integer(text).map(usize::try_from) {
        Some(Ok(count @ 1..=LIST_KEYS_MAX)) => Ok(count),
        Some(Ok(1..)) => Err(Refusal::bad(format!(
            "Invalid key_count_limit of {text}. Please specify an integer less than \
             {LIST_KEYS_MAX}."
        ))),
        _ => Err(Refusal::bad(format!(
            "Invalid key_count_limit of {text}. Please specify an integer greater than 0."
        ))),
    }
}

/// Unix seconds, now.
pub(crate) fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A whole number; those beyond 64 bits count as the largest, since they are numbers too.
fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let magnitude = digits.parse().unwrap_or(i64::MAX);
    Some(if negative { -magnitude } else { magnitude })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_wins_over_a_point_in_time() {
        assert_eq!(expiration(Some("60"), Some("nonsense"), 1000).ok(), Some(Some(1060)));
        assert_eq!(expiration(None, Some("1060"), 1000).ok(), Some(Some(1060)));
        assert_eq!(expiration(None, None, 1000).ok(), Some(None));
        for (ttl, at) in [(Some("59"), Some("9000")), (None, Some("1059")), (None, Some("-1"))] {
            assert!(expiration(ttl, at, 1000).is_err(), "{ttl:?} {at:?}");
        }
    }

    #[test]
    fn only_whole_numbers_are_numbers() {
        assert_eq!(integer("-17"), Some(-17));
        assert_eq!(integer("99999999999999999999"), Some(i64::MAX));
        for text in ["", "-", "+1", "1.0", " 1", "1e3", "0x10", "NaN"] {
            assert_eq!(integer(text), None, "{text}");
        }
    }
}
