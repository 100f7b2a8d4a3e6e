//! Bulk bodies: the entries of a JSON array, one in memory at a time.
//!
//! The array is cut into its elements by counting brackets outside of strings; each element is then
//! read by itself. So a body of any length needs the memory of its longest entry, and whatever is wrong
//! is told with the number of the entry, counted from 1. What is no JSON is refused too: an element
//! that was cut wrongly is none. Pure functions over a reader. Absent on purpose: writing anything.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufRead};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use memchr::memchr2;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::limits::{BULK_ENTRIES_MAX, ENTRY_BYTES_MAX};
use crate::rules::{self, Broken, Moment};

/// One write of a bulk put. It keeps all rules.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry<'e> {
    pub(crate) key: Cow<'e, str>,
    pub(crate) value: Cow<'e, [u8]>,
    pub(crate) metadata: Option<Cow<'e, str>>,
    /// In Unix seconds.
    pub(crate) expires_s: Option<u64>,
}

/// Why a bulk body is refused.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The body as a whole is no JSON array.
    NotAnArray,
    TooManyEntries,
    /// The body cannot be read back.
    Unreadable(io::Error),
    /// Something is wrong with one entry.
    Entry {
        number: usize,
        what: EntryFault,
    },
}

/// What is wrong with an entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EntryFault {
    NotJson,
    NotAnObject,
    /// It is longer than any entry may be.
    TooLong,
    NoKey,
    NoValue,
    /// A member has another type than it must.
    WrongType {
        member: &'static str,
        must: &'static str,
    },
    NotBase64,
    Broken(Broken),
}

impl Fault {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Fault::Unreadable(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Fault::Entry { what: EntryFault::TooLong, .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Fault::Entry { what: EntryFault::Broken(broken), .. } => broken.status(),
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// The code on the REST surface.
    pub(crate) fn v4_code(&self) -> u32 {
        match self {
            Fault::Unreadable(_) => 10001,
            Fault::NotAnArray => 10029,
            Fault::TooManyEntries => 10036,
            Fault::Entry { what, .. } => match what {
                EntryFault::NotJson
                | EntryFault::NotAnObject
                | EntryFault::NoKey
                | EntryFault::WrongType { .. } => 10029,
                EntryFault::TooLong => 10024,
                EntryFault::NoValue | EntryFault::NotBase64 => 10012,
                EntryFault::Broken(broken) => broken.v4_code(),
            },
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NotAnArray => f.write_str("the body must be one JSON array"),
            Fault::TooManyEntries => {
                write!(f, "the array may have at most {BULK_ENTRIES_MAX} entries")
            }
            Fault::Unreadable(_) => f.write_str("the body could not be read back from disk"),
            Fault::Entry { number, what } => write!(f, "entry {number}: {what}"),
        }
    }
}

impl fmt::Display for EntryFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EntryFault::NotJson => f.write_str("it is not valid JSON"),
            EntryFault::NotAnObject => f.write_str("it must be an object with a key and a value"),
            EntryFault::TooLong => write!(f, "it has more than {ENTRY_BYTES_MAX} bytes of JSON"),
            EntryFault::NoKey => f.write_str("it has no key"),
            EntryFault::NoValue => f.write_str("it has no value"),
            EntryFault::WrongType { member, must } => write!(f, "{member} must be {must}"),
            EntryFault::NotBase64 => f.write_str("value is not standard base64"),
            EntryFault::Broken(broken) => broken.fmt(f),
        }
    }
}

impl From<Broken> for EntryFault {
    fn from(broken: Broken) -> EntryFault {
        EntryFault::Broken(broken)
    }
}

/// Takes each entry of a bulk put in order, for as long as nothing is wrong. Returns how many there
/// were.
pub(crate) fn read_writes<E: From<Fault>>(
    body: impl BufRead,
    moment: Moment,
    value_max: u64,
    mut each: impl FnMut(Entry<'_>) -> Result<(), E>,
) -> Result<usize, E> {
    read_elements(body, |number, json| {
        let entry =
            parse_write(json, moment, value_max).map_err(|what| Fault::Entry { number, what })?;
        each(entry)
    })
}

/// The keys of a bulk delete.
pub(crate) fn read_keys(body: impl BufRead) -> Result<Vec<String>, Fault> {
    let mut keys = Vec::new();
    read_elements(body, |number, json| {
        let key = parse_key(json).map_err(|what| Fault::Entry { number, what })?;
        keys.push(key);
        Ok::<(), Fault>(())
    })?;
    Ok(keys)
}

/// Takes each element of an array in order, with its number. What an element is is not looked at.
pub(crate) fn read_elements<E: From<Fault>>(
    body: impl BufRead,
    mut each: impl FnMut(usize, &[u8]) -> Result<(), E>,
) -> Result<usize, E> {
    let mut elements = Elements::new(body);
    let mut number = 0;
    while let Some(json) = elements.next()? {
        number += 1;
        if number > BULK_ENTRIES_MAX {
            return Err(Fault::TooManyEntries.into());
        }
        each(number, json)?;
    }
    Ok(number)
}

fn parse_key(json: &[u8]) -> Result<String, EntryFault> {
    let raw: &RawValue = serde_json::from_slice(json).map_err(|_| EntryFault::NotJson)?;
    let wrong = EntryFault::WrongType { member: "a key", must: "a string" };
    let key = text(raw).ok_or(wrong)?;
    rules::check_key(&key)?;
    Ok(key.into_owned())
}

fn parse_write(json: &[u8], moment: Moment, value_max: u64) -> Result<Entry<'_>, EntryFault> {
    let members: Members<'_> = serde_json::from_slice(json).map_err(|error| {
        if error.is_data() { EntryFault::NotAnObject } else { EntryFault::NotJson }
    })?;
    let key = members.key.ok_or(EntryFault::NoKey)?;
    let key = text(key).ok_or(EntryFault::WrongType { member: "key", must: "a string" })?;
    rules::check_key(&key)?;
    let expires_s = moment.expiration(
        number(members.expiration_ttl, "expiration_ttl")?.as_deref(),
        number(members.expiration, "expiration")?.as_deref(),
    )?;
    let metadata = match members.metadata {
        Some(metadata) => rules::metadata(metadata.get().as_bytes())?,
        None => None,
    };
    let value = value(members.value, members.base64, value_max)?;
    Ok(Entry { key, value, metadata, expires_s })
}

fn value<'e>(
    value: Option<&'e RawValue>,
    base64: Option<&RawValue>,
    max: u64,
) -> Result<Cow<'e, [u8]>, EntryFault> {
    let is_base64 = match base64.map(RawValue::get) {
        None | Some("null" | "false") => false,
        Some("true") => true,
        Some(_) => {
            return Err(EntryFault::WrongType { member: "base64", must: "true or false" });
        }
    };
    let text = text(value.ok_or(EntryFault::NoValue)?)
        .ok_or(EntryFault::WrongType { member: "value", must: "a string" })?;
    let value = match text {
        text if is_base64 => {
            Cow::Owned(STANDARD.decode(&*text).map_err(|_| EntryFault::NotBase64)?)
        }
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    };
    match value.len() as u64 {
        len if len > max => Err(Broken::ValueTooLong { len, max }.into()),
        _ => Ok(value),
    }
}

/// The text of a string.
fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'t>(#[serde(borrow)] Cow<'t, str>);
    serde_json::from_str(raw.get()).ok().map(|Text(text)| text)
}

/// A number as it is written, or a whole one without its fraction: some clients send `60.0`.
fn number(raw: Option<&RawValue>, member: &'static str) -> Result<Option<String>, EntryFault> {
    let Some(raw) = raw.map(RawValue::get).filter(|raw| *raw != "null") else { return Ok(None) };
    if !raw.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
        return Err(EntryFault::WrongType { member, must: "a number" });
    }
    let whole = raw.split_once('.').filter(|(_, rest)| rest.bytes().all(|byte| byte == b'0'));
    Ok(Some(whole.map_or(raw, |(whole, _)| whole).to_owned()))
}

/// The members of a write, as they stand there. Of two with the same name, the last counts.
#[derive(Default)]
struct Members<'e> {
    key: Option<&'e RawValue>,
    value: Option<&'e RawValue>,
    base64: Option<&'e RawValue>,
    metadata: Option<&'e RawValue>,
    expiration: Option<&'e RawValue>,
    expiration_ttl: Option<&'e RawValue>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Name {
    Key,
    Value,
    Base64,
    Metadata,
    Expiration,
    ExpirationTtl,
    #[serde(other)]
    Unknown,
}

impl<'e> Deserialize<'e> for Members<'e> {
    fn deserialize<D: Deserializer<'e>>(deserializer: D) -> Result<Members<'e>, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'e> Visitor<'e> for MembersVisitor {
    type Value = Members<'e>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'e>>(self, mut map: A) -> Result<Members<'e>, A::Error> {
        let mut members = Members::default();
        while let Some(name) = map.next_key()? {
            let member = match name {
                Name::Key => &mut members.key,
                Name::Value => &mut members.value,
                Name::Base64 => &mut members.base64,
                Name::Metadata => &mut members.metadata,
                Name::Expiration => &mut members.expiration,
                Name::ExpirationTtl => &mut members.expiration_ttl,
                Name::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *member = Some(map.next_value()?);
        }
        Ok(members)
    }
}

/// Cuts an array into its elements.
struct Elements<R> {
    body: R,
    /// The element taken last.
    element: Vec<u8>,
    taken: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the bracket that opens the array.
    Start,
    /// Between elements, or before the first.
    Within,
    End,
}

impl<R: BufRead> Elements<R> {
    fn new(body: R) -> Elements<R> {
        Elements { body, element: Vec::new(), taken: 0, state: State::Start }
    }

    /// The next element, `None` after the last. What is between brackets and commas need be no JSON.
    fn next(&mut self) -> Result<Option<&[u8]>, Fault> {
        if self.state == State::Start {
            if self.skip_spaces()? != Some(b'[') {
                return Err(Fault::NotAnArray);
            }
            self.body.consume(1);
            self.state = State::Within;
            if self.skip_spaces()? == Some(b']') {
                self.end()?;
            }
        }
        if self.state == State::End {
            return Ok(None);
        }
        match self.take_element()? {
            b',' => self.body.consume(1),
            _ => self.end()?,
        }
        Ok(Some(&self.element))
    }

    /// The closing bracket, and nothing behind it.
    fn end(&mut self) -> Result<(), Fault> {
        self.body.consume(1);
        self.state = State::End;
        match self.skip_spaces()? {
            None => Ok(()),
            Some(_) => Err(Fault::NotAnArray),
        }
    }

    /// Reads up to the comma or bracket that ends an element, and tells which of them it is.
    fn take_element(&mut self) -> Result<u8, Fault> {
        self.element.clear();
        self.taken += 1;
        let mut scanner = Scanner::default();
        loop {
            let buffered = fill(&mut self.body)?;
            if buffered.is_empty() {
                return Err(Fault::NotAnArray);
            }
            let (len, end) = match scanner.scan(buffered) {
                Some(at) => (at, Some(buffered[at])),
                None => (buffered.len(), None),
            };
            if self.element.len() + len > ENTRY_BYTES_MAX {
                return Err(Fault::Entry { number: self.taken, what: EntryFault::TooLong });
            }
            self.element.extend_from_slice(&buffered[..len]);
            self.body.consume(len);
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }

    /// The next byte that is no white space; it stays there. `None` at the end.
    fn skip_spaces(&mut self) -> Result<Option<u8>, Fault> {
        loop {
            let buffered = fill(&mut self.body)?;
            if buffered.is_empty() {
                return Ok(None);
            }
            let spaces = buffered.iter().take_while(|byte| b" \t\r\n".contains(byte)).count();
            let found = buffered.get(spaces).copied();
            self.body.consume(spaces);
            if found.is_some() {
                return Ok(found);
            }
        }
    }
}

fn fill(body: &mut impl BufRead) -> Result<&[u8], Fault> {
    body.fill_buf().map_err(Fault::Unreadable)
}

/// Finds the end of an element that comes in pieces.
#[derive(Default)]
struct Scanner {
    /// Brackets of both kinds that are open.
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Scanner {
    /// Where the comma or bracket behind the element stands, if it is in this piece.
    fn scan(&mut self, piece: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(&byte) = piece.get(at) {
            if self.escaped {
                self.escaped = false;
            } else if self.in_string {
                at += memchr2(b'"', b'\\', &piece[at..])?;
                self.escaped = piece[at] == b'\\';
                self.in_string = self.escaped;
            } else {
                match byte {
                    b'"' => self.in_string = true,
                    b'[' | b'{' => self.depth += 1,
                    b',' | b']' if self.depth == 0 => return Some(at),
                    b']' | b'}' => self.depth = self.depth.saturating_sub(1),
                    _ => {}
                }
            }
            at += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    use crate::limits::VALUE_BYTES_MAX;

    const MOMENT: Moment = Moment { now_s: 1000, lifetime_min_s: 60 };

    /// Key, value, metadata, expiration.
    type Write = (String, Vec<u8>, Option<String>, Option<u64>);

    fn writes(body: &str) -> Result<Vec<Write>, String> {
        // A buffer of three bytes, so that every token is cut somewhere.
        let body = BufReader::with_capacity(3, body.as_bytes());
        let mut found = Vec::new();
        let read = read_writes::<Fault>(body, MOMENT, VALUE_BYTES_MAX, |entry| {
            let metadata = entry.metadata.map(Cow::into_owned);
            found.push((
                entry.key.into_owned(),
                entry.value.into_owned(),
                metadata,
                entry.expires_s,
            ));
            Ok(())
        });
        read.map(|count| assert_eq!(count, found.len())).map_err(|fault| fault.to_string())?;
        Ok(found)
    }

    fn fault(body: &str) -> (u16, u32, String) {
        let read = read_writes::<Fault>(body.as_bytes(), MOMENT, VALUE_BYTES_MAX, |_| Ok(()));
        let fault = read.expect_err(body);
        (fault.status().as_u16(), fault.v4_code(), fault.to_string())
    }

    #[test]
    fn entries_come_in_order_with_all_that_they_say() {
        let found = writes(
            r#" [ {"key":"a","value":"t\u00e9,]}\"x\\"},
                {"value":"AP+A","base64":true,"key":"b","extra":[{"]":"["}],"key":"c"} ,
                {"key":"d","value":"","metadata":{ "m" : [1, 2] },"expiration_ttl":60.0},
                {"key":"e","value":"v","metadata":null,"expiration":1060,"base64":null}]
            "#,
        );
        let entry = |key: &str, value: &[u8], metadata: Option<&str>, expires_s| {
            (key.to_owned(), value.to_owned(), metadata.map(str::to_owned), expires_s)
        };
        let expected = vec![
            entry("a", "té,]}\"x\\".as_bytes(), None, None),
            entry("c", &[0, 255, 128], None, None),
            entry("d", b"", Some("{\"m\":[1,2]}"), Some(1060)),
            entry("e", b"v", None, Some(1060)),
        ];
        assert_eq!(found, Ok(expected));
        assert_eq!(writes(" [ ] "), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_array_is_refused_as_a_whole() {
        for body in ["", " ", "{}", "nope", "[", "[{\"key\":\"a\",\"value\":\"v\"}", "[] x", "[],"]
        {
            let expected = (400, 10029, "the body must be one JSON array".to_owned());
            assert_eq!(fault(body), expected, "{body}");
        }
    }

    #[test]
    fn a_bad_entry_is_named_by_its_number_with_its_own_code() {
        let long_key = format!(r#""key":"{}","value":"v""#, "k".repeat(513));
        let metadata = format!(r#""key":"k","value":"v","metadata":"{}""#, "m".repeat(1023));
        for (entry, status, code, what) in [
            ("", 400, 10029, "it has no key"),
            (r#""value":"v""#, 400, 10029, "it has no key"),
            (r#""key":5,"value":"v""#, 400, 10029, "key must be a string"),
            (r#""key":"\ud800","value":"v""#, 400, 10029, "key must be a string"),
            (r#""key":"k""#, 400, 10012, "it has no value"),
            (r#""key":"k","value":5"#, 400, 10029, "value must be a string"),
            (r#""key":"k","value":null"#, 400, 10029, "value must be a string"),
            (r#""key":"k","value":"dGhyZWU","base64":true"#, 400, 10012, "value is not standard"),
            (r#""key":"k","value":"d-_h","base64":true"#, 400, 10012, "value is not standard"),
            (r#""key":"k","value":"v","base64":1"#, 400, 10029, "base64 must be true or false"),
            (r#""key":"","value":"v""#, 400, 10041, "Key names must not be empty"),
            (r#""key":"..","value":"v""#, 400, 10041, "Illegal key name"),
            (&long_key, 414, 10030, "UTF-8 encoded length of 513"),
            (&metadata, 413, 10046, "Metadata length of 1025"),
            (r#""key":"k","value":"v","expiration_ttl":59"#, 400, 10034, "Invalid expiration_ttl"),
            (
                r#""key":"k","value":"v","expiration_ttl":60.5"#,
                400,
                10034,
                "Invalid expiration_ttl",
            ),
            (
                r#""key":"k","value":"v","expiration_ttl":"60""#,
                400,
                10029,
                "expiration_ttl must be",
            ),
            (
                r#""key":"k","value":"v","expiration":1059"#,
                400,
                10033,
                "Invalid expiration of 1059",
            ),
            (
                r#""key":"k","value":"v","expiration":1e99"#,
                400,
                10033,
                "Invalid expiration of 1e99",
            ),
            (r#""key":"k" "value":"v""#, 400, 10029, "it is not valid JSON"),
        ] {
            let found = fault(&format!(r#"[{{"key":"a","value":"v"}},{{{entry}}}]"#));
            assert_eq!((found.0, found.1), (status, code), "{entry}");
            assert!(found.2.starts_with(&format!("entry 2: {what}")), "{entry}: {}", found.2);
        }
        for element in ["", " ", "5", "[]", "\"a\"", "{]", "{\"a\":1]", "nope", "}"] {
            let (status, code, text) = fault(&format!(r#"[{element},{{"key":"k","value":"v"}}]"#));
            assert_eq!((status, code), (400, 10029), "{element}");
            assert!(text.starts_with("entry 1: ") || text.contains("one JSON array"), "{text}");
            assert!(!text.contains("expected"), "{text}");
        }
    }

    #[test]
    fn ten_thousand_entries_are_the_most() {
        let of = |count| format!("[{}]", vec![r#"{"key":"k","value":"v"}"#; count].join(","));
        assert_eq!(writes(&of(BULK_ENTRIES_MAX)).map(|found| found.len()), Ok(BULK_ENTRIES_MAX));
        assert_eq!(fault(&of(BULK_ENTRIES_MAX + 1)).1, 10036);
    }

    #[test]
    fn a_value_may_have_25_mib_and_no_byte_more() {
        let of = |len: u64| format!(r#"[{{"key":"k","value":"{}"}}]"#, "v".repeat(len as usize));
        assert!(
            read_writes::<Fault>(of(VALUE_BYTES_MAX).as_bytes(), MOMENT, VALUE_BYTES_MAX, |_| Ok(
                ()
            ))
            .is_ok()
        );
        let (status, code, _) = fault(&of(VALUE_BYTES_MAX + 1));
        assert_eq!((status, code), (413, 10024));
    }

    #[test]
    fn the_keys_of_a_delete_are_strings() {
        let keys = |body: &str| read_keys(body.as_bytes()).map_err(|fault| fault.to_string());
        assert_eq!(keys(r#"["a", "b\n" ,"a"]"#), Ok(["a", "b\n", "a"].map(str::to_owned).into()));
        assert_eq!(keys("[]"), Ok(Vec::new()));
        assert_eq!(
            keys(r#"["a",{"name":"b"}]"#),
            Err("entry 2: a key must be a string".to_owned())
        );
        assert!(keys(r#"["a",""]"#).is_err());
        assert!(keys(r#"{"keys":[]}"#).is_err());
    }
}
