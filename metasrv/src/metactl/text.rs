//! Times, ages and random numbers as text: exact in JSON, short in tables.

use std::time::{Duration, UNIX_EPOCH};

use serde::{Serialize, Serializer};

/// The last millisecond that RFC 3339 has a four-digit year for. Later ones come from a broken clock.
const LAST_MS: u64 = 253_402_300_799_999;

/// A wall clock's time in milliseconds since 1970, as a replica or a node took it. 0: never.
///
/// In JSON it is RFC 3339 in UTC, or null. In a table it is an age by this machine's clock, which is for people: the
/// two clocks may differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment(pub u64);

impl Moment {
    /// How long ago it was, in the largest unit that fits; `-` for never.
    pub fn age(self, now_ms: u64) -> String {
        if self.0 == 0 {
            return "-".to_owned();
        }
        ago(now_ms.saturating_sub(self.0))
    }

    /// The time itself, to the second: where rows are compared with other records, an age would not do.
    pub fn clock(self) -> String {
        let text = self.rfc3339().unwrap_or_else(|| "-".to_owned());
        match text.split_once('.') {
            Some((seconds, _)) => format!("{seconds}Z"),
            None => text,
        }
    }

    fn rfc3339(self) -> Option<String> {
        if self.0 == 0 || self.0 > LAST_MS {
            return None;
        }
        let time = UNIX_EPOCH + Duration::from_millis(self.0);
        Some(humantime::format_rfc3339_millis(time).to_string())
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.rfc3339().serialize(serializer)
    }
}

/// So many milliseconds ago, in the largest unit that fits.
pub fn ago(millis: u64) -> String {
    format!("{} ago", span(millis))
}

/// How long it is until this time, by this machine's clock; `-` for never, and for what has passed.
pub fn until(moment: Moment, now_ms: u64) -> String {
    match moment.0.checked_sub(now_ms) {
        Some(left @ 1..) => format!("for {}", span(left.saturating_add(999))),
        _ => "-".to_owned(),
    }
}

/// So many milliseconds in the largest unit that fits, rounded down.
pub fn span(millis: u64) -> String {
    let seconds = millis / 1000;
    let (amount, unit) = match seconds {
        0..60 => (seconds, "s"),
        60..3_600 => (seconds / 60, "m"),
        3_600..86_400 => (seconds / 3_600, "h"),
        _ => (seconds / 86_400, "d"),
    };
    format!("{amount}{unit}")
}

/// How long something will take, as an estimate is meant: in steps of five seconds below a minute, then in minutes, and
/// never too short.
pub fn estimate(millis: u64) -> String {
    let seconds = millis.div_ceil(1000);
    match seconds {
        0..=55 => format!("about {}s", seconds.max(1).div_ceil(5).saturating_mul(5)),
        _ => format!("about {}m", seconds.div_ceil(60)),
    }
}

/// A random number of 64 bits: 16 hexadecimal digits. As a JSON number, most readers would round it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hex(pub u64);

impl std::fmt::Display for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a node or another operator wrote, fit for one cell of a table: a line break would tear the row, and an escape
/// sequence would speak to the reader's terminal. Nothing is `-`.
pub fn cell(text: &str) -> String {
    if text.is_empty() {
        return "-".to_owned();
    }
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            clean.extend(character.escape_default());
        } else {
            clean.push(character);
        }
    }
    clean
}

/// Nothing where the protocol says so by zero.
pub fn unless_zero(number: u64) -> Option<u64> {
    Some(number).filter(|number| *number != 0)
}

/// A count; `-` where whoever answered does not know it.
pub fn count(count: Option<u64>) -> String {
    count.map_or_else(|| "-".to_owned(), |count| count.to_string())
}

/// Whether; `-` where whoever answered does not know.
pub fn yes_or_no(answer: Option<bool>) -> String {
    match answer {
        Some(true) => "yes",
        Some(false) => "no",
        None => "-",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_in_utc_with_milliseconds() {
        let json = |moment| serde_json::to_string(&Moment(moment)).unwrap();
        assert_eq!(json(1_700_000_000_123), "\"2023-11-14T22:13:20.123Z\"");
        assert_eq!(json(LAST_MS), "\"9999-12-31T23:59:59.999Z\"");
        assert_eq!(json(0), "null", "never");
        assert_eq!(json(LAST_MS + 1), "null", "a broken clock is no panic");
        assert_eq!(json(u64::MAX), "null", "a broken clock is no panic");
    }

    #[test]
    fn ages_have_one_unit() {
        let now = 1_700_000_000_000;
        for (seconds, age) in
            [(0, "0s ago"), (59, "59s ago"), (60, "1m ago"), (7_199, "1h ago"), (172_800, "2d ago")]
        {
            assert_eq!(Moment(now - seconds * 1000).age(now), age);
        }
        assert_eq!(Moment(now + 5_000).age(now), "0s ago", "another machine's clock is ahead");
        assert_eq!(Moment(0).age(now), "-");
    }

    #[test]
    fn what_is_to_come_is_never_said_too_short() {
        let now = 1_700_000_000_000;
        assert_eq!(until(Moment(now + 59_001), now), "for 1m");
        assert_eq!(until(Moment(now + 1), now), "for 1s");
        assert_eq!(until(Moment(now), now), "-", "it has passed");
        assert_eq!(until(Moment(0), now), "-");
        for (millis, text) in [
            (0, "about 5s"),
            (5_001, "about 10s"),
            (55_000, "about 55s"),
            (55_001, "about 1m"),
            (61_000, "about 2m"),
        ] {
            assert_eq!(estimate(millis), text);
        }
        assert_eq!(Moment(1_700_000_000_123).clock(), "2023-11-14T22:13:20Z");
        assert_eq!(Moment(0).clock(), "-");
    }

    #[test]
    fn random_numbers_keep_all_their_digits() {
        assert_eq!(serde_json::to_string(&Hex(0xab)).unwrap(), "\"00000000000000ab\"");
        assert_eq!(Hex(u64::MAX).to_string(), "ffffffffffffffff");
    }

    #[test]
    fn foreign_text_stays_in_its_cell() {
        assert_eq!(cell("a\nb\u{1b}[31mc"), "a\\nb\\u{1b}[31mc");
        assert_eq!(cell("plän"), "plän");
        assert_eq!(cell(""), "-");
    }
}
