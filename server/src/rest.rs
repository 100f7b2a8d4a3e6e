//! The REST surface: the v4 API as command line tools and SDKs speak it.
//!
//! Every answer is an envelope, whatever was asked. So far the surface serves namespaces, so that
//! one can be made; what it does not serve says so and names the way that works. Absent on
//! purpose: anything that a single-tenant server has no use for, such as checking the account.

mod namespaces;

use hyper::StatusCode;
use hyper::http::request::Parts;

use crate::app::App;
use crate::auth::Denied;
use crate::body::Inbound;
use crate::envelope::ApiError;
use crate::reply::{self, Reply};
use crate::route::Rest;

/// Answers a request.
pub(crate) async fn serve(
    app: &App,
    asked: Rest<'_>,
    parts: &Parts,
    body: &mut Inbound<'_>,
) -> Reply {
    let allowed = match asked {
        Rest::WrongMethod { allow } => Some(allow),
        _ => None,
    };
    let reply = answer(app, asked, parts, body).await.unwrap_or_else(ApiError::into_reply);
    match allowed {
        Some(methods) => reply::allow(reply, methods),
        None => reply,
    }
}

/// The answer to a request without a good token.
pub(crate) fn deny(status: StatusCode, denied: Denied) -> Reply {
    ApiError::new(status, 10000, format!("Authentication error: {denied}")).into_reply()
}

async fn answer(
    app: &App,
    asked: Rest<'_>,
    parts: &Parts,
    body: &mut Inbound<'_>,
) -> Result<Reply, ApiError> {
    match asked {
        Rest::ListNamespaces => namespaces::list(app, parts.uri.query()),
        Rest::CreateNamespace => namespaces::create(app, body).await,
        Rest::GetNamespace(id) => namespaces::get(app, id),
        Rest::RenameNamespace(id) => namespaces::rename(app, id, body).await,
        Rest::DeleteNamespace(id) => namespaces::delete(app, id).await,
        Rest::WrongMethod { allow } => Err(ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            7001,
            format!("Method {} not available for that URI; it takes {allow}.", parts.method),
        )),
        Rest::NotServedYet => Err(no_route(
            parts,
            "this version serves keys and values on the binding surface only: GET, PUT and DELETE \
             /{key}?urlencoded=true with the header X-KV-Namespace: {namespace id or title}",
        )),
        Rest::Unknown => Err(no_route(
            parts,
            "this server has /client/v4/accounts/{account}/storage/kv/namespaces, with any account",
        )),
    }
}

fn no_route(parts: &Parts, hint: &str) -> ApiError {
    let message = format!("Could not route to {}: {hint}.", parts.uri.path());
    ApiError::new(StatusCode::NOT_FOUND, 7003, message)
}
