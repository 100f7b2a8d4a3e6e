//! Conditions that a client puts on a request: entity tags, dates and ranges, as RFC 9110 §13 and
//! §14 have them.
//!
//! The entity tag of a value is its version, which no later write ever has again, so it is a strong
//! one. A condition on a write becomes a [`Guard`], which the engine checks in the same moment as it
//! writes; nothing is decided here that could be out of date by then. Pure functions over headers.
//! Absent on purpose: `multipart/byteranges` (several ranges are answered with the whole value), and
//! dates in `If-Range` (to the second, they cannot tell two writes apart; every answer has a tag).

use std::fmt;
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::HeaderMap;
use hyper::header::{
    HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, RANGE,
};
use kvast::PutOptions;

/// The entity tag of a version: its number in quotes.
pub(crate) fn etag(version: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{version}\"")).expect("quoted digits fit a header")
}

/// The date of a write, to the second.
pub(crate) fn last_modified(written_ms: u64) -> HeaderValue {
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(whole_seconds(written_ms)));
    HeaderValue::try_from(date).expect("a date is plain text")
}

/// What conditions are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validators {
    pub(crate) version: u64,
    /// When it was written, in ms since 1970.
    pub(crate) written_ms: u64,
}

/// The conditions of a request.
#[derive(Debug, Default)]
pub(crate) struct Preconditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
    if_modified_since: Option<SystemTime>,
    if_unmodified_since: Option<SystemTime>,
}

/// What the conditions of a read come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Answer as if there were none.
    Proceed,
    /// 304: the client has what it would get.
    NotModified,
    /// 412.
    Failed,
}

/// What the conditions of a write come to: a condition that the engine checks while it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// Write whatever is there.
    None,
    /// Write only if the key is absent.
    Absent,
    /// Write only over this version.
    Version(u64),
}

/// The conditions of a write are not met: 412.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed;

/// A header that is no list of entity tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    header: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = self.header;
        write!(f, "{header} takes * or entity tags in double quotes, such as {header}: \"42\".")
    }
}

/// What `If-Match` or `If-None-Match` names.
#[derive(Debug, PartialEq, Eq)]
enum Tags {
    Any,
    Listed(Vec<Tag>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tag {
    weak: bool,
    /// The version that it stands for; `None` for a tag that this server never gave.
    version: Option<u64>,
}

impl Tags {
    /// Whether they name a version that exists, where weak tags do not count.
    fn match_strongly(&self, version: u64) -> bool {
        match self {
            Tags::Any => true,
            Tags::Listed(tags) => tags.iter().any(|tag| !tag.weak && tag.version == Some(version)),
        }
    }

    /// Whether they name a version that exists, where weak tags count too.
    fn match_weakly(&self, version: u64) -> bool {
        match self {
            Tags::Any => true,
            Tags::Listed(tags) => tags.iter().any(|tag| tag.version == Some(version)),
        }
    }
}

impl Preconditions {
    /// Reads the conditions of a request. A date that is none does not count.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Preconditions, Malformed> {
        Ok(Preconditions {
            if_match: tags(headers, &IF_MATCH, "If-Match")?,
            if_none_match: tags(headers, &IF_NONE_MATCH, "If-None-Match")?,
            if_modified_since: date(headers, &IF_MODIFIED_SINCE),
            if_unmodified_since: date(headers, &IF_UNMODIFIED_SINCE),
        })
    }

    /// Weighs a GET or HEAD of a value that is there, in the order of RFC 9110 §13.2.2.
    pub(crate) fn weigh_read(&self, current: Validators) -> Verdict {
        if !self.is_wanted(Some(current)) {
            return Verdict::Failed;
        }
        let has_it = match (&self.if_none_match, self.if_modified_since) {
            (Some(tags), _) => tags.match_weakly(current.version),
            (None, Some(since)) => modified(current) <= since,
            (None, None) => false,
        };
        if has_it { Verdict::NotModified } else { Verdict::Proceed }
    }

    /// The guard that says as much as these conditions, if that is known without a look at the key.
    pub(crate) fn guard(&self) -> Option<Guard> {
        match (&self.if_match, &self.if_none_match, self.if_unmodified_since) {
            (None, None, None) => Some(Guard::None),
            (None, Some(Tags::Any), None) => Some(Guard::Absent),
            (Some(Tags::Listed(tags)), None, _) => match tags[..] {
                [Tag { weak: false, version: Some(version) }] => Some(Guard::Version(version)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Weighs a write over what is there now. The guard lets it happen over nothing else, so that
    /// what was weighed still holds when the write is made.
    pub(crate) fn weigh_write(&self, current: Option<Validators>) -> Result<Guard, Failed> {
        if let Some(guard) = self.guard() {
            return Ok(guard);
        }
        let is_unwanted = match (&self.if_none_match, current) {
            (Some(tags), Some(current)) => tags.match_weakly(current.version),
            (_, _) => false,
        };
        if is_unwanted || !self.is_wanted(current) {
            return Err(Failed);
        }
        Ok(current.map_or(Guard::Absent, |current| Guard::Version(current.version)))
    }

    /// `If-Match` or, failing that, `If-Unmodified-Since`. A key that is absent has no date.
    fn is_wanted(&self, current: Option<Validators>) -> bool {
        match (&self.if_match, self.if_unmodified_since, current) {
            (Some(tags), _, Some(current)) => tags.match_strongly(current.version),
            (Some(_), _, None) => false,
            (None, Some(since), Some(current)) => modified(current) <= since,
            (None, _, _) => true,
        }
    }
}

impl Guard {
    /// A put under this condition.
    pub(crate) fn on(self, options: PutOptions) -> PutOptions {
        match self {
            Guard::None => options,
            Guard::Absent => options.if_absent(),
            Guard::Version(version) => options.if_version(version),
        }
    }
}

/// Which bytes of a value are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    /// 206: these, of which there is at least one.
    Bytes(Range<u64>),
    /// 416: the value has none of them.
    None,
}

/// The part of a value of `len` bytes that a GET asks for. What is not understood, and several
/// ranges at once, ask for the whole, and so does a range of another version than this.
pub(crate) fn part(headers: &HeaderMap, version: u64, len: u64) -> Part {
    let mut ranges = headers.get_all(RANGE).iter();
    let (Some(range), None) = (ranges.next(), ranges.next()) else { return Part::Whole };
    let is_of_this_version = headers.get(IF_RANGE).is_none_or(|if_range| {
        let tags = read_tags(if_range.as_bytes(), Vec::new());
        tags.is_some_and(|tags| tags.len() == 1 && Tags::Listed(tags).match_strongly(version))
    });
    if !is_of_this_version {
        return Part::Whole;
    }
    range.to_str().ok().and_then(|range| single_range(range, len)).unwrap_or(Part::Whole)
}

/// `Content-Range` of a 206.
pub(crate) fn content_range(part: &Range<u64>, len: u64) -> HeaderValue {
    let range = format!("bytes {}-{}/{len}", part.start, part.end - 1);
    HeaderValue::try_from(range).expect("digits fit a header")
}

/// `Content-Range` of a 416.
pub(crate) fn no_range_of(len: u64) -> HeaderValue {
    HeaderValue::try_from(format!("bytes */{len}")).expect("digits fit a header")
}

fn single_range(range: &str, len: u64) -> Option<Part> {
    let (unit, set) = range.split_once('=')?;
    let mut specs = set.split(',').map(str::trim).filter(|spec| !spec.is_empty());
    let (spec, None) = (specs.next()?, specs.next()) else { return None };
    let (first, last) = spec.split_once('-')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    match (first, last) {
        ("", suffix) => last_bytes(position(suffix)?, len),
        (first, "") => Some(from_to(position(first)?, u64::MAX, len)),
        (first, last) => {
            let (first, last) = (position(first)?, position(last)?);
            (first <= last).then(|| from_to(first, last, len))
        }
    }
}

fn from_to(first: u64, last: u64, len: u64) -> Part {
    if first < len { Part::Bytes(first..last.min(len - 1) + 1) } else { Part::None }
}

/// The last bytes of an empty value are all of it, and no range can say so.
fn last_bytes(count: u64, len: u64) -> Option<Part> {
    match (count, len) {
        (0, _) => Some(Part::None),
        (_, 0) => None,
        (count, len) => Some(Part::Bytes(len.saturating_sub(count)..len)),
    }
}

/// A position in a value; those beyond 64 bits are beyond every value.
fn position(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

fn modified(current: Validators) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(whole_seconds(current.written_ms))
}

/// Seconds that every date can show: this server's clock is not trusted to stay below year 9999.
fn whole_seconds(ms: u64) -> u64 {
    const YEAR_10000: u64 = 253_402_300_800;
    (ms / 1000).min(YEAR_10000 - 1)
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

/// All entity tags of one header, which may stand on several lines.
fn tags(
    headers: &HeaderMap,
    name: &HeaderName,
    header: &'static str,
) -> Result<Option<Tags>, Malformed> {
    let mut lines = headers.get_all(name).iter().peekable();
    if lines.peek().is_none() {
        return Ok(None);
    }
    let mut tags = Vec::new();
    for line in lines {
        if line.as_bytes().trim_ascii() == b"*" {
            return Ok(Some(Tags::Any));
        }
        tags = read_tags(line.as_bytes(), tags).ok_or(Malformed { header })?;
    }
    if tags.is_empty() { Err(Malformed { header }) } else { Ok(Some(Tags::Listed(tags))) }
}

/// Appends the entity tags of one line: `"1", W/"2"`. A comma may stand inside of a tag.
fn read_tags(line: &[u8], mut tags: Vec<Tag>) -> Option<Vec<Tag>> {
    let mut rest = line.trim_ascii();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(b",") {
            rest = after.trim_ascii_start();
            continue;
        }
        let weak = rest.starts_with(b"W/");
        let quoted = if weak { &rest[2..] } else { rest }.strip_prefix(b"\"")?;
        let end = quoted.iter().position(|byte| *byte == b'"')?;
        let (opaque, after) = (&quoted[..end], quoted[end + 1..].trim_ascii_start());
        if !opaque.iter().all(|byte| matches!(byte, 0x21..=0x7e | 0x80..)) {
            return None;
        }
        if !after.is_empty() && !after.starts_with(b",") {
            return None;
        }
        tags.push(Tag { weak, version: version(opaque) });
        rest = after;
    }
    Some(tags)
}

/// The version that a tag of ours stands for: other spellings of its number are other tags.
fn version(opaque: &[u8]) -> Option<u64> {
    let text = str::from_utf8(opaque).ok()?;
    let version: u64 = text.parse().ok()?;
    (version.to_string() == text).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Saturday, 5 September 2020, 12:26:40.
    const WRITTEN_MS: u64 = 1_599_308_800_700;
    const CURRENT: Validators = Validators { version: 7, written_ms: WRITTEN_MS };
    const BEFORE: &str = "Sat, 05 Sep 2020 12:26:39 GMT";
    const THEN: &str = "Sat, 05 Sep 2020 12:26:40 GMT";

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        headers
    }

    fn conditions(lines: &[(&str, &str)]) -> Preconditions {
        Preconditions::of(&headers(lines)).expect("well-formed conditions")
    }

    #[test]
    fn validators_are_written_as_they_are_read() {
        assert_eq!(etag(7), "\"7\"");
        assert_eq!(etag(u64::MAX), "\"18446744073709551615\"");
        assert_eq!(last_modified(WRITTEN_MS), THEN);
        assert_eq!(last_modified(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn reads_are_weighed_in_the_order_of_the_rfc() {
        use Verdict::{Failed, NotModified, Proceed};
        for (lines, verdict) in [
            (&[][..], Proceed),
            (&[("if-match", "\"7\"")], Proceed),
            (&[("if-match", "*")], Proceed),
            (&[("if-match", "\"6\", \"7\"")], Proceed),
            (&[("if-match", "\"6\""), ("if-match", "\"7\"")], Proceed),
            (&[("if-match", "\"6\"")], Failed),
            (&[("if-match", "W/\"7\"")], Failed),
            (&[("if-match", "\"07\"")], Failed),
            (&[("if-match", "\"a,\", \"\"")], Failed),
            (&[("if-none-match", "\"7\"")], NotModified),
            (&[("if-none-match", "W/\"7\"")], NotModified),
            (&[("if-none-match", "*")], NotModified),
            (&[("if-none-match", "\"6\" , ,\"7\"")], NotModified),
            (&[("if-none-match", "\"6\"")], Proceed),
            (&[("if-modified-since", THEN)], NotModified),
            (&[("if-modified-since", BEFORE)], Proceed),
            (&[("if-modified-since", "yesterday")], Proceed),
            (&[("if-unmodified-since", THEN)], Proceed),
            (&[("if-unmodified-since", BEFORE)], Failed),
            // A tag says more than a date, whose header then does not count.
            (&[("if-none-match", "\"6\""), ("if-modified-since", THEN)], Proceed),
            (&[("if-match", "\"7\""), ("if-unmodified-since", BEFORE)], Proceed),
            // What must hold comes before what may spare the answer.
            (&[("if-match", "\"6\""), ("if-none-match", "\"7\"")], Failed),
            (&[("if-match", "\"7\""), ("if-none-match", "\"7\"")], NotModified),
            (&[("if-unmodified-since", BEFORE), ("if-none-match", "\"7\"")], Failed),
        ] {
            assert_eq!(conditions(lines).weigh_read(CURRENT), verdict, "{lines:?}");
        }
    }

    #[test]
    fn writes_are_guarded_by_what_was_weighed() {
        let (absent, here) = (None, Some(CURRENT));
        for (lines, current, guard) in [
            (&[][..], here, Ok(Guard::None)),
            (&[("if-none-match", "*")], absent, Ok(Guard::Absent)),
            (&[("if-none-match", "*")], here, Ok(Guard::Absent)),
            (&[("if-none-match", "\"6\"")], here, Ok(Guard::Version(7))),
            (&[("if-none-match", "\"6\"")], absent, Ok(Guard::Absent)),
            (&[("if-none-match", "W/\"7\"")], here, Err(Failed)),
            (&[("if-match", "\"6\"")], here, Ok(Guard::Version(6))),
            (&[("if-match", "*")], here, Ok(Guard::Version(7))),
            (&[("if-match", "*")], absent, Err(Failed)),
            (&[("if-match", "\"6\", \"7\"")], here, Ok(Guard::Version(7))),
            (&[("if-match", "\"6\", \"5\"")], here, Err(Failed)),
            (&[("if-match", "W/\"7\"")], here, Err(Failed)),
            (&[("if-match", "\"mine\"")], here, Err(Failed)),
            (&[("if-match", "*"), ("if-none-match", "*")], here, Err(Failed)),
            (&[("if-unmodified-since", THEN)], here, Ok(Guard::Version(7))),
            (&[("if-unmodified-since", BEFORE)], here, Err(Failed)),
            (&[("if-unmodified-since", BEFORE)], absent, Ok(Guard::Absent)),
            // Only a read can be spared by a date.
            (&[("if-modified-since", THEN)], here, Ok(Guard::None)),
        ] {
            assert_eq!(conditions(lines).weigh_write(current), guard, "{lines:?}");
        }
    }

    #[test]
    fn a_condition_that_names_one_state_needs_no_look_at_the_key() {
        assert_eq!(conditions(&[("if-match", "\"6\"")]).guard(), Some(Guard::Version(6)));
        assert_eq!(conditions(&[("if-none-match", "*")]).guard(), Some(Guard::Absent));
        assert_eq!(conditions(&[]).guard(), Some(Guard::None));
        for lines in [
            &[("if-match", "*")][..],
            &[("if-match", "\"6\",\"7\"")],
            &[("if-none-match", "\"6\"")],
            &[("if-unmodified-since", THEN)],
            &[("if-none-match", "*"), ("if-unmodified-since", THEN)],
            &[("if-match", "\"6\""), ("if-none-match", "\"5\"")],
        ] {
            assert_eq!(conditions(lines).guard(), None, "{lines:?}");
        }
    }

    #[test]
    fn what_is_no_list_of_tags_is_refused() {
        for value in ["", ",", "7", "\"7", "7\"", "w/\"7\"", "\"6\" \"7\"", "\"a b\"", "\"6\", x"] {
            for name in ["if-match", "if-none-match"] {
                let read = Preconditions::of(&headers(&[(name, value)]));
                assert!(read.is_err(), "{name}: {value}");
            }
        }
        let refused = Preconditions::of(&headers(&[("if-match", "7")])).expect_err("no quotes");
        assert!(refused.to_string().contains("double quotes"));
    }

    #[test]
    fn one_range_of_bytes_is_understood() {
        let bytes = Part::Bytes;
        for (range, len, expected) in [
            ("bytes=0-0", 10, bytes(0..1)),
            ("bytes=2-5", 10, bytes(2..6)),
            ("bytes=2-", 10, bytes(2..10)),
            ("bytes=2-99", 10, bytes(2..10)),
            ("bytes=9-9", 10, bytes(9..10)),
            ("bytes=-3", 10, bytes(7..10)),
            ("bytes=-99", 10, bytes(0..10)),
            ("BYTES= 2-5 ,", 10, bytes(2..6)),
            ("bytes=2-99999999999999999999", 10, bytes(2..10)),
            ("bytes=10-", 10, Part::None),
            ("bytes=10-20", 10, Part::None),
            ("bytes=99999999999999999999-", 10, Part::None),
            ("bytes=-0", 10, Part::None),
            ("bytes=0-", 0, Part::None),
            ("bytes=-5", 0, Part::Whole),
            ("bytes=5-2", 10, Part::Whole),
            ("bytes=0-1,3-4", 10, Part::Whole),
            ("bytes=", 10, Part::Whole),
            ("bytes=-", 10, Part::Whole),
            ("bytes=+1-2", 10, Part::Whole),
            ("bytes=1 - 2", 10, Part::Whole),
            ("bytes", 10, Part::Whole),
            ("lines=0-1", 10, Part::Whole),
        ] {
            assert_eq!(part(&headers(&[("range", range)]), 7, len), expected, "{range} of {len}");
        }
        let two_lines = headers(&[("range", "bytes=0-1"), ("range", "bytes=3-4")]);
        assert_eq!(part(&two_lines, 7, 10), Part::Whole);
        assert_eq!(part(&HeaderMap::new(), 7, 10), Part::Whole);
    }

    #[test]
    fn a_range_of_another_version_is_answered_with_the_whole() {
        for (if_range, expected) in [
            ("\"7\"", Part::Bytes(2..6)),
            ("\"6\"", Part::Whole),
            ("W/\"7\"", Part::Whole),
            ("\"6\", \"7\"", Part::Whole),
            ("*", Part::Whole),
            (THEN, Part::Whole),
        ] {
            let lines = [("range", "bytes=2-5"), ("if-range", if_range)];
            assert_eq!(part(&headers(&lines), 7, 10), expected, "{if_range}");
        }
    }

    #[test]
    fn answers_say_which_bytes_they_have() {
        assert_eq!(content_range(&(2..6), 10), "bytes 2-5/10");
        assert_eq!(no_range_of(10), "bytes */10");
    }
}
