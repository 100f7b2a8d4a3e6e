//! The native surface, `/v1`: for those who are not bound to another API's shapes.
//!
//! Errors are problem details (RFC 9457) with the engine's stable codes and the request's id.

use hyper::StatusCode;

use crate::auth::Denied;
use crate::body::Inbound;
use crate::call::Call;
use crate::reply::{self, Reply};
use crate::route::Native;

/// Answers a request.
pub(crate) async fn serve(call: &Call<'_>, asked: Native, _body: &mut Inbound<'_>) -> Reply {
    problem(StatusCode::NOT_IMPLEMENTED, "not_implemented", &format!("{asked:?} {}", call.id))
}

/// The answer to a request without a good enough token.
pub(crate) fn deny(denied: Denied) -> Reply {
    problem(denied.status(), "unauthorized", &denied.to_string())
}

/// The answer to a method that a resource does not have.
pub(crate) fn wrong_method(allow: &'static str) -> Reply {
    let text = format!("This resource takes {allow}.");
    reply::allow(problem(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", &text), allow)
}

/// The answer to a path that is none.
pub(crate) fn unknown() -> Reply {
    problem(StatusCode::NOT_FOUND, "no_such_resource", "There is no such resource.")
}

fn problem(status: StatusCode, code: &str, detail: &str) -> Reply {
    let body = serde_json::json!({ "status": status.as_u16(), "code": code, "detail": detail });
    let mut reply = reply::json(body.to_string().into_bytes(), None);
    *reply.status_mut() = status;
    reply
}
