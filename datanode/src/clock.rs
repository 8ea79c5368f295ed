//! The real clock, and the one that tests turn by hand.
//!
//! The server has the same few lines: datanode and server do not know each other, and the core has no clock.

use metasrv_core::time::{BootTime, Clock};
use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_BOOTTIME`: never goes back, and counts time that the machine slept. A lease counted by a clock that stands
/// still while the machine sleeps lasts too long.
#[derive(Clone, Copy, Default, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> BootTime {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
        BootTime::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
    }
}

/// A clock that stands still until a test moves it.
#[cfg(test)]
#[derive(Default, Debug)]
pub struct ManualClock(std::sync::atomic::AtomicU64);

#[cfg(test)]
impl ManualClock {
    /// Moves it to so many milliseconds after the machine's start.
    pub fn set(&self, millis: u64) {
        self.0.store(millis, std::sync::atomic::Ordering::SeqCst);
    }
}

#[cfg(test)]
impl Clock for ManualClock {
    fn now(&self) -> BootTime {
        BootTime::from_millis(self.0.load(std::sync::atomic::Ordering::SeqCst))
    }
}
