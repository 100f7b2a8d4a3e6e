//! Sizes and times as people write them.
//!
//! What is shown is the shortest form that is read back as the same. Absent on purpose: fractions,
//! and units of 1,000 bytes, which people mistake for those of 1,024.

use std::time::Duration;

const DURATION: &str = "say a number with ms, s, m, h or d, for example 30s";
const SIZE: &str = "say a number of bytes, or one with KiB, MiB or GiB, for example 64KiB";

/// The units of time that divide each other, the longest first, in milliseconds.
const TIME_UNITS: [(&str, u64); 5] =
    [("d", 24 * 60 * 60 * 1000), ("h", 60 * 60 * 1000), ("m", 60 * 1000), ("s", 1000), ("ms", 1)];

/// The units of size that divide each other, the largest first.
const SIZE_UNITS: [(&str, u64); 4] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)];

/// Reads `50ms`, `30s`, `5m`, `2h`, `7d`, or a bare number of seconds; zero is refused.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    match measure(text, &TIME_UNITS, "s") {
        Some(0) => Err("it must be longer than nothing".into()),
        Some(ms) => Ok(Duration::from_millis(ms)),
        None => Err(DURATION.into()),
    }
}

pub(crate) fn show_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    show_measure(ms, &TIME_UNITS)
}

/// Reads `64KiB`, `128MiB`, `1GiB`, or a bare number of bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    measure(text, &SIZE_UNITS, "").ok_or_else(|| SIZE.into())
}

pub(crate) fn show_size(bytes: u64) -> String {
    show_measure(bytes, &SIZE_UNITS)
}

/// A number and its unit, in the smallest of the units.
fn measure(text: &str, units: &[(&str, u64)], bare: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = if unit.is_empty() { bare } else { unit };
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn show_measure(number: u64, units: &[(&str, u64)]) -> String {
    let fits = |(_, factor): &&(&str, u64)| number >= *factor && number.is_multiple_of(*factor);
    match units.iter().find(fits) {
        Some((unit, factor)) => format!("{}{unit}", number / factor),
        None => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_every_unit() {
        for (text, ms) in
            [("50ms", 50), ("30s", 30_000), ("90", 90_000), ("5m", 300_000), ("2h", 7_200_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "0s", "-1s", "1.5s", "1 s", "1w", "99999999999999999999s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_in_every_unit() {
        for (text, bytes) in [("0", 0), ("512", 512), ("64KiB", 1 << 16), ("3GiB", 3 << 30)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "KiB", "-1", "1.5MiB", "1 KiB", "1B", "1KB", "1k", "99999999999GiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back_as_the_same() {
        for ms in [1, 50, 999, 1000, 1500, 60_000, 90_000, 86_400_000] {
            let time = Duration::from_millis(ms);
            assert_eq!(parse_duration(&show_duration(time)), Ok(time));
        }
        for bytes in [0, 1, 1023, 1024, 65_536, 26_214_400, 100_000_000] {
            assert_eq!(parse_size(&show_size(bytes)), Ok(bytes));
        }
        assert_eq!(show_duration(Duration::from_secs(600)), "10m");
        assert_eq!(show_size(26_214_400), "25MiB");
    }
}
