//! Until when a certificate is valid, read off its DER: for a metric and the log. Whether it *is* valid, rustls decides.
//!
//! ```text
//! Certificate  ::= SEQUENCE { tbs SEQUENCE { [0] version, serial, algorithm, issuer, validity, … }, … }
//! Validity     ::= SEQUENCE { not before, not after }      each UTCTime YYMMDDhhmmssZ or GeneralizedTime YYYYMMDDhhmmssZ
//! ```

use std::time::{Duration, SystemTime};

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The end of its validity; `None` where it cannot be read.
pub(crate) fn ends(certificate: &[u8]) -> Option<SystemTime> {
    let (_, certificate, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, mut rest, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    if element(rest)?.0 == VERSION {
        rest = element(rest)?.2;
    }
    // Serial, algorithm, issuer.
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (_, validity, _) = element(rest)?;
    let (_, _, after) = element(validity)?;
    let (tag, text, _) = element(after)?;
    time(tag, std::str::from_utf8(text).ok()?)
}

/// The first element: its tag, its content, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        // No certificate is larger than what three bytes count.
        let count = usize::from(first & 0x7f);
        if !(1..=3).contains(&count) {
            return None;
        }
        let (counted, rest) = rest.split_at_checked(count)?;
        (counted.iter().fold(0, |length, byte| length * 256 + usize::from(*byte)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn time(tag: u8, text: &str) -> Option<SystemTime> {
    let digits = text.strip_suffix('Z').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let (year, rest) = match tag {
        UTC_TIME if digits.len() == 12 => {
            let year: u64 = digits[..2].parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
        }
        GENERALIZED_TIME if digits.len() == 14 => (digits[..4].parse().ok()?, &digits[4..]),
        _ => return None,
    };
    let part = |at: usize| rest[at..at + 2].parse::<u64>().ok();
    let (month, day) = (part(0)?, part(2)?);
    let seconds = part(4)? * 3_600 + part(6)? * 60 + part(8)?;
    let days = days_since_1970(year, month, day)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(days * 86_400 + seconds))
}

fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let before = *BEFORE.get(usize::try_from(month.checked_sub(1)?).ok()?)?;
    if year < 1970 || day == 0 {
        return None;
    }
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let leaps = (1970..year).filter(|year| is_leap(*year)).count();
    let own_leap = u64::from(month > 2 && is_leap(year));
    Some((year - 1970) * 365 + u64::try_from(leaps).ok()? + before + own_leap + day - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(tag: u8, text: &str) -> Option<u64> {
        time(tag, text).map(|time| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn both_kinds_of_time_are_read_and_nothing_else() {
        assert_eq!(seconds(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(seconds(UTC_TIME, "000301000000Z"), Some(951_868_800));
        assert_eq!(seconds(UTC_TIME, "240229235959Z"), Some(1_709_251_199));
        assert_eq!(seconds(GENERALIZED_TIME, "20240301000000Z"), Some(1_709_251_200));
        assert_eq!(seconds(GENERALIZED_TIME, "21000301000000Z"), Some(4_107_542_400), "2100 is no leap year");
        for wrong in [
            "",
            "Z",
            "7001010000Z",
            "700101000000",
            "70010100000xZ",
            "701301000000Z",
            "700001000000Z",
            "700100000000Z",
        ] {
            assert_eq!(seconds(UTC_TIME, wrong), None, "{wrong}");
        }
    }

    #[test]
    fn whatever_the_bytes_are_it_does_not_panic() {
        let mut bytes = vec![SEQUENCE, 0x82, 0xff, 0xff];
        bytes.extend([SEQUENCE; 40]);
        for end in 0..bytes.len() {
            assert_eq!(ends(&bytes[..end]), None);
        }
        for length in [0x80, 0x84, 0xff] {
            assert_eq!(ends(&[SEQUENCE, length, 1, 2, 3, 4, 5]), None);
        }
    }

    #[test]
    fn it_is_what_the_certificate_was_made_with() {
        let mut parameters = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap();
        for year in [2031, 2051] {
            parameters.not_after = rcgen::date_time_ymd(year, 2, 3);
            let made = parameters.clone().self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
            let ends = ends(made.der()).unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
            assert_eq!(i64::try_from(ends).unwrap(), parameters.not_after.unix_timestamp());
        }
    }
}
