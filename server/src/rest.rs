//! The REST surface: the v4 API as command line tools and SDKs speak it.
//!
//! Every answer but a value is an envelope, whatever was asked. A namespace is named by its id or,
//! failing that, by its title. Absent on purpose: anything that a single-tenant server has no use for,
//! such as checking the account.

mod bulk;
mod keys;
mod metadata;
mod namespaces;
mod values;

use hyper::{Method, StatusCode};
use kvast::Namespace;

use crate::auth::Denied;
use crate::body::Inbound;
use crate::call::Call;
use crate::envelope::ApiError;
use crate::reply::{self, Reply};
use crate::route::Rest;
use crate::rules::{self, Broken};
use crate::uri::decode_segment;

/// Answers a request.
pub(crate) async fn serve(call: &Call<'_>, asked: Rest, body: &mut Inbound<'_>) -> Reply {
    let answered = answer(call, asked, body).await;
    answered.unwrap_or_else(|error| error.during(operation(asked)).into_reply())
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
        Rest::GetNamespace => namespaces::get(&namespace(call)?),
        Rest::RenameNamespace => namespaces::rename(call, namespace(call)?, body).await,
        Rest::DeleteNamespace => namespaces::delete(call, namespace(call)?).await,
        Rest::ListKeys => keys::list(call, &namespace(call)?).await,
        Rest::GetValue => values::get(call, &namespace(call)?).await,
        Rest::HeadValue => values::get_head(call, &namespace(call)?).await,
        Rest::PutValue => values::put(call, namespace(call)?, body).await,
        Rest::DeleteValue => values::delete(call, namespace(call)?).await,
        Rest::GetMetadata => metadata::get(call, &namespace(call)?).await,
        Rest::BulkPut => bulk::put(call, namespace(call)?, body).await,
        Rest::BulkGet => bulk::get(call, &namespace(call)?, body).await,
        Rest::BulkDelete | Rest::BulkDeleteByDelete => {
            bulk::delete(call, namespace(call)?, body).await
        }
    }
}

/// What messages call an operation.
fn operation(asked: Rest) -> &'static str {
    match asked {
        Rest::ListNamespaces => "list namespaces",
        Rest::CreateNamespace => "create namespace",
        Rest::GetNamespace => "get namespace",
        Rest::RenameNamespace => "rename namespace",
        Rest::DeleteNamespace => "remove namespace",
        Rest::ListKeys => "list keys",
        Rest::GetValue | Rest::HeadValue => "get",
        Rest::PutValue => "put",
        Rest::DeleteValue => "remove key",
        Rest::GetMetadata => "get metadata",
        Rest::BulkPut => "bulk put",
        Rest::BulkGet => "bulk get keys",
        Rest::BulkDelete | Rest::BulkDeleteByDelete => "bulk remove keys",
    }
}

/// The namespace of a request. Any name that is none is as unknown as any other.
fn namespace(call: &Call<'_>) -> Result<Namespace, ApiError> {
    let named = decode_segment(call.asked.namespace);
    let found = named.and_then(|named| call.app.bridge.find_namespace(&named));
    let Some(found) = found else {
        // Who may ask about some namespaces only does not learn which others there are.
        call.grant.covers_all_namespaces()?;
        return Err(ApiError::no_such_namespace());
    };
    call.grant.covers_namespace(&found)?;
    Ok(found)
}

/// The key of a request.
fn key(call: &Call<'_>) -> Result<String, Broken> {
    let key = decode_segment(call.asked.key).ok_or(Broken::KeyUndecodable)?;
    rules::check_key(&key)?;
    Ok(key.into_owned())
}
