//! Where one request of an HTTP/1.1 connection ends and the next begins, followed over the bytes
//! as they arrive.
//!
//! If somebody between client and server sees other borders than the server does, a request can be
//! smuggled inside another. So whatever two readers could understand differently is refused here,
//! before the parser sees it: a line that ends without CR, a length that is said twice or in two
//! ways, a chunk size that is not plainly a number. What the parser refuses by itself (folded
//! lines, blanks before a colon, stray CR and NUL in a head) is not looked for again; wherever both
//! go on, they agree on every border. Nothing is copied or kept but a few numbers, and the verdict
//! does not depend on how the bytes were cut into pieces. Absent on purpose: answers; refused bytes
//! are replaced by some that the parser refuses in any place, so it answers in its turn and closes.

use memchr::memchr;

/// Refused by the parser wherever it stands: in a head, which it ends, in a chunked body, and
/// between requests.
pub(crate) const REFUSED: &[u8] = b"\r\0\n\n";

const LENGTH: &[u8] = b"content-length";
const CODING: &[u8] = b"transfer-encoding";
const CHUNKED: &[u8] = b"chunked";
/// As many hexadecimal digits as a `u64` has.
const SIZE_DIGITS_MAX: u8 = 16;

/// What has been seen of a connection.
#[derive(Debug, Default)]
pub(crate) struct Framing {
    state: State,
    length: Option<u64>,
    coding: Coding,
    heads: u64,
}

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Before the first byte of a request.
    Between,
    /// In the request line or the headers.
    Head,
    Body,
}

/// What the head says about transfer codings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Coding {
    #[default]
    None,
    Chunked,
    /// Anything else. The head is believed, since it gets an answer that says so; the body is not.
    Odd,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Start,
    /// After the CR of an empty line before a request.
    StartLf,
    /// In a line whose content does not matter here; whether the last byte was CR.
    Line {
        cr: bool,
    },
    HeaderStart,
    /// After this many bytes of a name that matters.
    Name {
        name: &'static [u8],
        at: u8,
    },
    LengthStart,
    LengthDigits(u64),
    LengthEnd(u64),
    CodingStart,
    CodingName {
        at: u8,
    },
    CodingEnd,
    /// After the CR of a header that mattered.
    HeaderLf,
    /// After the CR of the line that ends a head.
    HeadLf,
    Body {
        left: u64,
    },
    SizeStart,
    Size {
        size: u64,
        digits: u8,
    },
    /// After blanks, which only an extension may follow.
    SizeBlank {
        size: u64,
    },
    Extension {
        size: u64,
    },
    SizeLf {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    TrailerStart,
    Trailer {
        cr: bool,
    },
    TrailersLf,
    Refused,
}

impl Framing {
    /// Follows what arrived.
    ///
    /// # Errors
    /// How many of the bytes are sound, if not all are. No later byte is.
    pub(crate) fn follow(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            let taken = match self.state {
                State::HeaderStart => Ok(self.begin_header(byte, &bytes[at..])),
                State::Line { cr } => self.skip_line(cr, &bytes[at..]),
                State::Trailer { cr } => self.skip_trailer(cr, &bytes[at..]),
                State::Body { left } => Ok(self.skip_body(left, &bytes[at..])),
                State::Data { left } => Ok(self.skip_data(left, &bytes[at..])),
                _ => self.step(byte).ok_or(0),
            };
            match taken {
                Ok(taken) => at += taken,
                Err(sound) => {
                    self.state = State::Refused;
                    return Err(at + sound);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn place(&self) -> Place {
        match self.state {
            State::Start | State::StartLf => Place::Between,
            State::Line { .. }
            | State::HeaderStart
            | State::Name { .. }
            | State::LengthStart
            | State::LengthDigits(_)
            | State::LengthEnd(_)
            | State::CodingStart
            | State::CodingName { .. }
            | State::CodingEnd
            | State::HeaderLf
            | State::HeadLf => Place::Head,
            _ => Place::Body,
        }
    }

    /// How many heads have ended.
    pub(crate) fn heads(&self) -> u64 {
        self.heads
    }

    /// One byte in one of the states that look at bytes. Returns how many were taken; `None`
    /// refuses.
    fn step(&mut self, byte: u8) -> Option<usize> {
        let next = match (self.state, byte) {
            (State::Start, b'\r') => State::StartLf,
            (State::Start, b'\n') => return None,
            (State::Start, _) => State::Line { cr: false },
            (State::StartLf, b'\n') => State::Start,

            (State::Name { name, at }, _) => return self.step_name(name, at, byte),
            (State::HeaderLf, b'\n') => State::HeaderStart,
            (State::HeadLf, b'\n') => self.end_head(),

            (State::LengthStart, b' ' | b'\t') => State::LengthStart,
            (State::LengthStart, b'0'..=b'9') => State::LengthDigits(u64::from(byte - b'0')),
            (State::LengthDigits(length), b'0'..=b'9') => {
                let more = length.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
                State::LengthDigits(more)
            }
            (State::LengthDigits(length) | State::LengthEnd(length), b' ' | b'\t') => {
                State::LengthEnd(length)
            }
            (State::LengthDigits(length) | State::LengthEnd(length), b'\r') => {
                self.length = Some(length);
                State::HeaderLf
            }

            (State::CodingStart, b' ' | b'\t') => State::CodingStart,
            (State::CodingStart, _) => return self.again(State::CodingName { at: 0 }),
            (State::CodingName { at }, _) => return self.step_coding(at, byte),
            (State::CodingEnd, b' ' | b'\t') => State::CodingEnd,
            (State::CodingEnd, b'\r') => {
                self.coding = Coding::Chunked;
                State::HeaderLf
            }
            (State::CodingEnd, _) => return self.odd_coding(),

            (State::SizeStart, _) => State::Size { size: hex(byte)?, digits: 1 },
            (State::Size { size, .. }, b'\r') => State::SizeLf { size },
            (State::Size { size, .. } | State::SizeBlank { size }, b';') => {
                State::Extension { size }
            }
            (State::Size { size, .. } | State::SizeBlank { size }, b' ' | b'\t') => {
                State::SizeBlank { size }
            }
            (State::Size { size, digits: digits @ ..SIZE_DIGITS_MAX }, _) => {
                State::Size { size: size << 4 | hex(byte)?, digits: digits + 1 }
            }
            (State::Extension { size }, b'\r') => State::SizeLf { size },
            (State::Extension { size }, b'\t' | b' '..=b'~' | 0x80..) => State::Extension { size },
            (State::SizeLf { size: 0 }, b'\n') => State::TrailerStart,
            (State::SizeLf { size }, b'\n') => State::Data { left: size },
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::SizeStart,
            (State::TrailerStart, b'\r') => State::TrailersLf,
            (State::TrailerStart, _) => return self.again(State::Trailer { cr: false }),
            (State::TrailersLf, b'\n') => State::Start,
            _ => return None,
        };
        self.state = next;
        Some(1)
    }

    /// Goes to another state with the same byte.
    fn again(&mut self, state: State) -> Option<usize> {
        self.state = state;
        Some(0)
    }

    /// At the first of these bytes a header begins, or the head ends. Returns how many were taken.
    fn begin_header(&mut self, first: u8, bytes: &[u8]) -> usize {
        let name = match first {
            b'\r' => {
                self.state = State::HeadLf;
                return 1;
            }
            b'c' | b'C' => LENGTH,
            b't' | b'T' => CODING,
            _ => b"",
        };
        // Nearly all other names end elsewhere, so a look at one byte is enough.
        let may_be_it = !name.is_empty() && bytes.get(name.len()).is_none_or(|end| *end == b':');
        self.state =
            if may_be_it { State::Name { name, at: 0 } } else { State::Line { cr: false } };
        0
    }

    fn step_name(&mut self, name: &'static [u8], at: u8, byte: u8) -> Option<usize> {
        match name.get(usize::from(at)) {
            Some(expected) if expected.eq_ignore_ascii_case(&byte) => {
                self.state = State::Name { name, at: at + 1 };
                Some(1)
            }
            None if byte == b':' => self.begin_value(name),
            _ => self.again(State::Line { cr: false }),
        }
    }

    /// After the colon of a header that says where the body ends. Only one may.
    fn begin_value(&mut self, name: &'static [u8]) -> Option<usize> {
        self.state = match (self.length, self.coding) {
            (None, Coding::None) if name == LENGTH => State::LengthStart,
            (None, Coding::None) => State::CodingStart,
            // Two codings in two headers: as odd as two in one.
            (None, _) if name == CODING => {
                self.coding = Coding::Odd;
                State::Line { cr: false }
            }
            _ => return None,
        };
        Some(1)
    }

    fn step_coding(&mut self, at: u8, byte: u8) -> Option<usize> {
        match CHUNKED.get(usize::from(at)) {
            Some(expected) if expected.eq_ignore_ascii_case(&byte) => {
                self.state = State::CodingName { at: at + 1 };
                Some(1)
            }
            None => self.again(State::CodingEnd),
            Some(_) => self.odd_coding(),
        }
    }

    fn odd_coding(&mut self) -> Option<usize> {
        self.coding = Coding::Odd;
        self.again(State::Line { cr: false })
    }

    fn end_head(&mut self) -> State {
        self.heads += 1;
        let (length, coding) = (self.length.take(), std::mem::take(&mut self.coding));
        match (coding, length) {
            (Coding::Chunked, _) => State::SizeStart,
            (Coding::Odd, _) => State::Refused,
            (Coding::None, None | Some(0)) => State::Start,
            (Coding::None, Some(left)) => State::Body { left },
        }
    }

    fn skip_line(&mut self, cr: bool, bytes: &[u8]) -> Result<usize, usize> {
        let (taken, unfinished) = skip_to_lf(cr, bytes)?;
        self.state = unfinished.map_or(State::HeaderStart, |cr| State::Line { cr });
        Ok(taken)
    }

    fn skip_trailer(&mut self, cr: bool, bytes: &[u8]) -> Result<usize, usize> {
        let (taken, unfinished) = skip_to_lf(cr, bytes)?;
        self.state = unfinished.map_or(State::TrailerStart, |cr| State::Trailer { cr });
        Ok(taken)
    }

    fn skip_body(&mut self, left: u64, bytes: &[u8]) -> usize {
        let (taken, left) = skip(left, bytes);
        self.state = if left == 0 { State::Start } else { State::Body { left } };
        taken
    }

    fn skip_data(&mut self, left: u64, bytes: &[u8]) -> usize {
        let (taken, left) = skip(left, bytes);
        self.state = if left == 0 { State::DataCr } else { State::Data { left } };
        taken
    }
}

/// To the end of a line, or of the bytes: then with whether the last was CR. `cr` says so of the
/// byte before the first. An LF without CR is an error, with its place.
fn skip_to_lf(cr: bool, bytes: &[u8]) -> Result<(usize, Option<bool>), usize> {
    let is_cr = |end: usize| match end.checked_sub(1) {
        Some(last) => bytes[last] == b'\r',
        None => cr,
    };
    match memchr(b'\n', bytes) {
        Some(lf) if is_cr(lf) => Ok((lf + 1, None)),
        Some(lf) => Err(lf),
        None => Ok((bytes.len(), Some(is_cr(bytes.len())))),
    }
}

/// How many of the bytes belong to a body of which this much is left, and what is left then.
fn skip(left: u64, bytes: &[u8]) -> (usize, u64) {
    let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
    (taken, left - taken as u64)
}

fn hex(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdict on bytes that come in pieces of a length.
    fn judge(input: &[u8], piece: usize) -> (Result<(), usize>, Place, u64) {
        let mut framing = Framing::default();
        for (at, piece) in input.chunks(piece).enumerate().map(|(n, bytes)| (n * piece, bytes)) {
            if let Err(sound) = framing.follow(piece) {
                assert_eq!(
                    framing.follow(b"GET / HTTP/1.1\r\n\r\n"),
                    Err(0),
                    "nothing later is sound"
                );
                return (Err(at + sound), framing.place(), framing.heads());
            }
        }
        (Ok(()), framing.place(), framing.heads())
    }

    /// The same verdict however the bytes are cut.
    #[track_caller]
    fn verdict(input: &str) -> (Result<(), usize>, Place, u64) {
        let input = input.as_bytes();
        let whole = judge(input, input.len().max(1));
        for piece in 1..input.len() {
            assert_eq!(judge(input, piece), whole, "in pieces of {piece}");
        }
        whole
    }

    fn put(headers: &str, body: &str) -> String {
        format!("PUT /k HTTP/1.1\r\nHost: h\r\n{headers}\r\n{body}")
    }

    #[track_caller]
    fn assert_sound(input: &str, heads: u64) {
        assert_eq!(verdict(input), (Ok(()), Place::Between, heads), "{input:?}");
    }

    #[track_caller]
    fn assert_refused(input: &str) -> usize {
        let (judged, ..) = verdict(input);
        judged.expect_err(input)
    }

    #[test]
    fn sound_requests_end_where_their_head_says() {
        for (headers, body) in [
            ("", ""),
            ("Content-Length: 0\r\n", ""),
            ("Content-Length: 5\r\n", "a\nb\r\n"),
            ("content-length:5\r\n", "GET /"),
            ("CONTENT-LENGTH: \t 5 \t\r\nX: y\r\n", "abcde"),
            ("Content-Length: 000000000000000000000005\r\n", "abcde"),
            ("Content-Lengthy: 7\r\nContent-Leng: 8\r\nTransfer: x\r\nC: \r\nT:\r\n", ""),
            ("X-Content-Length: 7\r\nX: Content-Length: 8\r\n", ""),
            ("X: \u{e9}\r\nExpect: 100-continue\r\nContent-Length: 1\r\n", "\n"),
            ("Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            ("transfer-encoding:CHUNKED \r\n", "5\r\na\nb\r\n\r\n0\r\n\r\n"),
            (
                "Transfer-Encoding: chunked\r\n",
                "00a;x=\"y z\";q\r\n0123456789\r\n10\r\n0123456789abcdef\r\n0 ;z\r\n\r\n",
            ),
            (
                "Transfer-Encoding: chunked\r\n",
                "1\r\na\r\nA\r\n0123456789\r\n000\r\nA: b\r\nC:\r\n\r\n",
            ),
        ] {
            let request = put(headers, body);
            assert_sound(&request, 1);
            assert_sound(&format!("\r\n{request}{request}\r\n\r\n{request}"), 3);
            let begun = format!("{request}G");
            assert_eq!(verdict(&begun), (Ok(()), Place::Head, 1), "{begun:?}");
        }
    }

    #[test]
    fn a_length_that_is_said_twice_or_not_plainly_is_refused() {
        for headers in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nX: y\r\nContent-Length: 5\r\n",
            "Transfer-Encoding: gzip\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: gzip\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nX: y\r\ncontent-length: 6\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: 5 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: 5.0\r\n",
            "Content-Length: \"5\"\r\n",
            "Content-Length:\r\n",
            "Content-Length: \r\n 5\r\n",
            "Content-Length: 18446744073709551616\r\n",
        ] {
            assert_refused(&put(headers, "5\r\nabcde\r\n0\r\n\r\n"));
        }
    }

    #[test]
    fn a_head_with_an_odd_coding_is_sound_and_nothing_after_it() {
        for headers in [
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: chunked;q=1\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: chunke\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
            "Transfer-Encoding:\r\n",
        ] {
            let head = put(headers, "");
            assert_eq!(assert_refused(&format!("{head}0\r\n\r\n")), head.len(), "{headers:?}");
        }
    }

    #[test]
    fn lines_end_with_cr_and_lf() {
        for input in [
            "\nGET / HTTP/1.1\r\n\r\n",
            "\r\n\n",
            "GET / HTTP/1.1\nHost: h\n\n",
            "GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n\n",
            "GET / HTTP/1.1\r\nHost: h\r\n\r\r\n",
            "GET / HTTP/1.1\r\nContent-Length\n: 5\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: 5\n\r\nabcde",
            "GET / HTTP/1.1\r\nContent-Length: 5\r\r\n\r\nabcde",
            "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\n\r\n0\r\n\r\n",
        ] {
            assert_refused(input);
        }
    }

    #[test]
    fn a_chunk_says_its_size_plainly_and_ends_there() {
        for body in [
            "\r\n",
            "zz\r\n",
            "-1\r\n",
            "+5\r\nabcde\r\n",
            " 5\r\nabcde\r\n",
            "5 \r\nabcde\r\n",
            "5\t\r\nabcde\r\n",
            "0x5\r\nabcde\r\n",
            "5_\r\nabcde\r\n",
            "\u{ff15}\r\nabcde\r\n",
            "00000000000000005\r\nabcde\r\n",
            "fffffffffffffffff\r\n",
            "5\nabcde\r\n",
            "5\rabcde\r\n",
            "5;x\nabcde\r\n",
            "5;x\ry\r\nabcde\r\n",
            "5;\0\r\nabcde\r\n",
            "5;\u{7f}\r\nabcde\r\n",
            "5 x\r\nabcde\r\n",
            "5\r\nabcdef\r\n",
            "5\r\nabcdeXX0\r\n",
            "5\r\nabcde0\r\n",
            "5\r\nabcde\n0\r\n",
            "5\r\nabcde\rX",
            "0\r\nX: y\n\r\n",
            "0\r\n\n",
            "0\n\r\n",
        ] {
            assert_refused(&put("Transfer-Encoding: chunked\r\n", body));
        }
    }

    #[test]
    fn what_arrived_so_far_is_in_its_place() {
        for (input, place) in [
            ("", Place::Between),
            ("\r\n\r", Place::Between),
            ("G", Place::Head),
            ("GET / HTTP/1.1\r\n", Place::Head),
            ("GET / HTTP/1.1\r\nContent-Length: 1", Place::Head),
            ("GET / HTTP/1.1\r\nHost: h\r\n\r", Place::Head),
            ("GET / HTTP/1.1\r\nContent-Length: 2\r\n\r\na", Place::Body),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", Place::Body),
        ] {
            assert_eq!(verdict(input).1, place, "{input:?}");
        }
    }
}
