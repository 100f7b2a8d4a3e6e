//! Namespaces: list, create, get, change, delete.
//!
//! A request says of the settings only what is to change; `null` takes a setting back. Everything
//! that the engine could refuse is checked before the first change, so that a change is made whole.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::StatusCode;
use hyper::header::{HeaderValue, LOCATION};
use kvast::{Namespace, NamespaceSettings};
use serde_json::{Map, Value as Json, json};

use super::expiry;
use super::input::{self, Query, invalid_body, read_object};
use crate::body::Inbound;
use crate::call::Call;
use crate::limits::NATIVE_LIFETIME_MAX;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::units::parse_duration;

const SETTINGS: [&str; 3] = ["max_value_bytes", "default_ttl", "min_ttl"];

/// `GET /v1/namespaces`: ordered by name, those that the sender may use.
pub(super) fn list(call: &Call<'_>) -> Result<Reply, Problem> {
    let query = Query::of(call.query(), &["limit", "cursor"])?;
    let limit = query.limit(call.app.limits.keys_per_page)?;
    let after = query.get("cursor").map(decode_cursor).transpose()?;
    let mut namespaces = call.app.bridge.namespaces();
    namespaces.retain(|namespace| {
        call.grant.covers_namespace(namespace).is_ok()
            && after.as_ref().is_none_or(|after| namespace.name() > *after)
    });
    let shown: Vec<Json> = namespaces.iter().take(limit).map(show).collect();
    let complete = shown.len() == namespaces.len();
    let mut body = json!({ "namespaces": shown, "complete": complete });
    if !complete && let Some(last) = namespaces.get(limit - 1) {
        body["cursor"] = Json::from(URL_SAFE_NO_PAD.encode(last.name()));
    }
    Ok(super::json(StatusCode::OK, &body))
}

/// `POST /v1/namespaces`
pub(super) async fn create(call: &Call<'_>, body: &mut Inbound<'_>) -> Result<Reply, Problem> {
    call.grant.covers_all_namespaces()?;
    Query::of(call.query(), &[])?;
    let members = read_object(call, body, &["name", "settings"]).await?;
    let name = name(&members)?.ok_or_else(|| invalid_body("Member \"name\" is missing."))?;
    let settings =
        settings(&members, NamespaceSettings::default(), call.app.limits.max_value_bytes)?;
    let bridge = &call.app.bridge;
    let created = bridge.create_namespace(name).await?;
    if let Some(settings) = settings {
        bridge.set_settings(&created, settings).await?;
    }
    let mut reply = super::json(StatusCode::CREATED, &show(&created));
    let location = format!("/v1/namespaces/{}", created.id());
    let location = HeaderValue::try_from(location).expect("hex digits fit a header");
    reply.headers_mut().insert(LOCATION, location);
    Ok(reply)
}

/// `GET /v1/namespaces/{namespace}`
pub(super) fn get(call: &Call<'_>, namespace: &Namespace) -> Result<Reply, Problem> {
    Query::of(call.query(), &[])?;
    Ok(super::json(StatusCode::OK, &show(namespace)))
}

/// `PATCH /v1/namespaces/{namespace}`
pub(super) async fn change(
    call: &Call<'_>,
    namespace: Namespace,
    body: &mut Inbound<'_>,
) -> Result<Reply, Problem> {
    call.grant.covers_all_namespaces()?;
    Query::of(call.query(), &[])?;
    let members = read_object(call, body, &["name", "settings"]).await?;
    let name = name(&members)?;
    let max_value_bytes = call.app.limits.max_value_bytes;
    let settings = settings(&members, namespace.settings(), max_value_bytes)?;
    let bridge = &call.app.bridge;
    if let Some(name) = name {
        bridge.rename_namespace(namespace.id(), name).await?;
    }
    if let Some(settings) = settings {
        bridge.set_settings(&namespace, settings).await?;
    }
    Ok(super::json(StatusCode::OK, &show(&namespace)))
}

/// `DELETE /v1/namespaces/{namespace}`: with all its keys.
pub(super) async fn delete(call: &Call<'_>, namespace: &Namespace) -> Result<Reply, Problem> {
    call.grant.covers_all_namespaces()?;
    Query::of(call.query(), &[])?;
    call.app.bridge.delete_namespace(namespace.id()).await?;
    Ok(super::empty(StatusCode::NO_CONTENT))
}

fn show(namespace: &Namespace) -> Json {
    let settings = namespace.settings();
    json!({
        "id": namespace.id().to_string(),
        "name": namespace.name(),
        "settings": {
            "max_value_bytes": settings.max_value_bytes,
            "default_ttl": settings.default_ttl.map(expiry::show_lifetime),
            "min_ttl": settings.min_ttl.map(expiry::show_lifetime),
        },
    })
}

fn decode_cursor(cursor: &str) -> Result<String, Problem> {
    let name = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|name| String::from_utf8(name).ok());
    name.ok_or_else(|| input::invalid("cursor", "it was not issued by this server"))
}

fn name(members: &Map<String, Json>) -> Result<Option<String>, Problem> {
    match members.get("name") {
        None => Ok(None),
        Some(Json::String(name)) => Ok(Some(name.clone())),
        Some(_) => Err(invalid_body("Member \"name\" is a string.")),
    }
}

/// The settings as they shall be, if the request says anything of them.
fn settings(
    members: &Map<String, Json>,
    mut settings: NamespaceSettings,
    max_value_bytes: u64,
) -> Result<Option<NamespaceSettings>, Problem> {
    let asked = match members.get("settings") {
        None => return Ok(None),
        Some(Json::Object(asked)) => asked,
        Some(_) => return Err(invalid_body("Member \"settings\" is an object.")),
    };
    input::check_members(asked, &SETTINGS)?;
    if let Some(bytes) = asked.get("max_value_bytes") {
        settings.max_value_bytes = unless_null(bytes, |bytes| value_bytes(bytes, max_value_bytes))?;
    }
    if let Some(ttl) = asked.get("default_ttl") {
        settings.default_ttl = unless_null(ttl, |ttl| lifetime("default_ttl", ttl))?;
    }
    if let Some(ttl) = asked.get("min_ttl") {
        settings.min_ttl = unless_null(ttl, |ttl| lifetime("min_ttl", ttl))?;
    }
    Ok(Some(settings))
}

fn unless_null<T>(
    json: &Json,
    read: impl FnOnce(&Json) -> Result<T, Problem>,
) -> Result<Option<T>, Problem> {
    if json.is_null() { Ok(None) } else { read(json).map(Some) }
}

fn value_bytes(json: &Json, max: u64) -> Result<u64, Problem> {
    input::whole_number(json).filter(|bytes| *bytes <= max).ok_or_else(|| {
        invalid_body(format!("\"max_value_bytes\" is a number up to {max}, or null."))
    })
}

fn lifetime(member: &str, json: &Json) -> Result<Duration, Problem> {
    let text = expiry::text_of(json);
    let lifetime = parse_duration(&text).ok().filter(|lifetime| *lifetime <= NATIVE_LIFETIME_MAX);
    lifetime.ok_or_else(|| {
        invalid_body(format!(
            "\"{member}\" is a number of seconds, a number with ms, s, m, h or d such as \"30m\", \
             or null; at most {} seconds.",
            NATIVE_LIFETIME_MAX.as_secs()
        ))
    })
}
