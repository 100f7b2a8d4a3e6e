//! What a failure of the engine means to a client: the one match from its codes to HTTP.
//!
//! A refusal (4xx) passes the engine's sentence on, since the client can act on it. A fault (5xx)
//! tells the client the code alone and the log everything: paths and byte offsets are the
//! operator's business. The binding surface never answers 404 or 410 for anything but a missing
//! key, because its clients read both as an empty store. Absent on purpose: the wording of what
//! the server itself refuses; that stands in [`rules`](crate::rules) and with each resource.

use std::fmt;
use std::io;

use hyper::StatusCode;
use kvast::Code;

/// Why a call into the engine gave no result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The engine said no.
    Engine(kvast::Error),
    /// The disk did not give a value's bytes back.
    Unreadable(io::Error),
    /// Others hold all the memory for large answers.
    Busy,
    /// The server is stopping and the call was never made.
    Stopping,
}

/// A failure as each surface tells it.
pub(crate) struct Told {
    /// The status on the binding surface.
    pub(crate) binding_status: StatusCode,
    /// The status on the REST surface.
    pub(crate) rest_status: StatusCode,
    /// The v4 error code.
    pub(crate) v4_code: u32,
    /// The status on the native surface.
    pub(crate) native_status: StatusCode,
    /// What to say.
    pub(crate) text: String,
}

impl From<kvast::Error> for Failure {
    fn from(error: kvast::Error) -> Failure {
        Failure::Engine(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Engine(error) => error.fmt(f),
            Failure::Unreadable(error) => write!(f, "a value could not be read from disk: {error}"),
            Failure::Busy => f.write_str("the server is busy with other large answers"),
            Failure::Stopping => f.write_str("the server is stopping"),
        }
    }
}

impl std::error::Error for Failure {}

impl Failure {
    /// The stable word for it, in logs and on the native surface.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Failure::Engine(error) => error.code().as_str(),
            Failure::Unreadable(_) => "unreadable",
            Failure::Busy => "busy",
            Failure::Stopping => "stopping",
        }
    }

    /// What to tell the client; logs what the client is not told.
    pub(crate) fn tell(&self) -> Told {
        let word = self.code();
        let (binding, rest, native, v4_code) = match self {
            Failure::Engine(error) => statuses(error.code()),
            Failure::Unreadable(_) => (500, 500, 500, 10001),
            Failure::Busy | Failure::Stopping => (503, 503, 503, 10001),
        };
        let text = match self {
            Failure::Engine(error) if binding < 500 => error.to_string(),
            Failure::Engine(error) => {
                tracing::error!(code = word, %error, "the store failed a request");
                format!("The store failed ({word}); the server's log says where and why.")
            }
            Failure::Unreadable(error) => {
                tracing::error!(code = word, %error, "a value could not be read from disk");
                format!("The store failed ({word}); the server's log says why.")
            }
            Failure::Busy => {
                "The server is busy with other large answers; try again in a few seconds."
                    .to_owned()
            }
            Failure::Stopping => "The server is stopping; try again on its successor.".to_owned(),
        };
        Told {
            binding_status: status(binding),
            rest_status: status(rest),
            v4_code,
            native_status: status(native),
            text,
        }
    }
}

/// Status on the binding surface, on the REST surface, on the native surface; v4 code.
fn statuses(code: Code) -> (u16, u16, u16, u32) {
    match code {
        Code::InvalidKey => (400, 400, 400, 10041),
        Code::MetadataTooLarge => (413, 413, 413, 10046),
        Code::ValueTooLarge | Code::BatchTooLarge => (413, 413, 413, 10024),
        Code::InvalidExpiry => (400, 400, 400, 10033),
        Code::InvalidCursor => (400, 400, 400, 10039),
        Code::InvalidOption | Code::WrongLength => (400, 400, 400, 10029),
        Code::InvalidName => (400, 400, 400, 10019),
        Code::NamespaceNotFound => (400, 404, 404, 10013),
        Code::NamespaceExists => (400, 400, 409, 10014),
        Code::VersionMismatch => (412, 412, 412, 10029),
        Code::DiskFull => (507, 507, 507, 10001),
        Code::Poisoned | Code::ReadOnly | Code::Closed => (503, 503, 503, 10001),
        // Corrupt, Io, and whatever a later engine adds: faults of this side.
        _ => (500, 500, 500, 10001),
    }
}

fn status(number: u16) -> StatusCode {
    StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
