//! Places to listen: TCP addresses, Unix sockets, and what a service manager has opened already.
//!
//! A Unix socket is for its owner and group, and its file is there as long as the server listens: a
//! file that an earlier server left behind is replaced once nobody answers on it. Absent on
//! purpose: who may connect from where; see [`Socket::is_local`].

use std::env;
use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingUnixStream;
use std::path::{Path, PathBuf};
use std::process;
use std::task::{Context, Poll};

use listenfd::ListenFd;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

/// Who may connect to a Unix socket: its owner and its group.
const UNIX_MODE: u32 = 0o660;
/// Clients that the system keeps waiting; what is more is turned away by it.
const BACKLOG: u32 = 1024;

/// A place where clients may connect.
pub(crate) enum Socket {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, UnixFile),
}

/// A client that came.
pub(crate) enum Arrival {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The file of a Unix socket. One that was made here is removed in the end.
pub(crate) struct UnixFile {
    path: PathBuf,
    /// Device and inode of the file that was made.
    made: Option<(u64, u64)>,
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Socket::Tcp(_, addr) => addr.fmt(f),
            Socket::Unix(_, file) => write!(f, "unix:{}", file.path.display()),
        }
    }
}

/// A socket that somebody else has opened for this process.
pub(crate) enum Passed {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// Whether a service manager has opened sockets for this process.
pub(crate) fn are_passed() -> bool {
    let is_for_us = env::var("LISTEN_PID").is_ok_and(|pid| pid == process::id().to_string());
    is_for_us && env::var_os("LISTEN_FDS").is_some()
}

/// Takes the sockets that a service manager has opened for this process. It changes the
/// environment, so call it before threads are started.
pub(crate) fn take_passed() -> io::Result<Vec<Passed>> {
    let mut passed = ListenFd::from_env();
    let mut sockets = Vec::new();
    for at in 0..passed.len() {
        // Whatever is neither is refused by the second.
        if let Ok(Some(listener)) = passed.take_tcp_listener(at) {
            sockets.push(Passed::Tcp(listener));
        } else if let Some(listener) = passed.take_unix_listener(at)? {
            sockets.push(Passed::Unix(listener));
        }
    }
    Ok(sockets)
}

impl Socket {
    /// Listens on a TCP address.
    pub(crate) fn tcp(addr: SocketAddr) -> io::Result<Socket> {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restart need not wait until the system has forgotten the connections before it.
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        let listener = socket.listen(BACKLOG)?;
        let addr = listener.local_addr()?;
        Ok(Socket::Tcp(listener, addr))
    }

    /// Listens on a Unix socket, made at a path.
    pub(crate) fn unix(path: &Path) -> io::Result<Socket> {
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(path)?;
                UnixListener::bind(path)
            }
            bound => bound,
        }?;
        let file = UnixFile { path: path.to_owned(), made: Some(identity(path)?) };
        fs::set_permissions(path, Permissions::from_mode(UNIX_MODE))?;
        Ok(Socket::Unix(listener, file))
    }

    /// Listens on a socket that was opened elsewhere.
    pub(crate) fn passed(passed: Passed) -> io::Result<Socket> {
        match passed {
            Passed::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                let addr = listener.local_addr()?;
                Ok(Socket::Tcp(TcpListener::from_std(listener)?, addr))
            }
            Passed::Unix(listener) => {
                listener.set_nonblocking(true)?;
                let path = listener.local_addr()?.as_pathname().map(Path::to_owned);
                let file = UnixFile { path: path.unwrap_or_default(), made: None };
                Ok(Socket::Unix(UnixListener::from_std(listener)?, file))
            }
        }
    }

    /// Whether only this machine can reach it.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Socket::Tcp(_, addr) => addr.ip().to_canonical().is_loopback(),
            Socket::Unix(..) => true,
        }
    }

    pub(crate) fn addr(&self) -> Option<SocketAddr> {
        match self {
            Socket::Tcp(_, addr) => Some(*addr),
            Socket::Unix(..) => None,
        }
    }

    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Arrival>> {
        match self {
            Socket::Tcp(listener, _) => {
                listener.poll_accept(cx).map_ok(|(stream, _)| Arrival::Tcp(stream))
            }
            Socket::Unix(listener, _) => {
                listener.poll_accept(cx).map_ok(|(stream, _)| Arrival::Unix(stream))
            }
        }
    }
}

impl Drop for UnixFile {
    fn drop(&mut self) {
        // Somebody may have put another file there.
        if self.made.is_some() && identity(&self.path).ok() == self.made {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Device and inode of a file.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// Removes a socket's file on which nobody answers.
fn remove_stale(path: &Path) -> io::Result<()> {
    let in_use = |text| Err(io::Error::new(io::ErrorKind::AddrInUse, text));
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return in_use("there is a file that is no socket");
    }
    match BlockingUnixStream::connect(path) {
        Ok(_) => in_use("another process listens on it"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}
