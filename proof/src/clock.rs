//! Time in the models: it goes in ticks, and each clock has a rate of its own.
//!
//! No instant is kept, only what is left until it or has passed since, in [`Units`] of the clock that it belongs to. So a
//! state says nothing of how long the system has run, and there are finitely many of them without a horizon. For the core,
//! which takes instants, `now` is always [`NOW`], and what is kept is laid before or after it.
//!
//! Clocks are wrong by up to a half instead of a hundredth: the core's formulas are the same with another ρ, and at this
//! one each of their factors moves a deadline by a tick or more, so that leaving it out shows.

use std::time::Duration;

use metasrv_core_proof::guard;
use metasrv_core_proof::time::BootTime;
use metasrv_core_proof::timing::Timing;

/// What is left until an instant, or has passed since, by one clock.
pub type Units = u8;

/// One unit.
const UNIT: Duration = Duration::from_millis(500);

/// By so much clocks may be wrong in the models, in percent.
const DRIFT_PERCENT: u32 = 50;

/// The present instant of every clock.
pub const NOW: BootTime = BootTime::from_millis(1_000_000);

/// A clock's rate: what it counts in one tick of true time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Rate {
    /// As slow as ρ allows.
    Slow,
    /// As fast as ρ allows.
    Fast,
}

impl Rate {
    /// Units that it counts in one tick.
    pub fn tick(self) -> Units {
        match self {
            Rate::Slow => 1,
            Rate::Fast => 3,
        }
    }
}

/// The durations of the models: as short as the ratios between them allow. With a shorter TTL a leader whose clock is fast
/// would lead for less than a tick.
pub fn timing() -> Timing {
    Timing {
        election_ttl: Duration::from_secs(5),
        region_lease: Duration::from_secs(3),
        heartbeat_interval: Duration::from_secs(1),
        full_rate_nodes: 10_000,
    }
}

/// To be called before any search: the core's formulas are taken with the models' ρ.
pub fn set_drift() {
    guard::set_drift_percent(DRIFT_PERCENT);
}

/// So many units.
pub fn units(count: Units) -> Duration {
    UNIT.saturating_mul(u32::from(count))
}

/// The instant that is reached when so many units have passed.
pub fn after(left: Units) -> BootTime {
    NOW + units(left)
}

/// The instant since which so many units have passed.
pub fn ago(passed: Units) -> BootTime {
    NOW.before(units(passed))
}

/// What is left until an instant. Ticks come at whole units: nothing happens between them, so a part is a whole.
pub fn left(until: BootTime) -> Units {
    Units::try_from(until.since(NOW).as_nanos().div_ceil(UNIT.as_nanos())).unwrap_or(Units::MAX)
}

/// What has passed since an instant.
pub fn passed(since: BootTime) -> Units {
    Units::try_from(NOW.since(since).as_nanos() / UNIT.as_nanos()).unwrap_or(Units::MAX)
}
