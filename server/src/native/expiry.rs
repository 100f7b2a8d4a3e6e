//! Expirations as the native surface writes and reads them.
//!
//! A moment is RFC 3339 in UTC, to the millisecond where that is not zero; a request may also give
//! Unix seconds. A lifetime is a number of seconds, or a number with a unit as on the command line.
//! RFC 3339 ends with the year 9999: a later moment is refused here, and one that was stored by other
//! means is shown as the last one.

use std::time::Duration;

use jiff::Timestamp;
use kvast::Expiry;
use serde_json::Value as Json;

use super::input::whole_number;
use crate::limits::{NATIVE_LIFETIME_MAX, NATIVE_LIFETIME_MIN};
use crate::problem::{Problem, Trouble};
use crate::units::parse_duration;

/// A moment as answers show it.
pub(super) fn show(ms: u64) -> String {
    let moment = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    moment.unwrap_or(Timestamp::MAX).to_string()
}

/// What a request says about the expiration: a lifetime or a moment, both as text.
pub(super) fn read(ttl: Option<&str>, expires_at: Option<&str>) -> Result<Option<Expiry>, Problem> {
    match (ttl, expires_at) {
        (Some(_), Some(_)) => Err(invalid("A key has \"ttl\" or \"expires_at\", not both.")),
        (Some(ttl), None) => lifetime(ttl).map(Some),
        (None, Some("never")) => Ok(Some(Expiry::Never)),
        (None, Some(moment)) => point_in_time(moment).map(Some),
        (None, None) => Ok(None),
    }
}

/// The same from members of a JSON object, where `null` stands for never.
pub(super) fn read_json(
    ttl: Option<&Json>,
    expires_at: Option<&Json>,
) -> Result<Option<Expiry>, Problem> {
    let moment = |json: &Json| if json.is_null() { "never".to_owned() } else { text_of(json) };
    read(ttl.map(text_of).as_deref(), expires_at.map(moment).as_deref())
}

/// A string as it is, a whole number in digits, anything else as its JSON.
pub(super) fn text_of(json: &Json) -> String {
    match (json, whole_number(json)) {
        (Json::String(text), _) => text.clone(),
        (_, Some(number)) => number.to_string(),
        (other, None) => other.to_string(),
    }
}

fn lifetime(text: &str) -> Result<Expiry, Problem> {
    let lifetime = parse_duration(text).map_err(|_| {
        invalid(format!(
            "A ttl is a number of seconds, or a number with s, m, h or d such as \"30m\"; \
             this is {text:?}."
        ))
    })?;
    if !(NATIVE_LIFETIME_MIN..=NATIVE_LIFETIME_MAX).contains(&lifetime) {
        return Err(invalid(format!(
            "A ttl is 1 to {} seconds; this is {text:?}.",
            NATIVE_LIFETIME_MAX.as_secs()
        )));
    }
    Ok(Expiry::In(lifetime))
}

fn point_in_time(text: &str) -> Result<Expiry, Problem> {
    let moment = match text.parse::<i64>() {
        Ok(seconds) => Timestamp::from_second(seconds).ok(),
        Err(_) => text.parse::<Timestamp>().ok(),
    };
    let moment = moment.ok_or_else(|| {
        invalid(format!(
            "An expires_at is RFC 3339 such as \"2030-01-31T12:00:00Z\", or Unix seconds, up to \
             the year 9999; this is {text:?}."
        ))
    })?;
    let ms = u64::try_from(moment.as_millisecond()).ok().filter(|_| moment > Timestamp::now());
    ms.map(Expiry::At).ok_or_else(|| invalid(format!("{text:?} is in the past; delete the key.")))
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(Trouble::InvalidExpiry, detail)
}

/// A lifetime in a namespace's settings: seconds, to the millisecond.
pub(super) fn show_lifetime(lifetime: Duration) -> Json {
    let ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
    if ms % 1000 == 0 { Json::from(ms / 1000) } else { Json::from(format!("{ms}ms")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn moments_are_shown_as_rfc_3339() {
        for (ms, shown) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_893_456_000_000, "2030-01-01T00:00:00Z"),
            (1_893_456_000_250, "2030-01-01T00:00:00.25Z"),
        ] {
            assert_eq!(show(ms), shown);
        }
        assert!(show(u64::MAX).starts_with("9999-12-30T"));
    }

    #[test]
    fn lifetimes_and_moments_are_read_in_each_of_their_forms() {
        let at = Expiry::At(1_893_456_000_000);
        let seconds = |seconds| Expiry::In(Duration::from_secs(seconds));
        for (ttl, expires_at, expected) in [
            (None, None, None),
            (Some("1"), None, Some(seconds(1))),
            (Some("90m"), None, Some(seconds(5400))),
            (Some("1500ms"), None, Some(Expiry::In(Duration::from_millis(1500)))),
            (None, Some("1893456000"), Some(at)),
            (None, Some("2030-01-01T00:00:00Z"), Some(at)),
            (None, Some("2030-01-01T01:00:00+01:00"), Some(at)),
            (None, Some("never"), Some(Expiry::Never)),
        ] {
            let read = read(ttl, expires_at).unwrap_or_else(|problem| panic!("{problem:?}"));
            assert_eq!(read, expected, "{ttl:?} {expires_at:?}");
        }
    }

    #[test]
    fn expirations_that_mean_nothing_are_refused() {
        for ttl in
            ["", "0", "-1", "1.5", "999ms", "1 s", "soon", "31557600001", "99999999999999999999"]
        {
            assert!(read(Some(ttl), None).is_err(), "{ttl}");
        }
        let past = ["0", "-1", "2020-01-01T00:00:00Z"];
        let nonsense = ["", "soon", "2030-01-01", "1893456000.5", "999999999999999999999", "null"];
        for moment in past.into_iter().chain(nonsense) {
            assert!(read(None, Some(moment)).is_err(), "{moment}");
        }
        assert!(read(Some("1"), Some("1893456000")).is_err(), "both at once");
    }

    #[test]
    fn json_has_numbers_and_null_as_well() {
        let read = |json: Json| read_json(json.get("ttl"), json.get("expires_at"));
        assert_eq!(read(json!({ "ttl": 5 })).ok(), Some(Some(Expiry::In(Duration::from_secs(5)))));
        assert!(read(json!({ "ttl": 5.0 })).is_ok());
        assert_eq!(read(json!({ "expires_at": null })).ok(), Some(Some(Expiry::Never)));
        assert_eq!(read(json!({})).ok(), Some(None));
        for json in [json!({ "ttl": null }), json!({ "ttl": [5] }), json!({ "ttl": 1.5 })] {
            assert!(read(json.clone()).is_err(), "{json}");
        }
    }
}
