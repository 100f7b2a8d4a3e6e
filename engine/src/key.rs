//! Composite keys: the namespace's number before the key, so that the keys of one namespace are
//! neighbours in every order that the engine keeps.
//!
//! A composite key is four big-endian bytes of namespace number, then the key's own bytes. The
//! index, the footers and compaction know only composite keys; records keep the two apart.

use std::ops::Deref;

use crate::error::Error;

/// Bytes of the namespace number in front of each key.
pub(crate) const PREFIX_LEN: usize = 4;
/// Composite keys up to this length need no allocation.
const INLINE: usize = 124;

/// A composite key; short ones live on the stack.
pub(crate) enum Composite {
    Inline(u8, [u8; INLINE]),
    Heap(Vec<u8>),
}

impl Composite {
    pub(crate) fn new(namespace: u32, key: &[u8]) -> Composite {
        let len = PREFIX_LEN + key.len();
        if len > INLINE {
            return Composite::Heap([&namespace.to_be_bytes(), key].concat());
        }
        let mut bytes = [0; INLINE];
        bytes[..PREFIX_LEN].copy_from_slice(&namespace.to_be_bytes());
        bytes[PREFIX_LEN..len].copy_from_slice(key);
        Composite::Inline(len as u8, bytes)
    }
}

impl Deref for Composite {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Composite::Inline(len, bytes) => &bytes[..usize::from(*len)],
            Composite::Heap(bytes) => bytes,
        }
    }
}

/// The namespace number and the key of a composite key, which has at least four bytes.
pub(crate) fn split(composite: &[u8]) -> (u32, &[u8]) {
    let (prefix, key) = composite.split_at(PREFIX_LEN);
    let mut number = [0; PREFIX_LEN];
    number.copy_from_slice(prefix);
    (u32::from_be_bytes(number), key)
}

/// The first composite key after all that start with `prefix`; `None` if there is none.
pub(crate) fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// Refuses keys that are empty or longer than `max`.
pub(crate) fn check(key: &[u8], max: usize) -> Result<(), Error> {
    if key.is_empty() || key.len() > max {
        return Err(Error::InvalidKey { len: key.len(), max });
    }
    Ok(())
}

/// How many bytes two keys begin with in common.
pub(crate) fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The first eight bytes as a number. Keys with different numbers are in the order of the numbers.
pub(crate) fn head_of(rest: &[u8]) -> u64 {
    if let Some(bytes) = rest.first_chunk() {
        return u64::from_be_bytes(*bytes);
    }
    let mut bytes = [0; 8];
    bytes[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_composite_key_splits_into_what_it_was_made_of() {
        for len in [1, 119, 120, 121, 1024] {
            let key = vec![b'k'; len];
            assert_eq!(split(&Composite::new(7, &key)), (7, &key[..]));
        }
    }

    #[test]
    fn composite_keys_order_by_namespace_then_by_bytes() {
        let order = [(1, "b"), (2, "a"), (2, "aa"), (2, "b"), (256, "a")];
        assert!(order.map(|(ns, key)| Composite::new(ns, key.as_bytes()).to_vec()).is_sorted());
    }

    #[test]
    fn the_successor_of_a_prefix_follows_every_key_under_it() {
        assert_eq!(successor(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(successor(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(successor(b"\xff\xff"), None);
    }
}
