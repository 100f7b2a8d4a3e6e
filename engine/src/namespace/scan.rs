//! A walk over a namespace's keys, for those who do not want to know of pages.

use super::Namespace;
use crate::error::Error;
use crate::list::ListOptions;

/// One key of a [`Scan`].
///
/// ```
/// # fn main() -> Result<(), kvast::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let users = kvast::Db::open(dir.path())?.namespace("users")?;
/// # users.put("42", b"Ada")?;
/// let entries = users.scan("4").collect::<Result<Vec<_>, _>>()?;
/// assert_eq!(entries[0].key, b"42");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Vec<u8>,
    /// When it expires, in ms since 1970.
    pub expires_at: Option<u64>,
    /// Its metadata, if there is any.
    pub metadata: Option<Vec<u8>>,
}

/// Walks keys in order, a page at a time. Each key was there when its page was read.
///
/// ```
/// # fn main() -> Result<(), kvast::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let users = kvast::Db::open(dir.path())?.namespace("users")?;
/// let scan: kvast::Scan = users.scan("user:");
/// assert_eq!(scan.count(), 0);
/// # Ok(()) }
/// ```
pub struct Scan {
    namespace: Namespace,
    options: ListOptions,
    entries: std::vec::IntoIter<Entry>,
    ended: bool,
}

impl Scan {
    pub(super) fn new(namespace: Namespace, options: ListOptions) -> Scan {
        Scan { namespace, options, entries: Vec::new().into_iter(), ended: false }
    }

    fn next_page(&mut self) -> Result<(), Error> {
        let page = self.namespace.list(&self.options)?;
        match page.cursor() {
            Some(cursor) => self.options = self.options.clone().cursor(cursor),
            None => self.ended = true,
        }
        let entries: Vec<Entry> = page
            .iter()
            .map(|listed| Entry {
                key: listed.key.to_vec(),
                expires_at: listed.expires_at,
                metadata: listed.metadata.map(<[u8]>::to_vec),
            })
            .collect();
        self.entries = entries.into_iter();
        Ok(())
    }
}

impl Iterator for Scan {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(entry) = self.entries.next() {
            return Some(Ok(entry));
        }
        if self.ended {
            return None;
        }
        if let Err(error) = self.next_page() {
            self.ended = true;
            return Some(Err(error));
        }
        self.entries.next().map(Ok)
    }
}
