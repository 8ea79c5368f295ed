//! What allows a takeover and what prevents one, as sentences for an operator and for the history.

use std::fmt;

use super::{Ground, Proof, Wait, Why};
use crate::time::BootTime;

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ground::NeverGranted => "no process of its node was ever granted anything",
            Ground::Ended(Proof::Reaped) => "its node's process was reaped by its supervisor",
            Ground::Ended(Proof::LockTaken { .. }) => "a newer process has the lock of its node's process",
            Ground::Stopped => "its node confirmed that it stopped writing",
            Ground::Fenced => "an earlier term had cut its node off",
            Ground::RanOut => "all leases that its node may have had are over",
        })
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wait::OwnGrant => "the last lease of this term",
            Wait::EarlierTerms => "leases that earlier terms may have granted",
        })
    }
}

impl Why<'_> {
    /// The reason as a sentence, at this instant.
    pub fn describe(&self, now: BootTime) -> impl fmt::Display + '_ {
        Described { why: self, now }
    }
}

struct Described<'a> {
    why: &'a Why<'a>,
    now: BootTime,
}

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = |until: BootTime| until.since(self.now).as_secs_f64();
        match self.why {
            Why::NotLost => f.write_str("its node is not lost: it was heard of within a lease of this term"),
            Why::Restarting { until } => {
                write!(f, "its node restarts as planned, and is waited for another {:.1} s", left(*until))
            }
            Why::Braked { why } => write!(f, "failovers stand still: {}", why.describe(self.now)),
            Why::MayBeWritten { until, why } => {
                write!(f, "its node may write to it for another {:.1} s: {why} must be over", left(*until))
            }
            Why::AtMost => {
                f.write_str("as many regions as may be are being failed over; it is one of the next")
            }
            Why::EpochsSpent => f.write_str("there is no epoch above its own"),
            Why::NoNode => f.write_str("no other node may be chosen"),
        }
    }
}
