//! The REST surface: the v4 API as command line tools and SDKs speak it.
//!
//! Every answer is an envelope, whatever was asked. So far the surface serves namespaces, so that
//! one can be made; what it does not serve says so and names the way that works. Absent on
//! purpose: anything that a single-tenant server has no use for, such as checking the account.

mod namespaces;

use hyper::{Method, StatusCode};

use crate::auth::Denied;
use crate::body::Inbound;
use crate::call::Call;
use crate::envelope::ApiError;
use crate::reply::{self, Reply};
use crate::route::Rest;

/// Answers a request.
pub(crate) async fn serve(call: &Call<'_>, asked: Rest, body: &mut Inbound<'_>) -> Reply {
    answer(call, asked, body).await.unwrap_or_else(ApiError::into_reply)
}

/// The answer to a request without a good enough token.
pub(crate) fn deny(denied: Denied) -> Reply {
    ApiError::from(denied).into_reply()
}

/// The answer to a method that a resource does not have.
pub(crate) fn wrong_method(method: &Method, allow: &'static str) -> Reply {
    let message = format!("Method {method} not available for that URI; it takes {allow}.");
    let refused = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, 7001, message);
    reply::allow(refused.into_reply(), allow)
}

/// The answer to a path that is none.
pub(crate) fn unknown(path: &str) -> Reply {
    let message = format!(
        "Could not route to {path}: this server has \
         /client/v4/accounts/{{account}}/storage/kv/namespaces, with any account."
    );
    ApiError::new(StatusCode::NOT_FOUND, 7003, message).into_reply()
}

async fn answer(call: &Call<'_>, asked: Rest, body: &mut Inbound<'_>) -> Result<Reply, ApiError> {
    match asked {
        Rest::ListNamespaces => namespaces::list(call),
        Rest::CreateNamespace => namespaces::create(call, body).await,
        Rest::GetNamespace => namespaces::get(call),
        Rest::RenameNamespace => namespaces::rename(call, body).await,
        Rest::DeleteNamespace => namespaces::delete(call).await,
        _ => Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, 7003, "not yet")),
    }
}
