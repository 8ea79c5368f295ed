//! What can happen to a candidate, and what it causes: the whole language between the state machine and the shell.

use std::sync::Arc;
use std::time::Duration;

use crate::id::{Fence, Term};
use crate::lease::LeadershipLease;
use crate::time::BootTime;

/// One try to become leader; answers to calls of an earlier attempt are ignored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Attempt(pub u64);

/// An etcd lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseId(pub i64);

/// Everything that can happen to a candidate.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// What is known now of this replica's own work, and of the others in the queue.
    Vitals(Vitals),
    /// The lease for this attempt was granted; `ttl` is what etcd chose.
    Granted(Attempt, LeaseId, Duration),
    /// No lease: refused, unreachable, or unknown (such a lease has no key and expires by itself).
    GrantFailed(Attempt),
    /// A keep-alive sent at this instant was answered.
    KeptAlive(Attempt, BootTime, LeaseSeen),
    /// The campaign was won, says its answer, or the queue, or the key itself, which shows that our term has begun.
    Campaigned(Attempt, Fence),
    /// The campaign ended otherwise; it may still have been won.
    CampaignFailed(Attempt),
    /// A linearizable read sent at this instant found (or did not find) our key with our create revision.
    Read(Attempt, BootTime, KeySeen),
    /// The first fenced transaction of this term is committed.
    TermRaised(Attempt, Term),
    /// It was not, or nobody knows.
    TermNotRaised(Attempt),
    /// A fenced write was refused because the fence is gone.
    FenceLost(Attempt),
    /// A task that leading needs has died.
    TaskDied(Attempt),
    /// Whoever runs this replica wants it to lead no longer.
    Leave(Leave),
    /// The shell stopped granting, drained, and resigned.
    HandedOver(Attempt),
}

/// What holding on to a lease is earned by.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Vitals {
    /// When the last probe heartbeat was sent that came back through this replica's own listener. While it leads, only
    /// an answer that says so counts.
    pub proved_at: Option<BootTime>,
    /// Whether anybody else stands in the queue; absent where the queue was not seen yet.
    pub rivals: Option<bool>,
}

/// What a keep-alive's answer showed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeaseSeen {
    /// The lease lives for another TTL.
    Alive,
    /// It is gone.
    Gone,
}

/// What a read of our own election key showed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeySeen {
    /// It is there, with our create revision.
    Ours,
    /// It is gone, or somebody else's.
    NotOurs,
}

/// Why leadership is given up on request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leave {
    /// Another replica shall lead; this one queues again.
    Transfer,
    /// Another replica in the queue shall come before this one, which does not lead: it queues again, as the last.
    Yield,
    /// This replica ends.
    Shutdown,
}

/// Everything a candidate causes.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Ask for a lease. Answer: `Granted` or `GrantFailed`.
    Grant(Attempt),
    /// Send one keep-alive, with a deadline of its own. No answer is no event.
    KeepAlive(Attempt, LeaseId),
    /// A keep-alive is due and not earned: say so. The lease runs out if this goes on.
    Withhold(Attempt),
    /// Campaign until told otherwise. Answer: `Campaigned` or `CampaignFailed`.
    Campaign(Attempt, LeaseId),
    /// Read the queue, linearizable. Answer: `Campaigned` if our key is the oldest, else none. A campaign that waits at
    /// a member of etcd which is cut off from the others is never told that it has won.
    ReadQueue(Attempt, LeaseId),
    /// Read our key, linearizable. No answer is no event.
    Read(Attempt, Fence),
    /// Make the first fenced transaction. Answer: `TermRaised` or `TermNotRaised`.
    RaiseTerm(Attempt, Fence, Arc<LeadershipLease>),
    /// Serve as leader of this term. The instant is that of the read-back: waits count from it.
    Lead(Attempt, Term, BootTime),
    /// Leadership is over and nothing was granted since: drop what only a leader has.
    StepDown(Attempt, StepDown),
    /// Stop granting, drain, resign, then say `HandedOver`.
    HandOver(Attempt),
    /// End the campaign of this attempt and release its lease until etcd says that it is gone.
    Release(Attempt, LeaseId),
    /// This replica will not lead again.
    Stopped,
}

/// Why leadership ended without being asked to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StepDown {
    /// The deadline passed without new evidence.
    DeadlinePassed,
    /// etcd says that the lease is gone.
    LeaseGone,
    /// The election key is gone, or a fenced write was refused.
    FenceLost,
    /// The term could not be raised.
    TermNotRaised,
    /// A task that leading needs has died; what it did is not done any more.
    TaskDied,
    /// No probe heartbeat came back through its own listener for too long, and others are there to lead.
    Unproved,
}

impl StepDown {
    /// Its name in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            StepDown::DeadlinePassed => "deadline_passed",
            StepDown::LeaseGone => "lease_gone",
            StepDown::FenceLost => "fence_lost",
            StepDown::TermNotRaised => "term_not_raised",
            StepDown::TaskDied => "task_died",
            StepDown::Unproved => "unproved",
        }
    }
}
