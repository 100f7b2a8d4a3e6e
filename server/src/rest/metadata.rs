//! The metadata of one key.

use kvast::Namespace;

use crate::call::Call;
use crate::envelope::{self, ApiError};
use crate::json;
use crate::reply::{self, Reply};

/// `GET ../metadata/{key}`: what was put, as JSON in JSON; `null` if there was none.
pub(super) async fn get(call: &Call<'_>, namespace: &Namespace) -> Result<Reply, ApiError> {
    let found = call.app.bridge.find(namespace, &super::key(call)?).await?;
    let found = found.ok_or_else(ApiError::no_such_key)?;
    let metadata = json::metadata(found.metadata());
    let parts = [envelope::BEFORE_RESULT, metadata.as_deref().unwrap_or("null"), "}"];
    Ok(reply::json(parts.concat().into_bytes(), None))
}
