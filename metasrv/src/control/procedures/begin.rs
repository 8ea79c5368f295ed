//! Whether a migration or a drain may begin: what would only be undone at once is refused, and says why.
//!
//! | condition | refused, because |
//! | --- | --- |
//! | the region has no route | there is nothing to move |
//! | it is being failed over, or a procedure is at work on it | each would decide from what the other is about to change |
//! | its node is lost | failover moves it |
//! | a node does not understand instructions | it could not be told to stop |
//! | the target is excluded by placement, or is where the region is | |
//! | no higher epoch is left | the target needs one |
//! | the limits are reached | each migration costs its nodes opening, flushing and catching up |

use metasrv_core::id::{NodeId, NodeKey, RegionId};
use metasrv_core::procedure::ProcedureId;
use metasrv_core::procedure::drain::Drain;
use metasrv_core::procedure::migrate::{Migration, State};
use metasrv_core::time::BootTime;

use super::drain::{self, Beside, Emptying};
use super::migration;
use super::moving::Moving;
use super::record::{StoredDrain, StoredMigration};
use super::target::Targets;
use crate::clock::wall_clock_ms;
use crate::control::{Control, ControlError, failover};

/// A migration that somebody wants.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The region.
    pub region: RegionId,
    /// Its new node. `None`: where placement puts it.
    pub to: Option<NodeId>,
    /// Why, for people.
    pub reason: &'a str,
    /// The drain that wants it.
    pub drain: Option<ProcedureId>,
}

/// Begins a migration: it is claimed at once, and stored beside the loop.
///
/// # Errors
/// [`ControlError`] by the table above; nothing has begun then.
pub fn begin_migration(
    control: &mut Control,
    wanted: Wanted<'_>,
    now: BootTime,
) -> Result<ProcedureId, ControlError> {
    let region = wanted.region;
    let leader = &control.leader;
    let (from, epoch) = leader
        .route_of(region)
        .ok_or_else(|| ControlError::NotFound(format!("region {region} does not exist")))?;
    if control.failover.is_in_flight(region) {
        return Err(refused(format!("region {region} is being failed over")));
    }
    if epoch.next() <= epoch {
        return Err(refused(format!("region {region} has the highest epoch there is")));
    }
    let process = instructed(control, &from, now)?;
    let to = target(control, &from, region, wanted.to, now)?;
    instructed(control, &NodeKey { id: to, ..from }, now)?;
    let migration = Migration {
        id: ProcedureId(leader.new_id()),
        region,
        from: from.id,
        leader: process,
        to,
        candidate: None,
        epoch,
        state: State::Preparing,
        reason: wanted.reason.to_owned(),
    };
    let (id, in_flight) = (migration.id, migration.in_flight());
    let procedures = &mut control.procedures;
    let running = procedures.running.entry(from.cluster).or_default();
    running.admits(&in_flight, &procedures.limits).map_err(|refusal| refused(refusal.to_string()))?;
    running.insert(id, in_flight);
    let (started_ms, drain) = (wall_clock_ms(), wanted.drain);
    let stored = StoredMigration { cluster: from.cluster, started_ms, drain, migration };
    let moving = Moving::new(stored, 0, procedures.patience, now);
    migration::store(control, moving);
    Ok(id)
}

/// Begins a drain: it counts at once, and is stored beside the loop, together with what is `beside` it.
///
/// # Errors
/// [`ControlError`] by the table above; nothing has begun then.
pub fn begin_drain(
    control: &mut Control,
    node: NodeKey,
    reason: &str,
    beside: Option<Beside>,
) -> Result<ProcedureId, ControlError> {
    let total = {
        let entry = control.leader.nodes().get(&node).filter(|entry| entry.holder.current().is_some());
        entry.ok_or_else(|| ControlError::NotFound(format!("{node} is not known")))?.regions.len()
    };
    if node.id == NodeId(0) {
        return Err(refused(format!("{node} does not understand instructions")));
    }
    let id = ProcedureId(control.leader.new_id());
    let drain = Drain { id, node: node.id, started_ms: wall_clock_ms(), reason: reason.to_owned(), total };
    let emptying = Emptying::new(StoredDrain { cluster: node.cluster, drain }, 0);
    let in_flight = emptying.in_flight();
    let procedures = &mut control.procedures;
    let running = procedures.running.entry(node.cluster).or_default();
    running.admits(&in_flight, &procedures.limits).map_err(|refusal| refused(refusal.to_string()))?;
    running.insert(id, in_flight);
    drain::store(control, emptying, beside);
    Ok(id)
}

/// The process of a node that can be told what to do.
fn instructed(
    control: &Control,
    node: &NodeKey,
    now: BootTime,
) -> Result<metasrv_core::id::Incarnation, ControlError> {
    let view = control.leader.node_view(node, RegionId(0), now);
    match view.process {
        _ if view.is_lost() => Err(refused(format!("{node} is lost: its regions are failed over"))),
        None => Err(refused(format!("{node} was never admitted"))),
        Some(process) if process.nonce == 0 => Err(refused(format!(
            "{node} does not understand instructions: its regions cannot be moved while it lives"
        ))),
        Some(process) => Ok(process),
    }
}

fn target(
    control: &Control,
    from: &NodeKey,
    region: RegionId,
    to: Option<NodeId>,
    now: BootTime,
) -> Result<NodeId, ControlError> {
    let candidates = failover::candidates(control, from.cluster, now);
    let Some(to) = to else {
        return Targets::new(control, *from, &candidates).choose(region).map_err(ControlError::Exhausted);
    };
    if to == from.id {
        return Err(refused(format!("region {region} is on node {to} already")));
    }
    let candidate = candidates.iter().find(|candidate| candidate.node == to);
    let candidate = candidate.ok_or_else(|| ControlError::NotFound(format!("node {to} is not known")))?;
    match candidate.exclusion(None) {
        Some(why) => Err(refused(format!("node {to} may not take it: {why}"))),
        None => Ok(to),
    }
}

fn refused(why: String) -> ControlError {
    ControlError::Refused(why)
}
