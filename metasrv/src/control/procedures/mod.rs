//! Migrations and drains at work: taken up from earlier terms, begun, looked at, ended.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | those at work, and what the loop asks of them |
//! | `record.rs` | what is stored, between its record and the core's value |
//! | `begin.rs` | whether one may begin |
//! | `moving.rs`, `migration.rs` | one migration as this leader has it; its steps |
//! | `drain.rs` | one drain: which migrations begin now |
//! | `target.rs` | where a region goes |
//! | `commit.rs` | one fenced transaction, beside the loop |
//! | `instruct.rs` | one instruction to a node, and what its reply says |
//! | `told.rs` | what the history tells |
//! | `view.rs`, `measured.rs` | what operators see; how long migrations take |
//!
//! What is to be done next the core says, from what is stored and what is reported ([`metasrv_core::procedure`]); here it is
//! done. Each procedure has at most one transaction under way. Whatever ends beside the loop wakes it, so that no step of a
//! region without a writer waits for a tick.

mod begin;
mod commit;
mod drain;
mod instruct;
mod measured;
mod migration;
mod moving;
pub mod record;
mod target;
mod told;
mod view;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use dashmap::DashMap;
use metasrv_core::id::{ClusterId, NodeId, NodeKey, RegionId};
use metasrv_core::procedure::drain::Plan;
use metasrv_core::procedure::instruction::{Led, Reply as Said};
use metasrv_core::procedure::migrate::Patience;
use metasrv_core::procedure::{Claim, Limits, ProcedureId, Running};
use metasrv_core::time::BootTime;
use metasrv_proto::admin::{
    CancelProcedureRequest, CancelProcedureResponse, DrainNodeRequest, DrainNodeResponse,
    MigrateRegionRequest, MigrateRegionResponse, PlannedMove, ProcedureRecord, StuckRegion,
};

pub use begin::{Wanted, begin_drain, begin_migration};
pub use drain::Beside;

use super::{Control, ControlError, Reply};
use crate::leader::{Leader, Node, RouteChange};
use crate::mirror::state::Held;
use commit::Failure;
use drain::Emptying;
use measured::Measured;
use moving::Moving;
use record::Stored;

/// Those at work.
#[derive(Default)]
pub struct Procedures {
    migrations: BTreeMap<ProcedureId, Moving>,
    drains: BTreeMap<ProcedureId, Emptying>,
    /// What they keep others from. Ids of nodes are unique within their cluster only.
    running: BTreeMap<ClusterId, Running>,
    measured: Measured,
    limits: Limits,
    patience: Patience,
}

/// What ran beside the loop has ended.
#[derive(Debug)]
pub struct Done(Event);

#[derive(Debug)]
enum Event {
    /// A transaction.
    Committed { id: ProcedureId, outcome: Result<i64, Failure> },
    /// An instruction. `None`: no reply that says anything.
    Replied { id: ProcedureId, said: Option<Said> },
}

impl Procedures {
    /// Takes up what earlier terms left, with fresh patience. `now`: when the term began, before any node was heard of.
    pub fn load(inherited: Vec<Held<ProcedureRecord>>, leader: &Leader, now: BootTime) -> Procedures {
        let mut procedures = Procedures::default();
        for Held { value, revision } in inherited {
            match Stored::from_record(&value) {
                Ok(Stored::Migration(stored)) => {
                    let (id, cluster) = (stored.migration.id, stored.cluster);
                    let mut moving = Moving::new(stored, revision, procedures.patience, now);
                    moving.watch(leader);
                    moving.held_back();
                    moving.hold(leader);
                    procedures.running.entry(cluster).or_default().insert(id, moving.in_flight());
                    procedures.migrations.insert(id, moving);
                }
                Ok(Stored::Drain(stored)) => {
                    let (id, cluster) = (stored.drain.id, stored.cluster);
                    let emptying = Emptying::new(stored, revision);
                    procedures.running.entry(cluster).or_default().insert(id, emptying.in_flight());
                    procedures.drains.insert(id, emptying);
                }
                // A takeover leaves them out.
                Err(error) => {
                    tracing::error!(procedure = value.id, %error, "the record of a procedure cannot be understood")
                }
            }
        }
        let (migrations, drains) = (procedures.migrations.len(), procedures.drains.len());
        if migrations > 0 || drains > 0 {
            tracing::info!(term = %leader.term(), migrations, drains, "procedures of earlier terms go on");
        }
        procedures
    }

    /// Before the first grant of a term: what earlier terms were about to take away is not renewed, and what they had
    /// opened ahead is not closed. What nodes report is remembered from now on: those that are in a hurry come before the loop
    /// turns, and report once in an interval.
    pub fn hold_back(inherited: &[Held<ProcedureRecord>], nodes: &DashMap<NodeKey, Node>) {
        for held in inherited {
            let Ok(Stored::Migration(stored)) = Stored::from_record(&held.value) else { continue };
            let migration = &stored.migration;
            let key = |node: NodeId| NodeKey::datanode(stored.cluster, node);
            for node in [migration.from, migration.to] {
                nodes.entry(key(node)).or_default().watched.entry(migration.region).or_default();
            }
            if let Some(Led { node, epoch }) = migration.withholds()
                && let Some(mut entry) = nodes.get_mut(&key(node))
                && entry.regions.get(&migration.region).is_some_and(|region| region.epoch == epoch)
            {
                entry.regions.withhold(migration.region);
            }
            if migration.keeps_open(migration.to) {
                nodes.entry(key(migration.to)).or_default().kept_open.insert(migration.region);
            }
        }
    }

    /// Whether a procedure may change the route of this region: nothing else may, meanwhile.
    pub fn claims_route(&self, region: RegionId) -> bool {
        let mut claims = self.running.values().flat_map(|running| running.of_region(region));
        claims.any(|(_, in_flight)| matches!(in_flight.claim, Claim::Route(_)))
    }

    /// The procedure that is at work on this region, cleaning up included.
    pub fn busy(&self, region: RegionId) -> Option<ProcedureId> {
        self.running.values().find_map(|running| running.of_region(region).next().map(|(id, _)| id))
    }

    /// Regions on their way to this node.
    pub fn incoming(&self, node: &NodeKey) -> usize {
        self.migrations.values().filter(|moving| moving.is_on_its_way() && moving.to() == *node).count()
    }

    /// Regions on their way from this node.
    pub fn outgoing(&self, node: &NodeKey) -> usize {
        self.migrations.values().filter(|moving| moving.is_on_its_way() && moving.from() == *node).count()
    }

    /// Whether this node is being drained.
    pub fn drains(&self, node: &NodeKey) -> bool {
        self.drains.values().any(|emptying| emptying.node() == *node)
    }

    /// How many migrations and drains are at work.
    pub fn count(&self) -> (usize, usize) {
        (self.migrations.len(), self.drains.len())
    }
}

/// Looks at all; says when to look again, if nothing happens before.
pub(super) fn turn(control: &mut Control, now: BootTime) -> BootTime {
    let mut look_at = BootTime::MAX;
    // First the drains: what they begin is looked at in the same turn.
    let drains: Vec<ProcedureId> = control.procedures.drains.keys().copied().collect();
    for id in drains {
        look_at = look_at.min(drain::step(control, id, now));
    }
    let migrations: Vec<ProcedureId> = control.procedures.migrations.keys().copied().collect();
    for id in migrations {
        look_at = look_at.min(migration::step(control, id, now));
    }
    let Procedures { migrations, drains, .. } = &control.procedures;
    control.leader.count_procedures(migrations.len(), drains.len());
    look_at
}

/// Something that ran beside the loop has ended.
pub(super) fn done(control: &mut Control, done: Done) {
    let now = control.leader.clock().now();
    match done.0 {
        Event::Committed { id, outcome } if control.procedures.drains.contains_key(&id) => {
            drain::committed(control, id, outcome, now);
        }
        Event::Committed { id, outcome } => migration::committed(control, id, outcome, now),
        Event::Replied { id, said } => {
            if let (Some(moving), Some(said)) = (control.procedures.migrations.get_mut(&id), said) {
                moving.replied(said);
            }
        }
    }
}

/// Failovers changed these routes: a drain may have less to do.
pub(super) fn routes_changed(control: &mut Control, _: &[RouteChange]) {
    control.procedures.drains.values_mut().for_each(Emptying::look_now);
}

/// An operator wants a region to move. Answered when that is stored.
pub fn migrate(control: &mut Control, request: &MigrateRegionRequest, reply: Reply<MigrateRegionResponse>) {
    let now = control.leader.clock().now();
    let (region, to) = (RegionId(request.region_id), request.to_node.map(NodeId));
    let wanted = Wanted { region, to, reason: &request.reason, drain: None };
    let refused = match begin_migration(control, wanted, now) {
        Ok(id) => match control.procedures.migrations.get_mut(&id) {
            Some(moving) => {
                moving.asked = Some(reply);
                return;
            }
            None => ControlError::NotLeading,
        },
        Err(error) => error,
    };
    // Nobody waits any more where the caller went away.
    let _ = reply.send(Err(refused));
}

/// What a drain of this node would do now, and how long it would take.
pub fn plan_drain(control: &Control, node: NodeKey) -> Plan {
    drain::plan(control, node, control.leader.clock().now())
}

/// An operator wants a node to be empty. Answered when that is stored, or, for a dry run, at once. What is `beside` it, that
/// the node gets no more regions, is stored in the same transaction.
pub fn drain(
    control: &mut Control,
    request: &DrainNodeRequest,
    beside: Option<Beside>,
    reply: Reply<DrainNodeResponse>,
) {
    let node = NodeKey::datanode(ClusterId(request.cluster_id), NodeId(request.node_id));
    let planned = answer(node, plan_drain(control, node));
    if request.dry_run {
        let _ = reply.send(Ok(planned));
        return;
    }
    match begin_drain(control, node, &request.reason, beside) {
        Ok(id) => {
            if let Some(emptying) = control.procedures.drains.get_mut(&id) {
                emptying.asked = Some((planned, reply));
            }
        }
        Err(error) => drop(reply.send(Err(error))),
    }
}

/// An operator wants a procedure to end. Answered when that is stored.
pub fn cancel(
    control: &mut Control,
    request: &CancelProcedureRequest,
    reply: Reply<CancelProcedureResponse>,
) {
    let id = ProcedureId(request.id);
    let wanted = (request.reason.clone(), reply);
    let Procedures { migrations, drains, .. } = &mut control.procedures;
    let slot = match (migrations.get_mut(&id), drains.get_mut(&id)) {
        (Some(moving), _) => &mut moving.cancel,
        (None, Some(emptying)) => &mut emptying.cancel,
        (None, None) => {
            let _ = wanted.1.send(Err(ControlError::NotFound(format!("no procedure {id} is at work"))));
            return;
        }
    };
    match slot {
        Some(_) => drop(
            wanted.1.send(Err(ControlError::Refused(format!("procedure {id} is being cancelled already")))),
        ),
        None => *slot = Some(wanted),
    }
}

fn answer(node: NodeKey, plan: Plan) -> DrainNodeResponse {
    let moves = plan.moves.iter().map(|one| PlannedMove {
        region_id: one.region.0,
        from_node: node.id.0,
        to_node: one.to.0,
    });
    let stuck = plan.blocked.into_iter().map(|(region, why)| StuckRegion { region_id: region.0, why });
    DrainNodeResponse {
        procedure_id: 0,
        moves: moves.collect(),
        stuck: stuck.collect(),
        eta_ms: plan.eta.map(view::millis),
    }
}
