//! The live migration of one region from node `from`, which leads it, to node `to`.
//!
//! | state | stored? | asked for | goes on when | why | next |
//! | --- | --- | --- | --- | --- | --- |
//! | Preparing | at the begin | `to`: open as a candidate, read-only | `to` reports it | the slow part, while `from` writes | Flushing |
//! | Flushing | no | `from`: flush | it answered, or patience is over; and few enough regions of both nodes are without a writer | less is left to catch up with; nothing depends on it | Downgrading |
//! | Downgrading | first | `from`: stop writing; nothing is granted to it for this epoch from the commit of this state on | its recorded process confirmed for this epoch, or rule 4 frees the region otherwise | one writer: the gap begins | CatchingUp |
//! | CatchingUp | no | `to`: read up to the last position | it answered | nothing acknowledged is lost | the commit: route and Upgrading in one fenced transaction |
//! | Upgrading | with the route | `to`: lead under the new epoch | it reports so; or it is lost, and the region's failover takes over | told only after the commit: the gap ends | Closing |
//! | Closing | no | `from`: close | it reports that it did; or it is lost | tidiness | Done |
//! | Undoing | first | first, where Downgrading was reached, a raised epoch for `from`; then `to`: close | `to` reports that it did; or it is lost | `from` refuses its old epoch for ever, so it goes on only under a new one | Undone |
//!
//! Stored is what changes who may be granted the region, and before it changes. What is not stored a later leader finds out
//! again, by telling once more what changes nothing the second time: a copy is open, a stop is confirmed, a target leads. In
//! the gap a region waits for the store once.
//!
//! Before the commit, each of these leads to Undoing: an operator's cancel; the route changed; `to` is lost, restarted,
//! without the region, or too slow; and before Downgrading `from` is lost or restarted (failover takes over, and `to` is a
//! good target). After the commit nothing is undone. In the gap a lost `from` is no reason: the region is free soon, and `to` is ready.
//!
//! A commit of unknown outcome and an undoing exclude each other: both change this record and compare its revision. On a
//! conflict the shell reads the record again and hands it to [`Migrating::persisted`].

mod step;

use std::fmt;
use std::time::Duration;

use super::instruction::{Answer, Held, HeldAs, Led, NodeView, Reply, Tell};
use super::{Claim, InFlight, Kind, Procedure, ProcedureId};
use crate::id::{Epoch, Incarnation, NodeId, RegionId};
use crate::time::BootTime;

/// What is stored of a migration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Migration {
    /// Its name.
    pub id: ProcedureId,
    /// The region that moves.
    pub region: RegionId,
    /// The node that leads it at the begin.
    pub from: NodeId,
    /// The process of `from` that leads it: only its word counts.
    pub leader: Incarnation,
    /// The node that shall lead it.
    pub to: NodeId,
    /// The process of `to` that opened the region. `None` while Preparing.
    pub candidate: Option<Incarnation>,
    /// The epoch that `from` leads under. `to` shall lead under the next one.
    pub epoch: Epoch,
    /// Where it stands.
    pub state: State,
    /// Why it was begun, for people.
    pub reason: String,
}

/// See the table at the top.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // The table says what they mean.
pub enum State {
    Preparing,
    Flushing,
    Downgrading,
    CatchingUp {
        /// The last position that `from` wrote, if it is known.
        position: Option<u64>,
    },
    Upgrading,
    Closing,
    Undoing {
        /// What made it fail.
        why: Why,
        /// Whether the route's epoch is still to be raised for `from`.
        owes_epoch: bool,
    },
}

/// Why a migration is undone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Why {
    /// An operator said so, for this reason.
    Cancelled(String),
    /// The region has no route any more.
    RegionDropped,
    /// Something else gave the region away, or raised its epoch.
    RouteChanged,
    /// `from` was lost before it was asked to stop.
    SourceLost,
    /// `from` is another process now.
    SourceRestarted,
    /// `from` did not flush before the overall patience was over.
    SourceSlow,
    /// `from` did not confirm in time that it stopped.
    SourceSilent,
    /// `to` was lost.
    TargetLost,
    /// `to` is another process now, which does not have the region open.
    TargetRestarted,
    /// `to` closed the region.
    TargetLeft,
    /// `to` did not open the region in time.
    TargetSlow,
    /// `to` did not catch up in time.
    TargetBehind,
    /// `to` said that it cannot catch up.
    TargetFailed,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Cancelled(reason) => return write!(f, "cancelled: {reason}"),
            Why::RegionDropped => "the region was dropped",
            Why::RouteChanged => "the route was changed by something else",
            Why::SourceLost => "the source was lost",
            Why::SourceRestarted => "the source restarted",
            Why::SourceSlow => "the source did not flush in time",
            Why::SourceSilent => "the source did not confirm in time that it stopped",
            Why::TargetLost => "the target was lost",
            Why::TargetRestarted => "the target restarted",
            Why::TargetLeft => "the target closed the region",
            Why::TargetSlow => "the target did not open the region in time",
            Why::TargetBehind => "the target did not catch up in time",
            Why::TargetFailed => "the target cannot catch up",
        })
    }
}

/// How a migration ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// `to` was given the region.
    Done,
    /// `from` kept it, or something else gave it away.
    Undone(Why),
}

/// How long each part may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// From the begin to the end of Flushing; and each state of the gap when `from` is lost, since undoing would give no
    /// writer back.
    pub overall: Duration,
    /// Flushing.
    pub flush: Duration,
    /// Downgrading and CatchingUp together: nobody writes meanwhile.
    pub gap: Duration,
    /// Upgrading, Closing, and closing `to` in Undoing. After it the heartbeats go on with what is left.
    pub cleanup: Duration,
    /// Between two tellings of one instruction, outside the gap.
    pub repeat: Duration,
    /// The same inside the gap, Upgrading included.
    pub repeat_in_gap: Duration,
}

impl Default for Patience {
    /// A large region opens within a minute. The gap is shorter than a lease: undoing must cost less than a failover.
    fn default() -> Patience {
        Patience {
            overall: Duration::from_secs(120),
            flush: Duration::from_secs(10),
            gap: Duration::from_secs(2),
            cleanup: Duration::from_secs(15),
            repeat: Duration::from_secs(2),
            repeat_in_gap: Duration::from_millis(250),
        }
    }
}

/// What the leader knows when it looks at a migration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Observed {
    /// The route. `None`: the region was dropped.
    pub route: Option<Led>,
    /// The node that is to lose the region.
    pub from: NodeView,
    /// The node that is to get it.
    pub to: NodeView,
    /// Answers received in this term, in any order. Those that do not fit are not counted.
    pub replies: Vec<Reply>,
    /// When rule 4 frees the region from `from` without its word ([`crate::failover::release`]): what it was granted is
    /// over by then. [`BootTime::ZERO`]: it is allowed now; [`BootTime::MAX`]: it is not known.
    pub free_at: BootTime,
    /// One more region of these nodes may lose its writer ([`super::Running::has_room_for_gap`]).
    pub has_room_for_gap: bool,
}

/// What is to be done now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// Nothing changes before something is reported.
    Stay {
        /// What is to be told now; [`Migrating::told`] says that it was.
        tell: Option<Tell>,
        /// When to look again, if nothing is reported before.
        look_at: BootTime,
    },
    /// Go on in this state at once ([`Migrating::goes_on`]): nothing of it is stored.
    GoOn(Migration),
    /// Store this, in a fenced transaction that compares the revision of the record.
    Persist(Migration),
    /// Store both in one fenced transaction that compares the revisions of the record and of the route.
    CommitRoute {
        /// The route that shall be.
        route: Led,
        /// The record that shall be.
        then: Migration,
    },
    /// Take the record away, in a fenced transaction with the event that says how it ended.
    Finish(End),
}

/// It is too late to cancel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CannotCancel {
    /// The route was given to `to`.
    Committed,
    /// It is being undone already.
    Undoing,
}

impl fmt::Display for CannotCancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CannotCancel::Committed => "the region was given to the target already; migrate it back instead",
            CannotCancel::Undoing => "it is being undone already",
        })
    }
}

impl Migration {
    /// The node and the epoch that nothing may be granted for, in this region.
    pub fn withholds(&self) -> Option<Led> {
        self.is_past_downgrade().then_some(Led { node: self.from, epoch: self.epoch })
    }

    /// Whether this node's copy of the region is in use, though the route does not name it: not to be closed as a stray.
    pub fn keeps_open(&self, node: NodeId) -> bool {
        let undoing = matches!(self.state, State::Undoing { .. } | State::Closing);
        node == self.to && !undoing
    }

    /// What others see of it.
    pub fn in_flight(&self) -> InFlight {
        let nodes = vec![self.from, self.to];
        InFlight { kind: Kind::Migration, claim: self.claim(), nodes, in_gap: self.is_in_gap() }
    }

    /// Whether nobody writes to the region for its sake.
    pub fn is_in_gap(&self) -> bool {
        matches!(self.state, State::Downgrading | State::CatchingUp { .. } | State::Upgrading)
    }

    /// What is to be stored to cancel it. If storing it conflicts, the commit was first: ask again.
    ///
    /// # Errors
    /// [`CannotCancel`] once the route was committed, or when it is being undone.
    pub fn cancel(&self, reason: &str) -> Result<Migration, CannotCancel> {
        match self.state {
            State::Upgrading | State::Closing => Err(CannotCancel::Committed),
            State::Undoing { .. } => Err(CannotCancel::Undoing),
            _ => Ok(self.undoing(Why::Cancelled(reason.to_owned()))),
        }
    }

    fn claim(&self) -> Claim {
        match self.state {
            State::Closing | State::Undoing { owes_epoch: false, .. } => Claim::Remains(self.region),
            _ => Claim::Route(self.region),
        }
    }

    /// From the commit of Downgrading to the end of what undoes it. After that the epoch is not the route's any more.
    fn is_past_downgrade(&self) -> bool {
        match self.state {
            State::Preparing | State::Flushing | State::Undoing { owes_epoch: false, .. } => false,
            State::Downgrading | State::CatchingUp { .. } | State::Upgrading | State::Closing => true,
            State::Undoing { owes_epoch: true, .. } => true,
        }
    }

    fn at(&self, state: State) -> Migration {
        Migration { state, ..self.clone() }
    }

    fn undoing(&self, why: Why) -> Migration {
        self.at(State::Undoing { why, owes_epoch: self.is_past_downgrade() })
    }

    /// The route before the commit.
    fn before(&self) -> Led {
        Led { node: self.from, epoch: self.epoch }
    }

    /// The route after the commit.
    fn after(&self) -> Led {
        Led { node: self.to, epoch: self.epoch.next() }
    }

    /// The first of the answers of this process, for this migration, that `pick` takes.
    fn answer<T>(
        &self,
        seen: &Observed,
        node: NodeId,
        process: Option<Incarnation>,
        pick: impl Fn(Answer) -> Option<T>,
    ) -> Option<T> {
        let counts = |reply: &&Reply| {
            reply.node == node && Some(reply.process) == process && reply.epoch == self.epoch
        };
        seen.replies.iter().filter(counts).find_map(|reply| pick(reply.answer))
    }

    fn is_candidate(&self, held: Option<Held>) -> bool {
        held == Some(Held { role: HeldAs::Candidate, epoch: self.epoch })
    }
}

/// A migration at work: where it stands, and since when this leader waits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Migrating {
    /// As it is stored, or in a state after that which is not.
    stored: Migration,
    patience: Patience,
    /// When this leader took it up.
    begun: BootTime,
    /// When the present state began.
    entered: BootTime,
    /// When Downgrading began, or this leader took up a later state.
    gap_begun: BootTime,
    /// When the instruction of this state was last told, and over which stream.
    told: Option<(BootTime, Option<u64>)>,
}

impl Procedure for Migrating {
    type Stored = Migration;
    type Settings = Patience;
    const KIND: Kind = Kind::Migration;

    fn on_leader_change(stored: Migration, patience: Patience, now: BootTime) -> Migrating {
        Migrating { stored, patience, begun: now, entered: now, gap_begun: now, told: None }
    }

    fn stored(&self) -> &Migration {
        &self.stored
    }

    fn claim(&self) -> Claim {
        self.stored.claim()
    }
}
