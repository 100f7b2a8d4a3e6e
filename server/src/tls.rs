//! TLS: the certificate and key that a server shows, and handshakes within a limit.
//!
//! Versions 1.2 and 1.3, with HTTP/2 or HTTP/1.1 as the client chooses. Both files are read again
//! on demand: connections that are open keep what they have, new ones get the new certificate, and
//! files that cannot be used change nothing. Absent on purpose: certificates of clients, more than
//! one certificate, and renewal, which other programs do.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

use crate::config::TlsFiles;

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// The server's side of TLS.
pub(crate) struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<ServerConfig>>,
}

/// Why a certificate and key cannot be used.
#[derive(Debug)]
pub struct TlsError {
    path: PathBuf,
    wrong: Wrong,
}

#[derive(Debug)]
enum Wrong {
    Read(io::Error),
    Pem { wanted: &'static str, error: pem::Error },
    Pair { key: PathBuf, error: rustls::Error },
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.wrong {
            Wrong::Read(error) => write!(f, "{path} cannot be read: {error}"),
            Wrong::Pem { wanted, error: pem::Error::NoItemsFound } => {
                write!(f, "{path} holds no {wanted} in PEM form")
            }
            Wrong::Pem { wanted, error } => write!(f, "{path} holds no sound {wanted}: {error}"),
            Wrong::Pair { key, error } => {
                write!(f, "{path} and {} cannot be used together: {error}", key.display())
            }
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.wrong {
            Wrong::Read(error) => Some(error),
            Wrong::Pem { error, .. } => Some(error),
            Wrong::Pair { error, .. } => Some(error),
        }
    }
}

impl Tls {
    /// Reads the certificate and the key.
    pub(crate) fn load(files: TlsFiles) -> Result<Tls, TlsError> {
        let current = RwLock::new(Arc::new(read(&files)?));
        Ok(Tls { files, current })
    }

    /// Reads both again, for handshakes to come. An error leaves things as they were.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        let fresh = Arc::new(read(&self.files)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    pub(crate) fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> Accept<S> {
        let current = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        TlsAcceptor::from(current).accept(stream)
    }
}

/// Whether the client chose HTTP/2.
pub(crate) fn speaks_http2<S>(stream: &TlsStream<S>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(HTTP2)
}

fn read(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let wrong = |path: &Path, wrong| TlsError { path: path.to_owned(), wrong };
    let cert_text = read_file(&files.cert)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&cert_text).collect();
    let chain = chain
        .and_then(|chain| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) })
        .map_err(|error| wrong(&files.cert, Wrong::Pem { wanted: "certificate", error }))?;
    let key = PrivateKeyDer::from_pem_slice(&read_file(&files.key)?)
        .map_err(|error| wrong(&files.key, Wrong::Pem { wanted: "private key", error }))?;
    configure(chain, key)
        .map_err(|error| wrong(&files.cert, Wrong::Pair { key: files.key.clone(), error }))
}

fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| TlsError { path: path.to_owned(), wrong: Wrong::Read(error) })
}

fn configure(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
    Ok(config)
}
