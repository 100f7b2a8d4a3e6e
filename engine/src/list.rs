//! Keys in order, a page at a time.
//!
//! A page is made from the index alone; only keys with metadata cost a look at their record. What
//! always holds: keys come in the order asked for, an expired key is never shown, a page that is not
//! the last is full, and [`Page::is_complete`] is exact. A page is no snapshot: each key was there
//! when it was read.

use std::ops::Range;

use crate::cursor::{self, Scope};
use crate::error::Error;
use crate::index::{Guard, Traits, Visited};
use crate::key::{self, Composite, PREFIX_LEN};
use crate::keyspace::{FOUND_TOGETHER, Keyspace, is_expired};

/// Keys that are visited under one pin, so that a walk over many expired keys holds nothing up.
const KEYS_PER_PIN: usize = 4096;
/// The longest page.
const LIMIT_MAX: usize = 10_000;

/// Which keys to list, and which way. By default all of them in order, 1,000 at a time.
///
/// ```
/// # fn main() -> Result<(), kvast::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = kvast::Db::open(dir.path())?;
/// use kvast::ListOptions;
/// let users = db.namespace("users")?;
/// for key in ["a:1", "a:2", "b:1"] {
///     users.put(key, "")?;
/// }
/// let first = users.list(&ListOptions::new().prefix("a:").limit(1))?;
/// assert_eq!(first.iter().next().unwrap().key, b"a:1");
/// let cursor = first.cursor().expect("there is more");
/// let rest = users.list(&ListOptions::new().prefix("a:").cursor(cursor))?;
/// assert!(rest.is_complete());
///
/// let latest = users.list(&ListOptions::new().end("b").reverse(true).limit(1))?;
/// assert_eq!(latest.iter().next().unwrap().key, b"a:2");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct ListOptions {
    prefix: Vec<u8>,
    start: Vec<u8>,
    end: Option<Vec<u8>>,
    reverse: bool,
    limit: usize,
    cursor: Option<String>,
}

impl Default for ListOptions {
    fn default() -> ListOptions {
        ListOptions::new()
    }
}

impl ListOptions {
    /// All keys in order, 1,000 at a time.
    #[must_use]
    pub fn new() -> ListOptions {
        ListOptions {
            prefix: Vec::new(),
            start: Vec::new(),
            end: None,
            reverse: false,
            limit: 1000,
            cursor: None,
        }
    }

    /// Only keys that start with these bytes.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<Vec<u8>>) -> ListOptions {
        self.prefix = prefix.into();
        self
    }

    /// Only this key and those behind it, in either direction.
    #[must_use]
    pub fn start(mut self, key: impl Into<Vec<u8>>) -> ListOptions {
        self.start = key.into();
        self
    }

    /// Only the keys before this one, in either direction. So nothing comes before the empty key.
    #[must_use]
    pub fn end(mut self, key: impl Into<Vec<u8>>) -> ListOptions {
        self.end = Some(key.into());
        self
    }

    /// Whether the last key comes first.
    #[must_use]
    pub fn reverse(mut self, on: bool) -> ListOptions {
        self.reverse = on;
        self
    }

    /// At most this many keys in the page: 1 to 10,000.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> ListOptions {
        self.limit = limit;
        self
    }

    /// Goes on where a page ended. Keep prefix and direction the same; the rest may change.
    #[must_use]
    pub fn cursor(mut self, cursor: impl Into<String>) -> ListOptions {
        self.cursor = Some(cursor.into());
        self
    }
}

/// Some keys in order, and where to go on.
///
/// ```
/// # fn main() -> Result<(), kvast::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = kvast::Db::open(dir.path())?;
/// # let users = db.namespace("users")?;
/// # users.put("42", b"Ada")?;
/// let page = users.list(&kvast::ListOptions::new())?;
/// assert_eq!((page.len(), page.is_complete(), page.cursor()), (1, true, None));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Composite keys, one after the other.
    keys: Vec<u8>,
    metadata: Vec<u8>,
    rows: Vec<Row>,
    cursor: Option<String>,
}

#[derive(Clone, Debug)]
struct Row {
    /// In `Page::keys`, without the namespace's number.
    key: Range<u32>,
    metadata: Range<u32>,
    expires_ms: u64,
}

/// One key of a [`Page`].
///
/// ```
/// # fn main() -> Result<(), kvast::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = kvast::Db::open(dir.path())?;
/// # let users = db.namespace("users")?;
/// users.put_with("42", b"Ada", kvast::PutOptions::new().metadata(*b"{}"))?;
/// let page = users.list(&kvast::ListOptions::new())?;
/// let listed = page.iter().next().unwrap();
/// assert_eq!((listed.key, listed.expires_at, listed.metadata), (&b"42"[..], None, Some(&b"{}"[..])));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed<'a> {
    /// The key.
    pub key: &'a [u8],
    /// When it expires, in ms since 1970.
    pub expires_at: Option<u64>,
    /// Its metadata, if there is any.
    pub metadata: Option<&'a [u8]>,
}

impl Page {
    /// How many keys the page has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether the page has no keys; then nothing matches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The keys in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Listed<'_>> {
        self.rows.iter().map(|row| self.listed(row))
    }

    fn listed(&self, row: &Row) -> Listed<'_> {
        let of = |range: &Range<u32>| range.start as usize..range.end as usize;
        let metadata = &self.metadata[of(&row.metadata)];
        Listed {
            key: &self.keys[of(&row.key)],
            expires_at: (row.expires_ms != 0).then_some(row.expires_ms),
            metadata: (!metadata.is_empty()).then_some(metadata),
        }
    }

    /// Where to go on; `None` on the last page.
    #[must_use]
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// Whether no key follows.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.cursor.is_none()
    }
}

/// Lists one page. Prefix and direction of `scope` are replaced by those of the options.
pub(crate) fn list(
    keyspace: &Keyspace,
    scope: Scope<'_>,
    max_key_bytes: usize,
    options: &ListOptions,
) -> Result<Page, Error> {
    if !(1..=LIMIT_MAX).contains(&options.limit) {
        return Err(Error::InvalidOption { option: "limit", must: "1 to 10,000" });
    }
    check_bounds(options, max_key_bytes)?;
    let scope = Scope { prefix: &options.prefix, reverse: options.reverse, ..scope };
    let after =
        options.cursor.as_deref().map(|cursor| cursor::decode(scope, cursor)).transpose()?;
    let mut page = Page::default();
    page.rows.reserve(options.limit.min(1000));
    let span = Span::new(scope, options, after.as_deref());
    if fill(keyspace, span, options.limit, &mut page)?
        && let Some(last) = page.rows.last()
    {
        page.cursor = Some(cursor::encode(scope, page.listed(last).key));
    }
    Ok(page)
}

/// Refuses prefixes and bounds that are longer than any key; a bound may have one byte more, so that
/// it can stand for just behind a key.
fn check_bounds(options: &ListOptions, max_key_bytes: usize) -> Result<(), Error> {
    let ListOptions { prefix, start, end, .. } = options;
    let check = |bytes: &[u8], max| match bytes.len() {
        len if len > max => Err(Error::InvalidKey { len, max }),
        _ => Ok(()),
    };
    check(prefix, max_key_bytes)?;
    check(start, max_key_bytes + 1)?;
    check(end.as_deref().unwrap_or_default(), max_key_bytes + 1)
}

/// The composite keys that are still to be visited, and from which side.
struct Span {
    start: Vec<u8>,
    /// Behind the last one; `None` if there is nothing behind it.
    end: Option<Vec<u8>>,
    reverse: bool,
}

impl Span {
    /// What prefix, bounds and cursor have in common.
    fn new(scope: Scope<'_>, options: &ListOptions, after: Option<&[u8]>) -> Span {
        let composite = |key: &[u8]| Composite::new(scope.namespace, key).to_vec();
        let start = composite(options.start.as_slice().max(scope.prefix));
        let end = key::successor(&Composite::new(scope.namespace, scope.prefix));
        let mut span = Span { start, end, reverse: scope.reverse };
        if let Some(end) = &options.end {
            span.end_before(composite(end));
        }
        if let Some(last) = after {
            let last = Composite::new(scope.namespace, last);
            if span.reverse { span.end_before(last.to_vec()) } else { span.start_behind(&last) }
        }
        span
    }

    fn start_behind(&mut self, last: &[u8]) {
        if *last >= self.start[..] {
            self.start.clear();
            self.start.extend_from_slice(last);
            self.start.push(0);
        }
    }

    fn end_before(&mut self, end: Vec<u8>) {
        if self.end.as_ref().is_none_or(|old| end < *old) {
            self.end = Some(end);
        }
    }

    /// Leaves out what was visited before `next`.
    fn go_on_at(&mut self, next: Vec<u8>) {
        if self.reverse {
            self.end = Some([&next, &[0][..]].concat());
        } else {
            self.start = next;
        }
    }
}

/// Fills the page and returns whether a live key follows.
fn fill(keyspace: &Keyspace, mut span: Span, limit: usize, page: &mut Page) -> Result<bool, Error> {
    let now_ms = keyspace.time.now_ms();
    let walk = if span.reverse { walk_once::<true> } else { walk_once::<false> };
    loop {
        match walk(keyspace, &span, now_ms, limit, page)? {
            Walked::Ended => return Ok(false),
            // Unless keys turned out to be gone when their metadata was read.
            Walked::Full(_) if page.rows.len() == limit => return Ok(true),
            Walked::Full(next) | Walked::Pause(next) => span.go_on_at(next),
        }
    }
}

enum Walked {
    /// No key follows.
    Ended,
    /// The page is full and this live key follows.
    Full(Vec<u8>),
    /// The pin was held long enough; this is the next key to visit.
    Pause(Vec<u8>),
}

/// One direction each, so that what is done with a key is compiled into the walk.
fn walk_once<const REVERSE: bool>(
    keyspace: &Keyspace,
    span: &Span,
    now_ms: u64,
    limit: usize,
    page: &mut Page,
) -> Result<Walked, Error> {
    let pinned = keyspace.index.pin();
    let mut outcome = Walked::Ended;
    let (mut visits, mut key_end) = (0, page.keys.len());
    let mut with_metadata = Vec::new();
    let Page { keys, rows, .. } = page;
    let visit = |composite: &[u8], traits: Traits| {
        visits += 1;
        if visits > KEYS_PER_PIN.max(limit) {
            outcome = Walked::Pause(composite.to_vec());
            return Visited::Stop;
        }
        if is_expired(traits.expires_at_ms, now_ms) {
            return Visited::Skip;
        }
        if rows.len() == limit {
            outcome = Walked::Full(composite.to_vec());
            return Visited::Stop;
        }
        if traits.has_metadata {
            with_metadata.push(rows.len());
        }
        let key_start = key_end + PREFIX_LEN;
        key_end += composite.len();
        rows.push(Row {
            key: key_start as u32..key_end as u32,
            metadata: 0..0,
            expires_ms: traits.expires_at_ms,
        });
        Visited::Keep
    };
    let (start, end) = (&span.start[..], span.end.as_deref());
    if REVERSE {
        keyspace.gather_back(start, end, &pinned, keys, visit);
    } else {
        keyspace.gather(start, end, &pinned, keys, visit);
    }
    read_metadata(keyspace, &pinned, now_ms, &with_metadata, page)?;
    Ok(outcome)
}

/// Completes the rows whose keys have metadata, which only their records hold. A row whose key is gone
/// meanwhile is taken out.
fn read_metadata(
    keyspace: &Keyspace,
    pinned: &Guard,
    now_ms: u64,
    with_metadata: &[usize],
    page: &mut Page,
) -> Result<(), Error> {
    let Page { keys, metadata, rows, .. } = page;
    let mut are_gone = false;
    let mut sought = Vec::with_capacity(FOUND_TOGETHER.min(with_metadata.len()));
    for together in with_metadata.chunks(FOUND_TOGETHER) {
        sought.clear();
        sought.extend(together.iter().map(|row| {
            let key = &rows[*row].key;
            keyspace.sought_composite(&keys[key.start as usize - PREFIX_LEN..key.end as usize])
        }));
        keyspace.fetch_together(&sought, pinned);
        for (row, sought) in together.iter().zip(&sought) {
            let (row, start) = (&mut rows[*row], metadata.len() as u32);
            // The record may be younger than what the walk saw.
            match keyspace.find_any(sought, pinned)?.map(|found| found.record) {
                Some(now) if !is_expired(now.header.expires_ms, now_ms) => {
                    metadata.extend_from_slice(now.metadata);
                    row.metadata = start..metadata.len() as u32;
                    row.expires_ms = now.header.expires_ms;
                }
                _ => {
                    row.key = 0..0;
                    are_gone = true;
                }
            }
        }
    }
    if are_gone {
        rows.retain(|row| !row.key.is_empty());
    }
    Ok(())
}

/// Refuses prefixes that no key can have; for callers that do not list.
pub(crate) fn check_prefix(prefix: &[u8], max_key_bytes: usize) -> Result<(), Error> {
    if prefix.is_empty() { Ok(()) } else { key::check(prefix, max_key_bytes) }
}
