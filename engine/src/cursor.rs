//! A place in a list, as opaque text: what a client hands back to go on.
//!
//! A cursor holds the last key of the page before, so nothing is kept in the store for it, and it
//! survives restarts, compaction and the deletion of its key. It is URL-safe text: base64 (RFC 4648
//! §5, no padding) of a version, a digest of namespace and prefix, the key, and a checksum seeded with
//! the store's id. The version also says in which direction the list runs. A cursor that was never
//! issued, was cut, or belongs to another store, namespace, prefix or direction is refused.

use crate::error::Error;
use crate::format::{StoreId, crc32, crc32_from};

/// The layout above, of a list that runs forward.
const FORWARD: u8 = 1;
/// The same, of one that runs backward.
const REVERSE: u8 = 2;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// What a cursor is valid for.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) store: &'a StoreId,
    pub(crate) namespace: u32,
    pub(crate) prefix: &'a [u8],
    pub(crate) reverse: bool,
}

impl Scope<'_> {
    fn version(&self) -> u8 {
        if self.reverse { REVERSE } else { FORWARD }
    }

    fn digest(&self) -> u32 {
        crc32_from(crc32_from(crc32(self.store), &self.namespace.to_be_bytes()), self.prefix)
    }

    fn checksum(&self, bytes: &[u8]) -> u32 {
        crc32_from(!crc32(self.store), bytes)
    }
}

/// The cursor that goes on after `last_key`.
pub(crate) fn encode(scope: Scope<'_>, last_key: &[u8]) -> String {
    let mut bytes = vec![scope.version()];
    bytes.extend_from_slice(&scope.digest().to_le_bytes());
    bytes.extend_from_slice(last_key);
    bytes.extend_from_slice(&scope.checksum(&bytes).to_le_bytes());
    to_base64(&bytes)
}

/// The key after which a list goes on.
pub(crate) fn decode(scope: Scope<'_>, cursor: &str) -> Result<Vec<u8>, Error> {
    parse(scope, cursor).ok_or(Error::InvalidCursor)
}

fn parse(scope: Scope<'_>, cursor: &str) -> Option<Vec<u8>> {
    let bytes = from_base64(cursor.as_bytes())?;
    let (body, checksum) = bytes.split_last_chunk::<4>()?;
    if u32::from_le_bytes(*checksum) != scope.checksum(body) {
        return None;
    }
    let (version, rest) = body.split_first()?;
    let (digest, key) = rest.split_first_chunk::<4>()?;
    let issued_here = *version == scope.version() && u32::from_le_bytes(*digest) == scope.digest();
    (issued_here && key.starts_with(scope.prefix)).then(|| key.to_vec())
}

fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for sextet in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(word >> (18 - 6 * sextet) & 63) as usize]));
        }
    }
    text
}

fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for chunk in text.chunks(4) {
        let mut word = 0u32;
        for byte in chunk {
            let sextet = ALPHABET.iter().position(|letter| letter == byte)?;
            word = word << 6 | sextet as u32;
        }
        let missing = 4 - chunk.len();
        word <<= 6 * missing;
        // One letter alone holds no byte; bits that no byte uses are zero, so that a cursor has one
        // spelling.
        if missing == 3 || (word & ((1 << (8 * missing)) - 1)) != 0 {
            return None;
        }
        bytes.extend_from_slice(&word.to_be_bytes()[1..4 - missing]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreId = [7; 16];

    fn scope(namespace: u32, prefix: &[u8]) -> Scope<'_> {
        Scope { store: &STORE, namespace, prefix, reverse: false }
    }

    #[test]
    fn a_cursor_comes_back_as_the_key_it_was_made_of() {
        for len in 1..40 {
            let key = vec![0xf0 | len as u8; len];
            let cursor = encode(scope(1, b""), &key);
            assert!(cursor.bytes().all(|byte| ALPHABET.contains(&byte)));
            assert_eq!(decode(scope(1, b""), &cursor).unwrap(), key);
        }
    }

    #[test]
    fn a_cursor_of_another_namespace_prefix_direction_or_store_is_refused() {
        let cursor = encode(scope(1, b"ab"), b"abc");
        let other = StoreId::from([8; 16]);
        assert!(decode(scope(2, b"ab"), &cursor).is_err());
        assert!(decode(scope(1, b"a"), &cursor).is_err());
        assert!(decode(Scope { store: &other, ..scope(1, b"ab") }, &cursor).is_err());
        let reverse = Scope { reverse: true, ..scope(1, b"ab") };
        assert!(decode(reverse, &cursor).is_err());
        assert!(decode(scope(1, b"ab"), &encode(reverse, b"abc")).is_err());
        assert_eq!(decode(reverse, &encode(reverse, b"abc")).unwrap(), b"abc");
    }

    #[test]
    fn a_cursor_that_was_never_issued_is_refused() {
        let good = encode(scope(1, b""), b"key");
        for text in ["", "A", "never-issued!", "é", &good[1..], &good[..good.len() - 1]] {
            assert!(decode(scope(1, b""), text).is_err(), "{text}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone().into_bytes();
            bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
            let bad = String::from_utf8(bad).unwrap();
            assert!(decode(scope(1, b""), &bad).is_err(), "{bad}");
        }
    }
}
