//! The query and the JSON body of a request, read strictly.
//!
//! What nobody reads is refused: a misspelt parameter, dropped in silence, would turn a key with an
//! expiry into one without, or a part of a list into all of it.

use std::borrow::Cow;

use serde_json::{Map, Value as Json};

use crate::body::{Buffered, Inbound, UploadError};
use crate::call::Call;
use crate::json::{self, Plain};
use crate::problem::{Problem, Trouble};
use crate::uri::decode_segment;

/// The parameters of a request.
pub(super) struct Query<'q> {
    pairs: Vec<(&'q str, Cow<'q, str>)>,
}

impl<'q> Query<'q> {
    /// Reads a query that may have these parameters, each at most once.
    pub(super) fn of(query: Option<&'q str>, known: &[&'static str]) -> Result<Query<'q>, Problem> {
        let mut pairs: Vec<(&str, Cow<'_, str>)> = Vec::new();
        for pair in query.unwrap_or("").split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !known.contains(&name) {
                return Err(unknown(name, known));
            }
            if pairs.iter().any(|(earlier, _)| *earlier == name) {
                return Err(invalid(name, "it stands twice in the query"));
            }
            let value = decode(value).ok_or_else(|| {
                invalid(name, "its percent-encoding is malformed or is not of UTF-8")
            })?;
            pairs.push((name, value));
        }
        Ok(Query { pairs })
    }

    /// The value of a parameter, if it is there.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.pairs.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| &**value)
    }

    /// How many entries a page has at most.
    pub(super) fn limit(&self, most: usize) -> Result<usize, Problem> {
        let Some(text) = self.get("limit") else { return Ok(most) };
        let limit = text.parse().ok().filter(|limit| (1..=most).contains(limit));
        limit.ok_or_else(|| invalid("limit", &format!("it is a number from 1 to {most}")))
    }

    /// `true` or `false`, false when it is absent.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(invalid(name, "it is true or false")),
        }
    }
}

/// A JSON object with some of these members.
pub(super) async fn read_object(
    call: &Call<'_>,
    body: &mut Inbound<'_>,
    known: &[&'static str],
) -> Result<Map<String, Json>, Problem> {
    let read = read_body(body, call.app.limits.json_bytes).await?;
    let Plain(json) = serde_json::from_slice(&read.bytes)
        .map_err(|error| invalid_body(format!("The body is not JSON: {error}.")))?;
    match json {
        Json::Object(members) => {
            check_members(&members, known)?;
            Ok(members)
        }
        _ => Err(invalid_body("The body is JSON, but not an object.")),
    }
}

/// A whole body of JSON.
pub(super) async fn read_body(body: &mut Inbound<'_>, max: u64) -> Result<Buffered, Problem> {
    body.collect(max).await.map_err(|error| {
        refuse_body(error, |len| {
            let detail = format!("The body has {len} bytes; at most {max} are taken here.");
            Problem::new(Trouble::BodyTooLarge, detail)
        })
    })
}

/// A whole number, however JSON writes it: `7.0` is one too.
pub(super) fn whole_number(json: &Json) -> Option<u64> {
    /// Up to here floating point has every whole number.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let from_float = |float: f64| {
        (float.fract() == 0.0 && (0.0..=EXACT).contains(&float)).then_some(float as u64)
    };
    json.as_u64().or_else(|| json.as_f64().and_then(from_float))
}

/// Refuses the two keys that no URL can name: software on the way takes them for steps in a path.
pub(super) fn check_key(key: &str) -> Result<(), Problem> {
    if matches!(key, "." | "..") {
        let detail = "No URL can name the keys \".\" and \"..\"; take another.";
        return Err(Problem::new(Trouble::InvalidKey, detail));
    }
    Ok(())
}

/// Metadata as it is kept: compact JSON; `null` is none.
pub(super) fn metadata(said: &[u8]) -> Result<Option<String>, Problem> {
    let compact = json::compact(said)
        .ok_or_else(|| Problem::new(Trouble::InvalidMetadata, "The metadata is not JSON."))?;
    Ok((compact != "null").then(|| compact.into_owned()))
}

/// Refuses members that nobody reads.
pub(super) fn check_members(
    members: &Map<String, Json>,
    known: &[&'static str],
) -> Result<(), Problem> {
    match members.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => {
            let known = known.join(", ");
            Err(invalid_body(format!("Member {name:?} is unknown; there are {known}.")))
        }
        None => Ok(()),
    }
}

pub(super) fn invalid_body(detail: impl Into<String>) -> Problem {
    Problem::new(Trouble::InvalidBody, detail)
}

/// Why a body could not be read.
pub(super) fn refuse_body(error: UploadError, too_long: impl FnOnce(u64) -> Problem) -> Problem {
    match error {
        UploadError::TooLong { len, .. } => too_long(len),
        UploadError::TooSlow => {
            Problem::new(Trouble::SlowBody, "The request body came too slowly; send it again.")
        }
        UploadError::Broken => {
            Problem::new(Trouble::BrokenBody, "The request body ended early or is framed badly.")
        }
        UploadError::Busy => Problem::busy(),
    }
}

/// What is wrong with one parameter.
pub(super) fn invalid(name: &str, why: &str) -> Problem {
    Problem::new(Trouble::InvalidQuery, format!("Parameter \"{name}\": {why}."))
        .with("parameter", name)
}

fn unknown(name: &str, known: &[&str]) -> Problem {
    match known {
        [] => invalid(name, "this request takes no parameters"),
        known => invalid(name, &format!("this request takes {}", known.join(", "))),
    }
}

/// In a query, `+` is a space.
fn decode(value: &str) -> Option<Cow<'_, str>> {
    if value.contains('+') {
        let spaced = value.replace('+', " ");
        return decode_segment(&spaced).map(|decoded| Cow::Owned(decoded.into_owned()));
    }
    decode_segment(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 2] = ["prefix", "limit"];

    #[test]
    fn what_is_well_formed_is_decoded() {
        let query = Query::of(Some("prefix=a+b%2B%F0%9F%94%91&&limit"), &KNOWN);
        let query = query.unwrap_or_else(|problem| panic!("{problem:?}"));
        assert_eq!(query.get("prefix"), Some("a b+🔑"));
        assert_eq!(query.get("limit"), Some(""));
        assert_eq!(query.get("cursor"), None);
    }

    #[test]
    fn whole_numbers_may_be_written_with_a_fraction_of_nothing() {
        for (json, number) in [
            ("7", Some(7)),
            ("7.0", Some(7)),
            ("7e2", Some(700)),
            ("-0.0", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("1e300", None),
            ("7.5", None),
            ("-7", None),
            ("\"7\"", None),
            ("null", None),
        ] {
            assert_eq!(whole_number(&serde_json::from_str(json).unwrap()), number, "{json}");
        }
    }

    #[test]
    fn what_would_be_dropped_or_guessed_is_refused() {
        for query in ["prefx=a", "prefix=a&prefix=b", "prefix=%FF", "prefix=%2", "%70refix=a", "="]
        {
            assert!(Query::of(Some(query), &KNOWN).is_err(), "{query}");
        }
    }
}
