//! What a store should hold: a `BTreeMap` for each namespace, the changes that both understand, and
//! a reader that takes everything out of a store through all of its ways.

use std::collections::BTreeMap;

use kvast::{Db, Error, Expiry, ListOptions, Namespace, PutOptions, Value};

/// The value of a key in the model.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) value: Vec<u8>,
    /// Empty is none.
    pub(crate) metadata: Vec<u8>,
    pub(crate) expires_at: Option<u64>,
    /// 0 if the write was not acknowledged, so that nobody was told.
    pub(crate) version: u64,
}

impl PartialEq for Stored {
    fn eq(&self, other: &Stored) -> bool {
        let versions_fit = self.version == 0 || other.version == 0 || self.version == other.version;
        versions_fit
            && (&self.value, &self.metadata, self.expires_at)
                == (&other.value, &other.metadata, other.expires_at)
    }
}

impl Stored {
    pub(crate) fn is_live(&self, now_ms: u64) -> bool {
        self.expires_at.is_none_or(|at| at > now_ms)
    }
}

pub(crate) type Keys = BTreeMap<Vec<u8>, Stored>;

/// Namespaces by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Contents(pub(crate) BTreeMap<String, Keys>);

/// One write, or several at once.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Put {
        namespace: String,
        key: Vec<u8>,
        stored: Stored,
    },
    Delete {
        namespace: String,
        key: Vec<u8>,
    },
    /// Of a key that is there; 0 for a version that nobody was told.
    SetExpiry {
        namespace: String,
        key: Vec<u8>,
        expires_at: Option<u64>,
        version: u64,
    },
    DeletePrefix {
        namespace: String,
        prefix: Vec<u8>,
    },
    Batch(Vec<Change>),
    CreateNamespace(String),
    DeleteNamespace(String),
}

pub(crate) fn put(namespace: &str, key: &[u8], value: &[u8]) -> Change {
    let stored =
        Stored { value: value.to_vec(), metadata: Vec::new(), expires_at: None, version: 0 };
    Change::Put { namespace: namespace.into(), key: key.into(), stored }
}

pub(crate) fn put_until(namespace: &str, key: &[u8], value: &[u8], expires_at: u64) -> Change {
    let stored = Stored {
        value: value.to_vec(),
        metadata: b"{\"until\":1}".to_vec(),
        expires_at: Some(expires_at),
        version: 0,
    };
    Change::Put { namespace: namespace.into(), key: key.into(), stored }
}

pub(crate) fn delete(namespace: &str, key: &[u8]) -> Change {
    Change::Delete { namespace: namespace.into(), key: key.into() }
}

/// What a store answered to a change.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Answer {
    /// The version of a put, or of another expiry.
    pub(crate) version: Option<u64>,
    /// Whether a deleted key was there.
    pub(crate) existed: Option<bool>,
}

impl Contents {
    pub(crate) fn get(&self, namespace: &str, key: &[u8]) -> Option<&Stored> {
        self.0.get(namespace)?.get(key)
    }

    /// Without what has expired.
    pub(crate) fn live(&self, now_ms: u64) -> Contents {
        let live = |keys: &Keys| -> Keys {
            let live = keys.iter().filter(|(_, stored)| stored.is_live(now_ms));
            live.map(|(key, stored)| (key.clone(), stored.clone())).collect()
        };
        Contents(self.0.iter().map(|(name, keys)| (name.clone(), live(keys))).collect())
    }

    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Put { namespace, key, stored } => {
                self.keys(namespace).insert(key.clone(), stored.clone());
            }
            Change::Delete { namespace, key } => {
                self.keys(namespace).remove(key);
            }
            Change::SetExpiry { namespace, key, expires_at, version } => {
                let stored = self.keys(namespace).get_mut(key).expect("the key is there");
                (stored.expires_at, stored.version) = (*expires_at, *version);
            }
            Change::DeletePrefix { namespace, prefix } => {
                self.keys(namespace).retain(|key, _| !key.starts_with(prefix));
            }
            Change::Batch(changes) => changes.iter().for_each(|change| self.apply(change)),
            Change::CreateNamespace(name) => {
                self.0.entry(name.clone()).or_default();
            }
            Change::DeleteNamespace(name) => {
                self.0.remove(name);
            }
        }
    }

    fn keys(&mut self, namespace: &str) -> &mut Keys {
        self.0.get_mut(namespace).expect("changes go to namespaces that exist")
    }

    /// The first difference, in words.
    pub(crate) fn difference(&self, found: &Contents) -> Option<String> {
        let (want, have): (Vec<_>, Vec<_>) = (self.0.keys().collect(), found.0.keys().collect());
        if want != have {
            return Some(format!("namespaces should be {want:?} and are {have:?}"));
        }
        self.0.iter().find_map(|(name, keys)| {
            let have = &found.0[name];
            let lost = keys.iter().find_map(|(key, stored)| match have.get(key) {
                None => Some(format!("{name}: {:?} is missing", text(key))),
                Some(other) if other != stored => {
                    let (want, have) = (brief(stored), brief(other));
                    Some(format!("{name}: {:?} should be {want} and is {have}", text(key)))
                }
                Some(_) => None,
            });
            lost.or_else(|| {
                let extra = have.iter().find(|(key, _)| !keys.contains_key(*key))?;
                Some(format!(
                    "{name}: {:?} should be gone and is {}",
                    text(extra.0),
                    brief(extra.1)
                ))
            })
        })
    }
}

fn text(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(40)].escape_ascii().to_string()
}

fn brief(stored: &Stored) -> String {
    let Stored { value, metadata, expires_at, version } = stored;
    format!(
        "{} bytes {:?}, metadata {:?}, expiry {expires_at:?}, version {version}",
        value.len(),
        text(value),
        text(metadata)
    )
}

/// Makes a change in a store. A namespace that is to be created must not be there yet, and others
/// must.
pub(crate) fn perform(db: &Db, change: &Change) -> Result<Answer, Error> {
    let mut answer = Answer::default();
    match change {
        Change::Put { namespace, key, stored } => {
            let version = handle(db, namespace).put_with(key, &stored.value, options(stored))?;
            answer.version = Some(version);
        }
        Change::Delete { namespace, key } => {
            answer.existed = Some(handle(db, namespace).delete(key)?);
        }
        Change::SetExpiry { namespace, key, expires_at, .. } => {
            let expiry = expires_at.map_or(Expiry::Never, Expiry::At);
            answer.version = handle(db, namespace).set_expiry(key, expiry)?;
        }
        Change::DeletePrefix { namespace, prefix } => {
            handle(db, namespace).delete_prefix(prefix)?;
        }
        Change::Batch(changes) => answer.version = Some(perform_batch(db, changes)?),
        Change::CreateNamespace(name) => {
            db.create_namespace(name)?;
        }
        Change::DeleteNamespace(name) => db.delete_namespace(handle(db, name).id())?,
    }
    Ok(answer)
}

fn perform_batch(db: &Db, changes: &[Change]) -> Result<u64, Error> {
    let mut batch = db.batch();
    for change in changes {
        match change {
            Change::Put { namespace, key, stored } => {
                batch.put_with(&handle(db, namespace), key, &stored.value, options(stored))?;
            }
            Change::Delete { namespace, key } => batch.delete(&handle(db, namespace), key)?,
            other => panic!("a batch cannot hold {other:?}"),
        }
    }
    batch.commit()
}

pub(crate) fn options(stored: &Stored) -> PutOptions {
    let options = PutOptions::new().metadata(stored.metadata.clone());
    match stored.expires_at {
        Some(at) => options.expires_at_ms(at),
        None => options,
    }
}

pub(crate) fn handle(db: &Db, name: &str) -> Namespace {
    db.find_namespace(name).unwrap_or_else(|| panic!("namespace {name} should be there"))
}

/// Everything a store holds, read through lists and gets, which must agree.
pub(crate) fn read_all(db: &Db) -> Result<Contents, Error> {
    let mut contents = Contents::default();
    for namespace in db.namespaces() {
        contents.0.insert(namespace.name(), read_namespace(&namespace)?);
    }
    Ok(contents)
}

fn read_namespace(namespace: &Namespace) -> Result<Keys, Error> {
    let mut keys = Keys::new();
    let mut options = ListOptions::new().limit(256);
    loop {
        let page = namespace.list(&options)?;
        for listed in page.iter() {
            let stored = read(namespace, listed.key)?;
            let stored = stored.unwrap_or_else(|| panic!("{:?} is listed only", text(listed.key)));
            assert_eq!(listed.expires_at, stored.expires_at, "expiry of {:?}", text(listed.key));
            assert_eq!(listed.metadata.unwrap_or_default(), stored.metadata);
            let before = keys.insert(listed.key.to_vec(), stored);
            assert!(before.is_none(), "{:?} is listed twice", text(listed.key));
        }
        let Some(cursor) = page.cursor() else { return Ok(keys) };
        assert!(page.len() == 256, "a page before the last is full");
        options = options.cursor(cursor);
    }
}

/// One key, as a get returns it.
pub(crate) fn read(namespace: &Namespace, key: &[u8]) -> Result<Option<Stored>, Error> {
    Ok(namespace.get(key)?.as_ref().map(stored))
}

/// A value and what comes with it.
pub(crate) fn stored(value: &Value) -> Stored {
    Stored {
        value: value.to_vec(),
        metadata: value.metadata().unwrap_or_default().to_vec(),
        expires_at: value.expires_at(),
        version: value.version(),
    }
}
