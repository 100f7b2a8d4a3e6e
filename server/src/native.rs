//! The native surface, `/v1`: for those who are not bound to another API's shapes.
//!
//! Plain HTTP: a value is a resource with an entity tag, preconditions make its writes atomic,
//! answers that are not values are JSON, and errors are [problems](crate::problem). What a request
//! says and nobody reads is refused. Absent on purpose: rules about lengths, which are the engine's,
//! and a second way to do anything.

mod batch;
mod expiry;
mod input;
mod keys;
mod namespaces;
mod values;

use hyper::StatusCode;
use kvast::Namespace;

use crate::auth::Denied;
use crate::body::Inbound;
use crate::call::Call;
use crate::problem::{Problem, Trouble};
use crate::reply::{self, Reply};
use crate::route::Native;
use crate::trace::RequestId;
use crate::uri::decode_segment;

/// Answers a request.
pub(crate) async fn serve(call: &Call<'_>, asked: Native, body: &mut Inbound<'_>) -> Reply {
    answer(call, asked, body).await.unwrap_or_else(|problem| problem.into_reply(call.id))
}

/// The answer to a request without a good enough token.
pub(crate) fn deny(denied: Denied, id: &RequestId) -> Reply {
    Problem::from(denied).into_reply(id)
}

/// The answer to a method that a resource does not have.
pub(crate) fn wrong_method(allow: &'static str, id: &RequestId) -> Reply {
    let problem = Problem::new(Trouble::WrongMethod, format!("This resource takes {allow}."));
    reply::allow(problem.into_reply(id), allow)
}

/// The answer to a path that is none.
pub(crate) fn unknown(id: &RequestId) -> Reply {
    let detail = "There is no such resource; /openapi.json lists those that there are.";
    Problem::new(Trouble::NoSuchResource, detail).into_reply(id)
}

async fn answer(call: &Call<'_>, asked: Native, body: &mut Inbound<'_>) -> Result<Reply, Problem> {
    match asked {
        Native::ListNamespaces => namespaces::list(call),
        Native::CreateNamespace => namespaces::create(call, body).await,
        Native::GetNamespace => namespaces::get(call, &namespace(call)?),
        Native::ChangeNamespace => namespaces::change(call, namespace(call)?, body).await,
        Native::DeleteNamespace => namespaces::delete(call, &namespace(call)?).await,
        Native::ListKeys => keys::list(call, &namespace(call)?).await,
        Native::GetValue => values::get(call, &namespace(call)?).await,
        Native::HeadValue => values::get_head(call, &namespace(call)?).await,
        Native::PutValue => values::put(call, &namespace(call)?, body).await,
        Native::ChangeExpiry => values::change_expiry(call, &namespace(call)?, body).await,
        Native::DeleteValue => values::delete(call, &namespace(call)?).await,
        Native::Batch => batch::commit(call, &namespace(call)?, body).await,
    }
}

/// The namespace that the path names, by id or by name.
fn namespace(call: &Call<'_>) -> Result<Namespace, Problem> {
    let named = decode_segment(call.asked.namespace);
    let found = named.as_deref().and_then(|named| call.app.bridge.find_namespace(named));
    let Some(found) = found else {
        // Who may ask about some namespaces only does not learn which others there are.
        call.grant.covers_all_namespaces()?;
        let detail = format!(
            "There is no namespace {:?}; the path takes the id or the name of one.",
            named.as_deref().unwrap_or(call.asked.namespace)
        );
        return Err(Problem::new(Trouble::NamespaceNotFound, detail));
    };
    call.grant.covers_namespace(&found)?;
    Ok(found)
}

/// 200, 201 and the like with JSON.
fn json(status: StatusCode, body: &serde_json::Value) -> Reply {
    let mut reply = reply::json(body.to_string().into_bytes(), None);
    *reply.status_mut() = status;
    reply
}

/// An answer without a body.
fn empty(status: StatusCode) -> Reply {
    let mut reply = reply::done();
    *reply.status_mut() = status;
    reply
}
