//! Every number that a client or an operator can run into, in one place.
//!
//! The constants are rules of the Workers KV API: they are part of what clients see, so they never
//! change with the machine. [`Limits`] holds what protects this process: sizes, counts and times
//! whose defaults suit a small server; each of them can be set. Absent on purpose: where from.

use std::time::Duration;

use crate::units::show_size;

/// The longest key or list prefix, in bytes of UTF-8.
pub(crate) const KEY_BYTES_MAX: usize = 512;
/// The longest value of the API, in bytes; also the most that one bulk get returns.
pub(crate) const VALUE_BYTES_MAX: u64 = 26_214_400;
/// The longest metadata, in bytes of compact JSON.
pub(crate) const METADATA_BYTES_MAX: usize = 1024;
/// The shortest life of a key that expires, in seconds.
pub(crate) const LIFETIME_MIN_S: i64 = 60;
/// Where expirations end, in Unix seconds: records have room for 48 bits of milliseconds.
pub(crate) const EXPIRATION_MAX_S: i64 = (1 << 48) / 1000;
/// The shortest life of a key that expires, on the native surface.
pub(crate) const NATIVE_LIFETIME_MIN: Duration = Duration::from_secs(1);
/// The longest lifetime on the native surface: a thousand years.
pub(crate) const NATIVE_LIFETIME_MAX: Duration = Duration::from_secs(365_250 * 24 * 60 * 60);
/// The smallest `cache_ttl`, in seconds.
pub(crate) const CACHE_TTL_MIN_S: i64 = 30;
/// The most keys in one bulk get, or in one bulk delete of the binding surface.
pub(crate) const BULK_KEYS_MAX: usize = 100;
/// The most entries in one bulk write or bulk delete over REST.
pub(crate) const BULK_ENTRIES_MAX: usize = 10_000;
/// The longest body of a bulk write, in bytes: 100 MB as generously as anybody may count them.
pub(crate) const BULK_WRITE_BYTES_MAX: u64 = 100 << 20;
/// The most that stands around a value in a form, in bytes.
pub(crate) const FORM_EXTRA_BYTES_MAX: u64 = 1 << 20;
/// The longest entry of a bulk write, in bytes of JSON: it is in memory as a whole.
pub(crate) const ENTRY_BYTES_MAX: usize = 64 << 20;
/// The most keys on a list page of the API.
pub(crate) const LIST_KEYS_MAX: usize = 1000;
/// The most operations in one batch of the native surface.
pub(crate) const BATCH_OPERATIONS_MAX: usize = 1000;
/// The longest body of such a batch, in bytes.
pub(crate) const BATCH_BYTES_MAX: u64 = 4 << 20;
/// A list page with values ends when they are more bytes than this; one value is always on it.
pub(crate) const LIST_VALUE_BYTES_MAX: u64 = 4 << 20;
/// The longest title of a namespace, in characters.
pub(crate) const TITLE_CHARS_MAX: usize = 512;

/// What one server spends on its clients. The defaults are in [`Limits::default`].
#[derive(Clone, Debug)]
pub struct Limits {
    /// The longest value, in bytes.
    pub max_value_bytes: u64,
    /// The most keys on a list page, and how many are on it when nobody says.
    pub keys_per_page: usize,
    /// Connections served at once; more wait until one ends, or has idled for a second and more.
    pub connections: usize,
    /// The longest request head (request line and headers), in bytes.
    pub head_bytes: usize,
    /// The longest target of a request (its path and query), in bytes.
    pub line_bytes: usize,
    /// How long a head may take to arrive, from its first byte.
    pub head_time: Duration,
    /// How long a connection may be kept open between requests, as long as there are places for others.
    pub idle_time: Duration,
    /// How long a TLS handshake may take.
    pub handshake_time: Duration,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// What one HTTP/2 request may send before it is read, in bytes.
    pub stream_window_bytes: u32,
    /// What all requests of one HTTP/2 connection together may send before it is read, in bytes.
    pub connection_window_bytes: u32,
    /// The most that one connection buffers of what it reads or has yet to write, in bytes.
    pub connection_buffer_bytes: usize,
    /// How long a request body may pause.
    pub body_idle: Duration,
    /// How long a request body may take in all.
    pub body_time: Duration,
    /// The least that a request body must bring while it is waited for, in bytes a second, taken over
    /// each `body_idle` of waiting.
    pub body_rate: u64,
    /// How long a client may take none of the answer it asked for.
    pub write_stall: Duration,
    /// How long a client may take in all for an answer of more than 64 KiB, which keeps memory or a file
    /// on disk until then.
    pub answer_time: Duration,
    /// How long to wait, after the last byte is sent, for the client to read it and hang up.
    pub linger: Duration,
    /// Memory for the request bodies of all connections together, in bytes.
    pub upload_bytes: usize,
    /// How long a request may wait for its part of `upload_bytes` or `bulk_bytes`; then the server is
    /// busy (503).
    pub upload_wait: Duration,
    /// Bodies up to this length need no place in the queue for upload memory: there is room for
    /// one on every connection.
    pub small_upload_bytes: usize,
    /// The longest JSON request body, in bytes.
    pub json_bytes: u64,
    /// What is read and thrown away of a body that was refused, so that its sender sees why.
    pub drain_bytes: u64,
    /// Memory for the answers of bulk gets in flight, in bytes of values.
    pub bulk_bytes: usize,
    /// Bodies of bulk writes and bulk deletes kept at once, on disk where they are long; more wait, and
    /// then the server is busy (503).
    pub bulk_bodies: usize,
    /// Bulk writes and bulk deletes that are checked and written at once: each takes the memory of its
    /// longest entry.
    pub bulk_writes: usize,
    /// Blocking calls into the engine at once, outside of the commit thread.
    pub blocking_calls: usize,
    /// Writes waiting for the commit thread; more wait for a place.
    pub queued_writes: usize,
    /// How long requests in flight may take to end after the signal to stop.
    pub drain_time: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        const MIB: usize = 1 << 20;
        Limits {
            max_value_bytes: VALUE_BYTES_MAX,
            keys_per_page: LIST_KEYS_MAX,
            connections: 1024,
            head_bytes: 64 << 10,
            line_bytes: 16 << 10,
            head_time: Duration::from_secs(10),
            idle_time: Duration::from_secs(75),
            handshake_time: Duration::from_secs(10),
            streams: 100,
            stream_window_bytes: 128 << 10,
            connection_window_bytes: 512 << 10,
            connection_buffer_bytes: 256 << 10,
            body_idle: Duration::from_secs(30),
            body_time: Duration::from_secs(600),
            body_rate: 1 << 10,
            write_stall: Duration::from_secs(60),
            answer_time: Duration::from_secs(3600),
            linger: Duration::from_secs(1),
            upload_bytes: 128 * MIB,
            upload_wait: Duration::from_secs(10),
            small_upload_bytes: 64 << 10,
            json_bytes: MIB as u64,
            drain_bytes: 64 * MIB as u64,
            bulk_bytes: 128 * MIB,
            bulk_bodies: 16,
            bulk_writes: 2,
            blocking_calls: 32,
            queued_writes: 1024,
            drain_time: Duration::from_secs(10),
        }
    }
}

/// The least that is left of the memory for uploads for bodies that are not small, in bytes. Who asks
/// for more than there is gets all of it.
pub(crate) const QUEUE_BYTES_MIN: u64 = 1 << 20;
/// The least that hyper takes for a connection's buffer.
const CONNECTION_BUFFER_BYTES_MIN: usize = 8 << 10;
/// A key and metadata of full length, each byte of them escaped, and the headers of a client.
const HEAD_BYTES_MIN: usize = 8 << 10;

/// A key of full length, each byte of it escaped, below the longest path, with its parameters.
const LINE_BYTES_MIN: usize = 2 << 10;
/// The longest value that the engine takes.
const ENGINE_VALUE_BYTES_MAX: u64 = 64 << 20;
/// The longest page that the engine gives.
const ENGINE_LIST_KEYS_MAX: usize = 10_000;
/// What HTTP/2 takes for a window (RFC 9113 §6.9.1).
const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;
const WINDOWS: &str = "1 to 2147483647";

fn is_window(bytes: u32) -> bool {
    (1..=WINDOW_BYTES_MAX).contains(&bytes)
}

impl Limits {
    /// What makes no sense about these numbers, a sentence each.
    pub(crate) fn check(&self) -> Vec<String> {
        let show = |bytes: usize| show_size(bytes as u64);
        let rules = [
            (
                (1..=ENGINE_VALUE_BYTES_MAX).contains(&self.max_value_bytes),
                format!("max-value-bytes must be from 1 to {}", show_size(ENGINE_VALUE_BYTES_MAX)),
            ),
            (
                (1..=ENGINE_LIST_KEYS_MAX).contains(&self.keys_per_page),
                format!("keys-per-page must be from 1 to {ENGINE_LIST_KEYS_MAX}"),
            ),
            (self.connections > 0, "connections must be at least 1".to_owned()),
            (self.bulk_bodies > 0, "bulk-bodies must be at least 1".to_owned()),
            (self.bulk_writes > 0, "bulk-writes must be at least 1".to_owned()),
            (self.blocking_calls > 0, "blocking-calls must be at least 1".to_owned()),
            (self.queued_writes > 0, "queued-writes must be at least 1".to_owned()),
            (
                self.head_bytes >= HEAD_BYTES_MIN,
                format!(
                    "head-bytes must be at least {}: a key and metadata of full length stand in a head",
                    show(HEAD_BYTES_MIN)
                ),
            ),
            (
                self.line_bytes >= LINE_BYTES_MIN,
                format!(
                    "line-bytes must be at least {}: a key of full length stands in it, escaped",
                    show(LINE_BYTES_MIN)
                ),
            ),
            (self.streams > 0, "streams must be at least 1".to_owned()),
            (
                is_window(self.stream_window_bytes),
                format!("stream-window-bytes must be from {WINDOWS}"),
            ),
            (
                is_window(self.connection_window_bytes),
                format!("connection-window-bytes must be from {WINDOWS}"),
            ),
            (
                self.upload_bytes >= self.uploads_least(),
                format!(
                    "upload-bytes must be at least {}: small-upload-bytes for each of the connections, \
                     and {} for longer bodies",
                    show(self.uploads_least()),
                    show_size(QUEUE_BYTES_MIN)
                ),
            ),
            (
                self.bulk_bytes as u64 >= VALUE_BYTES_MAX,
                format!(
                    "bulk-bytes must be at least the longest value, {}",
                    show_size(VALUE_BYTES_MAX)
                ),
            ),
            (
                self.connection_buffer_bytes >= self.head_bytes.max(CONNECTION_BUFFER_BYTES_MIN),
                format!(
                    "connection-buffer-bytes must be at least head-bytes, which is {}",
                    show(self.head_bytes)
                ),
            ),
        ];
        rules.into_iter().filter(|(holds, _)| !holds).map(|(_, what)| what).collect()
    }

    /// What uploads need so that none waits for ever, and a small one never.
    fn uploads_least(&self) -> usize {
        let small = self.small_upload_bytes.saturating_mul(self.connections);
        small.saturating_add(QUEUE_BYTES_MIN as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_make_sense_and_nonsense_is_named() {
        assert_eq!(Limits::default().check(), [""; 0]);
        let nothing = Limits { connections: 0, head_bytes: 1, ..Limits::default() };
        let wrong = nothing.check();
        assert_eq!(wrong.len(), 2);
        assert!(wrong[0].contains("connections"), "{wrong:?}");
        assert!(wrong[1].contains("8KiB"), "{wrong:?}");
    }
}
