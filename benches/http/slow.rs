//! Clients that send and take large bodies at a pace of their own.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::LARGE;

/// What is sent or taken at once.
const CHUNK: usize = 32 << 10;

/// How the length of an upload is told.
#[derive(Clone, Copy)]
pub(crate) enum Length {
    Known,
    /// Chunked, as a runtime sends a stream.
    Unknown,
}

/// A pace in bytes a second.
pub(crate) struct Pace {
    start: Instant,
    rate: f64,
}

impl Pace {
    pub(crate) fn new(rate: usize) -> Pace {
        Pace { start: Instant::now(), rate: rate as f64 }
    }

    /// Waits until so many bytes are due.
    fn wait(&self, bytes: usize) {
        let due = Duration::from_secs_f64(bytes as f64 / self.rate);
        thread::sleep(due.saturating_sub(self.start.elapsed()));
    }
}

/// Puts a large value, and returns the status. `cut_at` hangs up after so many bytes.
pub(crate) fn upload(
    address: &str,
    key: &str,
    length: Length,
    rate: usize,
    cut_at: Option<usize>,
) -> io::Result<u16> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let framing = match length {
        Length::Known => format!("content-length: {LARGE}"),
        Length::Unknown => "transfer-encoding: chunked".to_owned(),
    };
    write!(stream, "PUT /{key} HTTP/1.1\r\nhost: kvast\r\n{framing}\r\n\r\n")?;
    let (pace, piece) = (Pace::new(rate), [b'l'; CHUNK]);
    for sent in (0..LARGE).step_by(CHUNK) {
        if cut_at.is_some_and(|end| sent >= end) {
            return Ok(0);
        }
        match length {
            Length::Known => stream.write_all(&piece)?,
            Length::Unknown => {
                write!(stream, "{CHUNK:x}\r\n")?;
                stream.write_all(&piece)?;
                stream.write_all(b"\r\n")?;
            }
        }
        pace.wait(sent + CHUNK);
    }
    if let Length::Unknown = length {
        stream.write_all(b"0\r\n\r\n")?;
    }
    status(&read_head(&mut stream)?.0)
}

/// Gets a large value, and returns how many bytes of it came.
pub(crate) fn download(address: &str, key: &str, rate: usize) -> io::Result<usize> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET /{key} HTTP/1.1\r\nhost: kvast\r\nconnection: close\r\n\r\n")?;
    let pace = Pace::new(rate);
    let (head, rest) = read_head(&mut stream)?;
    assert_eq!(status(&head)?, 200, "{head}");
    let (mut buffer, mut got) = (vec![0; CHUNK], rest);
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(got),
            n => got += n,
        }
        pace.wait(got);
    }
}

/// The head of an answer, and how many bytes of its body came with it.
fn read_head(stream: &mut TcpStream) -> io::Result<(String, usize)> {
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        read.extend_from_slice(&buffer[..n]);
        if let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&read[..end]).into_owned();
            return Ok((head, read.len() - end - 4));
        }
    }
}

fn status(head: &str) -> io::Result<u16> {
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, head.to_owned()))
}
