//! Changes of the store, and the thread that commits those in flight together.
//!
//! The commit thread takes every write that is queued, up to a bounded group, commits the group as
//! one batch, and answers all of it when the batch is as durable as the store promises. A batch
//! is all or nothing, so the members share its fate; only where one member was refused for a
//! reason of its own does each get a try by itself. An answer of success is given only after the
//! engine has given it. Absent on purpose: writes with a condition, which would be judged by the state
//! before the whole group, and values too long for a batch; both go to the engine by themselves.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use kvast::{Batch, Code, Db, Namespace, PutOptions};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::body::Buffered;
use crate::error::Failure;

/// The most writes in one group.
const GROUP_WRITES_MAX: usize = 1024;
/// A group of this many bytes takes no further write. One write more is far below what the engine
/// takes as a batch.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// One change of the store.
pub(crate) enum Write {
    Put {
        namespace: Namespace,
        key: String,
        value: Buffered,
        options: PutOptions,
    },
    Delete {
        namespace: Namespace,
        keys: Vec<String>,
    },
    /// A delete of a key that is at this version.
    DeleteIf {
        namespace: Namespace,
        key: String,
        version: u64,
    },
}

impl Write {
    /// What the change carries, in bytes.
    pub(crate) fn byte_len(&self) -> u64 {
        match self {
            Write::Put { value, .. } => value.bytes.len() as u64,
            Write::Delete { keys, .. } => keys.iter().map(|key| key.len() as u64).sum(),
            Write::DeleteIf { key, .. } => key.len() as u64,
        }
    }

    /// Whether what it replaces is in memory, which every write looks at.
    pub(crate) fn is_resident(&self) -> bool {
        match self {
            Write::Put { namespace, key, .. } | Write::DeleteIf { namespace, key, .. } => {
                namespace.is_resident(key)
            }
            Write::Delete { namespace, keys } => keys.iter().all(|key| namespace.is_resident(key)),
        }
    }

    /// Whether it may be refused for what the key is at.
    pub(crate) fn is_conditional(&self) -> bool {
        match self {
            Write::Put { options, .. } => options.is_conditional(),
            Write::Delete { .. } => false,
            Write::DeleteIf { .. } => true,
        }
    }

    /// Makes this change alone. Returns when it is as durable as the store promises: the version that
    /// a put wrote, or 0.
    pub(crate) fn apply(&self, db: &Db) -> Result<u64, kvast::Error> {
        match self {
            Write::Put { namespace, key, value, options } => {
                namespace.put_with(key, &value.bytes, options.clone())
            }
            Write::Delete { namespace, keys } if keys.len() == 1 => {
                namespace.delete(&keys[0]).map(|_| 0)
            }
            Write::Delete { .. } => {
                let mut batch = db.batch();
                self.stage(&mut batch)?;
                batch.commit().map(|_| 0)
            }
            Write::DeleteIf { namespace, key, version } => {
                namespace.delete_if(key, *version).map(|()| 0)
            }
        }
    }

    fn stage(&self, batch: &mut Batch) -> Result<(), kvast::Error> {
        match self {
            Write::Put { namespace, key, value, options } => {
                batch.put_with(namespace, key, &value.bytes, options.clone())
            }
            Write::Delete { namespace, keys } => {
                keys.iter().try_for_each(|key| batch.delete(namespace, key))
            }
            Write::DeleteIf { namespace, key, version } => {
                batch.delete_if(namespace, key, *version)
            }
        }
    }
}

/// The commit thread, seen from outside.
pub(crate) struct Committer {
    queue: mpsc::Sender<Order>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

enum Order {
    Commit(Job),
    Stop,
}

struct Job {
    write: Write,
    answer: oneshot::Sender<Result<u64, kvast::Error>>,
}

impl Committer {
    /// Starts the thread with a queue of the given length.
    pub(crate) fn start(db: Db, queued: usize) -> io::Result<Committer> {
        let (queue, orders) = mpsc::channel(queued.min(Semaphore::MAX_PERMITS));
        let builder = thread::Builder::new().name("kvast-commit".to_owned());
        let thread = builder.spawn(move || run(&db, orders))?;
        Ok(Committer { queue, thread: Mutex::new(Some(thread)) })
    }

    /// Queues a write without a condition, and waits until its group is committed. Returns the version
    /// that a put wrote, or 0.
    pub(crate) async fn commit(&self, write: Write) -> Result<u64, Failure> {
        let (answer, answered) = oneshot::channel();
        let order = Order::Commit(Job { write, answer });
        self.queue.send(order).await.map_err(|_| Failure::Stopping)?;
        Ok(answered.await.map_err(|_| Failure::Stopping)??)
    }

    /// Commits what is queued and ends the thread. Later writes are refused. Blocks.
    pub(crate) fn stop(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Sending and joining fail only if the thread panicked, which has been reported by then.
        let _ = self.queue.blocking_send(Order::Stop);
        let _ = thread.map(JoinHandle::join);
    }
}

/// The thread: one group after the other.
fn run(db: &Db, mut orders: mpsc::Receiver<Order>) {
    while let Some(Order::Commit(first)) = orders.blocking_recv() {
        let (group, stop) = gather(db, first, &mut orders);
        group.commit(db);
        if stop {
            break;
        }
    }
}

/// Writes that share a fate.
struct Group {
    batch: Batch,
    /// Each with the number of records that the batch had before it.
    jobs: Vec<(Job, usize)>,
    /// The last job could not be staged with the others.
    split: bool,
}

/// Takes what is queued without waiting; tells whether the order to stop was among it.
fn gather(db: &Db, first: Job, orders: &mut mpsc::Receiver<Order>) -> (Group, bool) {
    let mut group = Group { batch: db.batch(), jobs: Vec::new(), split: false };
    group.add(first);
    while group.has_room() {
        match orders.try_recv() {
            Ok(Order::Commit(job)) => group.add(job),
            Ok(Order::Stop) => return (group, true),
            Err(_) => break,
        }
    }
    (group, false)
}

impl Group {
    fn has_room(&self) -> bool {
        !self.split && self.jobs.len() < GROUP_WRITES_MAX && self.batch.byte_len() < GROUP_BYTES_MAX
    }

    fn add(&mut self, job: Job) {
        let before = self.batch.len();
        self.split = job.write.stage(&mut self.batch).is_err();
        self.jobs.push((job, before));
    }

    fn commit(self, db: &Db) {
        let Group { batch, jobs, split } = self;
        if split {
            return commit_one_by_one(jobs, db);
        }
        let records = batch.len() as u64;
        match batch.commit() {
            Err(error) if is_own_fault(error.code()) => commit_one_by_one(jobs, db),
            Err(error) => jobs.into_iter().for_each(|(job, _)| job.finish(Err(error.clone()))),
            Ok(last) => {
                // The records of a batch have consecutive versions.
                let first = (last + 1).saturating_sub(records);
                jobs.into_iter().for_each(|(job, before)| job.finish(Ok(first + before as u64)));
            }
        }
    }
}

impl Job {
    fn finish(self, outcome: Result<u64, kvast::Error>) {
        let is_put = matches!(self.write, Write::Put { .. });
        let outcome = outcome.map(|version| if is_put { version } else { 0 });
        // Nobody listens any more if the client went away; the write stands all the same.
        let _ = self.answer.send(outcome);
    }
}

fn commit_one_by_one(jobs: Vec<(Job, usize)>, db: &Db) {
    for (job, _) in jobs {
        let outcome = job.write.apply(db);
        job.finish(outcome);
    }
}

/// Whether a batch fails for what one member asks, and the store itself is well.
fn is_own_fault(code: Code) -> bool {
    matches!(code, Code::NamespaceNotFound | Code::BatchTooLarge | Code::InvalidExpiry)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kvast::Options;

    use super::*;
    use crate::body::Room;

    fn put(namespace: &Namespace, key: &str) -> Write {
        Write::Put {
            namespace: namespace.clone(),
            key: key.to_owned(),
            value: Buffered::new(Bytes::from_static(b"v"), Room::default()),
            options: PutOptions::new(),
        }
    }

    #[test]
    fn each_member_of_a_group_gets_its_own_version() {
        let dir = tempfile::tempdir().expect("a directory");
        let db = Options::new().open(dir.path().join("store")).expect("it opens");
        let namespace = db.namespace("n").expect("a namespace");
        let mut group = Group { batch: db.batch(), jobs: Vec::new(), split: false };
        let keys = vec!["x".to_owned(), "y".to_owned(), "z".to_owned()];
        let delete = Write::Delete { namespace: namespace.clone(), keys };
        let mut answers = Vec::new();
        for write in [put(&namespace, "a"), delete, put(&namespace, "b"), put(&namespace, "c")] {
            let (answer, answered) = oneshot::channel();
            group.add(Job { write, answer });
            answers.push(answered);
        }
        group.commit(&db);
        let versions: Vec<u64> = answers
            .into_iter()
            .map(|answered| answered.blocking_recv().expect("answered").expect("written"))
            .collect();
        let found = |key| namespace.get(key).expect("no failure").expect("it is there").version();
        assert_eq!(versions, [found("a"), 0, found("b"), found("c")]);
    }
}
