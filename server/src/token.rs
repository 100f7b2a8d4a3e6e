//! Tokens at rest: `tokens.toml` in the store's directory, which keeps their hashes.
//!
//! A file beside the store, and not in it, since the server holds the store's lock while an operator
//! makes and revokes tokens. It is replaced as a whole: whoever reads it sees all of a change or
//! nothing of it. A token is 256 random bits, so its plain SHA-256 tells nothing about it. Namespaces
//! are kept by id: a token stays with its namespace when that is renamed, and never goes over to one
//! that takes the old name. Absent on purpose: the tokens themselves.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use jiff::Timestamp;
use kvast::NamespaceId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::Secret;

/// The file's name in the store's directory.
pub(crate) const FILE: &str = "tokens.toml";

/// A name for what replaces it; none that the store itself uses.
const NEW_FILE: &str = "tokens.toml.new";

/// What every token begins with, so that scanners for leaked secrets know one.
const PREFIX: &str = "kvast_";

/// The version of the file's form.
const VERSION: u32 = 1;

const HEAD: &str =
    "# Tokens of this store, by `kvast token`. The tokens themselves are not here.\n\n";

/// The SHA-256 of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TokenHash(pub(crate) [u8; 32]);

impl TokenHash {
    pub(crate) fn of(token: &[u8]) -> TokenHash {
        TokenHash(Sha256::digest(token).into())
    }

    fn parse(text: &str) -> Option<TokenHash> {
        let mut bytes = [0; 32];
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(TokenHash(bytes))
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One token, as far as it is known here.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    /// What an operator calls it by when it is revoked.
    pub(crate) id: String,
    /// What it is for.
    pub(crate) name: Option<String>,
    pub(crate) hash: TokenHash,
    pub(crate) may_write: bool,
    /// `None` is all, those to come too.
    pub(crate) namespaces: Option<Vec<NamespaceId>>,
    pub(crate) created: Timestamp,
    /// `None` is never.
    pub(crate) expires: Option<Timestamp>,
}

/// A token that does not exist yet: the text for its holder, and the hash for the file.
pub(crate) fn generate() -> io::Result<(Secret, TokenHash)> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let text = format!("{PREFIX}{}", TokenHash(bytes));
    let hash = TokenHash::of(text.as_bytes());
    Ok((Secret::new(text), hash))
}

/// The id of a token: enough of its hash to call it by.
pub(crate) fn id_of(hash: &TokenHash) -> String {
    hash.to_string()[..8].to_owned()
}

/// The tokens of a directory; `None` if there has never been one.
pub(crate) fn read(data: &Path) -> io::Result<Option<Vec<Token>>> {
    let text = match fs::read_to_string(data.join(FILE)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    let invalid = |what: String| io::Error::new(ErrorKind::InvalidData, what);
    let document: Document =
        toml::from_str(&text).map_err(|error| invalid(error.to_string().trim_end().to_owned()))?;
    if document.version != VERSION {
        let version = document.version;
        return Err(invalid(format!("its version is {version}; this program reads {VERSION}")));
    }
    let tokens: Result<Vec<Token>, String> = document.token.iter().map(Row::token).collect();
    tokens.map(Some).map_err(invalid)
}

/// Changes the tokens of a directory. What is changed is on disk when this returns.
pub(crate) fn change<R>(data: &Path, change: impl FnOnce(&mut Vec<Token>) -> R) -> io::Result<R> {
    let dir = File::open(data)?;
    // Two changes at once would lose one of them.
    dir.lock()?;
    let mut tokens = read(data)?.unwrap_or_default();
    let done = change(&mut tokens);
    let document = Document { version: VERSION, token: tokens.iter().map(Row::of).collect() };
    let text = toml::to_string(&document).map_err(io::Error::other)?;
    let new = data.join(NEW_FILE);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    give_to_owner_of(&dir, &file)?;
    file.write_all(HEAD.as_bytes())?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, data.join(FILE))?;
    dir.sync_all()?;
    Ok(done)
}

/// A token made by root is for the server, which runs as whoever owns the store.
fn give_to_owner_of(dir: &File, file: &File) -> io::Result<()> {
    let (owner, maker) = (dir.metadata()?, file.metadata()?);
    if (owner.uid(), owner.gid()) == (maker.uid(), maker.gid()) || maker.uid() != 0 {
        return Ok(());
    }
    fchown(file, Some(owner.uid()), Some(owner.gid()))
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Document {
    /// Always there, so that a file that was cut short is never one without tokens.
    version: u32,
    #[serde(default)]
    token: Vec<Row>,
}

/// A token as it stands in the file.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: String,
    name: Option<String>,
    sha256: String,
    access: Access,
    namespaces: Option<Vec<String>>,
    created: String,
    expires: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Access {
    Read,
    Write,
}

impl Row {
    fn of(token: &Token) -> Row {
        let ids = |ids: &Vec<NamespaceId>| ids.iter().map(NamespaceId::to_string).collect();
        Row {
            id: token.id.clone(),
            name: token.name.clone(),
            sha256: token.hash.to_string(),
            access: if token.may_write { Access::Write } else { Access::Read },
            namespaces: token.namespaces.as_ref().map(ids),
            created: token.created.to_string(),
            expires: token.expires.map(|expires| expires.to_string()),
        }
    }

    fn token(&self) -> Result<Token, String> {
        let wrong = |what: &str, text: &str| format!("token {}: {text:?} is no {what}", self.id);
        let id = |text: &String| text.parse().map_err(|_| wrong("id of a namespace", text));
        let time = |text: &String| text.parse().map_err(|_| wrong("time", text));
        let namespaces = self.namespaces.as_ref().map(|ids| ids.iter().map(id).collect());
        Ok(Token {
            id: self.id.clone(),
            name: self.name.clone(),
            hash: TokenHash::parse(&self.sha256).ok_or_else(|| wrong("SHA-256", &self.sha256))?,
            may_write: matches!(self.access, Access::Write),
            namespaces: namespaces.transpose()?,
            created: time(&self.created)?,
            expires: self.expires.as_ref().map(time).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn token(name: &str) -> (Secret, Token) {
        let (secret, hash) = generate().expect("there is randomness");
        let token = Token {
            id: id_of(&hash),
            name: Some(name.to_owned()),
            hash,
            may_write: false,
            namespaces: Some(vec!["00112233445566778899aabbccddeeff".parse().expect("an id")]),
            created: Timestamp::now(),
            expires: Some(Timestamp::MAX),
        };
        (secret, token)
    }

    #[test]
    fn tokens_are_read_back_as_they_were_written_and_only_by_their_owner() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(read(dir.path()).expect("it is read"), None);
        let (secret, one) = token("a \"quoted\"\nname");
        let (_, mut two) = token("two");
        (two.name, two.namespaces, two.expires, two.may_write) = (None, None, None, true);
        for token in [&one, &two] {
            change(dir.path(), |all| all.push(token.clone())).expect("it is written");
        }
        assert_eq!(read(dir.path()).expect("it is read"), Some(vec![one, two]));
        let file = dir.path().join(FILE);
        let mode = fs::metadata(&file).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = fs::read_to_string(&file).expect("it is read");
        let random = secret.reveal().strip_prefix(PREFIX).expect("the prefix");
        assert_eq!(random.len(), 64);
        assert!(!text.contains(random), "the token itself is stored nowhere");
        assert!(!dir.path().join(NEW_FILE).exists());
    }

    #[test]
    fn the_last_token_gone_the_file_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        change(dir.path(), |all| all.push(token("one").1)).expect("it is written");
        change(dir.path(), Vec::clear).expect("it is written");
        assert_eq!(read(dir.path()).expect("it is read"), Some(Vec::new()));
    }

    #[test]
    fn changes_at_once_are_all_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| change(dir.path(), |all| all.push(token("one").1)));
            }
        });
        assert_eq!(read(dir.path()).expect("it is read").map(|all| all.len()), Some(8));
    }

    #[test]
    fn what_is_broken_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        change(dir.path(), |all| all.push(token("one").1)).expect("it is written");
        let good = fs::read_to_string(dir.path().join(FILE)).expect("it is read");
        for (from, to) in [
            ("access = \"read\"", "access = \"admin\""),
            ("sha256 = \"", "sha256 = \"zz"),
            ("created = \"", "created = \"x"),
            ("[[token]]", "[[token]"),
            ("00112233", "0011223"),
            ("id = ", "colour = "),
            ("version = 1", "version = 2"),
            (good.as_str(), ""),
        ] {
            assert!(good.contains(from), "{from}: {good}");
            fs::write(dir.path().join(FILE), good.replacen(from, to, 1)).expect("it is written");
            let error = read(dir.path()).expect_err(to);
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
        }
    }
}
