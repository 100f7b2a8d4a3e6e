//! The two decodings of a request target, which must not be confused.
//!
//! A path segment is percent-encoded: `+` is a plus, and what is badly encoded is refused, since
//! two spellings of one key must never become two keys. A query is form-encoded: `+` is a space,
//! and what is badly encoded stands for itself, as the URL standard has it. Both borrow when there
//! is nothing to decode. Absent on purpose: any normalisation of paths.

use std::borrow::Cow;

/// Decodes one path segment; `None` if an escape is malformed or the bytes are not UTF-8.
pub(crate) fn decode_segment(segment: &str) -> Option<Cow<'_, str>> {
    if !segment.contains('%') {
        return Some(Cow::Borrowed(segment));
    }
    let mut rest = segment.as_bytes();
    let mut decoded = Vec::with_capacity(rest.len());
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%' {
            decoded.push(escaped_byte(tail)?);
            rest = &tail[2..];
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

/// The first value of a query parameter, decoded.
pub(crate) fn query_value<'q>(query: Option<&'q str>, name: &str) -> Option<Cow<'q, str>> {
    let mut rest = query?;
    // Every request asks for a few parameters and has one or two short ones, for which searching with a
    // plain loop takes a fraction of what setting up a fast search does.
    loop {
        let (pair, more) = split_at_byte(rest, b'&');
        let (found, value) = split_at_byte(pair, b'=');
        if decode_form(found) == name {
            return Some(decode_form(value.unwrap_or_default()));
        }
        rest = more?;
    }
}

/// What is before and what is behind the first of these bytes, which is ASCII.
fn split_at_byte(text: &str, byte: u8) -> (&str, Option<&str>) {
    match text.bytes().position(|other| other == byte) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

fn decode_form(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let mut rest = text.as_bytes();
    let mut decoded = Vec::with_capacity(rest.len());
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'+' => decoded.push(b' '),
            b'%' => match escaped_byte(tail) {
                Some(escaped) => {
                    decoded.push(escaped);
                    rest = &tail[2..];
                }
                None => decoded.push(byte),
            },
            _ => decoded.push(byte),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

/// The byte that the two hex digits after a `%` stand for.
fn escaped_byte(after_percent: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*after_percent.get(at)?).to_digit(16);
    u8::try_from(digit(0)? << 4 | digit(1)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_decoded_strictly() {
        for (segment, key) in [
            ("plain", Some("plain")),
            ("a+b", Some("a+b")),
            ("a%2Fb%2fc", Some("a/b/c")),
            ("%F0%9F%94%91", Some("🔑")),
            ("%00", Some("\0")),
            ("100%25", Some("100%")),
            ("%", None),
            ("%2", None),
            ("%zz", None),
            ("%+1", None),
            ("%ED%A0%80", None),
            ("%FF", None),
        ] {
            assert_eq!(decode_segment(segment).as_deref(), key, "{segment}");
        }
    }

    #[test]
    fn a_query_is_decoded_as_a_form() {
        let query = Some("a=1+2&b=%2B%zz&a=3&c&=x&%64=e%FF");
        let value = |name| query_value(query, name).map(Cow::into_owned);
        assert_eq!(value("a").as_deref(), Some("1 2"));
        assert_eq!(value("b").as_deref(), Some("+%zz"));
        assert_eq!(value("c").as_deref(), Some(""));
        assert_eq!(value("d").as_deref(), Some("e\u{fffd}"));
        assert_eq!(value("e"), None);
        assert_eq!(query_value(None, "a"), None);
    }
}
