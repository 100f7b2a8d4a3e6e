//! Who may talk to this server, and what about.
//!
//! As soon as there is a token, every request needs one that is accepted, wherever it comes from;
//! a server that has once needed tokens needs them until it ends, so that revoking the last one
//! shuts it and does not open it. Tokens come from the store's directory ([`token`]), from a file of
//! plain ones, and from the configuration. A change of either file is seen within a second; a file
//! that cannot be read changes nothing.
//!
//! A token is looked up by its SHA-256. How long that takes tells about hashes, which nobody can
//! choose; the hash that was found is compared in constant time all the same. A request costs one
//! hash (about 0.2 µs) and two atomic operations of a read lock that is written to once per change:
//! beside the 10 µs of a request, less than a cache per connection would have to save. Absent on
//! purpose: any answer that tells how close a wrong token was.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use hyper::header::{AUTHORIZATION, HeaderName, ORIGIN};
use hyper::{HeaderMap, StatusCode};
use jiff::Timestamp;
use kvast::{Namespace, NamespaceId};
use subtle::ConstantTimeEq;

use crate::config::{Config, Secret};
use crate::route::Access;
use crate::rules::Refusal;
use crate::token::{self, Token, TokenHash};

/// Headers that carry a bare token, as older v4 clients send it.
const BARE_TOKEN: [HeaderName; 2] =
    [HeaderName::from_static("x-auth-key"), HeaderName::from_static("x-auth-user-service-key")];

/// The tokens that are accepted.
pub(crate) struct Auth {
    sources: Sources,
    is_guarded: AtomicBool,
    keys: RwLock<Keys>,
    /// The files as they were when they were last read.
    seen: Mutex<Seen>,
}

/// Where tokens come from.
struct Sources {
    data: PathBuf,
    file: Option<PathBuf>,
    plain: Option<Secret>,
}

/// What each token allows.
type Keys = HashMap<TokenHash, Key>;

struct Key {
    hash: TokenHash,
    grant: Grant,
    expires: Option<Timestamp>,
}

/// What the sender of a request may do.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    may: May,
    /// `None` is all namespaces, those to come too.
    namespaces: Option<Arc<[NamespaceId]>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum May {
    Nothing,
    Read,
    Write,
}

impl Grant {
    fn all() -> Grant {
        Grant { may: May::Write, namespaces: None }
    }

    /// What needs no token.
    pub(crate) fn none() -> Grant {
        Grant { may: May::Nothing, namespaces: None }
    }

    fn of(token: &Token) -> Grant {
        Grant {
            may: if token.may_write { May::Write } else { May::Read },
            namespaces: token.namespaces.as_deref().map(Arc::from),
        }
    }

    /// Whether it covers this kind of access at all.
    pub(crate) fn covers(&self, access: Access) -> Result<(), Denied> {
        let needed = match access {
            Access::Open => May::Nothing,
            Access::Read => May::Read,
            Access::Write => May::Write,
        };
        if self.may >= needed { Ok(()) } else { Err(Denied::TooLittle) }
    }

    /// Whether it covers this namespace.
    pub(crate) fn covers_namespace(&self, namespace: &Namespace) -> Result<(), Denied> {
        match &self.namespaces {
            Some(ids) if !ids.contains(&namespace.id()) => Err(Denied::TooLittle),
            _ => Ok(()),
        }
    }

    /// Whether it covers all namespaces, those to come too.
    pub(crate) fn covers_all_namespaces(&self) -> Result<(), Denied> {
        if self.namespaces.is_none() { Ok(()) } else { Err(Denied::TooLittle) }
    }
}

/// A file of tokens that cannot be used.
#[derive(Debug)]
pub(crate) struct Unusable {
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

/// Why a request is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// It carries no token.
    Missing,
    /// It comes from a page in a browser, and nothing but this machine vouches for it.
    Page,
    /// It carries a token that is not accepted.
    Wrong,
    /// It carries a token whose time is over.
    Expired,
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
            Denied::Page | Denied::Wrong | Denied::Expired | Denied::TooLittle => {
                StatusCode::FORBIDDEN
            }
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Denied::Missing => "This server wants a token: send Authorization: Bearer <token>.",
            Denied::Page => {
                "A page in a browser may not use a server that needs no token: any page could."
            }
            Denied::Wrong => "This token is not accepted by this server.",
            Denied::Expired => "This token has expired.",
            Denied::TooLittle => "This token does not allow that.",
        })
    }
}

impl Auth {
    /// The tokens of a configuration.
    pub(crate) fn new(config: &Config) -> Result<Auth, Unusable> {
        let sources = Sources {
            data: config.data.clone(),
            file: config.token_file.clone(),
            plain: config.token.clone(),
        };
        let seen = sources.look();
        let keys = sources.read()?;
        Ok(Auth {
            sources,
            is_guarded: AtomicBool::new(keys.is_some()),
            keys: RwLock::new(keys.unwrap_or_default()),
            seen: Mutex::new(seen),
        })
    }

    /// Whether a request needs a token.
    pub(crate) fn is_guarded(&self) -> bool {
        self.is_guarded.load(Ordering::Acquire)
    }

    /// Whether the sender of these headers may go on.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<Grant, Denied> {
        if !self.is_guarded() {
            // Whatever page a browser on this machine shows may send it here. It says so by this header,
            // which no other client sends.
            let is_page = headers.contains_key(ORIGIN);
            return if is_page { Err(Denied::Page) } else { Ok(Grant::all()) };
        }
        let given = TokenHash::of(given_token(headers).ok_or(Denied::Missing)?);
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        match keys.get(&given) {
            Some(key) if bool::from(key.hash.0.ct_eq(&given.0)) => key.grant(),
            _ => Err(Denied::Wrong),
        }
    }

    /// Reads the files again if they are others than before; says whether they were.
    pub(crate) fn refresh(&self) -> Result<bool, Unusable> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.sources.look();
        if *seen == now {
            return Ok(false);
        }
        // What is broken is told once, and tried again when it changes.
        *seen = now;
        let keys = self.sources.read()?;
        let needs_token = keys.is_some();
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys.unwrap_or_default();
        self.is_guarded.fetch_or(needs_token, Ordering::AcqRel);
        Ok(true)
    }
}

impl Key {
    fn plain(token: &[u8]) -> Key {
        Key { hash: TokenHash::of(token), grant: Grant::all(), expires: None }
    }

    fn grant(&self) -> Result<Grant, Denied> {
        match self.expires {
            Some(expires) if expires <= Timestamp::now() => Err(Denied::Expired),
            _ => Ok(self.grant.clone()),
        }
    }
}

impl From<&Token> for Key {
    fn from(token: &Token) -> Key {
        Key { hash: token.hash, grant: Grant::of(token), expires: token.expires }
    }
}

/// What tells one version of a file from another; `None` for a file that is not there.
type Stamp = Option<(u64, i64, i64, u64)>;

type Seen = [Stamp; 2];

fn stamp(path: &Path) -> Stamp {
    let meta = fs::metadata(path).ok()?;
    Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
}

impl Sources {
    fn look(&self) -> Seen {
        [stamp(&self.data.join(token::FILE)), self.file.as_deref().and_then(stamp)]
    }

    /// All tokens; `None` if there is no source of any.
    fn read(&self) -> Result<Option<Keys>, Unusable> {
        let stored = token::read(&self.data)
            .map_err(|source| Unusable { path: self.data.join(token::FILE), source })?;
        let listed = match &self.file {
            Some(path) => {
                Some(listed(path).map_err(|source| Unusable { path: path.clone(), source })?)
            }
            None => None,
        };
        if stored.is_none() && listed.is_none() && self.plain.is_none() {
            return Ok(None);
        }
        let stored = stored.unwrap_or_default();
        let plain = self.plain.iter().map(|token| Key::plain(token.reveal().as_bytes()));
        let keys = stored.iter().map(Key::from).chain(listed.unwrap_or_default()).chain(plain);
        Ok(Some(keys.map(|key| (key.hash, key)).collect()))
    }
}

/// The tokens of a file: one per line, blank lines and `#` comments aside.
fn listed(path: &Path) -> io::Result<Vec<Key>> {
    let text = fs::read_to_string(path)?;
    let lines = text.lines().map(str::trim);
    let tokens = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<Key> = tokens.map(|token| Key::plain(token.as_bytes())).collect();
    if keys.is_empty() {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            "it holds no token; write one per line",
        ));
    }
    Ok(keys)
}

/// An empty token is none.
fn given_token(headers: &HeaderMap) -> Option<&[u8]> {
    let token = match headers.get(AUTHORIZATION) {
        Some(value) => {
            let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())?
        }
        None => BARE_TOKEN.iter().find_map(|name| headers.get(name))?.as_bytes(),
    };
    Some(token).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hyper::header::HeaderValue;
    use kvast::Db;
    use tempfile::TempDir;

    use super::*;

    fn auth(dir: &TempDir, token_file: Option<&str>) -> Auth {
        let token_file = token_file.map(|text| {
            let path = dir.path().join("listed");
            fs::write(&path, text).expect("it is written");
            path
        });
        let data = dir.path().to_owned();
        Auth::new(&Config { data, token_file, ..Config::default() }).expect("it is usable")
    }

    fn dir() -> TempDir {
        tempfile::tempdir().expect("a directory")
    }

    fn check(auth: &Auth, name: HeaderName, value: &str) -> Result<Grant, Denied> {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).expect("a value"));
        auth.check(&headers)
    }

    /// Stores a token and gives its text.
    fn store(dir: &TempDir, change: impl FnOnce(&mut Token)) -> String {
        let (secret, hash) = token::generate().expect("there is randomness");
        let mut token = Token {
            id: token::id_of(&hash),
            name: None,
            hash,
            may_write: true,
            namespaces: None,
            created: Timestamp::now(),
            expires: None,
        };
        change(&mut token);
        token::change(dir.path(), |all| all.push(token)).expect("it is written");
        format!("Bearer {}", secret.reveal())
    }

    #[test]
    fn without_tokens_all_but_the_pages_of_browsers_may_do_everything() {
        let dir = dir();
        let auth = auth(&dir, None);
        assert!(auth.check(&HeaderMap::new()).is_ok());
        for origin in ["http://example.com", "null", ""] {
            assert_eq!(check(&auth, ORIGIN, origin).expect_err(origin), Denied::Page);
        }
    }

    #[test]
    fn any_listed_token_is_accepted_in_every_header_that_carries_one() {
        let dir = dir();
        let auth = auth(&dir, Some("# two\n\nfirst\n  second\n"));
        for value in ["Bearer first", "bearer second", "Bearer  first "] {
            assert!(check(&auth, AUTHORIZATION, value).is_ok(), "{value}");
        }
        for name in BARE_TOKEN {
            assert!(check(&auth, name, "second").is_ok());
        }
    }

    #[test]
    fn everything_else_is_denied() {
        let dir = dir();
        let auth = auth(&dir, Some("first\nsecond"));
        let denied = |value| check(&auth, AUTHORIZATION, value).expect_err(value);
        for value in ["Bearer firs", "Bearer firstt", "Bearer second\u{20}x", "Bearer Second"] {
            assert_eq!(denied(value), Denied::Wrong, "{value}");
        }
        for value in ["Bearer", "Basic first", "first", ""] {
            assert_eq!(denied(value), Denied::Missing, "{value}");
        }
    }

    #[test]
    fn an_empty_token_opens_nothing_even_where_it_is_configured() {
        let dir = dir();
        let config =
            Config { data: dir.path().into(), token: Some(Secret::new("")), ..Config::default() };
        let auth = Auth::new(&config).expect("it is usable");
        for (name, value) in [(AUTHORIZATION, "Bearer "), (BARE_TOKEN[0].clone(), "")] {
            assert_eq!(check(&auth, name, value).expect_err(value), Denied::Missing);
        }
    }

    #[test]
    fn a_token_allows_what_it_was_made_for_until_it_expires() {
        let dir = dir();
        let db = Db::open(dir.path().join("db")).expect("it opens");
        let (own, other) = (db.namespace("own").expect("a"), db.namespace("other").expect("b"));
        let all = store(&dir, |_| {});
        let reads = store(&dir, |token| token.may_write = false);
        let scoped = store(&dir, |token| token.namespaces = Some(vec![own.id()]));
        let past = Timestamp::now() - Duration::from_secs(1);
        let expired = store(&dir, |token| token.expires = Some(past));
        let auth = auth(&dir, None);
        let grant = |value: &str| check(&auth, AUTHORIZATION, value);

        let all = grant(&all).expect("it is accepted");
        assert!(all.covers(Access::Write).is_ok() && all.covers_all_namespaces().is_ok());
        let reads = grant(&reads).expect("it is accepted");
        assert!(reads.covers(Access::Read).is_ok() && reads.covers_namespace(&own).is_ok());
        assert_eq!(reads.covers(Access::Write), Err(Denied::TooLittle));
        let scoped = grant(&scoped).expect("it is accepted");
        assert!(scoped.covers(Access::Write).is_ok() && scoped.covers_namespace(&own).is_ok());
        assert_eq!(scoped.covers_namespace(&other), Err(Denied::TooLittle));
        assert_eq!(scoped.covers_all_namespaces(), Err(Denied::TooLittle));
        assert_eq!(grant(&expired).expect_err("it expired"), Denied::Expired);
        assert!(Grant::none().covers(Access::Open).is_ok());
        assert!(Grant::none().covers(Access::Read).is_err());
    }

    #[test]
    fn changes_of_the_files_are_seen_and_what_is_broken_changes_nothing() {
        let dir = dir();
        let auth = auth(&dir, None);
        assert!(!auth.is_guarded() && auth.check(&HeaderMap::new()).is_ok());
        let one = store(&dir, |_| {});
        assert!(auth.refresh().expect("it is usable"));
        assert!(!auth.refresh().expect("it is usable"), "nothing changed");
        assert_eq!(auth.check(&HeaderMap::new()).expect_err("guarded"), Denied::Missing);
        assert!(check(&auth, AUTHORIZATION, &one).is_ok());

        let path = dir.path().join(token::FILE);
        fs::write(&path, "nonsense").expect("it is written");
        assert_eq!(auth.refresh().expect_err("it is broken").path, path);
        assert!(!auth.refresh().expect("it is told once"));
        assert!(check(&auth, AUTHORIZATION, &one).is_ok(), "the old tokens stay");

        fs::remove_file(&path).expect("it is removed");
        assert!(auth.refresh().expect("it is usable"));
        assert!(auth.is_guarded(), "without tokens it is shut, not open");
        assert_eq!(check(&auth, AUTHORIZATION, &one).expect_err("gone"), Denied::Wrong);
    }
}
