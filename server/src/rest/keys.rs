//! Listing keys.
//!
//! A page holds names, expirations and metadata, which is JSON in JSON here. It is never empty before
//! the end, since both official SDKs stop at the first empty page. The cursor is the engine's and
//! opaque to this file too; it is empty at the end.

use kvast::{ListOptions, Listed, Namespace, Page};

use crate::call::Call;
use crate::envelope::{self, ApiError};
use crate::json;
use crate::reply::{self, Reply};
use crate::rules;
use crate::uri::query_value;

/// `GET ../keys`
pub(super) async fn list(call: &Call<'_>, namespace: &Namespace) -> Result<Reply, ApiError> {
    let query = call.query();
    let limit = rules::page_limit(
        "limit",
        query_value(query, "limit").as_deref(),
        call.app.limits.keys_per_page,
    )?;
    let mut options = ListOptions::new().limit(limit);
    // Present and empty means absent.
    if let Some(prefix) = query_value(query, "prefix").filter(|prefix| !prefix.is_empty()) {
        rules::check_key_length(&prefix)?;
        options = options.prefix(prefix.into_owned());
    }
    if let Some(cursor) = query_value(query, "cursor").filter(|cursor| !cursor.is_empty()) {
        options = options.cursor(cursor.into_owned());
    }
    let page = call.app.bridge.list(namespace, &options).await?;
    Ok(reply::json(render(&page), None))
}

fn render(page: &Page) -> Vec<u8> {
    let mut out = Vec::with_capacity(192 + 48 * page.len());
    out.extend_from_slice(envelope::BEFORE_RESULT.as_bytes());
    out.push(b'[');
    for (at, listed) in page.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        push_listed(&mut out, &listed);
    }
    out.extend_from_slice(b"],\"result_info\":{\"count\":");
    json::push(&mut out, &page.len());
    out.extend_from_slice(b",\"cursor\":");
    json::push(&mut out, page.cursor().unwrap_or(""));
    out.extend_from_slice(b"}}");
    out
}

fn push_listed(out: &mut Vec<u8>, listed: &Listed<'_>) {
    out.extend_from_slice(b"{\"name\":");
    json::push(out, &*String::from_utf8_lossy(listed.key));
    if let Some(ms) = listed.expires_at {
        out.extend_from_slice(b",\"expiration\":");
        json::push(out, &(ms / 1000));
    }
    if let Some(metadata) = json::metadata(listed.metadata) {
        out.extend_from_slice(b",\"metadata\":");
        out.extend_from_slice(metadata.as_bytes());
    }
    out.push(b'}');
}
