//! Doors for tests, behind the feature `testing`, and no part of the stable interface.

use std::convert::Infallible;
use std::io::BufReader;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use crate::entries::{self, EntryFault, Fault};
use crate::framing::{Framing, Place};
use crate::json;
use crate::limits::{Limits, VALUE_BYTES_MAX};
use crate::places::IdleLimit;
use crate::rules::{self, Moment};
use crate::wire::Wire;

/// A connection whose bytes come in pieces: the length of a piece, then the bytes.
///
/// # Panics
/// If the verdict depends on the pieces, or if the parser behind the framing finds a request, or a
/// body, that the framing has not found.
pub fn framing(input: &[u8]) {
    let Some((&piece, bytes)) = input.split_first() else { return };
    let (followed, sound) = follow(bytes);
    let mut framing = Framing::default();
    let verdict = bytes.chunks(usize::from(piece).max(1)).try_fold(0, |before, piece| {
        framing.follow(piece).map_err(|sound| before + sound)?;
        Ok(before + piece.len())
    });
    assert_eq!(verdict.unwrap_or_else(|sound| sound), sound, "in pieces of {piece}");

    let parsed = parse(bytes);
    assert!(parsed.len() <= followed.len(), "{parsed:?} of {followed:?}");
    for (parsed, followed) in parsed.iter().zip(&followed) {
        assert_eq!(parsed.method.as_str().as_bytes(), followed.method(), "{followed:?}");
        match (&parsed.body, followed.body) {
            (Some(body), Some(raw)) if parsed.is_chunked => assert!(body.len() < raw.len()),
            (Some(body), raw) => assert_eq!(Some(&body[..]), raw),
            // It was cut off, or is refused for a reason that is not about borders.
            (None, _) => {}
        }
    }
}

/// The body of a bulk write or of a bulk delete.
///
/// # Panics
/// If it is cut into other entries than a parser of JSON finds, or if a write comes out that the API
/// refuses.
pub fn bulk(body: &[u8]) {
    let theirs = serde_json::from_slice::<Vec<&RawValue>>(body).ok();
    let mut ours = Vec::new();
    let in_pieces = BufReader::with_capacity(7, body);
    let read = entries::read_elements::<Fault>(in_pieces, |number, json| {
        let entry: &RawValue = serde_json::from_slice(json)
            .map_err(|_| Fault::Entry { number, what: EntryFault::NotJson })?;
        ours.push(entry.get().to_owned());
        Ok(())
    });
    match (read, theirs) {
        (Err(Fault::TooManyEntries), _) | (Err(_), None) => {}
        (Ok(_), Some(theirs)) => assert!(ours.iter().eq(theirs.iter().map(|entry| entry.get()))),
        (read, theirs) => panic!("{read:?}, but {theirs:?}"),
    }
    let moment = Moment { now_s: 1000, lifetime_min_s: 60 };
    let _ = entries::read_writes::<Fault>(body, moment, VALUE_BYTES_MAX, |entry| {
        rules::check_key(&entry.key).expect("a key that keeps the rules");
        assert!(entry.expires_s.is_none_or(|at| at >= 1060));
        assert!(entry.metadata.is_none_or(|json| json != "null" && json::is_json(&json)));
        Ok(())
    });
    let keys = entries::read_keys(body).unwrap_or_default();
    keys.iter().for_each(|key| rules::check_key(key).expect("a key that keeps the rules"));
}

/// A request as the framing sees it.
#[derive(Debug)]
struct Followed<'b> {
    head: &'b [u8],
    /// As it is on the wire, if it is whole.
    body: Option<&'b [u8]>,
}

impl Followed<'_> {
    fn method(&self) -> &[u8] {
        self.head.split(|byte| *byte == b' ').next().unwrap_or_default()
    }
}

/// The requests in some bytes that come one by one, and how many of the bytes are sound.
fn follow(bytes: &[u8]) -> (Vec<Followed<'_>>, usize) {
    let mut framing = Framing::default();
    let mut requests: Vec<Followed<'_>> = Vec::new();
    let (mut begin, mut end_of_head) = (0, 0);
    for at in 0..bytes.len() {
        let (before, heads) = (framing.place(), framing.heads());
        if framing.follow(&bytes[at..=at]).is_err() {
            return (requests, at);
        }
        if before == Place::Between {
            begin = at;
        }
        if framing.heads() > heads {
            end_of_head = at + 1;
            requests.push(Followed { head: &bytes[begin..=at], body: None });
        }
        if let (true, Place::Between, Some(last)) =
            (before != Place::Between, framing.place(), requests.last_mut())
        {
            last.body = Some(&bytes[end_of_head..=at]);
        }
    }
    (requests, bytes.len())
}

/// A request as the parser sees it.
#[derive(Debug)]
struct Parsed {
    method: Method,
    is_chunked: bool,
    /// If it is whole.
    body: Option<Bytes>,
}

/// What the parser finds behind the framing.
fn parse(bytes: &[u8]) -> Vec<Parsed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let service = service_fn(|request| note(Arc::clone(&seen), request));
    runtime.block_on(async {
        let (server, mut client) = duplex(bytes.len().max(1));
        let limits = Limits::default();
        let io = TokioIo::new(Wire::of_requests(
            server,
            &limits,
            Arc::new(IdleLimit::new(limits.idle_time)),
        ));
        let connection = http1::Builder::new()
            .header_read_timeout(None)
            .max_header_size(limits.head_bytes)
            .half_close(true)
            .serve_connection(io, service);
        let sending = async {
            let _ = client.write_all(bytes).await;
            let _ = client.shutdown().await;
            let _ = client.read_to_end(&mut Vec::new()).await;
        };
        let _ = tokio::join!(connection, sending);
    });
    std::mem::take(&mut *seen.lock().expect("no panic before"))
}

async fn note(
    seen: Arc<Mutex<Vec<Parsed>>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let is_chunked = head.headers.contains_key("transfer-encoding");
    let place = {
        let mut seen = seen.lock().expect("no panic before");
        seen.push(Parsed { method: head.method, is_chunked, body: None });
        seen.len() - 1
    };
    if let Ok(body) = body.collect().await {
        seen.lock().expect("no panic before")[place].body = Some(body.to_bytes());
    }
    Ok(Response::new(Full::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEDS: [&str; 9] = [
        "PUT / HTTP/1.1\r\ncontent-length:5\r\nhost: h\r\n\r\nGET /GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n\r\nGET /k HTTP/1.1\r\nHost: h\r\n\r\n",
        "\r\nPUT /k HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nvalueGET / HTTP/1.1\r\n\r\n",
        "PUT /k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nvalue\r\n0\r\nX: y\r\n\r\n",
        "PUT / HTTP/1.1\r\ntransfer-encoding:chunked \r\n\r\n10 ;\r\nGET / HTTP/1.1\r\n\r\n0\r\n\r\nGET /",
        "PUT / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "PUT / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        "PUT / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nxGET / HTTP/1.0\r\n\r\n",
        "PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 0000002\r\nX: \u{e9}\r\n\r\n\r\n",
    ];
    const PARTS: [&str; 18] = [
        "\r\n",
        "\n",
        "\r",
        "\0",
        " ",
        "\t",
        ":",
        ";",
        ",",
        "0",
        "5",
        "f",
        "Content-Length: 5\r\n",
        "Content-Length",
        "Transfer-Encoding: chunked\r\n",
        "chunked",
        "\r\n\r\n",
        "\r\n0\r\n\r\n",
    ];

    /// Small numbers that look like chance and are the same every time.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % limit as u64) as usize
        }
    }

    fn change(input: &mut Vec<u8>, dice: &mut Dice) {
        let at = dice.below(input.len());
        let to = (at + dice.below(20)).min(input.len());
        let part = PARTS[dice.below(PARTS.len())].bytes();
        match dice.below(4) {
            0 => drop(input.splice(at..at, part)),
            1 => drop(input.splice(at..to, part)),
            2 => drop(input.splice(at..to, [])),
            _ => input[at] = dice.below(256) as u8,
        }
    }

    #[test]
    fn framing_and_parser_agree_on_requests_that_were_changed_in_any_way() {
        let mut dice = Dice(0x5eed);
        for n in 0..4000 {
            let mut input = vec![1 + dice.below(40) as u8];
            for _ in 0..=dice.below(2) {
                input.extend(SEEDS[dice.below(SEEDS.len())].bytes());
            }
            for _ in 0..n % 4 {
                change(&mut input, &mut dice);
            }
            framing(&input);
        }
    }

    #[test]
    fn bulk_bodies_are_cut_as_a_parser_of_json_cuts_them() {
        const TOKENS: [&str; 14] = [
            "[",
            "]",
            "{",
            "}",
            "\"",
            "\\",
            ",",
            ":",
            " ",
            "1",
            "\"key\"",
            "\"value\"",
            "{}",
            "null",
        ];
        const WRITE: &str = "{\"key\":\"k\",\"value\":\"v\",\"expiration\":1060}";
        let mut dice = Dice(0x5eed);
        for _ in 0..200_000 {
            let token = |dice: &mut Dice| match dice.below(15) {
                14 => WRITE,
                at => TOKENS[at],
            };
            let inner: String = (0..dice.below(9)).map(|_| token(&mut dice)).collect();
            let body = if dice.below(8) == 0 { inner } else { format!("[{inner}]") };
            bulk(body.as_bytes());
        }
    }
}
