//! What a namespace asks of its writes: limits and defaults that are kept in the store.
//!
//! The settings of a namespace are a record of the registry (`format-spec.md` §4.4), so they survive
//! whatever the namespace survives and go with it. In memory they are a few atomics beside the
//! namespace's number: a write looks at them without a lock, and only a change of them writes there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::Error;
use crate::format::record::EXPIRES_END;

/// What a namespace asks of the writes to it. By default nothing beyond the store's own limits.
///
/// Settings hold for writes from then on; what is there stays as it is.
///
/// ```
/// # fn main() -> Result<(), kvast::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = kvast::Db::open(dir.path())?;
/// use std::time::Duration;
/// let sessions = db.namespace("sessions")?;
/// let mut settings = sessions.settings();
/// settings.default_ttl = Some(Duration::from_secs(1800));
/// sessions.set_settings(settings)?;
/// sessions.put("42", b"Ada")?;
/// assert!(sessions.get("42")?.unwrap().expires_at().is_some());
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamespaceSettings {
    /// The longest value, in bytes, if that is less than [`crate::Options::max_value_bytes`].
    pub max_value_bytes: Option<u64>,
    /// How long a key lives whose put names no expiry, in whole milliseconds, at least one.
    pub default_ttl: Option<Duration>,
    /// How far ahead an expiry must lie at least, in whole milliseconds, of the write or of
    /// [`crate::PutOptions::asked_at_ms`]. A put or touch that never expires is fine, and so is
    /// `default_ttl`.
    pub min_ttl: Option<Duration>,
}

/// The encoding's version; `format-spec.md` §4.4.
const VERSION: u8 = 1;
const MAX_VALUE_BYTES: u8 = 1;
const DEFAULT_TTL: u8 = 2;
const MIN_TTL: u8 = 3;
/// Stands for a setting that is not set.
const NONE: u64 = u64::MAX;

/// Settings as they are looked at by every write.
pub(crate) struct LiveSettings {
    max_value_bytes: AtomicU64,
    default_ttl_ms: AtomicU64,
    min_ttl_ms: AtomicU64,
}

impl LiveSettings {
    pub(crate) fn new() -> LiveSettings {
        let none = || AtomicU64::new(NONE);
        LiveSettings { max_value_bytes: none(), default_ttl_ms: none(), min_ttl_ms: none() }
    }

    pub(crate) fn get(&self) -> NamespaceSettings {
        NamespaceSettings {
            max_value_bytes: self.max_value_bytes(),
            default_ttl: self.default_ttl_ms().map(Duration::from_millis),
            min_ttl: self.min_ttl_ms().map(Duration::from_millis),
        }
    }

    pub(crate) fn max_value_bytes(&self) -> Option<u64> {
        load(&self.max_value_bytes)
    }

    pub(crate) fn default_ttl_ms(&self) -> Option<u64> {
        load(&self.default_ttl_ms)
    }

    pub(crate) fn min_ttl_ms(&self) -> Option<u64> {
        load(&self.min_ttl_ms)
    }

    pub(crate) fn set(&self, settings: &NamespaceSettings) {
        let [max_value_bytes, default_ttl_ms, min_ttl_ms] = numbers(settings);
        let set = |place: &AtomicU64, number: Option<u64>| {
            place.store(number.unwrap_or(NONE), Ordering::Relaxed);
        };
        set(&self.max_value_bytes, max_value_bytes);
        set(&self.default_ttl_ms, default_ttl_ms);
        set(&self.min_ttl_ms, min_ttl_ms);
    }
}

fn load(place: &AtomicU64) -> Option<u64> {
    Some(place.load(Ordering::Relaxed)).filter(|number| *number != NONE)
}

/// The settings in the order of their tags.
fn numbers(settings: &NamespaceSettings) -> [Option<u64>; 3] {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(NONE);
    [settings.max_value_bytes, settings.default_ttl.map(ms), settings.min_ttl.map(ms)]
}

/// Refuses what could not be kept.
pub(crate) fn check(settings: &NamespaceSettings) -> Result<(), Error> {
    let [max_value_bytes, default_ttl_ms, min_ttl_ms] = numbers(settings);
    let is_time = |ms: u64| ms < EXPIRES_END;
    let rules = [
        (
            "max_value_bytes",
            max_value_bytes.is_none_or(|bytes| bytes != NONE),
            "less than 2^64 - 1",
        ),
        (
            "default_ttl",
            default_ttl_ms.is_none_or(|ms| ms > 0 && is_time(ms)),
            "1 ms or more, and less than 2^48 ms",
        ),
        ("min_ttl", min_ttl_ms.is_none_or(is_time), "less than 2^48 ms"),
    ];
    match rules.into_iter().find(|(_, holds, _)| !holds) {
        Some((option, _, must)) => Err(Error::InvalidOption { option, must }),
        None => Ok(()),
    }
}

/// The settings as the registry keeps them.
pub(crate) fn encode(settings: &NamespaceSettings) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    let tagged = [MAX_VALUE_BYTES, DEFAULT_TTL, MIN_TTL].into_iter().zip(numbers(settings));
    for (tag, number) in tagged.filter_map(|(tag, number)| Some((tag, number?))) {
        bytes.extend_from_slice(&[tag, 8]);
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes
}

/// Whether the settings were written by a later version of this program.
pub(crate) fn is_unknown(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|version| *version != VERSION)
}

/// Settings that were kept; `None` if they are unknown or broken. A tag that is not known is passed
/// over.
pub(crate) fn decode(bytes: &[u8]) -> Option<NamespaceSettings> {
    let mut rest = bytes.strip_prefix(&[VERSION])?;
    let mut settings = NamespaceSettings::default();
    while let [tag, len, after @ ..] = rest {
        let value = after.get(..usize::from(*len))?;
        rest = &after[value.len()..];
        let number = || value.try_into().ok().map(u64::from_be_bytes);
        match *tag {
            MAX_VALUE_BYTES => settings.max_value_bytes = Some(number()?),
            DEFAULT_TTL => settings.default_ttl = Some(Duration::from_millis(number()?)),
            MIN_TTL => settings.min_ttl = Some(Duration::from_millis(number()?)),
            _ => {}
        }
    }
    (rest.is_empty() && check(&settings).is_ok()).then_some(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_set() -> NamespaceSettings {
        NamespaceSettings {
            max_value_bytes: Some(0),
            default_ttl: Some(Duration::from_millis(1)),
            min_ttl: Some(Duration::from_secs(60)),
        }
    }

    #[test]
    fn settings_come_back_as_they_were_kept() {
        for settings in [NamespaceSettings::default(), all_set()] {
            assert_eq!(decode(&encode(&settings)), Some(settings));
            let live = LiveSettings::new();
            live.set(&settings);
            assert_eq!(live.get(), settings);
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_specification() {
        let want = [
            &[1][..],
            &[1, 8, 0, 0, 0, 0, 0, 0, 0, 0],
            &[2, 8, 0, 0, 0, 0, 0, 0, 0, 1],
            &[3, 8, 0, 0, 0, 0, 0, 0, 0xea, 0x60],
        ];
        assert_eq!(encode(&all_set()), want.concat());
    }

    #[test]
    fn an_unknown_tag_is_passed_over_and_an_unknown_version_is_refused() {
        let mut bytes = encode(&all_set());
        bytes.extend_from_slice(&[200, 2, 1, 2]);
        assert_eq!(decode(&bytes), Some(all_set()));
        bytes[0] = 2;
        assert!(is_unknown(&bytes) && decode(&bytes).is_none());
    }

    #[test]
    fn settings_that_were_cut_short_are_refused() {
        let whole = encode(&all_set());
        let ends: Vec<usize> =
            (0..=whole.len()).filter(|len| decode(&whole[..*len]).is_some()).collect();
        assert_eq!(ends, [1, 11, 21, 31], "only where a setting ends");
    }

    #[test]
    fn a_ttl_that_no_record_can_have_is_refused() {
        let refused = [
            NamespaceSettings { default_ttl: Some(Duration::ZERO), ..all_set() },
            NamespaceSettings { default_ttl: Some(Duration::from_micros(999)), ..all_set() },
            NamespaceSettings { default_ttl: Some(Duration::MAX), ..all_set() },
            NamespaceSettings { min_ttl: Some(Duration::MAX), ..all_set() },
            NamespaceSettings { max_value_bytes: Some(u64::MAX), ..all_set() },
        ];
        assert!(refused.iter().all(|settings| check(settings).is_err()));
    }
}
