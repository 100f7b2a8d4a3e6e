//! What an operator's tools ask: is it alive, is it ready, how is it doing, what does it serve.
//!
//! Health and readiness answer anybody, since what checks them has no token, and say one word.
//! Everything else needs a token where there is one. Absent on purpose: changing anything.

mod health;
mod scrape;

use hyper::StatusCode;

use crate::auth::Denied;
use crate::call::Call;
use crate::error::Failure;
use crate::openapi;
use crate::reply::{self, Reply};
use crate::route::Ops;

/// Answers a request.
pub(crate) async fn serve(call: &Call<'_>, asked: Ops) -> Reply {
    match asked {
        Ops::Health | Ops::HeadHealth => health::health(),
        Ops::Ready | Ops::HeadReady => health::ready(call),
        // They tell about all namespaces together.
        Ops::Metrics => match call.grant.covers_all_namespaces() {
            Ok(()) => scrape::metrics(call).await.unwrap_or_else(fail),
            Err(denied) => deny(denied),
        },
        Ops::OpenApi => reply::text("application/json", openapi::DOCUMENT),
    }
}

/// The answer to a request without a good enough token.
pub(crate) fn deny(denied: Denied) -> Reply {
    reply::sentence(denied.status(), denied.to_string())
}

/// The answer to a method that a resource does not have.
pub(crate) fn wrong_method(allow: &'static str) -> Reply {
    let text = format!("This path takes {allow}.");
    reply::allow(reply::sentence(StatusCode::METHOD_NOT_ALLOWED, text), allow)
}

fn fail(failure: Failure) -> Reply {
    let told = failure.tell();
    reply::sentence(told.rest_status, told.text)
}
