//! Namespaces: create, list, get, rename, delete.

use hyper::StatusCode;
use kvast::{Namespace, NamespaceId};
use serde::Serialize;
use serde_json::Value as Json;

use crate::app::App;
use crate::body::{Inbound, UploadError};
use crate::call::Call;
use crate::envelope::{self, ApiError, PageInfo};
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
    if by_id {
        namespaces.sort_by_key(|namespace| namespace.id().to_string());
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
    let operation = "create namespace";
    let title = read_title(call.app, operation, body).await?;
    let created = call.app.bridge.create_namespace(title).await;
    let created = created.map_err(|failure| ApiError::from_engine(operation, &failure))?;
    Ok(envelope::result(Shown::from(&created)))
}

/// `GET ../namespaces/{id}`
pub(super) fn get(call: &Call<'_>) -> Result<Reply, ApiError> {
    let operation = "get namespace";
    let namespace = call.app.bridge.namespace_by_id(parse_id(operation, call.asked.namespace)?);
    let namespace = namespace.ok_or_else(|| not_found(operation))?;
    Ok(envelope::result(Shown::from(&namespace)))
}

/// `PUT ../namespaces/{id}`
pub(super) async fn rename(call: &Call<'_>, body: &mut Inbound<'_>) -> Result<Reply, ApiError> {
    let operation = "rename namespace";
    let id = parse_id(operation, call.asked.namespace)?;
    let title = read_title(call.app, operation, body).await?;
    let renamed = call.app.bridge.rename_namespace(id, title).await;
    let renamed = renamed.map_err(|failure| ApiError::from_engine(operation, &failure))?;
    Ok(envelope::result(Shown::from(&renamed)))
}

/// `DELETE ../namespaces/{id}`
pub(super) async fn delete(call: &Call<'_>) -> Result<Reply, ApiError> {
    let operation = "remove namespace";
    let deleted =
        call.app.bridge.delete_namespace(parse_id(operation, call.asked.namespace)?).await;
    deleted.map_err(|failure| ApiError::from_engine(operation, &failure))?;
    Ok(envelope::result(Json::Null))
}

/// An id that cannot be one is as unknown as any other.
fn parse_id(operation: &str, id: &str) -> Result<NamespaceId, ApiError> {
    id.parse().map_err(|_| not_found(operation))
}

fn not_found(operation: &str) -> ApiError {
    let message = format!("{operation}: 'namespace not found'");
    ApiError::new(StatusCode::NOT_FOUND, 10013, message)
}

/// The `title` of a JSON object; members that nobody asked for are ignored.
async fn read_title(
    app: &App,
    operation: &str,
    body: &mut Inbound<'_>,
) -> Result<String, ApiError> {
    let bad = |code, reason: &str| {
        ApiError::new(StatusCode::BAD_REQUEST, code, format!("{operation}: '{reason}'"))
    };
    let read = body.collect(app.limits.json_bytes).await.map_err(|error| match error {
        UploadError::TooLong { .. } => ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            10024,
            format!("{operation}: 'payload too large'"),
        ),
        UploadError::TooSlow | UploadError::Broken => bad(10029, "the request body is not whole"),
        UploadError::Busy => ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            10001,
            format!("{operation}: 'the server is busy with other uploads'"),
        ),
    })?;
    let json: Json =
        serde_json::from_slice(&read.bytes).map_err(|_| bad(10029, "the body is not JSON"))?;
    if !json.is_object() {
        return Err(bad(10029, "the body is not a JSON object"));
    }
    match json.get("title").and_then(Json::as_str) {
        None | Some("") => Err(bad(10019, "missing title")),
        Some(title) if title.chars().count() > TITLE_CHARS_MAX => {
            Err(bad(10019, "the title is longer than 512 characters"))
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
    let message = format!("list namespaces: 'malformed {name} argument'");
    ApiError::new(StatusCode::BAD_REQUEST, code, message)
}
