//! The envelope of the v4 REST surface, built in one place.
//!
//! Every answer under `/client/v4` has the same four members, and `success` always agrees with the
//! status: some clients decide by the one, some by the other. Absent on purpose: the statuses and
//! codes themselves, which belong to the resource that refuses.

use hyper::StatusCode;
use hyper::header::HeaderName;
use serde::Serialize;

use crate::auth::Denied;
use crate::error::Failure;
use crate::reply::{self, Reply};

/// Tells the official SDKs not to send a request again that fails the same way each time.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

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

/// A refusal or a fault on the REST surface.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: u32,
    pub(crate) message: String,
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> ApiError {
        ApiError::new(denied.status(), 10000, format!("Authentication error: {denied}"))
    }
}

/// 200 with one result.
pub(crate) fn result(result: impl Serialize) -> Reply {
    send(
        StatusCode::OK,
        &Envelope {
            success: true,
            errors: Vec::new(),
            messages: [],
            result: Some(result),
            result_info: None::<()>,
        },
    )
}

/// 200 with a page of results.
pub(crate) fn page(results: impl Serialize, info: PageInfo) -> Reply {
    send(
        StatusCode::OK,
        &Envelope {
            success: true,
            errors: Vec::new(),
            messages: [],
            result: Some(results),
            result_info: Some(info),
        },
    )
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: u32, message: impl Into<String>) -> ApiError {
        ApiError { status, code, message: message.into() }
    }

    /// A failure of the engine during the named operation.
    pub(crate) fn from_engine(operation: &str, failure: &Failure) -> ApiError {
        let told = failure.tell();
        ApiError::new(told.rest_status, told.v4_code, format!("{operation}: '{}'", told.text))
    }

    pub(crate) fn into_reply(self) -> Reply {
        let errors = vec![Message { code: self.code, message: self.message }];
        let mut reply = send(
            self.status,
            &Envelope {
                success: false,
                errors,
                messages: [],
                result: None::<()>,
                result_info: None::<()>,
            },
        );
        if self.status.is_server_error() && self.status != StatusCode::SERVICE_UNAVAILABLE {
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
