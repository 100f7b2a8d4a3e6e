//! Namespaces: create, list, get, rename, delete.
//!
//! A token for some namespaces sees those, and makes no others.

use hyper::StatusCode;
use kvast::Namespace;
use serde::Serialize;
use serde_json::Value as Json;

use crate::app::App;
use crate::body::Inbound;
use crate::call::Call;
use crate::envelope::{self, ApiError, PageInfo};
use crate::json::Plain;
use crate::limits::TITLE_CHARS_MAX;
use crate::reply::Reply;
use crate::uri::query_value;

const PER_PAGE_DEFAULT: usize = 20;
const PER_PAGE_MAX: usize = 1000;

/// A namespace as the API shows it.
#[derive(Serialize)]
struct Shown {
    id: String,
    title: String,
    supports_url_encoding: bool,
}

impl From<&Namespace> for Shown {
    fn from(namespace: &Namespace) -> Shown {
        Shown {
            id: namespace.id().to_string(),
            title: namespace.name(),
            supports_url_encoding: true,
        }
    }
}

/// `GET ../namespaces`: a page past the end is empty and no error, since SDKs always ask for it.
pub(super) fn list(call: &Call<'_>) -> Result<Reply, ApiError> {
    let query = call.query();
    let page = count(query, "page", 1, usize::MAX, 10007)?;
    let per_page = count(query, "per_page", PER_PAGE_DEFAULT, PER_PAGE_MAX, 10008)?;
    let by_id = choice(query, "order", ["title", "id"])?;
    let descending = choice(query, "direction", ["asc", "desc"])?;

    // Ordered by title already.
    let mut namespaces = call.app.bridge.namespaces();
    namespaces.retain(|namespace| call.grant.covers_namespace(namespace).is_ok());
    if by_id {
        namespaces.sort_by_cached_key(|namespace| namespace.id().to_string());
    }
    if descending {
        namespaces.reverse();
    }
    let skipped = (page - 1).saturating_mul(per_page);
    let shown: Vec<Shown> =
        namespaces.iter().skip(skipped).take(per_page).map(Shown::from).collect();
    let info = PageInfo { page, per_page, count: shown.len(), total_count: namespaces.len() };
    Ok(envelope::page(shown, info))
}

/// `POST ../namespaces`
pub(super) async fn create(call: &Call<'_>, body: &mut Inbound<'_>) -> Result<Reply, ApiError> {
    call.grant.covers_all_namespaces()?;
    let title = read_title(call.app, body).await?;
    let created = call.app.bridge.create_namespace(title).await?;
    Ok(envelope::result(Shown::from(&created)))
}

/// `GET ../namespaces/{id}`
pub(super) fn get(namespace: &Namespace) -> Result<Reply, ApiError> {
    Ok(envelope::result(Shown::from(namespace)))
}

/// `PUT ../namespaces/{id}`
pub(super) async fn rename(
    call: &Call<'_>,
    namespace: Namespace,
    body: &mut Inbound<'_>,
) -> Result<Reply, ApiError> {
    call.grant.covers_all_namespaces()?;
    let title = read_title(call.app, body).await?;
    let renamed = call.app.bridge.rename_namespace(namespace.id(), title).await?;
    Ok(envelope::result(Shown::from(&renamed)))
}

/// `DELETE ../namespaces/{id}`
pub(super) async fn delete(call: &Call<'_>, namespace: Namespace) -> Result<Reply, ApiError> {
    call.grant.covers_all_namespaces()?;
    call.app.bridge.delete_namespace(namespace.id()).await?;
    Ok(envelope::result(Json::Null))
}

/// The `title` of a JSON object; members that nobody asked for are ignored.
async fn read_title(app: &App, body: &mut Inbound<'_>) -> Result<String, ApiError> {
    let bad_title = |reason| ApiError::new(StatusCode::BAD_REQUEST, 10019, reason);
    let read = body.collect(app.limits.json_bytes).await?;
    let Plain(json) = serde_json::from_slice(&read.bytes)
        .map_err(|_| ApiError::invalid("the body is not JSON"))?;
    if !json.is_object() {
        return Err(ApiError::invalid("the body is not a JSON object"));
    }
    match json.get("title").and_then(Json::as_str) {
        None | Some("") => Err(bad_title("missing title")),
        Some(title) if title.chars().count() > TITLE_CHARS_MAX => {
            Err(bad_title("the title is longer than 512 characters"))
        }
        Some(title) => Ok(title.to_owned()),
    }
}

/// A number of at least one from the query.
fn count(
    query: Option<&str>,
    name: &str,
    default: usize,
    max: usize,
    code: u32,
) -> Result<usize, ApiError> {
    let Some(text) = query_value(query, name) else { return Ok(default) };
    match text.parse::<usize>() {
        Ok(count) if (1..=max).contains(&count) => Ok(count),
        _ => Err(malformed(name, code)),
    }
}

/// One of two words from the query, the first by default: whether it is the second.
fn choice(query: Option<&str>, name: &str, words: [&str; 2]) -> Result<bool, ApiError> {
    let Some(text) = query_value(query, name) else { return Ok(false) };
    match words.iter().position(|word| *word == text) {
        Some(at) => Ok(at == 1),
        None => Err(malformed(name, 10029)),
    }
}

fn malformed(name: &str, code: u32) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, code, format!("malformed {name} argument"))
}
