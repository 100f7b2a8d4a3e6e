//! A page of keys, as both surfaces of Workers KV ask for it and show it.
//!
//! They differ in the name of the limit, in how metadata stands in JSON, and in what stands around
//! the keys. Absent on purpose: the native surface, whose lists are richer, and the cursor's
//! content, which is the engine's.

use kvast::{ListOptions, Listed, Page};

use crate::json;
use crate::rules::{self, Broken};
use crate::uri::query_value;

/// How metadata, which is JSON, is shown.
#[derive(Clone, Copy)]
pub(crate) enum Metadata {
    /// As what it is.
    Json,
    /// As a string that contains JSON.
    JsonInText,
}

/// What a query asks for: prefix, cursor, and a limit of this name, at most `limit_max`.
pub(crate) fn options(
    query: Option<&str>,
    limit_name: &'static str,
    limit_max: usize,
) -> Result<ListOptions, Broken> {
    // Present and empty means absent.
    let given = |name| query_value(query, name).filter(|value| !value.is_empty());
    let limit = query_value(query, limit_name);
    let limit = rules::page_limit(limit_name, limit.as_deref(), limit_max)?;
    let mut options = ListOptions::new().limit(limit);
    if let Some(prefix) = given("prefix") {
        rules::check_key_length(&prefix)?;
        options = options.prefix(prefix.into_owned());
    }
    if let Some(cursor) = given("cursor") {
        options = options.cursor(cursor.into_owned());
    }
    Ok(options)
}

/// Appends the keys of a page as an array.
pub(crate) fn push_keys(out: &mut Vec<u8>, page: &Page, metadata: Metadata) {
    out.reserve(64 + 48 * page.len());
    out.push(b'[');
    for (at, listed) in page.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        push_listed(out, &listed, metadata);
    }
    out.push(b']');
}

fn push_listed(out: &mut Vec<u8>, listed: &Listed<'_>, metadata: Metadata) {
    out.extend_from_slice(b"{\"name\":");
    json::push_text(out, listed.key);
    if let Some(ms) = listed.expires_at {
        out.extend_from_slice(b",\"expiration\":");
        json::push(out, &(ms / 1000));
    }
    if let Some(json) = json::metadata(listed.metadata) {
        out.extend_from_slice(b",\"metadata\":");
        match metadata {
            Metadata::Json => out.extend_from_slice(json.as_bytes()),
            Metadata::JsonInText => json::push_text(out, json.as_bytes()),
        }
    }
    out.push(b'}');
}
