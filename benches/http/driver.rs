//! The load: connections that each have one request under way, all on this thread.
//!
//! Requests are made beforehand and answers are looked at no more than it takes to know that they are
//! right, so that one core of clients is more than one core of any server here.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

/// What is read at once.
const READ_BYTES: usize = 256 << 10;

/// Requests, to be sent one after the other and over again, and what their answers are like.
pub(crate) struct Requests {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    status: u16,
    /// The least that a body has.
    body_min: usize,
}

impl Requests {
    pub(crate) fn new(status: u16, body_min: usize) -> Requests {
        Requests { bytes: Vec::new(), ends: Vec::new(), status, body_min }
    }

    /// Adds a request with this body.
    pub(crate) fn push(&mut self, method: &str, target: &str, body: &[u8]) {
        let start = self.bytes.len();
        write!(self.bytes, "{method} {target} HTTP/1.1\r\nhost: kvast\r\n").unwrap();
        if method != "GET" {
            write!(self.bytes, "content-length: {}\r\n", body.len()).unwrap();
        }
        self.bytes.extend_from_slice(b"\r\n");
        self.bytes.extend_from_slice(body);
        assert!(self.bytes.len() > start);
        self.ends.push(self.bytes.len());
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, turn: usize) -> Range<usize> {
        let at = turn % self.ends.len();
        at.checked_sub(1).map_or(0, |before| self.ends[before])..self.ends[at]
    }
}

/// Connections to one server.
pub(crate) struct Driver {
    poll: Poll,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    /// How many requests were ever sent.
    turn: usize,
}

struct Connection {
    stream: TcpStream,
    /// What is to be sent of the requests.
    out: Range<usize>,
    /// The head of the answer, as far as it came without being whole.
    head: Vec<u8>,
    /// What is still to come of the body, once the head has.
    left: Option<usize>,
    /// Since when the answer is due; `None` between requests.
    since: Option<Instant>,
}

impl Driver {
    pub(crate) fn connect(address: SocketAddr, connections: usize) -> Driver {
        let poll = Poll::new().unwrap();
        let connect = |id| {
            let stream = std::net::TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_nonblocking(true).unwrap();
            let mut stream = TcpStream::from_std(stream);
            let both = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut stream, Token(id), both).unwrap();
            Connection { stream, out: 0..0, head: Vec::new(), left: None, since: None }
        };
        let connections = (0..connections).map(connect).collect();
        Driver { poll, connections, buffer: vec![0; READ_BYTES], turn: 0 }
    }

    /// Sends one request after the other on each connection for so long; returns how many were answered,
    /// which all are at the end.
    pub(crate) fn saturate(&mut self, requests: &Requests, time: Duration) -> u64 {
        let end = Instant::now() + time;
        self.run(requests, |now| now < end)
    }

    /// Sends this many requests.
    pub(crate) fn send(&mut self, requests: &Requests, count: usize) {
        let end = self.turn + count;
        let mut turn = self.turn;
        self.run(requests, |_| {
            turn += 1;
            turn <= end
        });
    }

    fn run(&mut self, requests: &Requests, mut goes_on: impl FnMut(Instant) -> bool) -> u64 {
        let (mut events, mut done, mut open) = (Events::with_capacity(1024), 0, 0);
        for id in 0..self.connections.len() {
            if goes_on(Instant::now()) {
                self.begin(id, requests, Instant::now());
                open += 1;
            }
        }
        while open > 0 {
            self.wait(&mut events, Some(Duration::from_secs(60)));
            assert!(!events.is_empty(), "no answer within a minute");
            for event in &events {
                let id = event.token().0;
                if self.advance(id, requests) {
                    done += 1;
                    if goes_on(Instant::now()) {
                        self.begin(id, requests, Instant::now());
                    } else {
                        open -= 1;
                    }
                }
            }
        }
        done
    }

    /// Sends requests at this rate a second for so long, whether or not answers keep up; returns how long
    /// each took, sorted. A request that finds all connections busy waits, and that counts.
    pub(crate) fn pace(&mut self, requests: &Requests, rate: f64, time: Duration) -> Vec<Duration> {
        let mut events = Events::with_capacity(1024);
        let mut idle: Vec<usize> = (0..self.connections.len()).collect();
        let (start, count) = (Instant::now(), (rate * time.as_secs_f64()) as usize);
        let due_at = |nth: usize| start + Duration::from_secs_f64(nth as f64 / rate);
        let (mut sent, mut took) = (0, Vec::with_capacity(count));
        while took.len() < count {
            while sent < count && due_at(sent) <= Instant::now() {
                let Some(id) = idle.pop() else { break };
                self.begin(id, requests, due_at(sent));
                sent += 1;
            }
            // Whoever sleeps until the next is due wakes too late.
            self.wait(&mut events, Some(Duration::ZERO));
            for event in &events {
                let id = event.token().0;
                let since = self.connections[id].since;
                if self.advance(id, requests) {
                    took.push(since.unwrap().elapsed());
                    idle.push(id);
                }
            }
        }
        took.sort_unstable();
        took
    }

    fn wait(&mut self, events: &mut Events, limit: Option<Duration>) {
        match self.poll.poll(events, limit) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => other.unwrap(),
        }
    }

    fn begin(&mut self, id: usize, requests: &Requests, since: Instant) {
        let connection = &mut self.connections[id];
        connection.out = requests.get(self.turn);
        connection.since = Some(since);
        self.turn += 1;
        connection.write(requests).unwrap();
    }

    /// Goes on with an exchange; true at its end.
    fn advance(&mut self, id: usize, requests: &Requests) -> bool {
        let connection = &mut self.connections[id];
        if connection.since.is_none() {
            return false;
        }
        connection.write(requests).unwrap();
        match connection.read(&mut self.buffer, requests) {
            Ok(()) => {
                connection.since = None;
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("{error}"),
        }
    }
}

impl Connection {
    fn write(&mut self, requests: &Requests) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.stream.write(&requests.bytes[self.out.clone()]) {
                Ok(n) => self.out.start += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads until the answer is whole.
    fn read(&mut self, buffer: &mut [u8], requests: &Requests) -> io::Result<()> {
        loop {
            let n = self.stream.read(buffer)?;
            if n == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.left = match self.left {
                Some(left) => Some(left - n),
                None if self.head.is_empty() => self.begin_body(&buffer[..n], requests),
                None => {
                    let head = [&std::mem::take(&mut self.head)[..], &buffer[..n]].concat();
                    self.begin_body(&head, requests)
                }
            };
            if self.left == Some(0) {
                self.left = None;
                return Ok(());
            }
        }
    }

    /// What is still to come behind these first bytes of an answer; `None` if its head is not whole.
    fn begin_body(&mut self, bytes: &[u8], requests: &Requests) -> Option<usize> {
        let Some(end) = bytes.windows(4).position(|end| end == b"\r\n\r\n") else {
            self.head = bytes.to_vec();
            return None;
        };
        let (head, body) = (&bytes[..end + 2], bytes.len() - end - 4);
        let length = content_length(head);
        let text = || String::from_utf8_lossy(head).into_owned();
        assert!(head[9..12] == *requests.status.to_string().as_bytes(), "{}", text());
        assert!(length >= requests.body_min, "{}", text());
        Some(length - body)
    }
}

fn content_length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"content-length:";
    let lines = head.split(|byte| *byte == b'\n');
    let length = lines
        .filter_map(|line| line.split_at_checked(NAME.len()))
        .find(|(name, _)| name.eq_ignore_ascii_case(NAME))
        .and_then(|(_, value)| str::from_utf8(value).ok()?.trim().parse().ok());
    length.unwrap_or_else(|| panic!("no length: {}", String::from_utf8_lossy(head)))
}
