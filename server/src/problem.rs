//! Errors of the native surface: problem details (RFC 9457), built in one place.
//!
//! Programs read `code`: the engine's stable word, or one of [`Trouble`]'s. People read `detail`,
//! which says what to do next, and quote `request_id`, which the server's log has too. `type` is
//! always `about:blank`, so `title` is the status in words and nothing more is behind either.

use hyper::StatusCode;
use hyper::header::{ETAG, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::{Map, Value as Json};

use crate::auth::Denied;
use crate::conditions::{self, Malformed};
use crate::error::Failure;
use crate::reply::{self, Reply};
use crate::trace::RequestId;

macro_rules! troubles {
    ($($(#[$doc:meta])* $trouble:ident $status:literal $word:literal;)*) => {
        /// What the server itself finds wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Trouble { $($(#[$doc])* $trouble),* }

        impl Trouble {
            #[cfg(test)]
            pub(crate) const ALL: &[Trouble] = &[$(Trouble::$trouble),*];

            fn status(self) -> u16 {
                match self { $(Trouble::$trouble => $status),* }
            }

            /// The stable word for it.
            pub(crate) fn word(self) -> &'static str {
                match self { $(Trouble::$trouble => $word),* }
            }
        }
    };
}

troubles! {
    /// A parameter of the query.
    InvalidQuery        400 "invalid_query";
    InvalidHeader       400 "invalid_header";
    InvalidKey          400 "invalid_key";
    InvalidBody         400 "invalid_body";
    /// The body ended early or its framing is bad.
    BrokenBody          400 "broken_body";
    InvalidExpiry       400 "invalid_expiry";
    InvalidMetadata     400 "invalid_metadata";
    Unauthorized        401 "unauthorized";
    Forbidden           403 "forbidden";
    NoSuchResource      404 "no_such_resource";
    NamespaceNotFound   404 "namespace_not_found";
    KeyNotFound         404 "key_not_found";
    WrongMethod         405 "wrong_method";
    /// The body pauses or takes too long.
    SlowBody            408 "slow_body";
    ValueTooLarge       413 "value_too_large";
    BodyTooLarge        413 "body_too_large";
    RangeNotSatisfiable 416 "range_not_satisfiable";
    /// Others hold all the memory for uploads.
    Busy                503 "busy";
}

/// An answer of the native surface that is an error.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    /// Members beyond those that every problem has.
    more: Map<String, Json>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(crate) fn new(trouble: Trouble, detail: impl Into<String>) -> Problem {
        let status = StatusCode::from_u16(trouble.status()).expect("the table has statuses only");
        Problem::of(status, trouble.word(), detail.into())
    }

    fn of(status: StatusCode, code: &'static str, detail: String) -> Problem {
        Problem { status, code, detail, more: Map::new(), headers: Vec::new() }
    }

    /// A condition does not hold: says which version there is, so that the client can go on from it.
    pub(crate) fn version_mismatch(current: Option<u64>) -> Problem {
        Failure::from(kvast::Error::VersionMismatch { current }).into()
    }

    /// The server has no memory to spare for a body.
    pub(crate) fn busy() -> Problem {
        let detail = "The server is busy with other uploads; try again in a few seconds.";
        Problem::new(Trouble::Busy, detail).header(RETRY_AFTER, HeaderValue::from_static("5"))
    }

    /// Adds a member.
    pub(crate) fn with(mut self, member: &str, value: impl Into<Json>) -> Problem {
        self.more.insert(member.to_owned(), value.into());
        self
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Problem {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn into_reply(self, id: &RequestId) -> Reply {
        let mut body = serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason(),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
            "request_id": id.to_string(),
        });
        if let Some(members) = body.as_object_mut() {
            members.extend(self.more);
        }
        let mut reply = reply::text("application/problem+json", body.to_string());
        *reply.status_mut() = self.status;
        reply.headers_mut().extend(self.headers);
        reply
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Problem {
        let told = failure.tell();
        let problem = Problem::of(told.native_status, failure.code(), as_sentence(&told.text));
        match failure {
            Failure::Engine(kvast::Error::VersionMismatch { current }) => {
                let problem = problem.with("version", current);
                match current {
                    Some(version) => problem.header(ETAG, conditions::etag(version)),
                    None => problem,
                }
            }
            Failure::Busy => problem.header(RETRY_AFTER, HeaderValue::from_static("5")),
            Failure::Stopping => problem.header(RETRY_AFTER, HeaderValue::from_static("1")),
            _ => problem,
        }
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Problem {
        let (trouble, challenge) = match denied {
            Denied::Missing => (Trouble::Unauthorized, "Bearer"),
            Denied::Page => (Trouble::Forbidden, "Bearer"),
            Denied::Wrong | Denied::Expired => {
                (Trouble::Unauthorized, "Bearer error=\"invalid_token\"")
            }
            Denied::TooLittle => (Trouble::Forbidden, "Bearer error=\"insufficient_scope\""),
        };
        let problem = Problem::new(trouble, denied.to_string());
        problem.header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }
}

impl From<Malformed> for Problem {
    fn from(malformed: Malformed) -> Problem {
        Problem::new(Trouble::InvalidHeader, malformed.to_string())
    }
}

/// A text with a capital at its start and a full stop at its end.
fn as_sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    let stop = if text.ends_with('.') { "" } else { "." };
    first.into_iter().chain(letters).chain(stop.chars()).collect()
}
