//! `kvast ping`: is a server ready? For health checks of containers, which have no `curl`.
//!
//! A few lines of HTTP/1.1 by hand: one request whose answer is a status. Absent on purpose: TLS; a
//! server that speaks it can listen on a Unix socket beside it, and be asked there.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use super::exit::{Exit, Problem};
use super::flags::Flags;
use crate::config::ListenOn;
use crate::units::parse_duration;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait before asking again.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest first line of an answer that is read.
const LINE_BYTES_MAX: u64 = 4096;

/// Ask a running server whether it is ready
///
/// Exits with 0 if it is. Asks where `kvast serve` would listen with the same configuration, unless
/// --url says where. No token is needed.
#[derive(Args)]
#[command(after_help = "\
Examples:
  kvast ping
  kvast ping --wait 30s --url http://127.0.0.1:9000
  kvast ping --url unix:/run/kvast/kvast.sock")]
pub(super) struct PingArgs {
    /// Where: http://ADDR:PORT or unix:PATH. HTTPS is not spoken here
    #[arg(long)]
    url: Option<String>,
    /// Ask again until it is ready, at most so long
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    wait: Option<Duration>,
    /// Look for the address in this file instead of ./kvast.toml or /etc/kvast/kvast.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: &PingArgs) -> Result<(), Problem> {
    let at = match &args.url {
        Some(url) => parse_url(url).map_err(|what| Problem::new(Exit::Usage, what))?,
        None => configured(args.config.clone())?,
    };
    let until = Instant::now() + args.wait.unwrap_or(Duration::ZERO);
    loop {
        match ask(&at) {
            Ok(()) => return Ok(()),
            Err(what) if Instant::now() + PAUSE > until => {
                return Err(Problem::new(Exit::Failure, format!("{at} is not ready: {what}")));
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// Who is asked.
enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Tcp(addr) => addr.fmt(f),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

fn parse_url(url: &str) -> Result<Place, String> {
    if let Some(path) = url.strip_prefix("unix:") {
        return Ok(Place::Unix(PathBuf::from(path)));
    }
    let address = url.strip_prefix("http://").ok_or_else(|| {
        format!("--url {url}: say http://ADDR:PORT or unix:PATH; HTTPS is not spoken here")
    })?;
    let address = address.split('/').next().unwrap_or_default();
    let found = address.to_socket_addrs().or_else(|_| (address, 80).to_socket_addrs());
    let found = found.map_err(|error| format!("--url {url}: {error}"))?.next();
    found.map(Place::Tcp).ok_or_else(|| format!("--url {url}: the name has no address"))
}

/// Where a server of this configuration listens. A Unix socket speaks no TLS, so it comes first.
fn configured(file: Option<PathBuf>) -> Result<Place, Problem> {
    let config = Flags::none(file).settle()?.settings.config;
    let unix = config.listen.iter().find_map(|on| match on {
        ListenOn::Unix(path) => Some(Place::Unix(path.clone())),
        _ => None,
    });
    let tcp = config.listen.iter().find_map(|on| match on {
        ListenOn::Tcp(addr) if config.tls.is_none() => Some(Place::Tcp(reachable(*addr))),
        _ => None,
    });
    unix.or(tcp).ok_or_else(|| {
        let text = "HTTPS is not spoken here; let the server listen on a Unix socket too, or name \
                    another place with --url";
        Problem::new(Exit::Usage, text)
    })
}

/// Who listens on all addresses listens on loopback.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

fn ask(at: &Place) -> Result<(), String> {
    let status = match at {
        Place::Tcp(addr) => TcpStream::connect_timeout(addr, PATIENCE).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            status_line(stream)
        }),
        Place::Unix(path) => UnixStream::connect(path).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            status_line(stream)
        }),
    };
    let line = status.map_err(|error| error.to_string())?;
    match line.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(format!("it answers {:?}", line.trim_end())),
    }
}

fn status_line(mut stream: impl Read + Write) -> io::Result<String> {
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut line = String::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut line)?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_http_or_a_unix_socket() {
        for (url, on) in [
            ("http://127.0.0.1:9000", "127.0.0.1:9000"),
            ("http://127.0.0.1/", "127.0.0.1:80"),
            ("http://[::1]:9000/readyz", "[::1]:9000"),
            ("unix:/run/s", "unix:/run/s"),
        ] {
            assert_eq!(parse_url(url).map(|on| on.to_string()).as_deref(), Ok(on));
        }
        for url in ["https://127.0.0.1", "127.0.0.1:9000", "http://", ""] {
            assert!(parse_url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn who_listens_everywhere_is_asked_on_loopback() {
        for (addr, asked) in [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1")] {
            let addr: SocketAddr = addr.parse().expect("an address");
            assert_eq!(reachable(addr).to_string(), asked);
        }
    }
}
