//! Where a candidate stands, with what it holds there. A phase owns what only it needs: leaving it drops that.

use std::sync::Arc;

use super::events::{LeaseId, Leave};
use crate::id::Fence;
use crate::lease::LeadershipLease;
use crate::time::BootTime;

/// Evidence that this attempt's lease and key live, by the time at which it was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Evidence {
    /// Send time of the last keep-alive that was confirmed.
    pub kept_alive: BootTime,
    /// Send time of the last linearizable read that showed our key with our create revision.
    pub read: BootTime,
}

/// The table of `election.rs`, as a type. Raising, Leading and HandingOver share all they hold: they are [`Serving`].
#[derive(Debug)]
pub enum Phase {
    /// Between two attempts.
    Idle {
        /// When the next attempt begins.
        retry_at: BootTime,
    },
    /// A lease was asked for.
    Granting {
        /// When; the lease counts from then.
        asked_at: BootTime,
    },
    /// In the queue.
    Campaigning {
        /// The lease of this attempt.
        lease: LeaseId,
        /// Send time of the last confirmed keep-alive.
        kept_alive: BootTime,
    },
    /// Won, says etcd; not believed yet.
    ReadingBack {
        /// The lease of this attempt.
        lease: LeaseId,
        /// What was won.
        fence: Fence,
        /// Send time of the last confirmed keep-alive.
        kept_alive: BootTime,
    },
    /// Won, and read back.
    Serving {
        /// The lease of this attempt.
        lease: LeaseId,
        /// What was won.
        fence: Fence,
        /// The deadline, shared with all that act as leader.
        leadership: Arc<LeadershipLease>,
        /// What the deadline stands on.
        evidence: Evidence,
        /// How far it is.
        serving: Serving,
    },
    /// Left for good.
    Stopped,
}

/// How far a winner is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Serving {
    /// The term is being raised.
    Raising,
    /// It leads.
    Leading,
    /// It was asked to leave, and is about to.
    HandingOver(Leave),
}
