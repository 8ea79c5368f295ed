//! Instants on a clock that counts time spent suspended.
//!
//! All deadlines are instants of `CLOCK_BOOTTIME`: the standard library's `Instant` stands still while a Linux
//! machine sleeps, and a lease that stands still is a lease that lasts too long. Instants of different machines
//! are never compared.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// An instant of the local `CLOCK_BOOTTIME`, in nanoseconds since the machine's start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BootTime(u64);

impl BootTime {
    /// The machine's start.
    pub const ZERO: BootTime = BootTime(0);
    /// Later than any instant that is ever reached.
    pub const MAX: BootTime = BootTime(u64::MAX);

    /// From nanoseconds since the machine's start.
    pub const fn from_nanos(nanos: u64) -> BootTime {
        BootTime(nanos)
    }

    /// From milliseconds since the machine's start.
    pub const fn from_millis(millis: u64) -> BootTime {
        BootTime(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the machine's start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub const fn since(self, earlier: BootTime) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// This instant less `duration`; the machine's start if that would lie before it.
    pub fn before(self, duration: Duration) -> BootTime {
        BootTime(self.0.saturating_sub(nanos(duration)))
    }
}

impl Add<Duration> for BootTime {
    type Output = BootTime;

    /// Saturates at [`BootTime::MAX`].
    fn add(self, duration: Duration) -> BootTime {
        BootTime(self.0.saturating_add(nanos(duration)))
    }
}

impl fmt::Debug for BootTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "boot+{:?}", Duration::from_nanos(self.0))
    }
}

/// Nanoseconds of a duration, saturating at about 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Where `now` comes from. Shells read `CLOCK_BOOTTIME`; simulations hand in their own.
pub trait Clock: Send + Sync {
    /// The present instant. Never goes back.
    fn now(&self) -> BootTime;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(BootTime::MAX + Duration::from_secs(1), BootTime::MAX);
        assert_eq!(BootTime::from_nanos(5) + Duration::MAX, BootTime::MAX);
        assert_eq!(BootTime::from_nanos(5).before(Duration::from_secs(1)), BootTime::ZERO);
        assert_eq!(BootTime::ZERO.since(BootTime::MAX), Duration::ZERO);
    }

    #[test]
    fn an_instant_less_a_duration_is_so_much_earlier() {
        let instant = BootTime::from_millis(5_000);
        assert_eq!(instant.before(Duration::from_secs(2)), BootTime::from_millis(3_000));
        assert_eq!(instant.before(Duration::from_secs(2)) + Duration::from_secs(2), instant);
    }
}
