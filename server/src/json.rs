//! JSON as text: checked, compacted and embedded, but never rebuilt.
//!
//! Numbers of any size, the order of members and repeated members are the client's own business,
//! so what a client wrote is passed on letter for letter, apart from white space between tokens.
//! What a client sends is read into a tree by [`Plain`] only. Absent on purpose: a tree of one's own.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// A client's JSON as a tree, at most as deep as the parser allows.
///
/// Values that `serde_json` reads by itself have no such bound: what stands behind a certain member
/// is taken for text that is JSON again, and 100 KiB of that can be deeper than a thread's stack.
#[derive(Debug)]
pub(crate) struct Plain(pub(crate) Value);

impl Deref for Plain {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Plain, D::Error> {
        deserializer.deserialize_any(PlainVisitor).map(Plain)
    }
}

struct PlainVisitor;

impl<'de> Visitor<'de> for PlainVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Plain(element)) = elements.next_element()? {
            array.push(element);
        }
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Plain(value))) = members.next_entry()? {
            object.insert(name, value);
        }
        Ok(object.into())
    }
}

/// Whether a text is one JSON value, with nothing but white space around it.
pub(crate) fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// The JSON of some bytes without white space between tokens; `None` if they are not JSON.
pub(crate) fn compact(bytes: &[u8]) -> Option<Cow<'_, str>> {
    let text = str::from_utf8(bytes).ok().filter(|text| is_json(text))?;
    if spaces_between_tokens(text).next().is_none() {
        return Some(Cow::Borrowed(text));
    }
    let mut compacted = String::with_capacity(text.len());
    let mut copied = 0;
    for space in spaces_between_tokens(text) {
        compacted.push_str(&text[copied..space]);
        copied = space + 1;
    }
    compacted.push_str(&text[copied..]);
    Some(Cow::Owned(compacted))
}

/// Stored metadata as it is shown: compact, fit for a header line, and absent when it is `null`.
///
/// The engine takes any bytes as metadata. Those that are no JSON, which only a program that
/// embeds the engine can have written, count as absent: passed on, they would break the reader.
pub(crate) fn metadata(stored: Option<&[u8]>) -> Option<Cow<'_, str>> {
    compact(stored?).filter(|json| json != "null")
}

/// The same JSON in ASCII without control characters, which any header can carry to any reader. All
/// that needs an escape stands in strings, where JSON has one for it.
pub(crate) fn to_ascii(json: &str) -> String {
    let mut ascii = String::with_capacity(json.len());
    for letter in json.chars() {
        if matches!(letter, ' '..='~') {
            ascii.push(letter);
        } else {
            let mut units = [0; 2];
            for unit in letter.encode_utf16(&mut units) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    ascii
}

/// Appends a value in JSON: a string with its quotes, or a number.
pub(crate) fn push(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(out, value).expect("strings and numbers are JSON, and memory is no file");
}

/// Appends a text as a string with its quotes; what is not UTF-8 of it is replaced.
pub(crate) fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    if !is_plain(text) {
        return push(out, &*String::from_utf8_lossy(text));
    }
    out.reserve(text.len() + 2);
    out.push(b'"');
    out.extend_from_slice(text);
    out.push(b'"');
}

/// Whether each byte stands for itself inside of a string, as nearly all do. All of them are looked at,
/// since many at once take less time than one after the other until the first that does not.
fn is_plain(text: &[u8]) -> bool {
    let is_plain = |byte: u8| (b' '..0x80).contains(&byte) & (byte != b'"') & (byte != b'\\');
    text.iter().fold(true, |all, byte| all & is_plain(*byte))
}

/// Where white space lies outside of strings. The text must be JSON.
fn spaces_between_tokens(json: &str) -> impl Iterator<Item = usize> {
    let mut in_string = false;
    let mut escaped = false;
    json.bytes().enumerate().filter_map(move |(at, byte)| {
        if escaped {
            escaped = false;
        } else if byte == b'"' {
            in_string = !in_string;
        } else if in_string {
            escaped = byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            return Some(at);
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_the_string_that_it_would_be_if_each_of_its_bytes_were_looked_at() {
        for byte in 0..=u8::MAX {
            for text in [vec![byte], [&[b'k'; 40][..], &[byte], b"end"].concat()] {
                let (mut quick, mut slow) = (Vec::new(), Vec::new());
                push_text(&mut quick, &text);
                push(&mut slow, &*String::from_utf8_lossy(&text));
                assert_eq!(quick, slow, "{byte}");
            }
        }
    }

    #[test]
    fn compacting_removes_white_space_and_nothing_else() {
        for (text, compacted) in [
            ("1", "1"),
            (" { \"a\" : [ 1 , 2 ] }\n", "{\"a\":[1,2]}"),
            ("\" a \\\" b \\\\\" ", "\" a \\\" b \\\\\""),
            ("{\"b\": 1, \"a\": 2, \"b\": 3}", "{\"b\":1,\"a\":2,\"b\":3}"),
            (
                "[123456789012345678901234567890.10, 1e999, -0.0]",
                "[123456789012345678901234567890.10,1e999,-0.0]",
            ),
            ("\"\\ud800 \u{a0}\"", "\"\\ud800 \u{a0}\""),
        ] {
            assert_eq!(compact(text.as_bytes()).as_deref(), Some(compacted), "{text}");
        }
    }

    #[test]
    fn what_is_not_json_is_not_compacted() {
        for bytes in [&b""[..], b"{", b"nope", b"1 2", b"\"a\nb\"", b"\"\xff\"", b"\xef\xbb\xbf1"] {
            assert_eq!(compact(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_tree_is_what_stands_there_whatever_its_members_are_called() {
        let text = r#"{"a":[null,true,-1,1,0.5,"b"],"$serde_json::private::RawValue":"[1]"}"#;
        let Plain(tree) = serde_json::from_str(text).unwrap();
        assert_eq!(tree["a"], serde_json::json!([null, true, -1, 1, 0.5, "b"]));
        assert_eq!(tree["$serde_json::private::RawValue"], "[1]");
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        assert!(serde_json::from_str::<Plain>(&deep).is_err());
    }

    #[test]
    fn any_letter_can_stand_in_a_header_and_is_the_same_letter() {
        for (json, ascii) in
            [("{\"a\":1}", "{\"a\":1}"), ("\"é🔑\u{7f}\"", "\"\\u00e9\\ud83d\\udd11\\u007f\"")]
        {
            assert_eq!(to_ascii(json), ascii);
            let read = |json| serde_json::from_str::<serde_json::Value>(json).unwrap();
            assert_eq!(read(json), read(ascii));
        }
    }

    #[test]
    fn metadata_that_is_null_or_no_json_counts_as_absent() {
        assert_eq!(metadata(None), None);
        assert_eq!(metadata(Some(b" null ")), None);
        assert_eq!(metadata(Some(b"\x00raw")), None);
        assert_eq!(metadata(Some(b"[ 0 ]")).as_deref(), Some("[0]"));
    }
}
