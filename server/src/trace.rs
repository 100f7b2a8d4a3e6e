//! Names of requests, so that a client's report, the log and the metrics can be laid side by side.
//!
//! A request that brings a name keeps it, if that is short and printable; any other gets one.
//! Absent on purpose: spans of its own; the `traceparent` of a caller is logged as it came.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::HeaderMap;
use hyper::header::HeaderName;

/// Carries the name, both ways.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest name that a client may give, in bytes.
const LEN_MAX: usize = 128;

/// A request's name.
#[derive(Clone, Debug)]
pub(crate) enum RequestId {
    Given(String),
    Counted(u64),
}

impl RequestId {
    pub(crate) fn of(headers: &HeaderMap) -> RequestId {
        static COUNTER: AtomicU64 = AtomicU64::new(1);
        let printable = |id: &&str| {
            id.len() <= LEN_MAX && !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(printable);
        match given {
            Some(id) => RequestId::Given(id.to_owned()),
            None => RequestId::Counted(COUNTER.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestId::Given(id) => f.write_str(id),
            RequestId::Counted(number) => write!(f, "{number:016x}"),
        }
    }
}
