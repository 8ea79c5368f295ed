//! The real clock, and for tests the virtual one.

use metasrv_core::time::{BootTime, Clock};
use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_BOOTTIME`: never goes back, and counts time that the machine slept.
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

/// For tests: Tokio's time since this instant, which may be paused, as a clock.
#[cfg(test)]
pub(crate) struct Virtual(pub tokio::time::Instant);

#[cfg(test)]
impl Clock for Virtual {
    fn now(&self) -> BootTime {
        BootTime::ZERO + self.0.elapsed()
    }
}

/// Milliseconds since 1970, for people and for `created_at` fields. No decision reads it.
pub fn wall_clock_ms() -> u64 {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}
