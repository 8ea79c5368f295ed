//! One migration as this leader has it: what the core decides by, what heartbeats are kept from doing for its sake, and the
//! one transaction that is under way.
//!
//! | held back | from | until |
//! | --- | --- | --- |
//! | grants to the source | the transaction that lets it stop is sent | that is certain not to have happened, or the route is another one |
//! | the closing of the target's copy as a stray | the first record is sent | it is undone, or the route names it |

use metasrv_core::id::{NodeId, NodeKey, RegionId};
use metasrv_core::procedure::instruction::{Led, NodeView, Reply as Said};
use metasrv_core::procedure::migrate::{End, Migrating, Migration, Next, Observed, Patience, State};
use metasrv_core::procedure::{InFlight, Procedure, ProcedureId};
use metasrv_core::time::BootTime;
use metasrv_proto::admin::{CancelProcedureResponse, MigrateRegionResponse};

use super::commit::{Pause, Transaction};
use super::record::{Stored, StoredMigration};
use super::told;
use crate::control::{ControlError, Reply};
use crate::leader::{Leader, RouteChange};
use crate::pusher::Pushers;

/// Answers that are remembered. Each instruction has one, and is repeated a few times in its state.
const MOST_REPLIES: usize = 64;

/// A migration at work.
pub(super) struct Moving {
    /// As it was first stored; the core's value is the one that counts.
    pub(super) begun_as: StoredMigration,
    pub(super) work: Migrating,
    /// Mod revision of its record; 0: it is not stored yet.
    pub(super) revision: i64,
    /// The transaction under way.
    pub(super) commit: Option<Step>,
    pub(super) pause: Pause,
    replies: Vec<Said>,
    /// An operator wants it to be undone.
    pub(super) cancel: Option<(String, Reply<CancelProcedureResponse>)>,
    /// Who is told when it is stored.
    pub(super) asked: Option<Reply<MigrateRegionResponse>>,
    /// What heartbeats are kept from doing.
    withheld: bool,
    kept_open: bool,
    /// When this leader took it up.
    pub(super) began: BootTime,
    /// When this leader had it stored that the source stops.
    pub(super) stopped: Option<BootTime>,
}

/// What a transaction does.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Begin,
    Store(Migration),
    Route(Migration),
    Finish(End),
}

impl Step {
    /// The record that shall be.
    fn then(&self) -> Option<&Migration> {
        match self {
            Step::Store(then) | Step::Route(then) => Some(then),
            Step::Begin | Step::Finish(_) => None,
        }
    }
}

impl Moving {
    /// One that is to be stored, or that an earlier term had stored at this revision.
    pub(super) fn new(stored: StoredMigration, revision: i64, patience: Patience, now: BootTime) -> Moving {
        Moving {
            work: Migrating::on_leader_change(stored.migration.clone(), patience, now),
            begun_as: stored,
            revision,
            commit: None,
            pause: Pause::default(),
            replies: Vec::new(),
            cancel: None,
            asked: None,
            withheld: false,
            kept_open: false,
            began: now,
            stopped: None,
        }
    }

    /// What is stored of it.
    pub(super) fn stored(&self) -> &Migration {
        self.work.stored()
    }

    /// When it began, wall clock, for people; and the drain that began it.
    pub(super) fn origin(&self) -> (u64, Option<ProcedureId>) {
        (self.begun_as.started_ms, self.begun_as.drain)
    }

    /// What others see of it: a source that is about to be told to stop counts as stopped.
    pub(super) fn in_flight(&self) -> InFlight {
        let stops = |then: &Migration| then.state == State::Downgrading;
        match self.commit.as_ref().and_then(Step::then).filter(|then| stops(then)) {
            Some(then) => then.in_flight(),
            None => self.stored().in_flight(),
        }
    }

    /// Whether the region still counts as the source's.
    pub(super) fn is_on_its_way(&self) -> bool {
        !matches!(self.stored().state, State::Upgrading | State::Closing | State::Undoing { .. })
    }

    pub(super) fn from(&self) -> NodeKey {
        self.key(self.stored().from)
    }

    pub(super) fn to(&self) -> NodeKey {
        self.key(self.stored().to)
    }

    pub(super) fn region(&self) -> RegionId {
        self.stored().region
    }

    pub(super) fn key(&self, node: NodeId) -> NodeKey {
        NodeKey::datanode(self.begun_as.cluster, node)
    }

    fn with(&self, migration: Migration) -> StoredMigration {
        StoredMigration { migration, ..self.begun_as.clone() }
    }

    /// The route, looked for first where it should be.
    fn route(&self, leader: &Leader) -> Option<Led> {
        let region = self.region();
        let of = |node: NodeKey| {
            let entry = leader.nodes().get(&node)?;
            entry.regions.get(&region).map(|found| Led { node: node.id, epoch: found.epoch })
        };
        let elsewhere = || leader.route_of(region).map(|(node, epoch)| Led { node: node.id, epoch });
        of(self.from()).or_else(|| of(self.to())).or_else(elsewhere)
    }

    /// What the core decides by. `has_room_for_gap`: see there.
    pub(super) fn observed(
        &self,
        leader: &Leader,
        pushers: &Pushers,
        has_room_for_gap: bool,
        now: BootTime,
    ) -> Observed {
        let this = self.stored();
        let (from, to) = (self.from(), self.to());
        // Asked only when nothing can be granted any more, or its answer would be worth nothing.
        let free_at = match this.state {
            State::Downgrading => leader.free_at(&from, this.region, this.epoch, now),
            _ => BootTime::MAX,
        };
        let view = |node: &NodeKey| {
            let known = leader.node_view(node, this.region, now);
            let stream = known.process.and_then(|process| pushers.stream(node, process));
            NodeView { stream, ..known }
        };
        Observed {
            route: self.route(leader),
            from: view(&from),
            to: view(&to),
            replies: self.replies.clone(),
            free_at,
            has_room_for_gap,
        }
    }

    /// Keeps heartbeats from granting, and from closing, what this migration needs, and only so long.
    pub(super) fn hold(&mut self, leader: &Leader) {
        let route = self.route(leader);
        let then = self.commit.as_ref().and_then(Step::then);
        let both = || std::iter::once(self.stored()).chain(then);
        let withheld = route.is_some() && both().any(|migration| migration.withholds() == route);
        let kept_open = both().any(|migration| migration.keeps_open(migration.to));
        let (from, to, region) = (self.from(), self.to(), self.region());
        if withheld != self.withheld {
            leader.withhold(&from, region, withheld);
            self.withheld = withheld;
        }
        if kept_open != self.kept_open {
            leader.keep_open(&to, region, kept_open);
            self.kept_open = kept_open;
        }
    }

    /// What [`super::Procedures::hold_back`] marked may have lost its ground since: the next [`Moving::hold`] lifts it then.
    pub(super) fn held_back(&mut self) {
        (self.withheld, self.kept_open) = (true, true);
    }

    /// Wants to hear how both nodes hold the region.
    pub(super) fn watch(&self, leader: &Leader) {
        leader.watch_region(&self.from(), self.region());
        leader.watch_region(&self.to(), self.region());
    }

    pub(super) fn let_go(&mut self, leader: &Leader) {
        let (from, to, region) = (self.from(), self.to(), self.region());
        leader.unwatch_region(&from, region);
        leader.unwatch_region(&to, region);
        if std::mem::take(&mut self.withheld) {
            leader.withhold(&from, region, false);
        }
        if std::mem::take(&mut self.kept_open) {
            leader.keep_open(&to, region, false);
        }
    }

    /// What the operator's cancel makes of it. `None`: nobody wants that, or it is too late, and they are told.
    pub(super) fn cancelled(&mut self) -> Option<Next> {
        let (reason, reply) = self.cancel.take()?;
        match self.stored().cancel(&reason) {
            Ok(undoing) => {
                self.cancel = Some((reason, reply));
                Some(Next::Persist(undoing))
            }
            Err(why) => {
                // Nobody waits any more where the caller went away.
                let _ = reply.send(Err(ControlError::Refused(why.to_string())));
                None
            }
        }
    }

    pub(super) fn transaction(
        &self,
        leader: &Leader,
        step: &Step,
        route: Option<RouteChange>,
    ) -> Transaction {
        let id = self.stored().id;
        let put = |migration: &Migration| {
            Transaction::put(leader, id, &Stored::Migration(self.with(migration.clone())), self.revision)
        };
        match step {
            Step::Begin => {
                Transaction { events: vec![told::migration_begun(&self.begun_as)], ..put(self.stored()) }
            }
            Step::Store(then) => put(then),
            Step::Route(then) => {
                let tell = |change: &RouteChange| told::route_changed(&self.with(then.clone()), change);
                Transaction { events: route.iter().map(tell).collect(), route, ..put(then) }
            }
            Step::Finish(end) => {
                let event = told::migration_ended(&self.with(self.stored().clone()), end);
                Transaction { events: vec![event], ..Transaction::delete(leader, id, self.revision) }
            }
        }
    }

    /// Takes a reply of its instructions.
    pub(super) fn replied(&mut self, said: Said) {
        if self.replies.len() < MOST_REPLIES && !self.replies.contains(&said) {
            self.replies.push(said);
        }
    }
}
