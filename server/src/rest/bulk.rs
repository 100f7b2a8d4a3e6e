//! Many keys in one request: bulk put, bulk get, bulk delete.
//!
//! The body of a write is kept on disk and read twice: first to check all of it, so that one bad entry
//! refuses the request, then to write it. Long values are written one by one, short ones in batches.
//! Of a repeated key the last entry wins, since entries are written in their order. A store that fails
//! half way leaves what was written; the answer then tells how much that is.

use kvast::{Batch, Db, Namespace, PutOptions};

use crate::body::Inbound;
use crate::call::Call;
use crate::commit::Write;
use crate::entries::{self, Entry, Fault};
use crate::envelope::{self, ApiError, Outcome};
use crate::error::Failure;
use crate::gather::{self, Frame};
use crate::limits::BULK_WRITE_BYTES_MAX;
use crate::reply::{self, Reply};
use crate::rules::Moment;
use crate::spool::Spooled;

const IN_ENVELOPE: Frame = Frame {
    before: "{\"success\":true,\"errors\":[],\"messages\":[],\"result\":{\"values\":",
    after: "}}",
    with_expiration: true,
};

/// A batch of this many bytes is committed.
const BATCH_BYTES: usize = 4 << 20;
/// Values from this length on are written by themselves.
const LONG_BYTES: usize = 256 << 10;
/// What a long value is handed over in.
const CHUNK_BYTES: usize = 256 << 10;

/// `PUT ../bulk`
pub(super) async fn put(
    call: &Call<'_>,
    namespace: Namespace,
    body: &mut Inbound<'_>,
) -> Result<Reply, ApiError> {
    let bridge = &call.app.bridge;
    let mut spooled = bridge.spool(body, BULK_WRITE_BYTES_MAX).await?;
    let moment = Moment::now(&namespace);
    let max = call.app.limits.max_value_bytes;
    let write = move |db: &Db| Ok(check_and_write(db, namespace, &mut spooled, moment, max));
    let outcome = bridge.blocking(write).await??;
    Ok(envelope::result(outcome))
}

/// `POST ../bulk/get`
pub(super) async fn get(
    call: &Call<'_>,
    namespace: &Namespace,
    body: &mut Inbound<'_>,
) -> Result<Reply, ApiError> {
    let body = body.collect(call.app.limits.json_bytes).await?;
    let request = gather::Request::parse(&body.bytes).ok_or_else(|| {
        ApiError::invalid("the body must be a JSON object with an array of strings in keys")
    })?;
    let gathered = gather::gather::<ApiError>(&call.app.bridge, namespace, request, IN_ENVELOPE);
    let (rendered, room) = gathered.await?;
    Ok(reply::json(rendered, room))
}

/// `POST ../bulk/delete`, and `DELETE ../bulk`, which is older: all of it or nothing. A key that was
/// not there counts as deleted.
pub(super) async fn delete(
    call: &Call<'_>,
    namespace: Namespace,
    body: &mut Inbound<'_>,
) -> Result<Reply, ApiError> {
    let bridge = &call.app.bridge;
    let mut spooled = bridge.spool(body, BULK_WRITE_BYTES_MAX).await?;
    let read =
        move |_: &Db| Ok(spooled.read().map_err(Fault::Unreadable).and_then(entries::read_keys));
    let keys = bridge.blocking(read).await??;
    let count = keys.len();
    if count > 0 {
        bridge.write(Write::Delete { namespace, keys }).await?;
    }
    Ok(envelope::result(all_of(count)))
}

fn all_of(count: usize) -> Outcome {
    Outcome { successful_key_count: count, unsuccessful_keys: Vec::new() }
}

fn check_and_write(
    db: &Db,
    namespace: Namespace,
    body: &mut Spooled,
    moment: Moment,
    value_max: u64,
) -> Result<Outcome, ApiError> {
    let of_namespace = namespace.settings().max_value_bytes;
    let value_max = of_namespace.map_or(value_max, |max| max.min(value_max));
    let checked = body.read().map_err(Fault::Unreadable)?;
    let count = entries::read_writes::<Fault>(checked, moment, value_max, |_| Ok(()))?;

    let body = body.read().map_err(Fault::Unreadable)?;
    let mut writer = Writer::new(db, namespace, moment);
    entries::read_writes::<Fault>(body, moment, value_max, |entry| {
        writer.take(entry);
        Ok(())
    })?;
    match writer.finish() {
        None => Ok(all_of(count)),
        Some((failure, outcome)) => Err(ApiError::from(failure).after(outcome)),
    }
}

/// Writes entries, until the store fails.
struct Writer<'d> {
    db: &'d Db,
    namespace: Namespace,
    moment: Moment,
    batch: Batch,
    /// The keys of the batch; once the store has failed, all that are not written.
    unwritten: Vec<String>,
    written: usize,
    failed: Option<Failure>,
}

impl<'d> Writer<'d> {
    fn new(db: &'d Db, namespace: Namespace, moment: Moment) -> Writer<'d> {
        let (batch, unwritten) = (db.batch(), Vec::new());
        Writer { db, namespace, moment, batch, unwritten, written: 0, failed: None }
    }

    /// Writes an entry, if nothing has failed so far.
    fn take(&mut self, entry: Entry<'_>) {
        let is_long = entry.value.len() >= LONG_BYTES;
        if is_long {
            self.flush();
        }
        self.unwritten.push(entry.key.as_ref().to_owned());
        if self.failed.is_some() {
            return;
        }
        let done = if is_long { self.write_long(&entry) } else { self.add(&entry) };
        match done {
            Ok(()) if is_long => self.count_written(),
            Ok(()) if self.batch.byte_len() >= BATCH_BYTES => self.flush(),
            Ok(()) => {}
            Err(error) => self.failed = Some(error.into()),
        }
    }

    fn add(&mut self, entry: &Entry<'_>) -> Result<(), kvast::Error> {
        self.batch.put_with(&self.namespace, &*entry.key, &entry.value, options(entry, self.moment))
    }

    fn write_long(&self, entry: &Entry<'_>) -> Result<(), kvast::Error> {
        let len = entry.value.len() as u64;
        let mut upload = self.namespace.put_stream(&*entry.key, Some(len))?;
        entry.value.chunks(CHUNK_BYTES).try_for_each(|chunk| upload.write(chunk))?;
        upload.commit(options(entry, self.moment)).map(drop)
    }

    /// Commits the batch, if nothing has failed so far.
    fn flush(&mut self) {
        if self.failed.is_some() {
            return;
        }
        let batch = std::mem::replace(&mut self.batch, self.db.batch());
        match batch.commit() {
            Ok(_) => self.count_written(),
            Err(error) => self.failed = Some(error.into()),
        }
    }

    fn count_written(&mut self) {
        self.written += self.unwritten.len();
        self.unwritten.clear();
    }

    /// Why the store failed and what was written by then; `None` if all of it was.
    fn finish(mut self) -> Option<(Failure, Outcome)> {
        self.flush();
        let Writer { written, unwritten, failed, .. } = self;
        let outcome = Outcome { successful_key_count: written, unsuccessful_keys: unwritten };
        failed.map(|failure| (failure, outcome))
    }
}

fn options(entry: &Entry<'_>, moment: Moment) -> PutOptions {
    let options = moment.expiring(PutOptions::new(), entry.expires_s);
    match &entry.metadata {
        Some(metadata) => options.metadata(metadata.as_bytes()),
        None => options,
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    #[test]
    fn a_store_that_fails_half_way_says_what_was_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let db = Db::open(dir.path()).expect("it opens");
        let namespace = db.namespace("n").expect("a namespace");
        // A limit that nobody has checked, and that a later, long value breaks.
        let mut settings = namespace.settings();
        settings.max_value_bytes = Some(1000);
        namespace.set_settings(settings).expect("they are kept");

        let mut writer = Writer::new(&db, namespace.clone(), Moment::now(&namespace));
        for (key, len) in [("a", 1), ("b", 1), ("c", LONG_BYTES), ("d", 1)] {
            let value = Cow::Owned(vec![b'v'; len]);
            writer.take(Entry { key: Cow::Borrowed(key), value, metadata: None, expires_s: None });
        }
        let (failure, outcome) = writer.finish().expect("it fails");
        assert_eq!(outcome.successful_key_count, 2);
        assert_eq!(outcome.unsuccessful_keys, ["c", "d"]);
        let told = format!("{:?}", ApiError::from(failure).after(outcome));
        assert!(told.contains("allowed; 2 of 4 entries were written before that"), "{told}");
        let written = ["a", "b", "c", "d"].map(|key| namespace.get(key).expect("a look").is_some());
        assert_eq!(written, [true, true, false, false]);
    }
}
