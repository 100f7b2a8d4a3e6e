//! Listing keys.
//!
//! A page holds names, expirations and metadata, which is JSON in JSON here. It is never empty before
//! the end, since both official SDKs stop at the first empty page. The cursor is the engine's and
//! opaque to this file too; it is empty at the end.

use kvast::{Namespace, Page};

use crate::call::Call;
use crate::envelope::{self, ApiError};
use crate::json;
use crate::listing::{self, Metadata};
use crate::reply::{self, Reply};

/// `GET ../keys`
pub(super) async fn list(call: &Call<'_>, namespace: &Namespace) -> Result<Reply, ApiError> {
    let options = listing::options(call.query(), "limit", call.app.limits.keys_per_page)?;
    let page = call.app.bridge.list(namespace, &options).await?;
    Ok(reply::json(render(&page), None))
}

fn render(page: &Page) -> Vec<u8> {
    let mut out = envelope::BEFORE_RESULT.as_bytes().to_vec();
    listing::push_keys(&mut out, page, Metadata::Json);
    out.extend_from_slice(b",\"result_info\":{\"count\":");
    json::push(&mut out, &page.len());
    out.extend_from_slice(b",\"cursor\":");
    json::push(&mut out, page.cursor().unwrap_or(""));
    out.extend_from_slice(b"}}");
    out
}
