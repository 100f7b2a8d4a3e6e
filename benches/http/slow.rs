//! Clients that send and take large bodies at a pace of their own, all on one thread: they stand for
//! machines elsewhere, and a thread each would take the processors from the server.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::LARGE;

/// What is sent or taken at once.
const CHUNK: usize = 32 << 10;
/// How soon a client that could not go on tries again, at the least.
const PATIENCE: Duration = Duration::from_millis(1);

/// How the length of an upload is told.
#[derive(Clone, Copy)]
pub(crate) enum Length {
    Known,
    /// Chunked, as a runtime sends a stream.
    Unknown,
}

/// One large value on its way.
pub(crate) struct Exchange {
    stream: TcpStream,
    work: Work,
}

enum Work {
    Upload {
        length: Length,
        /// What is to be sent next, and how much of it has been.
        piece: Vec<u8>,
        gone: usize,
        /// Bytes of the value that were put into pieces.
        made: usize,
        /// Where the client hangs up.
        end: usize,
    },
    /// The answer to an upload is awaited, and so much of it has come.
    Answer(Vec<u8>),
    Download {
        /// The answer until its head is whole.
        head: Vec<u8>,
        got: usize,
    },
}

/// What came of a step.
#[derive(PartialEq)]
enum Step {
    Moved,
    Blocked,
    Ended,
}

impl Exchange {
    /// Puts a large value. `cut_at` hangs up after so many bytes.
    pub(crate) fn upload(
        address: &str,
        key: &str,
        length: Length,
        cut_at: Option<usize>,
    ) -> io::Result<Exchange> {
        let framing = match length {
            Length::Known => format!("content-length: {LARGE}"),
            Length::Unknown => "transfer-encoding: chunked".to_owned(),
        };
        let head = format!("PUT /{key} HTTP/1.1\r\nhost: kvast\r\n{framing}\r\n\r\n");
        let (piece, end) = (head.into_bytes(), cut_at.unwrap_or(LARGE));
        Exchange::new(address, Work::Upload { length, piece, gone: 0, made: 0, end })
    }

    /// Gets a large value.
    pub(crate) fn download(address: &str, key: &str) -> io::Result<Exchange> {
        let mut exchange = Exchange::new(address, Work::Download { head: Vec::new(), got: 0 })?;
        write!(exchange.stream, "GET /{key} HTTP/1.1\r\nhost: kvast\r\nconnection: close\r\n\r\n")?;
        Ok(exchange)
    }

    fn new(address: &str, work: Work) -> io::Result<Exchange> {
        let stream = TcpStream::connect(address)?;
        stream.set_nonblocking(true)?;
        Ok(Exchange { stream, work })
    }

    /// Sends or takes one chunk at most. An answer that is not the expected one ends the bench.
    fn step(&mut self) -> io::Result<Step> {
        match self.advance() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Step::Blocked),
            other => other,
        }
    }

    fn advance(&mut self) -> io::Result<Step> {
        let mut buffer = [0; CHUNK];
        match &mut self.work {
            Work::Upload { length, piece, gone, made, end } => {
                *gone += self.stream.write(&piece[*gone..])?;
                if *gone < piece.len() {
                    return Ok(Step::Blocked);
                }
                if made < end {
                    (*piece, *gone) = (next_piece(*length, *made), 0);
                    *made += CHUNK;
                } else if *end < LARGE {
                    return Ok(Step::Ended);
                } else {
                    self.work = Work::Answer(Vec::new());
                }
                Ok(Step::Moved)
            }
            Work::Answer(head) => {
                let n = self.stream.read(&mut buffer)?;
                head.extend_from_slice(&buffer[..n]);
                let body = body_of(head, n)?;
                Ok(if body.is_some() { Step::Ended } else { Step::Moved })
            }
            Work::Download { head, got } => {
                let n = self.stream.read(&mut buffer)?;
                if *got > 0 {
                    *got += n;
                } else {
                    head.extend_from_slice(&buffer[..n]);
                    *got = body_of(head, n)?.unwrap_or(0);
                }
                assert!(n > 0 || *got == LARGE, "{got} bytes came");
                Ok(if n == 0 { Step::Ended } else { Step::Moved })
            }
        }
    }
}

/// The piece of an upload that begins at this byte of its value.
fn next_piece(length: Length, made: usize) -> Vec<u8> {
    let mut piece = Vec::with_capacity(CHUNK + 16);
    if let Length::Unknown = length {
        piece.extend_from_slice(format!("{CHUNK:x}\r\n").as_bytes());
    }
    piece.resize(piece.len() + CHUNK, b'l');
    if let Length::Unknown = length {
        piece.extend_from_slice(if made + CHUNK < LARGE { b"\r\n" } else { b"\r\n0\r\n\r\n" });
    }
    piece
}

/// How many bytes of its body an answer has, once its head is whole, after `n` more bytes of it.
fn body_of(answer: &[u8], n: usize) -> io::Result<Option<usize>> {
    let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return if n > 0 { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
    };
    let head = String::from_utf8_lossy(&answer[..end]);
    assert_eq!(head.split(' ').nth(1), Some("200"), "{head}");
    Ok(Some(answer.len() - end - 4))
}

/// A client with the exchange it is at, and when its next step is due.
struct Client {
    exchange: Exchange,
    due: Instant,
}

/// Runs this many clients side by side, each at a rate in bytes a second. `next` gives a client's next
/// exchange; a client that gets none has ended.
pub(crate) fn drive(
    clients: usize,
    rate: usize,
    mut next: impl FnMut(usize) -> Option<io::Result<Exchange>>,
) -> io::Result<()> {
    let period = Duration::from_secs_f64(CHUNK as f64 / rate as f64);
    let mut running = Vec::new();
    for id in 0..clients {
        let Some(exchange) = next(id) else { continue };
        // Spread over the period, as clients are that know nothing of each other.
        let due = Instant::now() + period.mul_f64(id as f64 / clients as f64);
        running.push((id, Client { exchange: exchange?, due }));
    }
    while let Some(place) = (0..running.len()).min_by_key(|place| running[*place].1.due) {
        let (id, client) = &mut running[place];
        thread::sleep(client.due.saturating_duration_since(Instant::now()));
        match client.exchange.step()? {
            Step::Moved => client.due += period,
            Step::Blocked => client.due = Instant::now() + period.max(PATIENCE),
            Step::Ended => match next(*id) {
                Some(exchange) => client.exchange = exchange?,
                None => drop(running.swap_remove(place)),
            },
        }
    }
    Ok(())
}
