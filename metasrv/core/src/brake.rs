//! When automatic failovers stop, and why.
//!
//! A leader that takes too many nodes for dead is more likely to be sick itself than right, and moving everything at once
//! is worse than waiting. So the brake asks first: are too many nodes silent at once, did our own loop stall lately, did an
//! operator say stop? It lets go by itself once few nodes were silent for a while, or by command. It decides about
//! availability only; when a region *may* be taken is [`crate::failover`]'s to say.
//!
//! | condition, the first that holds | verdict |
//! | --- | --- |
//! | an operator's pause has not ended | hold: [`Hold::Paused`] |
//! | an operator's resumption has not ended | proceed, in spite of what follows |
//! | more nodes silent at once than the share allows | hold: [`Hold::TooManySilent`] |
//! | it was so, and few are silent, but not for long enough yet | hold: [`Hold::CalmingDown`] |
//! | our own loop stalled lately | proceed with nodes whose death was proved, and hold the others: [`Hold::Stalled`] |
//! | else | proceed, with as many as are not under way |

use std::fmt;
use std::time::Duration;

use crate::detector::{Health, Stall};
use crate::incarnation::Holds;
use crate::time::BootTime;

/// What the brake is set to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// More silent nodes than this share of all (in percent) stop failovers. One silent node never does; with 100, nothing
    /// does.
    pub stop_percent: u32,
    /// They go on once no more nodes than this share are silent (or one), for as long as `calm`. At most `stop_percent`.
    pub resume_percent: u32,
    /// For how long few nodes must have been silent.
    pub calm: Duration,
    /// A stall of our own loop of this length or more stops failovers.
    pub stall: Duration,
    /// For how long it does, from its end on: every node had the time to be heard again.
    pub stall_hold: Duration,
    /// The most regions that are being failed over at once.
    pub at_once: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            // Two of six (a host, a rack) are still failed over; two of five, or half of any cluster, are not.
            stop_percent: 35,
            resume_percent: 25,
            // Two leases: who came back and left again was counted both times.
            calm: Duration::from_secs(10),
            stall: Duration::from_millis(500),
            stall_hold: Duration::from_secs(5),
            // A node of usual size at once. Four fenced transactions of etcd's 128 operations: some milliseconds.
            at_once: 512,
        }
    }
}

/// The datanodes, counted by their health.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Census {
    /// All that count.
    pub nodes: usize,
    /// Those of them that are suspect or lost.
    pub silent: usize,
}

impl Census {
    /// Counts one node. A lost one that holds nothing is history, not news: it would tighten the brake for ever.
    pub fn count(&mut self, health: &Health, holds: Holds) {
        let silent = match (health, holds) {
            (Health::Lost { .. }, Holds::Nothing) => return,
            (Health::Alive, _) => 0,
            (Health::Suspect { .. } | Health::Lost { .. }, _) => 1,
        };
        self.nodes = self.nodes.saturating_add(1);
        self.silent = self.silent.saturating_add(silent);
    }

    /// How many silent nodes are no more than this share; one is allowed in any cluster.
    fn allowed(&self, percent: u32) -> usize {
        let percent = usize::try_from(percent).unwrap_or(usize::MAX);
        (self.nodes.saturating_mul(percent) / 100).max(1)
    }
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Brake {
    limits: Limits,
    engaged: Option<Engaged>,
    stalled: Option<Stalled>,
    order: Option<Order>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Engaged {
    since: BootTime,
    census: Census,
    /// Since when few enough are silent again.
    calm_since: Option<BootTime>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stalled {
    late: Duration,
    until: BootTime,
}

/// An operator's last word; without effect once its time is over.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Order {
    Pause { until: BootTime, reason: String },
    Resume { until: BootTime },
}

/// Whether automatic failovers go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// They do.
    Proceed {
        /// So many regions more may be begun with.
        at_most: usize,
    },
    /// Only for nodes whose supervisor reaped them: we would have missed a heartbeat, not that.
    ReapedOnly {
        /// So many regions more may be begun with.
        at_most: usize,
        /// Why no others.
        why: Hold,
    },
    /// They do not.
    Hold {
        /// Why not.
        why: Hold,
    },
}

/// Why automatic failovers do not go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Hold {
    /// An operator said so.
    Paused {
        /// When this ends by itself.
        until: BootTime,
        /// In the operator's words.
        reason: String,
    },
    /// Our own loop was late: what was not heard meanwhile says nothing.
    Stalled {
        /// By how much it was late.
        late: Duration,
        /// When this ends by itself.
        until: BootTime,
    },
    /// More nodes are silent at once than it is likely that died at once.
    TooManySilent {
        /// As counted last.
        census: Census,
        /// So many may be silent for failovers to go on again.
        allowed: usize,
        /// Since when failovers stand still.
        since: BootTime,
    },
    /// Few nodes are silent again, but not for long enough yet.
    CalmingDown {
        /// As counted last.
        census: Census,
        /// When failovers go on if it stays so.
        until: BootTime,
    },
}

impl Brake {
    /// A brake that is released.
    pub fn new(limits: Limits) -> Brake {
        Brake { limits, engaged: None, stalled: None, order: None }
    }

    /// Takes a new count of the nodes, one with each turn of the loop.
    pub fn observe(&mut self, census: Census, now: BootTime) {
        if census.silent > census.allowed(self.limits.stop_percent) {
            let since = self.engaged.map_or(now, |engaged| engaged.since);
            self.engaged = Some(Engaged { since, census, calm_since: None });
            return;
        }
        let Some(mut engaged) = self.engaged else { return };
        engaged.census = census;
        engaged.calm_since = if census.silent <= self.resumes_at(census) {
            Some(engaged.calm_since.unwrap_or(now))
        } else {
            None
        };
        let calm = engaged.calm_since.is_some_and(|since| now.since(since) >= self.limits.calm);
        self.engaged = (!calm).then_some(engaged);
    }

    /// The loop turned late.
    pub fn stalled(&mut self, stall: Stall) {
        if stall.late < self.limits.stall {
            return;
        }
        self.stalled = Some(Stalled { late: stall.late, until: stall.ended_at + self.limits.stall_hold });
    }

    /// An operator stops failovers until then. The last order counts.
    pub fn pause(&mut self, until: BootTime, reason: String) {
        self.order = Some(Order::Pause { until, reason });
    }

    /// An operator ends a pause, and lets failovers go on until then whatever the brake sees by itself. With an instant
    /// that has passed, only the pause ends.
    pub fn resume(&mut self, until: BootTime) {
        self.order = Some(Order::Resume { until });
    }

    /// Whether failovers go on now, with `in_flight` regions being failed over.
    pub fn verdict(&self, in_flight: usize, now: BootTime) -> Verdict {
        let at_most = self.limits.at_once.saturating_sub(in_flight);
        match self.hold(now) {
            Some(why @ Hold::Stalled { .. }) => Verdict::ReapedOnly { at_most, why },
            Some(why) => Verdict::Hold { why },
            None => Verdict::Proceed { at_most },
        }
    }

    fn hold(&self, now: BootTime) -> Option<Hold> {
        match &self.order {
            Some(Order::Pause { until, reason }) if now < *until => {
                return Some(Hold::Paused { until: *until, reason: reason.clone() });
            }
            Some(Order::Resume { until }) if now < *until => return None,
            _ => {}
        }
        if let Some(Engaged { since, census, calm_since }) = self.engaged {
            return Some(match calm_since {
                None => Hold::TooManySilent { census, allowed: self.resumes_at(census), since },
                Some(calm_since) => Hold::CalmingDown { census, until: calm_since + self.limits.calm },
            });
        }
        let Stalled { late, until } = self.stalled.filter(|stalled| now < stalled.until)?;
        Some(Hold::Stalled { late, until })
    }

    fn resumes_at(&self, census: Census) -> usize {
        census.allowed(self.limits.resume_percent.min(self.limits.stop_percent))
    }
}

impl Hold {
    /// The reason as a sentence, at this instant.
    pub fn describe(&self, now: BootTime) -> impl fmt::Display + '_ {
        Described { hold: self, now }
    }
}

struct Described<'a> {
    hold: &'a Hold,
    now: BootTime,
}

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = |until: BootTime| until.since(self.now).as_secs_f64();
        match self.hold {
            Hold::Paused { until, reason } => {
                write!(f, "paused by an operator for another {:.1} s: {reason}", left(*until))
            }
            Hold::Stalled { late, until } => write!(
                f,
                "this leader's own loop was late by {:.1} s, so that silence proves nothing for another {:.1} s",
                late.as_secs_f64(),
                left(*until),
            ),
            Hold::TooManySilent { census, allowed, since } => write!(
                f,
                "{} of {} datanodes are suspect or lost at once, since {:.1} s ago: more likely the network or this \
                 leader than they; failovers go on once at most {allowed} are, or by command",
                census.silent,
                census.nodes,
                self.now.since(*since).as_secs_f64(),
            ),
            Hold::CalmingDown { census, until } => write!(
                f,
                "too many datanodes were suspect or lost at once; {} of {} are now, and failovers go on in {:.1} s if it \
                 stays so",
                census.silent,
                census.nodes,
                left(*until),
            ),
        }
    }
}

#[cfg(test)]
#[path = "brake_tests.rs"]
mod tests;
