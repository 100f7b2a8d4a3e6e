//! The envelope of the v4 REST surface, built in one place.
//!
//! Every answer under `/client/v4` but a value has the same four members, and `success` always agrees
//! with the status: some clients decide by the one, some by the other. A handler says what is wrong;
//! which operation it went wrong in is added here. Absent on purpose: which results there are, which
//! belongs to the resources.

use std::fmt;
use std::io;

use hyper::StatusCode;
use hyper::header::HeaderName;
use serde::Serialize;

use crate::auth::Denied;
use crate::body::UploadError;
use crate::conditions::Malformed;
use crate::entries::Fault;
use crate::error::Failure;
use crate::form::FormError;
use crate::reply::{self, Reply};
use crate::rules::Broken;
use crate::spool::SpoolError;
use crate::staging::StageError;

/// What stands before the result of a success that is written piece by piece.
pub(crate) const BEFORE_RESULT: &str =
    "{\"success\":true,\"errors\":[],\"messages\":[],\"result\":";

/// Tells the official SDKs not to send a request again that fails the same way each time.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// No token, or one that is not enough.
const AUTHENTICATION: u32 = 10000;

#[derive(Serialize)]
struct Envelope<R, I> {
    success: bool,
    errors: Vec<Message>,
    messages: [Message; 0],
    result: Option<R>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_info: Option<I>,
}

#[derive(Serialize)]
struct Message {
    code: u32,
    message: String,
}

/// Where a page of results lies among all of them.
#[derive(Serialize)]
pub(crate) struct PageInfo {
    pub(crate) page: usize,
    pub(crate) per_page: usize,
    pub(crate) count: usize,
    pub(crate) total_count: usize,
}

/// What became of a request for many keys.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) successful_key_count: usize,
    pub(crate) unsuccessful_keys: Vec<String>,
}

/// A refusal or a fault on the REST surface.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: u32,
    reason: String,
    operation: Option<&'static str>,
    /// What was done all the same.
    outcome: Option<Outcome>,
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> ApiError {
        let reason = format!("Authentication error: {denied}");
        ApiError::new(denied.status(), AUTHENTICATION, reason)
    }
}

impl From<Broken> for ApiError {
    fn from(broken: Broken) -> ApiError {
        ApiError::new(broken.status(), broken.v4_code(), broken.to_string())
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> ApiError {
        let told = failure.tell();
        ApiError::new(told.rest_status, told.v4_code, told.text)
    }
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> ApiError {
        match error {
            UploadError::TooLong { .. } => {
                ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, 10024, "payload too large")
            }
            UploadError::TooSlow => ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                10029,
                "the request body came too slowly",
            ),
            UploadError::Broken => {
                ApiError::invalid("the request body ended early or is framed badly")
            }
            UploadError::Busy => ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                10001,
                "the server is busy with other uploads; try again in a few seconds",
            ),
        }
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> ApiError {
        if let Fault::Unreadable(error) = &fault {
            tracing::error!(%error, "a request body could not be read back from disk");
        }
        ApiError::new(fault.status(), fault.v4_code(), fault)
    }
}

impl From<StageError> for ApiError {
    fn from(error: StageError) -> ApiError {
        match error {
            StageError::Upload(UploadError::TooLong { len, max }) => {
                Broken::ValueTooLong { len, max }.into()
            }
            StageError::Upload(error) => error.into(),
            StageError::Engine(failure) => failure.into(),
        }
    }
}

impl From<FormError> for ApiError {
    fn from(error: FormError) -> ApiError {
        match error {
            FormError::Upload(error) => error.into(),
            FormError::Malformed => {
                ApiError::bad_value("the body is not the multipart form that its type announces")
            }
        }
    }
}

impl From<SpoolError> for ApiError {
    fn from(error: SpoolError) -> ApiError {
        match error {
            SpoolError::Upload(error) => error.into(),
            SpoolError::Stopping => Failure::Stopping.into(),
            SpoolError::Disk(error) if error.kind() == io::ErrorKind::StorageFull => ApiError::new(
                StatusCode::INSUFFICIENT_STORAGE,
                10001,
                "the disk has no room for the request body; nothing was written",
            ),
            SpoolError::Disk(error) => {
                tracing::error!(%error, "a request body could not be kept on disk");
                ApiError::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    10001,
                    "the request body could not be kept on disk; nothing was written",
                )
            }
        }
    }
}

impl From<Malformed> for ApiError {
    fn from(malformed: Malformed) -> ApiError {
        ApiError::invalid(malformed)
    }
}

/// 200 with one result.
pub(crate) fn result(result: impl Serialize) -> Reply {
    success(result, None::<()>)
}

/// 200 with a page of results.
pub(crate) fn page(results: impl Serialize, info: PageInfo) -> Reply {
    success(results, Some(info))
}

fn success(result: impl Serialize, result_info: Option<impl Serialize>) -> Reply {
    let result = Some(result);
    let envelope =
        Envelope { success: true, errors: Vec::new(), messages: [], result, result_info };
    send(StatusCode::OK, &envelope)
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: u32, reason: impl fmt::Display) -> ApiError {
        ApiError { status, code, reason: reason.to_string(), operation: None, outcome: None }
    }

    /// 400 with the code for what is not as the API has it.
    pub(crate) fn invalid(reason: impl fmt::Display) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, 10029, reason)
    }

    /// 400 with the code for a value that is not one.
    pub(crate) fn bad_value(reason: impl fmt::Display) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, 10012, reason)
    }

    pub(crate) fn no_such_key() -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, 10009, "key not found")
    }

    pub(crate) fn no_such_namespace() -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, 10013, "namespace not found")
    }

    /// Says which operation it happened in.
    pub(crate) fn during(mut self, operation: &'static str) -> ApiError {
        self.operation = Some(operation).filter(|_| self.code != AUTHENTICATION);
        self
    }

    /// Says what was done before it happened.
    pub(crate) fn after(mut self, outcome: Outcome) -> ApiError {
        let Outcome { successful_key_count: done, unsuccessful_keys: undone } = &outcome;
        let all = done + undone.len();
        self.reason = format!("{}; {done} of {all} entries were written before that", self.reason);
        self.outcome = Some(outcome);
        self
    }

    pub(crate) fn into_reply(self) -> Reply {
        let message = match self.operation {
            Some(operation) => format!("{operation}: '{}'", self.reason),
            None => self.reason,
        };
        let errors = vec![Message { code: self.code, message }];
        let (result, result_info) = (self.outcome, None::<()>);
        let envelope = Envelope { success: false, errors, messages: [], result, result_info };
        let mut reply = send(self.status, &envelope);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            reply = reply::retry_later(reply);
        } else if self.status.is_server_error() {
            reply::set(&mut reply, SHOULD_RETRY, "false");
        }
        reply
    }
}

fn send(status: StatusCode, envelope: &impl Serialize) -> Reply {
    let body = serde_json::to_vec(envelope).expect("strings, numbers and lists are JSON");
    let mut reply = reply::json(body, None);
    *reply.status_mut() = status;
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_sdk_tries_again_only_what_may_succeed_then() {
        for (status, retry, later) in [
            (StatusCode::BAD_REQUEST, None, None),
            (StatusCode::REQUEST_TIMEOUT, None, None),
            (StatusCode::INTERNAL_SERVER_ERROR, Some("false"), None),
            (StatusCode::INSUFFICIENT_STORAGE, Some("false"), None),
            (StatusCode::SERVICE_UNAVAILABLE, None, Some("5")),
        ] {
            let reply = ApiError::new(status, 10001, "it failed").during("put").into_reply();
            let header =
                |name: &HeaderName| reply.headers().get(name).and_then(|it| it.to_str().ok());
            assert_eq!(header(&SHOULD_RETRY), retry, "{status}");
            assert_eq!(header(&hyper::header::RETRY_AFTER), later, "{status}");
        }
    }
}
