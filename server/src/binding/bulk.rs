//! Many keys in one request: bulk get, and the `bulk/delete` extension.
//!
//! A JSON value is checked and then embedded as it was stored, letter for letter. The total is
//! checked before any value is read. `bulk/delete` is this project's own: the runtime's
//! `deleteBulk` is no HTTP request, and a shim turns it into this one.

use std::collections::HashSet;

use hyper::StatusCode;
use kvast::{Namespace, ValueStream};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::app::App;
use crate::body::Inbound;
use crate::bridge::Whole;
use crate::call::Call;
use crate::commit::Write;
use crate::json;
use crate::limits::{BULK_KEYS_MAX, VALUE_BYTES_MAX};
use crate::reply::{self, Reply};
use crate::rules::{self, Refusal};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GetRequest {
    keys: Vec<String>,
    #[serde(default, rename = "type")]
    kind: Option<Json>,
    #[serde(default)]
    with_metadata: Option<bool>,
    #[serde(default)]
    cache_ttl: Option<Json>,
}

#[derive(Deserialize)]
struct DeleteRequest {
    keys: Vec<String>,
}

/// How values are shown.
#[derive(Clone, Copy)]
struct Shape {
    as_json: bool,
    with_metadata: bool,
}

/// `POST /bulk/get`
pub(super) async fn get(
    call: &Call<'_>,
    namespace: &Namespace,
    body: &mut Inbound<'_>,
) -> Result<Reply, Refusal> {
    let request: GetRequest = read_json(call.app, body).await?;
    let shape = check_get(&request)?;
    let keys = distinct(request.keys);
    let values = call.app.bridge.find_many(namespace, &keys).await?;
    if values.iter().flatten().map(ValueStream::len).sum::<u64>() > VALUE_BYTES_MAX {
        return Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "Total size of request exceeds the limit of 25MB",
        ));
    }
    let make = move |values: Vec<Option<Whole>>| render(&keys, &values, shape);
    let (rendered, room) = call.app.bridge.read_many(values, make).await?;
    Ok(reply::json(rendered?, room))
}

/// `POST /bulk/delete`
pub(super) async fn delete(
    call: &Call<'_>,
    namespace: Namespace,
    body: &mut Inbound<'_>,
) -> Result<Reply, Refusal> {
    let DeleteRequest { keys } = read_json(call.app, body).await?;
    if keys.len() > BULK_KEYS_MAX {
        return Err(Refusal::bad(format!(
            "You can delete maximum of {BULK_KEYS_MAX} keys per request"
        )));
    }
    keys.iter().try_for_each(|key| rules::check_key(key))?;
    if !keys.is_empty() {
        call.app.bridge.write(Write::Delete { namespace, keys }).await?;
    }
    Ok(reply::done())
}

async fn read_json<T: DeserializeOwned>(app: &App, body: &mut Inbound<'_>) -> Result<T, Refusal> {
    let max = app.limits.json_bytes;
    let too_long = |len| {
        let text = format!("Request length of {len} exceeds limit of {max}.");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    };
    let read = body.collect(max).await.map_err(|error| error.into_refusal(too_long))?;
    serde_json::from_slice(&read.bytes).map_err(|error| {
        Refusal::bad(format!("The request must be JSON with an array of strings in keys: {error}"))
    })
}

/// Checks in the order of the API: type, number of keys, then each key and the cache lifetime.
fn check_get(request: &GetRequest) -> Result<Shape, Refusal> {
    let as_json = match request.kind.as_ref().map(text_of).as_deref() {
        None | Some("" | "text") => false,
        Some("json") => true,
        Some(kind) => {
            return Err(Refusal::bad(format!(
                "\"{kind}\" is not a valid type. Use \"json\" or \"text\""
            )));
        }
    };
    if request.keys.len() > BULK_KEYS_MAX {
        return Err(Refusal::bad(format!("You can request a maximum of {BULK_KEYS_MAX} keys")));
    }
    if request.keys.is_empty() {
        return Err(Refusal::bad("You must request a minimum of 1 key"));
    }
    let cache_ttl = request.cache_ttl.as_ref().map(text_of);
    for key in &request.keys {
        rules::check_key(key)?;
        cache_ttl.as_deref().map_or(Ok(()), rules::check_cache_ttl)?;
    }
    Ok(Shape { as_json, with_metadata: request.with_metadata == Some(true) })
}

/// A string as it is, anything else as its JSON: the runtime sends numbers as strings.
fn text_of(json: &Json) -> String {
    json.as_str().map_or_else(|| json.to_string(), str::to_owned)
}

fn distinct(mut keys: Vec<String>) -> Vec<String> {
    let mut seen = HashSet::with_capacity(keys.len());
    keys.retain(|key| seen.insert(key.clone()));
    keys
}

fn render(keys: &[String], values: &[Option<Whole>], shape: Shape) -> Result<Vec<u8>, Refusal> {
    let bytes: usize = values.iter().flatten().map(|value| value.bytes.len()).sum();
    let mut out = Vec::with_capacity(2 + bytes + 64 * keys.len());
    out.push(b'{');
    for (at, (key, value)) in keys.iter().zip(values).enumerate() {
        if at > 0 {
            out.push(b',');
        }
        json::push(&mut out, key);
        out.push(b':');
        match value {
            Some(value) => push_found(&mut out, value, shape)?,
            None => out.extend_from_slice(b"null"),
        }
    }
    out.push(b'}');
    Ok(out)
}

fn push_found(out: &mut Vec<u8>, value: &Whole, shape: Shape) -> Result<(), Refusal> {
    if !shape.with_metadata {
        return push_value(out, value, shape);
    }
    out.extend_from_slice(b"{\"value\":");
    push_value(out, value, shape)?;
    out.extend_from_slice(b",\"metadata\":");
    let metadata = json::metadata(value.of.metadata());
    out.extend_from_slice(metadata.as_deref().unwrap_or("null").as_bytes());
    out.push(b'}');
    Ok(())
}

fn push_value(out: &mut Vec<u8>, value: &Whole, shape: Shape) -> Result<(), Refusal> {
    let text = String::from_utf8_lossy(&value.bytes);
    if !shape.as_json {
        json::push(out, &*text);
    } else if json::is_json(&text) {
        out.extend_from_slice(text.as_bytes());
    } else {
        return Err(Refusal::bad(
            "At least one of the requested keys corresponds to a non-json value",
        ));
    }
    Ok(())
}
