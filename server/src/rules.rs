//! What the Workers KV API refuses: the rules, and what each surface says about a broken one.
//!
//! The checks are shared, and so are the words: they are what an application sees as its error, so
//! they are kept letter for letter, the odd ones too. The binding surface has a status and the words,
//! the REST surface adds a code. Pure functions over text and the time; the engine has rules of its
//! own, which are wider. Absent on purpose: HTTP headers and bodies.

use std::borrow::Cow;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::StatusCode;
use kvast::{Namespace, PutOptions};

use crate::error::Failure;
use crate::json;
use crate::limits::{
    BULK_KEYS_MAX, CACHE_TTL_MIN_S, EXPIRATION_MAX_S, KEY_BYTES_MAX, LIFETIME_MIN_S,
    METADATA_BYTES_MAX,
};

/// An answer of the binding surface that is an error.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) text: Cow<'static, str>,
    /// The same request may succeed a little later.
    pub(crate) is_passing: bool,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { status, text: text.into(), is_passing: false }
    }

    /// The server has no memory to spare for a body.
    pub(crate) fn busy() -> Refusal {
        let text = "The server is busy with other uploads; try again in a few seconds.";
        Refusal { is_passing: true, ..Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text) }
    }

    pub(crate) fn bad(text: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, text)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        let told = failure.tell();
        let is_passing = matches!(failure, Failure::Busy | Failure::Stopping);
        Refusal { is_passing, ..Refusal::new(told.binding_status, told.text) }
    }
}

impl From<Broken> for Refusal {
    fn from(broken: Broken) -> Refusal {
        Refusal::new(broken.status(), broken.to_string())
    }
}

/// A rule that a request breaks, with what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    KeyEmpty,
    /// It is `.` or `..`.
    KeyReserved {
        key: String,
    },
    /// Its escapes or its bytes make no UTF-8.
    KeyUndecodable,
    KeyTooLong {
        len: usize,
    },
    CacheTtl {
        given: String,
    },
    Lifetime {
        given: String,
        fault: TimeFault,
    },
    Expiration {
        given: String,
        fault: TimeFault,
    },
    MetadataNotJson,
    MetadataTooLong {
        len: usize,
    },
    ValueTooLong {
        max: u64,
        len: u64,
    },
    /// A page of less than one key; `name` is the parameter's.
    LimitTooLow {
        name: &'static str,
        given: String,
    },
    LimitTooHigh {
        max: usize,
        name: &'static str,
        given: String,
    },
    BulkType {
        given: String,
    },
    BulkTooManyKeys,
    BulkNoKeys,
    /// JSON was asked for, and one of the values is none.
    BulkNotJson,
    /// The values together are longer than any answer.
    BulkTooLarge,
}

/// What is wrong with a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeFault {
    /// It is no whole number, or lies in the past.
    Senseless,
    /// It lies too near.
    TooSoon { min_s: i64 },
    /// It lies so far off that no record has room for it.
    TooFar,
}

impl Broken {
    /// The status on both surfaces.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Broken::KeyTooLong { .. } => StatusCode::URI_TOO_LONG,
            Broken::MetadataTooLong { .. } | Broken::ValueTooLong { .. } | Broken::BulkTooLarge => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// The code on the REST surface.
    pub(crate) fn v4_code(&self) -> u32 {
        match self {
            Broken::KeyEmpty | Broken::KeyReserved { .. } | Broken::KeyUndecodable => 10041,
            Broken::KeyTooLong { .. } => 10030,
            Broken::Expiration { .. } => 10033,
            Broken::Lifetime { .. } => 10034,
            Broken::MetadataNotJson | Broken::MetadataTooLong { .. } => 10046,
            Broken::ValueTooLong { .. } | Broken::BulkTooLarge => 10024,
            Broken::LimitTooLow { .. } | Broken::LimitTooHigh { .. } => 10028,
            Broken::CacheTtl { .. } | Broken::BulkType { .. } | Broken::BulkNoKeys => 10029,
            Broken::BulkTooManyKeys => 10036,
            Broken::BulkNotJson => 10012,
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::KeyEmpty => f.write_str("Key names must not be empty"),
            Broken::KeyReserved { key } => {
                write!(f, "Illegal key name \"{key}\". Please use a different name.")
            }
            Broken::KeyUndecodable => f.write_str("Could not URL-decode key name"),
            Broken::KeyTooLong { len } => {
                write!(
                    f,
                    "UTF-8 encoded length of {len} exceeds key length limit of {KEY_BYTES_MAX}."
                )
            }
            Broken::CacheTtl { given } => write!(
                f,
                "Invalid cache_ttl of {given}. Cache TTL must be at least {CACHE_TTL_MIN_S}."
            ),
            Broken::Lifetime { given, fault } => {
                write!(f, "Invalid expiration_ttl of {given}. ")?;
                match fault {
                    TimeFault::Senseless => f.write_str("Please specify integer greater than 0."),
                    TimeFault::TooSoon { min_s } => {
                        write!(f, "Expiration TTL must be at least {min_s}.")
                    }
                    TimeFault::TooFar => {
                        write!(f, "Keys must expire before {EXPIRATION_MAX_S}, in Unix seconds.")
                    }
                }
            }
            Broken::Expiration { given, fault } => {
                write!(f, "Invalid expiration of {given}. ")?;
                match fault {
                    TimeFault::Senseless => f.write_str(
                        "Please specify integer greater than the current number of seconds since \
                         the UNIX epoch.",
                    ),
                    TimeFault::TooSoon { min_s } => write!(
                        f,
                        "Expiration times must be at least {min_s} seconds in the future."
                    ),
                    TimeFault::TooFar => {
                        write!(f, "Keys must expire before {EXPIRATION_MAX_S}, in Unix seconds.")
                    }
                }
            }
            Broken::MetadataNotJson => f.write_str("Metadata is not valid JSON."),
            Broken::MetadataTooLong { len } => {
                write!(f, "Metadata length of {len} exceeds limit of {METADATA_BYTES_MAX}.")
            }
            Broken::ValueTooLong { len, max } => {
                write!(f, "Value length of {len} exceeds limit of {max}.")
            }
            Broken::LimitTooLow { name, given } => {
                write!(f, "Invalid {name} of {given}. Please specify an integer greater than 0.")
            }
            Broken::LimitTooHigh { name, given, max } => {
                write!(f, "Invalid {name} of {given}. Please specify an integer less than {max}.")
            }
            Broken::BulkType { given } => {
                write!(f, "\"{given}\" is not a valid type. Use \"json\" or \"text\"")
            }
            Broken::BulkTooManyKeys => {
                write!(f, "You can request a maximum of {BULK_KEYS_MAX} keys")
            }
            Broken::BulkNoKeys => f.write_str("You must request a minimum of 1 key"),
            Broken::BulkNotJson => {
                f.write_str("At least one of the requested keys corresponds to a non-json value")
            }
            Broken::BulkTooLarge => f.write_str("Total size of request exceeds the limit of 25MB"),
        }
    }
}

/// A key of its own right.
pub(crate) fn check_key(key: &str) -> Result<(), Broken> {
    match key {
        "" => Err(Broken::KeyEmpty),
        "." | ".." => Err(Broken::KeyReserved { key: key.to_owned() }),
        _ => check_key_length(key),
    }
}

/// The length of a key or of a list prefix.
pub(crate) fn check_key_length(key: &str) -> Result<(), Broken> {
    if key.len() <= KEY_BYTES_MAX { Ok(()) } else { Err(Broken::KeyTooLong { len: key.len() }) }
}

/// How long an edge may cache; checked, and then of no use to a server that has no edge.
pub(crate) fn check_cache_ttl(text: &str) -> Result<(), Broken> {
    if integer(text).is_some_and(|seconds| seconds >= CACHE_TTL_MIN_S) {
        return Ok(());
    }
    Err(Broken::CacheTtl { given: text.to_owned() })
}

/// When a key expires that is put at a known moment into a namespace that may have a say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) now_s: i64,
    pub(crate) lifetime_min_s: i64,
}

impl Moment {
    /// Now. The shortest life is the API's, unless the namespace has its own.
    pub(crate) fn now(namespace: &Namespace) -> Moment {
        let min_ttl = namespace.settings().min_ttl;
        let lifetime_min_s = min_ttl.map_or(LIFETIME_MIN_S, |min| {
            i64::try_from(min.as_millis().div_ceil(1000)).unwrap_or(i64::MAX).max(1)
        });
        Moment { now_s: now_s(), lifetime_min_s }
    }

    /// When a key expires, in Unix seconds. A lifetime wins over a point in time, which then is not
    /// even looked at.
    pub(crate) fn expiration(
        self,
        ttl: Option<&str>,
        at: Option<&str>,
    ) -> Result<Option<u64>, Broken> {
        let expires_s = match (ttl, at) {
            (Some(ttl), _) => {
                self.after(ttl).map_err(|fault| Broken::Lifetime { given: ttl.to_owned(), fault })
            }
            (None, Some(at)) => {
                self.at(at).map_err(|fault| Broken::Expiration { given: at.to_owned(), fault })
            }
            (None, None) => return Ok(None),
        };
        expires_s.map(|seconds| u64::try_from(seconds).ok())
    }

    /// A put that expires then. The namespace's own minimum was weighed at this moment, in whole seconds.
    pub(crate) fn expiring(self, options: PutOptions, expires_s: Option<u64>) -> PutOptions {
        let Some(seconds) = expires_s else { return options };
        let asked_s = u64::try_from(self.now_s).unwrap_or(0);
        options
            .expires_at_ms(seconds.saturating_mul(1000))
            .asked_at_ms(asked_s.saturating_mul(1000))
    }

    fn after(self, ttl: &str) -> Result<i64, TimeFault> {
        let seconds = integer(ttl).filter(|seconds| *seconds > 0).ok_or(TimeFault::Senseless)?;
        if seconds < self.lifetime_min_s {
            return Err(TimeFault::TooSoon { min_s: self.lifetime_min_s });
        }
        not_too_far(self.now_s.saturating_add(seconds))
    }

    fn at(self, at: &str) -> Result<i64, TimeFault> {
        let at = integer(at).filter(|at| *at > self.now_s).ok_or(TimeFault::Senseless)?;
        if at < self.now_s.saturating_add(self.lifetime_min_s) {
            return Err(TimeFault::TooSoon { min_s: self.lifetime_min_s });
        }
        not_too_far(at)
    }
}

fn not_too_far(expires_s: i64) -> Result<i64, TimeFault> {
    if expires_s < EXPIRATION_MAX_S { Ok(expires_s) } else { Err(TimeFault::TooFar) }
}

/// The metadata of some JSON text, compact; `None` for `null`.
pub(crate) fn metadata(text: &[u8]) -> Result<Option<Cow<'_, str>>, Broken> {
    let compact = json::compact(text).ok_or(Broken::MetadataNotJson)?;
    if compact.len() > METADATA_BYTES_MAX {
        return Err(Broken::MetadataTooLong { len: compact.len() });
    }
    Ok(Some(compact).filter(|json| json != "null"))
}

/// How many keys a list page has; `name` is the parameter's.
pub(crate) fn page_limit(
    name: &'static str,
    text: Option<&str>,
    max: usize,
) -> Result<usize, Broken> {
    let Some(text) = text else { return Ok(max) };
    let given = || text.to_owned();
    match integer(text).map(usize::try_from) {
        Some(Ok(count)) if (1..=max).contains(&count) => Ok(count),
        Some(Ok(1..)) => Err(Broken::LimitTooHigh { name, given: given(), max }),
        _ => Err(Broken::LimitTooLow { name, given: given() }),
    }
}

/// Unix seconds, now.
pub(crate) fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A whole number; those beyond 64 bits count as the largest, since they are numbers too.
fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let magnitude = digits.parse().unwrap_or(i64::MAX);
    Some(if negative { -magnitude } else { magnitude })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_1000: Moment = Moment { now_s: 1000, lifetime_min_s: 60 };

    #[test]
    fn a_lifetime_wins_over_a_point_in_time() {
        assert_eq!(AT_1000.expiration(Some("60"), Some("nonsense")), Ok(Some(1060)));
        assert_eq!(AT_1000.expiration(None, Some("1060")), Ok(Some(1060)));
        assert_eq!(AT_1000.expiration(None, None), Ok(None));
        for (ttl, at) in [(Some("59"), Some("9000")), (None, Some("1059")), (None, Some("-1"))] {
            assert!(AT_1000.expiration(ttl, at).is_err(), "{ttl:?} {at:?}");
        }
    }

    #[test]
    fn a_time_that_no_record_can_hold_is_refused_and_repeated_as_it_was_given() {
        let last = (EXPIRATION_MAX_S - 1).to_string();
        assert!(AT_1000.expiration(None, Some(&last)).is_ok());
        for far in ["281474976710", "9999999999999999", "99999999999999999999999"] {
            for (ttl, at) in [(Some(far), None), (None, Some(far))] {
                let broken = AT_1000.expiration(ttl, at).expect_err(far);
                assert!(broken.to_string().contains(&format!("of {far}.")), "{broken}");
            }
        }
    }

    #[test]
    fn metadata_is_compact_and_its_length_counts_so() {
        assert_eq!(metadata(b" { } "), Ok(Some(Cow::Borrowed("{}"))));
        assert_eq!(metadata(b" null\n"), Ok(None));
        assert_eq!(metadata(b"nope"), Err(Broken::MetadataNotJson));
        let of = |len: usize| format!("{}\"{}\"", " ".repeat(50), "m".repeat(len - 2));
        assert!(metadata(of(1024).as_bytes()).is_ok());
        assert_eq!(metadata(of(1025).as_bytes()), Err(Broken::MetadataTooLong { len: 1025 }));
    }

    #[test]
    fn only_whole_numbers_are_numbers() {
        assert_eq!(integer("-17"), Some(-17));
        assert_eq!(integer("99999999999999999999"), Some(i64::MAX));
        for text in ["", "-", "+1", "1.0", " 1", "1e3", "0x10", "NaN"] {
            assert_eq!(integer(text), None, "{text}");
        }
    }
}
