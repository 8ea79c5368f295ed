//! What nodes are told about one region, and what they answer and report.
//!
//! An instruction may be lost, told twice, or arrive late: each is idempotent, names its epoch, and is refused by a node
//! that has seen a newer term or a newer epoch of the region. None gives the right to write: only a lease does.

use crate::id::{Epoch, Incarnation, NodeId, RegionId};
use crate::time::BootTime;

/// One thing that a node is told to do with one region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Instruction {
    /// Open it read-only, without a lease, to become its leader.
    OpenCandidate {
        /// The region.
        region: RegionId,
        /// The epoch of the present leader.
        epoch: Epoch,
    },
    /// Write to the storage what is only in memory. Answered by [`Answer::Flushed`].
    Flush {
        /// The region.
        region: RegionId,
        /// The epoch it is led under.
        epoch: Epoch,
    },
    /// Stop writing under this epoch and any older one (an epoch may have been raised without the node knowing yet, and its
    /// older lease still runs), let the writes under way end, and refuse every grant for these epochs from then on.
    /// Answered by [`Answer::Stopped`], also by a process that does not hold the region; not by one that holds it under a
    /// newer epoch.
    Downgrade {
        /// The region.
        region: RegionId,
        /// The epoch it is led under.
        epoch: Epoch,
    },
    /// Read what was written up to here. Answered by [`Answer::CaughtUp`] or [`Answer::CannotCatchUp`].
    CatchUp {
        /// The region.
        region: RegionId,
        /// The epoch it is a candidate under.
        epoch: Epoch,
        /// The last position that was written. `None`: to the end.
        position: Option<u64>,
    },
    /// Lead the region under this epoch, which is committed.
    Upgrade {
        /// The region.
        region: RegionId,
        /// The new epoch.
        epoch: Epoch,
    },
    /// Close it, if it is held under this epoch or an older one.
    Close {
        /// The region.
        region: RegionId,
        /// The newest epoch that this speaks of.
        epoch: Epoch,
    },
}

/// An instruction and who it is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tell {
    /// The node.
    pub node: NodeId,
    /// The process of that node. Any other refuses: it knows nothing of what was done before.
    pub process: Incarnation,
    /// What it is told.
    pub instruction: Instruction,
}

/// What a process answered to an instruction about the region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reply {
    /// The node.
    pub node: NodeId,
    /// The process that answered.
    pub process: Incarnation,
    /// The epoch that the instruction named.
    pub epoch: Epoch,
    /// What it said.
    pub answer: Answer,
}

/// See [`Reply`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// What was in memory is in the storage.
    Flushed,
    /// It does not write under this epoch or an older one, and never will again.
    Stopped {
        /// The last position it wrote, if it knows.
        position: Option<u64>,
    },
    /// It has read everything up to the position.
    CaughtUp,
    /// It does not have the region open as a candidate, or cannot read what was written.
    CannotCatchUp,
}

/// How a node holds a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeldAs {
    /// It writes while it has a lease.
    Leader,
    /// It was the leader and stopped.
    Downgraded,
    /// Read-only, to become the leader.
    Candidate,
    /// Read-only, for readers.
    Follower,
}

/// A region as a node has it open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// How.
    pub role: HeldAs,
    /// Under which epoch.
    pub epoch: Epoch,
}

/// What the recorded process of a node last reported about the region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Report {
    /// When it was received.
    pub at: BootTime,
    /// How it holds the region. `None`: not at all.
    pub held: Option<Held>,
}

/// Whether a node is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presence {
    /// It is heard, or its silence is not long enough to count.
    Reachable,
    /// It is lost by the evidence of this term, or certified to be dead.
    Lost,
}

/// What the leader knows of one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeView {
    /// The process that the store has for it. `None`: no process was ever recorded.
    pub process: Option<Incarnation>,
    /// Whether it is there.
    pub presence: Presence,
    /// Its last report. `None`: nothing was reported in this term.
    pub report: Option<Report>,
    /// Names the stream that this process has to this leader; each has another name. `None`: it has none, and can be told
    /// nothing.
    pub stream: Option<u64>,
}

impl NodeView {
    /// What was reported at `since` or later: `None` if nothing was, `Some(None)` if the region is not held.
    pub fn held_since(&self, since: BootTime) -> Option<Option<Held>> {
        self.report.filter(|report| report.at >= since).map(|report| report.held)
    }

    /// Whether the node is lost.
    pub fn is_lost(&self) -> bool {
        self.presence == Presence::Lost
    }
}

/// Who leads a region, as the store has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Led {
    /// The node.
    pub node: NodeId,
    /// Its epoch.
    pub epoch: Epoch,
}
