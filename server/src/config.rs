//! What a server is started with, and the texts that people write for it.
//!
//! A [`Config`] is plain data: it comes from the command line or from a test, and nothing here
//! opens a file or a socket. Absent on purpose: a configuration file; flags and environment
//! variables are enough for what there is to set.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use kvast::Durability;

use crate::limits::Limits;

/// The port when nobody names one: where local development tools already look.
pub const DEFAULT_PORT: u16 = 8787;

/// The data directory when nobody names one.
pub const DEFAULT_DATA: &str = "./kvast-data";

/// Everything that [`start`](crate::start) needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The store's directory, made if absent.
    pub data: PathBuf,
    /// Where to listen, in the order given; port 0 lets the system choose.
    pub listen: Vec<ListenOn>,
    /// Listen on addresses that other machines reach although no token is needed.
    pub insecure: bool,
    /// The certificate and key for HTTPS; without them, plain HTTP.
    pub tls: Option<TlsFiles>,
    /// When a write counts as done.
    pub durability: Durability,
    /// A file of accepted tokens, one per line. Without it any token is accepted, which only a
    /// loopback address may do.
    pub token_file: Option<PathBuf>,
    /// Log each request at the level `info`.
    pub access_log: bool,
    /// What to spend on clients.
    pub limits: Limits,
}

/// One place to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenOn {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A Unix socket, made at this path.
    Unix(PathBuf),
    /// The sockets that a service manager has opened for this process.
    Passed,
}

impl fmt::Display for ListenOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenOn::Tcp(addr) => addr.fmt(f),
            ListenOn::Unix(path) => write!(f, "unix:{}", path.display()),
            ListenOn::Passed => f.write_str("the sockets of the service manager"),
        }
    }
}

/// A certificate chain and its key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate first.
    pub cert: PathBuf,
    /// The key of the first certificate.
    pub key: PathBuf,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            data: PathBuf::from(DEFAULT_DATA),
            listen: vec![ListenOn::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)))],
            insecure: false,
            tls: None,
            durability: Durability::Sync,
            token_file: None,
            access_log: false,
            limits: Limits::default(),
        }
    }
}

/// Reads `sync`, `os` or `interval:50ms`.
pub(crate) fn parse_durability(text: &str) -> Result<Durability, String> {
    match text {
        "sync" => Ok(Durability::Sync),
        "os" => Ok(Durability::Os),
        _ => match text.strip_prefix("interval:") {
            Some(every) => parse_duration(every).map(Durability::Interval),
            None => Err("say sync, os, or interval: with a time, for example interval:50ms".into()),
        },
    }
}

/// Reads `50ms`, `30s`, `5m`, `2h`, `7d`, or a bare number of seconds; zero is refused.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let ms_per_unit: u64 = match unit {
        "ms" => 1,
        "s" | "" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        _ => return Err("say a number with ms, s, m, h or d, for example 30s".into()),
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(ms_per_unit)) {
        Some(0) => Err("it must be longer than nothing".into()),
        Some(ms) => Ok(Duration::from_millis(ms)),
        None => Err("say a number with ms, s, m, h or d, for example 30s".into()),
    }
}

/// Reads `unix:PATH`, or `ADDR:PORT`, where ADDR may be a name such as `localhost`.
pub(crate) fn parse_listen(text: &str) -> Result<ListenOn, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(ListenOn::Unix(PathBuf::from(path)));
    }
    let found = text.to_socket_addrs().map_err(|error| {
        format!("{error}; say an address and a port, for example 127.0.0.1:{DEFAULT_PORT}")
    })?;
    found.into_iter().next().map(ListenOn::Tcp).ok_or_else(|| "the name has no address".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_every_unit() {
        for (text, ms) in
            [("50ms", 50), ("30s", 30_000), ("90", 90_000), ("5m", 300_000), ("2h", 7_200_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "0s", "-1s", "1.5s", "1 s", "1w", "99999999999999999999s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durability_is_one_of_three() {
        assert_eq!(parse_durability("sync"), Ok(Durability::Sync));
        assert_eq!(parse_durability("os"), Ok(Durability::Os));
        let interval = Durability::Interval(Duration::from_millis(50));
        assert_eq!(parse_durability("interval:50ms"), Ok(interval));
        for text in ["", "none", "interval", "interval:", "interval:0ms"] {
            assert!(parse_durability(text).is_err(), "{text}");
        }
    }
}
