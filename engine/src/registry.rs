//! Which namespaces there are: names and ids, and the numbers that stand in records.
//!
//! The registry is kept in the store itself, in namespace number 0, which no user can reach: one key
//! for each namespace, one for its settings if it has any, and one for the next number, so that a
//! number is never used again. What
//! always holds: an id and a number belong to one namespace for ever; a handle to a namespace that
//! was deleted refuses every call.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::error::{Corruption, Damage, Error};
use crate::settings::{self, LiveSettings};

/// The number of the namespace that holds the registry.
pub(crate) const SYSTEM: u32 = 0;
/// Its key for the next number.
pub(crate) const NEXT_NUMBER_KEY: &[u8] = b"next-namespace";
/// Its keys for the namespaces start with this, then comes the number.
const ENTRY_PREFIX: &[u8] = b"namespace:";
/// Its keys for their settings likewise. They come behind the namespaces in order.
const SETTINGS_PREFIX: &[u8] = b"settings:";
const NAME_CHARS_MAX: usize = 512;

/// Names a namespace for ever, also after it was renamed. Prints as 32 lower-case hex digits.
///
/// ```
/// # fn main() -> Result<(), kvast::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = kvast::Db::open(dir.path())?;
/// let id = db.namespace("users")?.id();
/// let same: kvast::NamespaceId = id.to_string().parse()?;
/// assert_eq!(db.namespace_by_id(same).unwrap().name(), "users");
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceId(pub(crate) u128);

impl fmt::Display for NamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for NamespaceId {
    type Err = Error;

    /// Takes exactly what `Display` prints.
    fn from_str(text: &str) -> Result<NamespaceId, Error> {
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(is_hex) {
            return Err(Error::NamespaceNotFound);
        }
        u128::from_str_radix(text, 16).map(NamespaceId).map_err(|_| Error::NamespaceNotFound)
    }
}

/// 128 bits that nobody can guess.
pub(crate) fn random_128() -> u128 {
    // Each `RandomState` holds keys from the system's random source.
    let half = || u128::from(RandomState::new().build_hasher().finish());
    half() << 64 | half()
}

/// One namespace, shared by all handles to it.
pub(crate) struct NamespaceState {
    pub(crate) number: u32,
    pub(crate) id: NamespaceId,
    name: RwLock<String>,
    dropped: AtomicBool,
    pub(crate) settings: LiveSettings,
}

impl NamespaceState {
    pub(crate) fn name(&self) -> String {
        self.name.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Acquire)
    }

    pub(crate) fn set_dropped(&self, dropped: bool) {
        self.dropped.store(dropped, Ordering::Release);
    }

    /// The registry's key for it.
    pub(crate) fn entry_key(&self) -> Vec<u8> {
        [ENTRY_PREFIX, &self.number.to_be_bytes()].concat()
    }

    /// The registry's key for its settings.
    pub(crate) fn settings_key(&self) -> Vec<u8> {
        [SETTINGS_PREFIX, &self.number.to_be_bytes()].concat()
    }
}

/// The registry's value for a namespace.
pub(crate) fn entry_value(id: NamespaceId, name: &str) -> Vec<u8> {
    [&id.0.to_be_bytes(), name.as_bytes()].concat()
}

#[derive(Default)]
pub(crate) struct Registry {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    by_name: BTreeMap<String, Arc<NamespaceState>>,
    by_id: HashMap<NamespaceId, Arc<NamespaceState>>,
    next_number: u32,
}

impl Registry {
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in one record of the system namespace.
    pub(crate) fn load(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let refuse = || {
            let damage = Damage::Field { field: "registry", found: value.len() as u64 };
            Error::from(Corruption { file: "namespace registry".into(), offset: 0, damage })
        };
        if key == NEXT_NUMBER_KEY {
            let number = value.try_into().map(u32::from_be_bytes).map_err(|_| refuse())?;
            let mut state = self.write();
            state.next_number = state.next_number.max(number);
            return Ok(());
        }
        if let Some(number) = number_behind(SETTINGS_PREFIX, key) {
            if settings::is_unknown(value) {
                let (file, detail) = ("namespace registry".into(), "unknown settings".into());
                return Err(Error::UnknownFormat { file, detail });
            }
            let settings = settings::decode(value).ok_or_else(refuse)?;
            // Without a namespace they are of one that is gone, whose number is not used again.
            if let Some(namespace) = self.by_number(number) {
                namespace.settings.set(&settings);
            }
            return Ok(());
        }
        let number = number_behind(ENTRY_PREFIX, key);
        let (Some(number), Some((id, name))) = (number, value.split_first_chunk::<16>()) else {
            return Err(refuse());
        };
        let name = String::from_utf8(name.to_vec()).map_err(|_| refuse())?;
        self.enter(number, NamespaceId(u128::from_be_bytes(*id)), name);
        Ok(())
    }

    pub(crate) fn enter(&self, number: u32, id: NamespaceId, name: String) -> Arc<NamespaceState> {
        let namespace = Arc::new(NamespaceState {
            number,
            id,
            name: RwLock::new(name.clone()),
            dropped: AtomicBool::new(false),
            settings: LiveSettings::new(),
        });
        let mut state = self.write();
        state.next_number = state.next_number.max(number + 1);
        state.by_name.insert(name, Arc::clone(&namespace));
        state.by_id.insert(id, Arc::clone(&namespace));
        namespace
    }

    /// The number that the next namespace gets; never 0.
    pub(crate) fn next_number(&self) -> u32 {
        self.read().next_number.max(SYSTEM + 1)
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<Arc<NamespaceState>> {
        self.read().by_name.get(name).cloned()
    }

    pub(crate) fn by_id(&self, id: NamespaceId) -> Option<Arc<NamespaceState>> {
        self.read().by_id.get(&id).cloned()
    }

    fn by_number(&self, number: u32) -> Option<Arc<NamespaceState>> {
        self.read().by_id.values().find(|namespace| namespace.number == number).cloned()
    }

    /// All namespaces by name.
    pub(crate) fn all(&self) -> Vec<Arc<NamespaceState>> {
        self.read().by_name.values().cloned().collect()
    }

    pub(crate) fn rename(&self, namespace: &Arc<NamespaceState>, name: &str) {
        let mut state = self.write();
        let mut old = namespace.name.write().unwrap_or_else(PoisonError::into_inner);
        state.by_name.remove(&*old);
        name.clone_into(&mut old);
        state.by_name.insert(name.to_owned(), Arc::clone(namespace));
    }

    pub(crate) fn forget(&self, namespace: &NamespaceState) {
        let mut state = self.write();
        state.by_name.remove(&namespace.name());
        state.by_id.remove(&namespace.id);
    }
}

/// The number at the end of a key of the registry.
fn number_behind(prefix: &[u8], key: &[u8]) -> Option<u32> {
    key.strip_prefix(prefix)?.try_into().ok().map(u32::from_be_bytes)
}

/// Refuses new names that are empty, too long, or would break a line or a log. A name that is there
/// already is never refused.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let (chars, control) = (name.chars().count(), name.chars().find(|char| char.is_control()));
    if (1..=NAME_CHARS_MAX).contains(&chars) && control.is_none() {
        return Ok(());
    }
    Err(Error::InvalidName { chars, control })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn an_id_is_read_back_from_what_it_prints_and_from_nothing_else() {
        let id = NamespaceId(random_128());
        assert_eq!(id.to_string().parse::<NamespaceId>().unwrap(), id);
        for text in ["", "0", &"F".repeat(32), &"g".repeat(32), &"0".repeat(33)] {
            assert!(text.parse::<NamespaceId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_that_is_there_already_is_read_whatever_it_has_in_it() {
        let registry = Registry::default();
        let state = Registry::default().enter(7, NamespaceId(1), String::new());
        for name in ["a\nb", "\0"] {
            assert!(check_name(name).is_err());
            registry.load(&state.entry_key(), &entry_value(NamespaceId(1), name)).unwrap();
            assert_eq!(registry.by_name(name).unwrap().name(), name);
        }
    }

    #[test]
    fn settings_without_their_namespace_are_passed_over_and_unknown_keys_are_not() {
        let registry = Registry::default();
        let state = Registry::default().enter(7, NamespaceId(1), "users".into());
        let value = settings::encode(&settings::NamespaceSettings::default());
        registry.load(&state.settings_key(), &value).unwrap();
        let load = |value: &[u8]| registry.load(&state.settings_key(), value).unwrap_err().code();
        assert_eq!((load(b"\x02"), load(b"\x01\x01")), (Code::UnknownFormat, Code::Corrupt));
        assert!(registry.load(b"something-else", &value).is_err());
    }

    #[test]
    fn random_ids_differ() {
        assert_ne!(random_128(), random_128());
    }
}
