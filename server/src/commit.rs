//! Changes of the store, and the thread that commits those in flight together.
//!
//! The commit thread takes every write that is queued, up to a bounded group, commits the group as
//! one batch, and answers all of it when the batch is as durable as the store promises. A batch
//! is all or nothing, so the members share its fate; only where one member was refused for a
//! reason of its own does each get a try by itself. An answer of success is given only after the
//! engine has given it. Absent on purpose: any reordering of writes.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use kvast::{Batch, Code, Db, Namespace, PutOptions};
use tokio::sync::{mpsc, oneshot};

use crate::body::Upload;
use crate::error::Failure;

/// The most writes in one group.
const GROUP_WRITES_MAX: usize = 1024;
/// A group of this many bytes takes no further write. One write more is far below what the engine
/// takes as a batch.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// One change of the store.
pub(crate) enum Write {
    Put { namespace: Namespace, key: String, value: Upload, options: PutOptions },
    Delete { namespace: Namespace, keys: Vec<String> },
}

impl Write {
    /// What the change carries, in bytes.
    pub(crate) fn byte_len(&self) -> u64 {
        match self {
            Write::Put { value, .. } => value.bytes.len() as u64,
            Write::Delete { keys, .. } => keys.iter().map(|key| key.len() as u64).sum(),
        }
    }

    /// Makes this change alone. Returns when it is as durable as the store promises.
    pub(crate) fn apply(&self, db: &Db) -> Result<(), kvast::Error> {
        match self {
            Write::Put { namespace, key, value, options } => {
                namespace.put_with(key, &value.bytes, options.clone()).map(drop)
            }
            Write::Delete { namespace, keys } if keys.len() == 1 => {
                namespace.delete(&keys[0]).map(drop)
            }
            Write::Delete { .. } => {
                let mut batch = db.batch();
                self.stage(&mut batch)?;
                batch.commit().map(drop)
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
    answer: oneshot::Sender<Result<(), kvast::Error>>,
}

impl Committer {
    /// Starts the thread with a queue of the given length.
    pub(crate) fn start(db: Db, queued: usize) -> io::Result<Committer> {
        let (queue, orders) = mpsc::channel(queued);
        let builder = thread::Builder::new().name("kvast-commit".to_owned());
        let thread = builder.spawn(move || run(&db, orders))?;
        Ok(Committer { queue, thread: Mutex::new(Some(thread)) })
    }

    /// Queues a write and waits until its group is committed.
    pub(crate) async fn commit(&self, write: Write) -> Result<(), Failure> {
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
    jobs: Vec<Job>,
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
        self.split = job.write.stage(&mut self.batch).is_err();
        self.jobs.push(job);
    }

    fn commit(self, db: &Db) {
        if self.split {
            return commit_one_by_one(self.jobs, db);
        }
        match self.batch.commit() {
            Err(error) if is_own_fault(error.code()) => commit_one_by_one(self.jobs, db),
            outcome => {
                let outcome = outcome.map(drop);
                self.jobs.into_iter().for_each(|job| job.finish(outcome.clone()));
            }
        }
    }
}

impl Job {
    fn finish(self, outcome: Result<(), kvast::Error>) {
        // Nobody listens any more if the client went away; the write stands all the same.
        let _ = self.answer.send(outcome);
    }
}

fn commit_one_by_one(jobs: Vec<Job>, db: &Db) {
    for job in jobs {
        let outcome = job.write.apply(db);
        job.finish(outcome);
    }
}

/// Whether a batch fails for what one member asks, and the store itself is well.
fn is_own_fault(code: Code) -> bool {
    matches!(code, Code::NamespaceNotFound | Code::BatchTooLarge | Code::InvalidExpiry)
}
