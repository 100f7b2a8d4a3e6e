//! Many writes and conditions that happen all or not at all.
//!
//! Every operation is checked before the first is made. Conditions are about the state before the
//! batch, and one that does not hold is named. A batch is for many small values: a large one is a
//! `PUT`, which streams.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use kvast::{Batch, Namespace, PutOptions, ValueStream};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use super::expiry;
use super::input::{self, Query, invalid_body};
use crate::body::Inbound;
use crate::call::Call;
use crate::error::Failure;
use crate::json::Plain;
use crate::limits::{BATCH_BYTES_MAX, BATCH_OPERATIONS_MAX};
use crate::problem::Problem;
use crate::reply::Reply;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Request<'b> {
    #[serde(borrow)]
    operations: Vec<&'b RawValue>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Kind {
    op: Op,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Op {
    Put,
    Delete,
    Check,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Put<'b> {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    key: String,
    #[serde(default, deserialize_with = "present")]
    value: Option<String>,
    #[serde(default, deserialize_with = "present")]
    value_base64: Option<String>,
    #[serde(default, borrow)]
    metadata: Option<&'b RawValue>,
    #[serde(default, deserialize_with = "present")]
    ttl: Option<Plain>,
    #[serde(default, deserialize_with = "present")]
    expires_at: Option<Plain>,
    #[serde(default, deserialize_with = "present")]
    if_version: Option<Plain>,
    #[serde(default)]
    if_absent: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Delete {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    key: String,
    #[serde(default, deserialize_with = "present")]
    if_version: Option<Plain>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Check {
    #[serde(rename = "op")]
    _op: IgnoredAny,
    key: String,
    /// `null` for a key that must be absent.
    #[serde(deserialize_with = "present")]
    version: Option<Plain>,
}

/// A member that is there: `null` is not the same as nothing.
fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// An operation, checked.
struct Operation {
    key: String,
    what: What,
    /// The version that the key must have before; `Some(None)` if it must be absent.
    must_be: Option<Option<u64>>,
}

enum What {
    Put { value: Vec<u8>, options: PutOptions },
    Delete,
    Check,
}

/// `POST /v1/namespaces/{namespace}/batch`
pub(super) async fn commit(
    call: &Call<'_>,
    namespace: &Namespace,
    body: &mut Inbound<'_>,
) -> Result<Reply, Problem> {
    Query::of(call.query(), &[])?;
    let read = input::read_body(body, BATCH_BYTES_MAX).await?;
    let operations = operations(&read.bytes)?;
    let mut batch = call.app.bridge.batch();
    for (at, operation) in operations.iter().enumerate() {
        operation.add_to(&mut batch, namespace).map_err(|failure| at_operation(at, failure))?;
    }
    match call.app.bridge.commit_batch(batch).await {
        Ok(last) => Ok(super::json(StatusCode::OK, &answer(&operations, last))),
        Err(Failure::Engine(kvast::Error::VersionMismatch { current })) => {
            Err(mismatch(call, namespace, &operations, current).await)
        }
        Err(failure) => Err(failure.into()),
    }
}

fn operations(body: &[u8]) -> Result<Vec<Operation>, Problem> {
    let request: Request<'_> = serde_json::from_slice(body).map_err(|error| {
        invalid_body(format!("The body is not a JSON object with a list of operations: {error}."))
    })?;
    let said = request.operations;
    if said.is_empty() || said.len() > BATCH_OPERATIONS_MAX {
        let count = said.len();
        return Err(invalid_body(format!(
            "A batch has 1 to {BATCH_OPERATIONS_MAX} operations; this one has {count}."
        )));
    }
    let read = |(at, said): (usize, &RawValue)| {
        Operation::read(said.get()).map_err(|problem| at_operation(at, problem))
    };
    said.into_iter().enumerate().map(read).collect()
}

/// Says which operation a problem is about.
fn at_operation(at: usize, problem: impl Into<Problem>) -> Problem {
    problem.into().with("operation", at)
}

impl Operation {
    fn read(said: &str) -> Result<Operation, Problem> {
        let Kind { op } = parse(said)?;
        match op {
            Op::Put => Operation::put(parse(said)?),
            Op::Delete => {
                let Delete { key, if_version, .. } = parse(said)?;
                let must_be = if_version.as_deref().map(version).transpose()?.map(Some);
                Ok(Operation { key, what: What::Delete, must_be })
            }
            Op::Check => {
                let Check { key, version: must_be, .. } = parse(said)?;
                let must_be = must_be.as_deref().filter(|version| !version.is_null());
                let must_be = Some(must_be.map(version).transpose()?);
                Ok(Operation { key, what: What::Check, must_be })
            }
        }
    }

    fn put(put: Put<'_>) -> Result<Operation, Problem> {
        input::check_key(&put.key)?;
        let value = match (put.value, put.value_base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(base64)) => STANDARD.decode(base64).map_err(|error| {
                invalid_body(format!("\"value_base64\" is not standard base64: {error}."))
            })?,
            _ => return Err(invalid_body("A put has \"value\" or \"value_base64\".")),
        };
        let mut options = PutOptions::new();
        if let Some(expiry) = expiry::read_json(put.ttl.as_deref(), put.expires_at.as_deref())? {
            options = options.expiry(expiry);
        }
        if let Some(metadata) = put.metadata
            && let Some(metadata) = input::metadata(metadata.get().as_bytes())?
        {
            options = options.metadata(metadata);
        }
        let if_version = put.if_version.as_deref().map(version).transpose()?;
        let must_be = match (if_version, put.if_absent) {
            (Some(_), true) => {
                return Err(invalid_body("A put has \"if_version\" or \"if_absent\", not both."));
            }
            (Some(version), false) => Some(Some(version)),
            (None, true) => Some(None),
            (None, false) => None,
        };
        Ok(Operation { key: put.key, what: What::Put { value, options }, must_be })
    }

    fn add_to(&self, batch: &mut Batch, namespace: &Namespace) -> Result<(), Failure> {
        if let Some(version) = self.must_be {
            batch.check(namespace, &self.key, version)?;
        }
        match &self.what {
            What::Put { value, options } => {
                batch.put_with(namespace, &self.key, value, options.clone())?;
            }
            What::Delete => batch.delete(namespace, &self.key)?,
            What::Check => {}
        }
        Ok(())
    }
}

/// A version that is asked for. `null` is none: a condition must not vanish because a program had no
/// number to put there.
fn version(json: &Json) -> Result<u64, Problem> {
    input::whole_number(json).ok_or_else(|| invalid_body("A version is a whole number."))
}

fn parse<'b, T: Deserialize<'b>>(json: &'b str) -> Result<T, Problem> {
    serde_json::from_str(json).map_err(|error| invalid_body(format!("An operation: {error}.")))
}

/// The version that each operation left its key at; `null` if that was none. The records of a batch
/// have consecutive versions.
fn answer(operations: &[Operation], last: u64) -> Json {
    let writes = operations.iter().filter(|operation| !matches!(operation.what, What::Check));
    let mut next = (last + 1).saturating_sub(writes.count() as u64);
    let versions = operations.iter().map(|operation| {
        let version = match operation.what {
            What::Put { .. } => Some(next),
            What::Delete => None,
            What::Check => return json!({ "version": operation.must_be.flatten() }),
        };
        next += 1;
        json!({ "version": version })
    });
    json!({ "operations": versions.collect::<Vec<Json>>() })
}

/// The problem of a condition that does not hold: which one, as far as that can still be seen.
async fn mismatch(
    call: &Call<'_>,
    namespace: &Namespace,
    operations: &[Operation],
    mut current: Option<u64>,
) -> Problem {
    for (at, operation) in operations.iter().enumerate() {
        let Some(must_be) = operation.must_be else { continue };
        let Ok(found) = call.app.bridge.find(namespace, &operation.key).await else { continue };
        current = found.as_ref().map(ValueStream::version);
        if current != must_be {
            let problem = at_operation(at, Problem::version_mismatch(current));
            return problem.with("key", operation.key.as_str());
        }
    }
    Problem::version_mismatch(current)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Vec<Operation>, Problem> {
        operations(json.as_bytes())
    }

    fn one(operation: &str) -> Result<Operation, Problem> {
        Operation::read(operation)
    }

    /// Refuses what was said, in words that are not this program's own names.
    #[track_caller]
    fn assert_refused<T>(read: Result<T, Problem>, said: &str) {
        let problem = read.err().unwrap_or_else(|| panic!("{said}"));
        assert!(!format!("{problem:?}").contains("struct "), "{said}: {problem:?}");
    }

    #[test]
    fn conditions_are_read_in_each_of_their_forms() {
        for (operation, must_be) in [
            (r#"{"op":"put","key":"k","value":""}"#, None),
            (r#"{"op":"put","key":"k","value":"","if_version":7}"#, Some(Some(7))),
            (r#"{"op":"put","key":"k","value":"","if_absent":true}"#, Some(None)),
            (r#"{"op":"put","key":"k","value":"","if_absent":false}"#, None),
            (r#"{"op":"delete","key":"k"}"#, None),
            (r#"{"op":"delete","key":"k","if_version":7.0}"#, Some(Some(7))),
            (r#"{"op":"check","key":"k","version":7}"#, Some(Some(7))),
            (r#"{"op":"check","key":"k","version":null}"#, Some(None)),
        ] {
            let read = one(operation).unwrap_or_else(|problem| panic!("{problem:?}"));
            assert_eq!(read.must_be, must_be, "{operation}");
        }
    }

    #[test]
    fn operations_that_say_too_little_or_too_much_are_refused() {
        for operation in [
            "5",
            "{}",
            r#"{"op":"get","key":"k"}"#,
            r#"{"op":"put","key":"k"}"#,
            r#"{"op":"put","value":""}"#,
            r#"{"op":"put","key":"k","value":"","value_base64":""}"#,
            r#"{"op":"put","key":"k","value":5}"#,
            r#"{"op":"put","key":"k","value":"","value_base64":null}"#,
            r#"{"op":"put","key":"k","value_base64":"?"}"#,
            r#"{"op":"put","key":"k","value":"","ttl":0}"#,
            r#"{"op":"put","key":"k","value":"","ttl":5,"expires_at":null}"#,
            r#"{"op":"put","key":"k","value":"","version":5}"#,
            r#"{"op":"put","key":"k","value":"","if_version":5,"if_absent":true}"#,
            r#"{"op":"put","key":"k","value":"","if_version":-1}"#,
            r#"{"op":"put","key":"k","value":"","if_version":null}"#,
            r#"{"op":"delete","key":"k","if_version":null}"#,
            r#"{"op":"delete","key":"k","value":""}"#,
            r#"{"op":"check","key":"k"}"#,
            r#"{"op":"check","key":"k","version":"7"}"#,
        ] {
            assert_refused(one(operation), operation);
        }
        for body in ["", "5", "[]", "{}", r#"{"operations":[]}"#, r#"{"operations":[{}],"x":1}"#] {
            assert_refused(read(body), body);
        }
        let many = vec![r#"{"op":"delete","key":"k"}"#; BATCH_OPERATIONS_MAX + 1].join(",");
        assert!(read(&format!(r#"{{"operations":[{many}]}}"#)).is_err());
    }

    #[test]
    fn each_write_has_the_version_that_it_was_given() {
        let operations = [
            r#"{"op":"put","key":"a","value":""}"#,
            r#"{"op":"check","key":"b","version":3}"#,
            r#"{"op":"delete","key":"c"}"#,
            r#"{"op":"put","key":"d","value":""}"#,
        ];
        let operations: Vec<Operation> = operations.into_iter().flat_map(one).collect();
        let versions =
            json!([{ "version": 10 }, { "version": 3 }, { "version": null }, { "version": 12 }]);
        assert_eq!(answer(&operations, 12), json!({ "operations": versions }));
    }
}
