//! Several values in one answer: bulk get, as both surfaces of the Workers KV API have it.
//!
//! The request is checked in the order of the API. The total is checked before any value is read. A
//! JSON value is checked and then embedded as it was stored, letter for letter. Absent on purpose:
//! what a surface puts around the values.

use std::collections::HashSet;

use kvast::{Namespace, ValueStream};
use serde::Deserialize;
use serde_json::Value as Json;

use crate::bridge::{Bridge, Whole};
use crate::error::Failure;
use crate::json::{self, Plain};
use crate::limits::{BULK_KEYS_MAX, VALUE_BYTES_MAX};
use crate::reply::Reserve;
use crate::rules::{self, Broken};

/// What a client asks for.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Request {
    keys: Vec<String>,
    #[serde(default, rename = "type")]
    kind: Option<Plain>,
    #[serde(default)]
    with_metadata: Option<bool>,
    #[serde(default)]
    cache_ttl: Option<Plain>,
}

/// How values are shown.
#[derive(Clone, Copy)]
struct Shape {
    as_json: bool,
    with_metadata: bool,
}

/// What a surface puts around the values.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) before: &'static str,
    pub(crate) after: &'static str,
    /// Shows expirations where it shows metadata.
    pub(crate) with_expiration: bool,
}

impl Request {
    /// `None` if the body is not such a request in JSON.
    pub(crate) fn parse(body: &[u8]) -> Option<Request> {
        serde_json::from_slice(body).ok()
    }

    /// Checks type, number of keys, then each key and the cache lifetime.
    fn check(&self) -> Result<Shape, Broken> {
        let as_json = match self.kind.as_deref().map(text_of).as_deref() {
            None | Some("" | "text") => false,
            Some("json") => true,
            Some(kind) => return Err(Broken::BulkType { given: kind.to_owned() }),
        };
        match self.keys.len() {
            0 => return Err(Broken::BulkNoKeys),
            1..=BULK_KEYS_MAX => {}
            _ => return Err(Broken::BulkTooManyKeys),
        }
        let cache_ttl = self.cache_ttl.as_deref().map(text_of);
        for key in &self.keys {
            rules::check_key(key)?;
            cache_ttl.as_deref().map_or(Ok(()), rules::check_cache_ttl)?;
        }
        Ok(Shape { as_json, with_metadata: self.with_metadata == Some(true) })
    }
}

/// The JSON of one object with a member for each distinct key, and the memory set aside for it.
pub(crate) async fn gather<E: From<Broken> + From<Failure>>(
    bridge: &Bridge,
    namespace: &Namespace,
    request: Request,
    frame: Frame,
) -> Result<(Vec<u8>, Option<Reserve>), E> {
    let shape = request.check()?;
    let keys = distinct(request.keys);
    let values = bridge.find_many(namespace, &keys).await?;
    if values.iter().flatten().map(ValueStream::len).sum::<u64>() > VALUE_BYTES_MAX {
        return Err(Broken::BulkTooLarge.into());
    }
    let make = move |values: Vec<Option<Whole>>| render(&keys, &values, shape, frame);
    let (rendered, room) = bridge.read_many(values, make).await?;
    Ok((rendered?, room))
}

/// A string as it is, anything else as its JSON: a runtime sends numbers as strings.
fn text_of(json: &Json) -> String {
    json.as_str().map_or_else(|| json.to_string(), str::to_owned)
}

fn distinct(mut keys: Vec<String>) -> Vec<String> {
    let mut seen = HashSet::with_capacity(keys.len());
    let is_new: Vec<bool> = keys.iter().map(|key| seen.insert(key.as_str())).collect();
    let mut is_new = is_new.into_iter();
    keys.retain(|_| is_new.next().unwrap_or(true));
    keys
}

fn render(
    keys: &[String],
    values: &[Option<Whole>],
    shape: Shape,
    frame: Frame,
) -> Result<Vec<u8>, Broken> {
    let bytes: usize = values.iter().flatten().map(|value| value.bytes.len()).sum();
    let mut out = Vec::with_capacity(256 + bytes + 64 * keys.len());
    out.extend_from_slice(frame.before.as_bytes());
    out.push(b'{');
    for (at, (key, value)) in keys.iter().zip(values).enumerate() {
        if at > 0 {
            out.push(b',');
        }
        json::push_text(&mut out, key.as_bytes());
        out.push(b':');
        match value {
            Some(value) => push_found(&mut out, value, shape, frame)?,
            None => out.extend_from_slice(b"null"),
        }
    }
    out.push(b'}');
    out.extend_from_slice(frame.after.as_bytes());
    Ok(out)
}

fn push_found(out: &mut Vec<u8>, value: &Whole, shape: Shape, frame: Frame) -> Result<(), Broken> {
    if !shape.with_metadata {
        return push_value(out, value, shape);
    }
    out.extend_from_slice(b"{\"value\":");
    push_value(out, value, shape)?;
    out.extend_from_slice(b",\"metadata\":");
    let metadata = json::metadata(value.of.metadata());
    out.extend_from_slice(metadata.as_deref().unwrap_or("null").as_bytes());
    if let Some(ms) = value.of.expires_at().filter(|_| frame.with_expiration) {
        out.extend_from_slice(b",\"expiration\":");
        json::push(out, &(ms / 1000));
    }
    out.push(b'}');
    Ok(())
}

fn push_value(out: &mut Vec<u8>, value: &Whole, shape: Shape) -> Result<(), Broken> {
    if !shape.as_json {
        json::push_text(out, &value.bytes);
        return Ok(());
    }
    let text = String::from_utf8_lossy(&value.bytes);
    if json::is_json(&text) {
        out.extend_from_slice(text.as_bytes());
    } else {
        return Err(Broken::BulkNotJson);
    }
    Ok(())
}
