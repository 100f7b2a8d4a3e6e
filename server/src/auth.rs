//! Who may talk to this server: whoever holds a token of the token file, or anybody on loopback
//! when there is no such file.
//!
//! The tokens are read once, at start. Comparing takes the same time wherever two tokens differ,
//! and every token is compared with. Absent on purpose: tokens per namespace, and any answer that
//! tells how close a wrong token was.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use hyper::header::{AUTHORIZATION, HeaderName};
use hyper::{HeaderMap, StatusCode};
use kvast::Namespace;

use crate::route::Access;
use crate::rules::Refusal;

/// Headers that carry a bare token, as older v4 clients send it.
const BARE_TOKEN: [HeaderName; 2] =
    [HeaderName::from_static("x-auth-key"), HeaderName::from_static("x-auth-user-service-key")];

/// The tokens that are accepted.
pub(crate) struct Auth {
    /// `None` accepts everybody.
    tokens: Option<Vec<Vec<u8>>>,
}

/// What the sender of a request may do.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    everything: bool,
}

impl Grant {
    fn all() -> Grant {
        Grant { everything: true }
    }

    /// What needs no token.
    pub(crate) fn none() -> Grant {
        Grant { everything: false }
    }

    /// Whether it covers this kind of access at all.
    pub(crate) fn covers(&self, access: Access) -> Result<(), Denied> {
        if self.everything || access == Access::Open { Ok(()) } else { Err(Denied::TooLittle) }
    }

    /// Whether it covers this namespace.
    pub(crate) fn covers_namespace(&self, _namespace: &Namespace) -> Result<(), Denied> {
        Ok(())
    }

    /// Whether it covers all namespaces, those to come too.
    pub(crate) fn covers_all_namespaces(&self) -> Result<(), Denied> {
        Ok(())
    }
}

/// Why a request is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// It carries no token.
    Missing,
    /// It carries a token that is not accepted.
    Wrong,
    /// Its token allows less than this.
    TooLittle,
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Refusal {
        Refusal::new(denied.status(), denied.to_string())
    }
}

impl Denied {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Denied::Missing => StatusCode::UNAUTHORIZED,
            Denied::Wrong | Denied::TooLittle => StatusCode::FORBIDDEN,
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Denied::Missing => "This server wants a token: send Authorization: Bearer <token>.",
            Denied::Wrong => "This token is not accepted by this server.",
            Denied::TooLittle => "This token does not allow that.",
        })
    }
}

impl Auth {
    /// Accepts whoever comes.
    pub(crate) fn open() -> Auth {
        Auth { tokens: None }
    }

    /// Accepts the tokens of a file: one per line, blank lines and `#` comments aside.
    pub(crate) fn from_file(path: &Path) -> io::Result<Auth> {
        let text = fs::read_to_string(path)?;
        let lines = text.lines().map(str::trim);
        let tokens: Vec<Vec<u8>> = lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| line.as_bytes().to_vec())
            .collect();
        if tokens.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it holds no token"));
        }
        Ok(Auth { tokens: Some(tokens) })
    }

    /// Whether the sender of these headers may go on.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<Grant, Denied> {
        let Some(tokens) = &self.tokens else { return Ok(Grant::all()) };
        let given = given_token(headers).ok_or(Denied::Missing)?;
        let accepted = tokens.iter().fold(false, |found, token| found | equal(token, given));
        if accepted { Ok(Grant::all()) } else { Err(Denied::Wrong) }
    }
}

fn given_token(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
        return scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii());
    }
    BARE_TOKEN.iter().find_map(|name| headers.get(name)).map(|value| value.as_bytes())
}

/// Compares without stopping at the first difference. The length is no secret.
fn equal(token: &[u8], given: &[u8]) -> bool {
    let differences = token.iter().zip(given).fold(0, |all, (a, b)| all | (a ^ b));
    token.len() == given.len() && std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn check(name: HeaderName, value: &'static str) -> Result<(), Denied> {
        let auth = Auth { tokens: Some(vec![b"first".to_vec(), b"second".to_vec()]) };
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        auth.check(&headers).map(drop)
    }

    #[test]
    fn any_listed_token_is_accepted_in_every_header_that_carries_one() {
        for value in ["Bearer first", "bearer second", "Bearer  first "] {
            assert_eq!(check(AUTHORIZATION, value), Ok(()), "{value}");
        }
        for name in BARE_TOKEN {
            assert_eq!(check(name, "second"), Ok(()));
        }
    }

    #[test]
    fn everything_else_is_denied() {
        for value in ["Bearer firs", "Bearer firstt", "Bearer second\u{20}x", "Bearer Second"] {
            assert_eq!(check(AUTHORIZATION, value), Err(Denied::Wrong), "{value}");
        }
        for value in ["Bearer", "Basic first", "first", ""] {
            assert_eq!(check(AUTHORIZATION, value), Err(Denied::Missing), "{value}");
        }
    }
}
