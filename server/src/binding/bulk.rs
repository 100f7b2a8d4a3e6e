//! Many keys in one request: bulk get, and the `bulk/delete` extension.
//!
//! `bulk/delete` is this project's own: the runtime's `deleteBulk` is no HTTP request, and a shim
//! turns it into this one.

use hyper::StatusCode;
use kvast::Namespace;
use serde::Deserialize;

use crate::app::App;
use crate::body::{Buffered, Inbound};
use crate::call::Call;
use crate::commit::Write;
use crate::gather::{self, Frame};
use crate::limits::BULK_KEYS_MAX;
use crate::reply::{self, Reply};
use crate::rules::{self, Refusal};

const BARE: Frame = Frame { before: "", after: "", with_expiration: false };

#[derive(Deserialize)]
struct DeleteRequest {
    keys: Vec<String>,
}

/// `POST /bulk/get`
pub(super) async fn get(
    call: &Call<'_>,
    namespace: &Namespace,
    body: &mut Inbound<'_>,
) -> Result<Reply, Refusal> {
    let body = collect(call.app, body).await?;
    let request = gather::Request::parse(&body.bytes).ok_or_else(not_the_json)?;
    let gathered = gather::gather::<Refusal>(&call.app.bridge, namespace, request, BARE).await?;
    Ok(reply::json(gathered.0, gathered.1))
}

/// `POST /bulk/delete`
pub(super) async fn delete(
    call: &Call<'_>,
    namespace: Namespace,
    body: &mut Inbound<'_>,
) -> Result<Reply, Refusal> {
    let body = collect(call.app, body).await?;
    let DeleteRequest { keys } = serde_json::from_slice(&body.bytes).map_err(|_| not_the_json())?;
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

async fn collect(app: &App, body: &mut Inbound<'_>) -> Result<Buffered, Refusal> {
    let max = app.limits.json_bytes;
    let too_long = |len, _| {
        let text = format!("Request length of {len} exceeds limit of {max}.");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    };
    body.collect(max).await.map_err(|error| error.into_refusal(too_long))
}

fn not_the_json() -> Refusal {
    Refusal::bad("The request must be JSON: an object with an array of strings in keys.")
}
