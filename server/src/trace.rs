//! Names of requests, so that a client's report, the log and the metrics can be laid side by side.
//!
//! A request that brings an `X-Request-Id` keeps it, if that is short and printable, and gets it
//! back; any other gets a number. The caller's `traceparent` (W3C Trace Context) is logged with the
//! request, so that a line of this log is found from the caller's trace. Absent on purpose: spans,
//! which would cost every request what only few logs need.

use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Response};

/// Carries the name, both ways.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Carries the caller's trace.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The longest name that a client may give, in bytes.
const LEN_MAX: usize = 128;

/// A request's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RequestId {
    /// The client's own.
    Given(HeaderValue),
    /// This server's.
    Counted(u64),
}

/// Numbers begin with the time of the start, so that those of two runs of a server differ.
static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    AtomicU64::new(since.as_secs() << 32)
});

impl RequestId {
    pub(crate) fn of(headers: &HeaderMap) -> RequestId {
        let fits = |id: &&HeaderValue| {
            (1..=LEN_MAX).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
        };
        match headers.get(REQUEST_ID).filter(fits) {
            Some(id) => RequestId::Given(id.clone()),
            None => RequestId::Counted(NEXT.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// Gives the name back: to whoever gave it, and to everybody who has something to report.
    pub(crate) fn put_on<B>(&self, reply: &mut Response<B>) {
        let value = match self {
            RequestId::Given(id) => id.clone(),
            RequestId::Counted(_) if !reply.status().is_server_error() => return,
            RequestId::Counted(_) => match HeaderValue::try_from(self.to_string()) {
                Ok(value) => value,
                Err(_) => return,
            },
        };
        reply.headers_mut().insert(REQUEST_ID, value);
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestId::Given(id) => f.write_str(id.to_str().unwrap_or_default()),
            RequestId::Counted(number) => write!(f, "{number:016x}"),
        }
    }
}

/// The id of the trace that a request is part of: 32 hex digits, if the header is well formed.
pub(crate) fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(TRACEPARENT)?.to_str().ok()?;
    let mut parts = text.split('-');
    let (version, trace, parent) = (parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |part: &str, len: usize| {
        part.len() == len && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let well_formed = is_hex(version, 2)
        && version != "ff"
        && is_hex(trace, 32)
        && !is_zero(trace)
        && is_hex(parent, 16)
        && !is_zero(parent)
        && parts.next().is_some_and(|flags| is_hex(flags, 2));
    well_formed.then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).expect("a header's value"));
        headers
    }

    #[test]
    fn a_short_printable_name_is_kept_and_any_other_replaced() {
        let long = "x".repeat(LEN_MAX + 1);
        let id = RequestId::of(&headers(REQUEST_ID, "abc-1"));
        assert_eq!(id.to_string(), "abc-1");
        for value in ["", "a b", "\u{e9}", &long] {
            let id = RequestId::of(&headers(REQUEST_ID, value));
            assert!(matches!(id, RequestId::Counted(_)), "{value}");
        }
        assert_ne!(RequestId::of(&HeaderMap::new()), RequestId::of(&HeaderMap::new()));
    }

    #[test]
    fn only_a_well_formed_traceparent_names_a_trace() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let of = |value: &str| trace_id(&headers(TRACEPARENT, value)).map(str::to_owned);
        for good in ["00-TRACE-b7ad6b7169203331-01", "01-TRACE-b7ad6b7169203331-00-more"] {
            assert_eq!(of(&good.replace("TRACE", trace)).as_deref(), Some(trace), "{good}");
        }
        for bad in [
            "",
            "TRACE",
            "00-TRACE-b7ad6b7169203331",
            "ff-TRACE-b7ad6b7169203331-01",
            "00-TRACE-0000000000000000-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        ] {
            assert_eq!(of(&bad.replace("TRACE", trace)), None, "{bad}");
        }
    }
}
