//! Listing keys.
//!
//! A page holds names, expirations and metadata. Metadata is shown as a *string that contains
//! JSON*, because the runtime parses whatever string it finds there. The cursor is the engine's
//! and opaque to this file too.

use kvast::{Namespace, Page};

use crate::call::Call;
use crate::json;
use crate::listing::{self, Metadata};
use crate::reply::{self, Reply};
use crate::rules::Refusal;

/// `GET /`
pub(super) async fn list(call: &Call<'_>, namespace: &Namespace) -> Result<Reply, Refusal> {
    let options = listing::options(call.query(), "key_count_limit", call.app.limits.keys_per_page)?;
    let page = call.app.bridge.list(namespace, &options).await?;
    Ok(reply::json(render(&page), None))
}

fn render(page: &Page) -> Vec<u8> {
    let mut out = b"{\"keys\":".to_vec();
    listing::push_keys(&mut out, page, Metadata::JsonInText);
    out.extend_from_slice(b",\"list_complete\":");
    json::push(&mut out, &page.is_complete());
    if let Some(cursor) = page.cursor() {
        out.extend_from_slice(b",\"cursor\":");
        json::push(&mut out, cursor);
    }
    out.push(b'}');
    out
}
