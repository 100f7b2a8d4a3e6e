//! What a server is started with, and the texts that people write for it.
//!
//! A [`Config`] is plain data: it comes from the settings of the program or from a test, and nothing here
//! opens a file or a socket. Absent on purpose: where a setting comes from.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use kvast::Durability;

use crate::limits::Limits;
use crate::units::{parse_duration, show_duration};

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
    /// Listen on addresses that other machines reach although there is no token.
    pub insecure: bool,
    /// The certificate and key for HTTPS; without them, plain HTTP.
    pub tls: Option<TlsFiles>,
    /// When a write counts as done.
    pub durability: Durability,
    /// A token that is accepted for everything.
    pub token: Option<Secret>,
    /// A file of more such tokens, one per line.
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

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text from being shown.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            data: PathBuf::from(DEFAULT_DATA),
            listen: vec![ListenOn::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)))],
            insecure: false,
            tls: None,
            durability: Durability::Sync,
            token: None,
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

pub(crate) fn show_durability(durability: Durability) -> String {
    match durability {
        Durability::Sync => "sync".into(),
        Durability::Os => "os".into(),
        Durability::Interval(every) => format!("interval:{}", show_duration(every)),
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
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let config = Config { token: Some(Secret::new("hunter2")), ..Config::default() };
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn durability_is_one_of_three() {
        assert_eq!(parse_durability("sync"), Ok(Durability::Sync));
        assert_eq!(parse_durability("os"), Ok(Durability::Os));
        let interval = Durability::Interval(Duration::from_millis(50));
        assert_eq!(parse_durability("interval:50ms"), Ok(interval));
        for durability in [Durability::Sync, Durability::Os, interval] {
            assert_eq!(parse_durability(&show_durability(durability)), Ok(durability));
        }
        for text in ["", "none", "interval", "interval:", "interval:0ms"] {
            assert!(parse_durability(text).is_err(), "{text}");
        }
    }
}
