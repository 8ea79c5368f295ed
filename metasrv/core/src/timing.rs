//! Every duration of the system: a few inputs, the rest derived.
//!
//! The clock of any machine may run fast or slow by a share ρ. Whoever must stop in time counts short (1−ρ);
//! whoever waits for another to stop counts long (1+ρ).

use std::fmt;
use std::time::Duration;

use crate::guard::{Rule, carried, drift_percent};

/// ρ as a fraction: clocks for durations run within ±1 % of true time.
const DRIFT_PERCENT: u32 = 1;

/// etcd never grants less, whatever is asked.
const LEAST_ELECTION_TTL: Duration = Duration::from_secs(2);

/// Time between the last check of a deadline and the effect of what it allowed.
const LEADERSHIP_MARGIN: Duration = Duration::from_millis(100);

/// The inputs. A leader publishes its own; a successor waits by its predecessor's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// TTL of the etcd lease under the leader's key. Must outlive an election among etcd's members.
    pub election_ttl: Duration,
    /// Length of a region lease, L.
    pub region_lease: Duration,
    /// Time between two heartbeats of a node.
    pub heartbeat_interval: Duration,
    /// Datanodes up to which that is so; beyond, [`crate::pacing`] has a longer one.
    pub full_rate_nodes: usize,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            election_ttl: Duration::from_secs(5),
            region_lease: Duration::from_secs(5),
            heartbeat_interval: Duration::from_secs(1),
            full_rate_nodes: 10_000,
        }
    }
}

impl Timing {
    /// How long leadership lasts after the sending of a keep-alive that was confirmed:
    /// TTL·(1−ρ)/(1+ρ) − margin, since etcd's clock may run fast and ours slow.
    pub fn leadership(&self) -> Duration {
        leadership(self.election_ttl)
    }

    /// Time between two keep-alives of the election lease. Five fit into its TTL, so that three may be lost.
    pub fn keep_alive_interval(&self) -> Duration {
        self.election_ttl / 5
    }

    /// Deadline of one keep-alive call. Calls do not wait for one another.
    pub fn keep_alive_timeout(&self) -> Duration {
        self.election_ttl / 2
    }

    /// How long a new leader waits for what predecessors with these inputs may have granted: TTL + L·(1+ρ).
    /// The TTL is there because a deposed leader may have gone on granting until its own deadline.
    pub fn takeover_wait(&self) -> Duration {
        takeover_wait(self.election_ttl, self.region_lease)
    }

    /// How long this leader's own grants may last: L·(1+ρ).
    pub fn grant_wait(&self) -> Duration {
        grant_wait(self.region_lease)
    }

    /// Checks the inputs and reports every violation at once.
    pub fn validate(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        let mut demand = |holds: bool, field: &'static str, rule: String| {
            if !holds {
                violations.push(Violation { field, rule });
            }
        };
        demand(
            self.election_ttl >= LEAST_ELECTION_TTL,
            "etcd-lease-ttl",
            format!("must be at least {LEAST_ELECTION_TTL:?}: etcd grants no shorter lease"),
        );
        demand(
            self.election_ttl.subsec_nanos() == 0,
            "etcd-lease-ttl",
            "must be whole seconds: etcd counts leases in seconds".to_owned(),
        );
        demand(self.election_ttl <= LONGEST, "etcd-lease-ttl", format!("must be at most {LONGEST:?}"));
        demand(
            self.heartbeat_interval >= Duration::from_millis(50),
            "heartbeat-interval",
            "must be at least 50ms".to_owned(),
        );
        demand(self.full_rate_nodes > 0, "full-rate-nodes", "must be at least 1".to_owned());
        demand(
            self.region_lease >= self.heartbeat_interval.saturating_mul(2),
            "region-lease",
            format!(
                "must be at least twice the heartbeat interval ({:?}), or one late heartbeat makes regions read-only",
                self.heartbeat_interval
            ),
        );
        demand(
            self.region_lease >= Duration::from_secs(1),
            "region-lease",
            "must be at least 1s: public peers count leases in seconds".to_owned(),
        );
        demand(self.region_lease <= LONGEST, "region-lease", format!("must be at most {LONGEST:?}"));
        violations
    }
}

/// Longer leases than this are a mistake in units.
const LONGEST: Duration = Duration::from_secs(3600);

/// One input that breaks a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The flag's name, without dashes in front.
    pub field: &'static str,
    /// What it must be, and why.
    pub rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.rule)
    }
}

/// See [`Timing::leadership`]; for a TTL that etcd chose.
pub fn leadership(election_ttl: Duration) -> Duration {
    let share = election_ttl.saturating_mul(slow()) / fast();
    carried(Rule::LeadershipIsShort, share, || election_ttl).saturating_sub(LEADERSHIP_MARGIN)
}

/// See [`Timing::takeover_wait`]; for the numbers that a predecessor published.
pub fn takeover_wait(election_ttl: Duration, region_lease: Duration) -> Duration {
    election_ttl.saturating_add(grant_wait(region_lease))
}

/// See [`Timing::grant_wait`].
pub fn grant_wait(region_lease: Duration) -> Duration {
    carried(Rule::GrantWaitIsLong, region_lease.saturating_mul(fast()) / 100, || region_lease)
}

/// How long a datanode may use a lease of this length, counted from its own send time: L·(1−ρ).
pub fn usable_lease(region_lease: Duration) -> Duration {
    carried(Rule::LeaseIsShort, region_lease.saturating_mul(slow()) / 100, || region_lease)
}

/// What the slowest clock counts while 100 pass: 100·(1−ρ).
fn slow() -> u32 {
    100_u32.saturating_sub(drift_percent(DRIFT_PERCENT))
}

/// What the fastest clock counts while 100 pass: 100·(1+ρ).
fn fast() -> u32 {
    100_u32.saturating_add(drift_percent(DRIFT_PERCENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stops_counts_short_and_who_waits_counts_long() {
        let timing = Timing::default();
        assert!(usable_lease(timing.region_lease) < timing.region_lease);
        assert!(timing.grant_wait() > timing.region_lease);
        assert!(timing.leadership() < timing.election_ttl);
        assert_eq!(timing.takeover_wait(), timing.election_ttl + timing.grant_wait());
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Timing::default().validate(), vec![]);
    }

    #[test]
    fn every_violation_is_reported_at_once() {
        let timing = Timing {
            election_ttl: Duration::from_millis(1500),
            region_lease: Duration::from_millis(500),
            heartbeat_interval: Duration::from_millis(10),
            full_rate_nodes: 0,
        };
        let fields: Vec<_> = timing.validate().into_iter().map(|violation| violation.field).collect();
        assert_eq!(
            fields,
            ["etcd-lease-ttl", "etcd-lease-ttl", "heartbeat-interval", "full-rate-nodes", "region-lease"]
        );
    }

    /// Goal: each duration is what its formula says. Method: the defaults, worked out by hand.
    #[test]
    fn the_derived_durations_of_the_defaults() {
        let timing = Timing::default();
        assert_eq!(timing.leadership(), Duration::from_secs(5) * 99 / 101 - LEADERSHIP_MARGIN);
        assert_eq!(timing.keep_alive_interval(), Duration::from_secs(1));
        assert_eq!(timing.keep_alive_timeout(), Duration::from_millis(2_500));
        assert_eq!(timing.grant_wait(), Duration::from_millis(5_050));
        assert_eq!(timing.takeover_wait(), Duration::from_millis(10_050));
        assert_eq!(usable_lease(timing.region_lease), Duration::from_millis(4_950));
    }
}
