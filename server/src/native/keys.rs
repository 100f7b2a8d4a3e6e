//! Listing keys.
//!
//! A page shows keys, and of each what the request includes. Values make a page end early, so that it
//! stays small whatever they are; the next page goes on from there. What is included beside expiry
//! and metadata costs a look at each record, which happens away from the thread of the connection.
//!
//! What is text is shown as text, and all else as base64 in a member of another name: a key that is
//! not UTF-8, which only a program that embeds the engine can have written, and which no path names;
//! a value that is not UTF-8 or has control characters in it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{HeaderValue, LINK};
use kvast::{ListOptions, Listed, Namespace, Page, ValueStream};

use super::expiry;
use super::input::{self, Query};
use crate::bridge::Whole;
use crate::call::Call;
use crate::json;
use crate::limits::LIST_VALUE_BYTES_MAX;
use crate::problem::Problem;
use crate::reply::{self, Reply};

/// What of a key is shown beside its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Include {
    metadata: bool,
    expiration: bool,
    size: bool,
    version: bool,
    value: bool,
}

impl Include {
    fn of(text: &str) -> Result<Include, Problem> {
        let mut include = Include::default();
        for word in text.split(',').filter(|word| !word.is_empty()) {
            match word {
                "metadata" => include.metadata = true,
                "expiration" => include.expiration = true,
                "size" => include.size = true,
                "version" => include.version = true,
                "value" => include.value = true,
                _ => {
                    let known =
                        "metadata, expiration, size, version and value, with commas between";
                    return Err(input::invalid("include", &format!("it takes {known}")));
                }
            }
        }
        Ok(include)
    }

    fn needs_records(self) -> bool {
        self.size || self.version || self.value
    }
}

/// `GET /v1/namespaces/{namespace}/keys`
pub(super) async fn list(call: &Call<'_>, namespace: &Namespace) -> Result<Reply, Problem> {
    let known = ["prefix", "start", "end", "reverse", "limit", "cursor", "include"];
    let query = Query::of(call.query(), &known)?;
    let include = Include::of(query.get("include").unwrap_or(""))?;
    let (options, limit) = (list_options(&query)?, query.limit(call.app.limits.keys_per_page)?);
    let bridge = &call.app.bridge;
    if !include.needs_records() {
        let page = bridge.list(namespace, &options.limit(limit)).await?;
        let rows = page.iter().map(|listed| Row::of_index(listed, include));
        return Ok(answer(call, &page, reply::json(render(rows, &page), None)));
    }
    let (page, found) = find(call, namespace, &options, limit, include).await?;
    if !include.value {
        let rows = page.iter().zip(&found);
        let rows = rows.filter_map(|(listed, found)| {
            found.as_ref().map(|found| Row::of_record(listed.key, found, include))
        });
        return Ok(answer(call, &page, reply::json(render(rows, &page), None)));
    }
    let make = move |values: Vec<Option<Whole>>| {
        let rows = page.iter().zip(&values);
        let rows = rows.filter_map(|(listed, whole)| {
            let whole = whole.as_ref()?;
            let row = Row::of_record(listed.key, &whole.of, include);
            Some(Row { value: Some(&whole.bytes), ..row })
        });
        (render(rows, &page), page)
    };
    let ((rendered, page), room) = bridge.read_many(found, make).await?;
    Ok(answer(call, &page, reply::json(rendered, room)))
}

fn list_options(query: &Query<'_>) -> Result<ListOptions, Problem> {
    let given = |name| query.get(name).filter(|value| !value.is_empty());
    let mut options = ListOptions::new().reverse(query.flag("reverse")?);
    if let Some(prefix) = given("prefix") {
        options = options.prefix(prefix);
    }
    if let Some(start) = given("start") {
        options = options.start(start);
    }
    if let Some(end) = given("end") {
        options = options.end(end);
    }
    if let Some(cursor) = given("cursor") {
        options = options.cursor(cursor);
    }
    Ok(options)
}

/// A page and the records of its keys; `None` for a key that has gone since it was listed. If the
/// values are wanted and too many bytes, the page is made again with fewer keys, since only the
/// page itself knows where the next one begins.
async fn find(
    call: &Call<'_>,
    namespace: &Namespace,
    options: &ListOptions,
    mut limit: usize,
    include: Include,
) -> Result<(Page, Vec<Option<ValueStream>>), Problem> {
    let bridge = &call.app.bridge;
    loop {
        let page = bridge.list(namespace, &options.clone().limit(limit)).await?;
        let keys = page.iter().map(|listed| listed.key.to_vec()).collect();
        let found = bridge.find_each(namespace, keys).await?;
        let fitting = if include.value { count_fitting(&found) } else { page.len() };
        if fitting >= page.len() {
            return Ok((page, found));
        }
        limit = fitting;
    }
}

/// How many values fit on a page; one always does.
fn count_fitting(found: &[Option<ValueStream>]) -> usize {
    let mut bytes = 0;
    let fits = |value: &&Option<ValueStream>| {
        bytes += value.as_ref().map_or(0, ValueStream::len);
        bytes <= LIST_VALUE_BYTES_MAX
    };
    found.iter().take_while(fits).count().max(1)
}

/// What is shown of a key.
struct Row<'p> {
    key: &'p [u8],
    metadata: Option<&'p [u8]>,
    expires_at: Option<u64>,
    size: Option<u64>,
    version: Option<u64>,
    value: Option<&'p [u8]>,
}

impl<'p> Row<'p> {
    fn of_index(listed: Listed<'p>, include: Include) -> Row<'p> {
        Row {
            key: listed.key,
            metadata: listed.metadata.filter(|_| include.metadata),
            expires_at: listed.expires_at.filter(|_| include.expiration),
            size: None,
            version: None,
            value: None,
        }
    }

    fn of_record(key: &'p [u8], found: &'p ValueStream, include: Include) -> Row<'p> {
        Row {
            key,
            metadata: found.metadata().filter(|_| include.metadata),
            expires_at: found.expires_at().filter(|_| include.expiration),
            size: include.size.then(|| found.len()),
            version: include.version.then(|| found.version()),
            value: None,
        }
    }

    fn push(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        push_text(out, "key", self.key, str::from_utf8(self.key).ok());
        if let Some(ms) = self.expires_at {
            out.extend_from_slice(b",\"expires_at\":");
            json::push(out, &expiry::show(ms));
        }
        if let Some(metadata) = json::metadata(self.metadata) {
            out.extend_from_slice(b",\"metadata\":");
            out.extend_from_slice(metadata.as_bytes());
        }
        for (name, number) in [("size", self.size), ("version", self.version)] {
            if let Some(number) = number {
                out.extend_from_slice(format!(",\"{name}\":{number}").as_bytes());
            }
        }
        if let Some(value) = self.value {
            out.push(b',');
            push_text(out, "value", value, plain_text(value));
        }
        out.push(b'}');
    }
}

/// A member that is text, or one with its bytes in base64.
fn push_text(out: &mut Vec<u8>, name: &str, bytes: &[u8], text: Option<&str>) {
    match text {
        Some(text) => {
            json::push(out, name);
            out.push(b':');
            json::push_text(out, text.as_bytes());
        }
        None => {
            json::push(out, &format!("{name}_base64"));
            out.push(b':');
            json::push(out, &STANDARD.encode(bytes));
        }
    }
}

/// The text that bytes are. Control characters make none: in JSON each would take six bytes.
fn plain_text(bytes: &[u8]) -> Option<&str> {
    let is_plain = |byte: &u8| *byte >= b' ' || matches!(byte, b'\t' | b'\n' | b'\r');
    str::from_utf8(bytes).ok().filter(|_| bytes.iter().all(is_plain))
}

fn render<'p>(rows: impl Iterator<Item = Row<'p>>, page: &Page) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + 48 * page.len());
    out.extend_from_slice(b"{\"keys\":[");
    for (at, row) in rows.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        row.push(&mut out);
    }
    out.extend_from_slice(b"],\"complete\":");
    json::push(&mut out, &page.is_complete());
    if let Some(cursor) = page.cursor() {
        out.extend_from_slice(b",\"cursor\":");
        json::push(&mut out, cursor);
    }
    out.push(b'}');
    out
}

/// Adds the address of the next page: this request with another cursor.
fn answer(call: &Call<'_>, page: &Page, mut reply: Reply) -> Reply {
    let Some(cursor) = page.cursor() else { return reply };
    let pairs = call.query().unwrap_or("").split('&');
    let kept = pairs.filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
    let mut next = format!("<{}?", call.parts.uri.path());
    kept.for_each(|pair| next.extend([pair, "&"]));
    next.push_str(&format!("cursor={cursor}>; rel=\"next\""));
    // A client that sent raw bytes no header may have goes on with the cursor of the body.
    if let Ok(next) = HeaderValue::try_from(next) {
        reply.headers_mut().insert(LINK, next);
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_list_includes_is_a_list_of_known_words() {
        let include = Include::of("value,size").unwrap_or_else(|problem| panic!("{problem:?}"));
        assert_eq!(include, Include { value: true, size: true, ..Include::default() });
        assert_eq!(Include::of("").ok(), Some(Include::default()));
        for text in ["values", "size;value", "size, value", "all"] {
            assert!(Include::of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn text_is_shown_as_text_and_all_else_in_base64() {
        for (value, shown) in [
            (&b"Ada\n\t\"x\""[..], r#"{"key":"k","value":"Ada\n\t\"x\""}"#),
            (b"", r#"{"key":"k","value":""}"#),
            (b"\xff\x00", r#"{"key":"k","value_base64":"/wA="}"#),
            (b"\x00", r#"{"key":"k","value_base64":"AA=="}"#),
        ] {
            let row = Row {
                key: b"k",
                metadata: None,
                expires_at: None,
                size: None,
                version: None,
                value: Some(value),
            };
            let mut out = Vec::new();
            row.push(&mut out);
            assert_eq!(String::from_utf8_lossy(&out), shown);
        }
        let mut out = Vec::new();
        push_text(&mut out, "key", b"\xff", None);
        assert_eq!(String::from_utf8_lossy(&out), "\"key_base64\":\"/w==\"");
    }
}
