//! A drain at work in this term: the core decides which migrations begin ([`metasrv_core::procedure::drain`]); what they do is
//! theirs.
//!
//! It is looked at when a migration of its cluster has ended, when routes were changed by a failover, and once a second.
//! While its node is lost it begins nothing: failover takes what is left, and the drain ends when that is gone.

use std::time::Duration;

use metasrv_core::id::{NodeKey, RegionId};
use metasrv_core::procedure::drain::{
    BackOff, Blocked, Draining, End, Next, Observed, Plan, Progress, plan as planned,
};
use metasrv_core::procedure::{InFlight, Kind, Procedure, ProcedureId};
use metasrv_core::time::BootTime;
use metasrv_proto::admin::{CancelProcedureResponse, DrainNodeResponse, StoredEvent};

use super::begin::{Wanted, begin_migration};
use super::commit::{Failure, Pause, Transaction};
use super::record::{Stored, StoredDrain};
use super::target::Targets;
use super::{Procedures, told};
use crate::control::{Control, ControlError, Reply, failover};
use crate::store::fenced::Write;

/// Between two looks while nothing that is known of changes.
const AGAIN: Duration = Duration::from_secs(1);

/// What is done in the loop once something is stored, with the revision at which it stands.
type Committed = Box<dyn FnOnce(&mut Control, i64) + Send>;

/// What is stored in the same transaction as a new drain: that its node takes no more regions.
pub struct Beside {
    /// The write.
    pub write: Write,
    /// What is told of it.
    pub event: StoredEvent,
    /// Told the revision at which it stands, once it is stored.
    pub committed: Committed,
}

/// A drain at work.
pub(super) struct Emptying {
    stored: StoredDrain,
    work: Draining,
    revision: i64,
    commit: Option<Step>,
    pause: Pause,
    look_at: BootTime,
    /// What the last look found.
    pub(super) progress: Progress,
    pub(super) blocked: Vec<Blocked>,
    /// Its node is lost, and has regions still.
    is_waiting: bool,
    /// An operator wants it to end.
    pub(super) cancel: Option<(String, Reply<CancelProcedureResponse>)>,
    /// Who is told when it is stored, and what.
    pub(super) asked: Option<(DrainNodeResponse, Reply<DrainNodeResponse>)>,
    beside: Option<Committed>,
}

/// What a transaction does.
#[derive(Clone, Copy, Debug)]
enum Step {
    Begin,
    Finish(End),
}

impl Emptying {
    /// One that is to be stored, or that an earlier term had stored at this revision.
    pub(super) fn new(stored: StoredDrain, revision: i64) -> Emptying {
        Emptying {
            work: Draining::on_leader_change(stored.drain.clone(), BackOff::default(), BootTime::ZERO),
            progress: Progress { left: stored.drain.total, ..Progress::default() },
            stored,
            revision,
            commit: None,
            pause: Pause::default(),
            look_at: BootTime::ZERO,
            blocked: Vec::new(),
            is_waiting: false,
            cancel: None,
            asked: None,
            beside: None,
        }
    }

    pub(super) fn stored(&self) -> &StoredDrain {
        &self.stored
    }

    /// What it does, by name.
    pub(super) fn state(&self) -> &'static str {
        if self.is_waiting { "node_lost" } else { "draining" }
    }

    pub(super) fn node(&self) -> NodeKey {
        NodeKey::datanode(self.stored.cluster, self.stored.drain.node)
    }

    /// What others see of it.
    pub(super) fn in_flight(&self) -> InFlight {
        let node = self.stored.drain.node;
        InFlight { kind: Kind::Drain, claim: self.work.claim(), nodes: vec![node], in_gap: false }
    }

    /// A migration has ended: there may be room. `failed`: it was this drain's, and the region did not move.
    pub(super) fn migration_ended(&mut self, region: RegionId, failed: Option<&str>, now: BootTime) {
        if let Some(why) = failed {
            self.work.failed(region, why.to_owned(), now);
        }
        self.look_at = BootTime::ZERO;
    }

    /// Routes were changed by something else.
    pub(super) fn look_now(&mut self) {
        self.look_at = BootTime::ZERO;
    }
}

/// Has the record of a new drain stored.
pub(super) fn store(control: &mut Control, mut emptying: Emptying, beside: Option<Beside>) {
    let id = emptying.stored.drain.id;
    let stored = Stored::Drain(emptying.stored.clone());
    let mut transaction = Transaction::put(&control.leader, id, &stored, 0);
    transaction.events.push(told::drain_begun(&emptying.stored));
    if let Some(Beside { write, event, committed }) = beside {
        transaction.writes.push(write);
        transaction.events.push(event);
        emptying.beside = Some(committed);
    }
    emptying.commit = Some(Step::Begin);
    control.procedures.drains.insert(id, emptying);
    let Control { leader, mailbox, work, .. } = control;
    transaction.send(id, leader, mailbox, work);
}

/// Looks at one; says when to look again, if nothing happens before.
pub(super) fn step(control: &mut Control, id: ProcedureId, now: BootTime) -> BootTime {
    let Some(emptying) = control.procedures.drains.get(&id) else { return BootTime::MAX };
    if emptying.commit.is_some() {
        return BootTime::MAX;
    }
    let due = match emptying.cancel {
        Some(_) => emptying.pause.until(),
        None => emptying.look_at.max(emptying.pause.until()),
    };
    if now < due {
        return due;
    }
    if emptying.cancel.is_some() {
        finish(control, id, End::Cancelled);
        return BootTime::MAX;
    }
    match look(control, id, now) {
        Some(Next::Finish(end)) => {
            finish(control, id, end);
            return BootTime::MAX;
        }
        Some(Next::Continue { begin, progress, blocked, full: _ }) => {
            let mut failed = Vec::new();
            for wanted in begin {
                let reason = format!("drain {id}");
                let region = wanted.region;
                let wanted = Wanted { region, to: Some(wanted.to), reason: &reason, drain: Some(id) };
                if let Err(why) = begin_migration(control, wanted, now) {
                    failed.push((region, why.to_string()));
                }
            }
            let Some(emptying) = control.procedures.drains.get_mut(&id) else { return BootTime::MAX };
            for (region, why) in failed {
                emptying.work.failed(region, why, now);
            }
            (emptying.progress, emptying.blocked, emptying.is_waiting) = (progress, blocked, false);
        }
        None => {}
    }
    let look_at = now + AGAIN;
    if let Some(emptying) = control.procedures.drains.get_mut(&id) {
        emptying.look_at = look_at;
    }
    look_at
}

/// Asks the core. `None`: the node is lost, and has regions still.
fn look(control: &mut Control, id: ProcedureId, now: BootTime) -> Option<Next> {
    let node = control.procedures.drains.get(&id)?.node();
    let candidates = failover::candidates(control, node.cluster, now);
    let regions: Vec<RegionId> = control
        .leader
        .nodes()
        .get(&node)
        .map(|entry| entry.regions.keys().copied().collect())
        .unwrap_or_default();
    let is_lost = control.leader.node_view(&node, RegionId(0), now).is_lost();
    // Taken out, so that the others can be looked at meanwhile.
    let mut emptying = control.procedures.drains.remove(&id)?;
    if is_lost && !regions.is_empty() {
        let done = emptying.stored.drain.total.saturating_sub(regions.len());
        emptying.progress = Progress { done, left: regions.len(), ..Progress::default() };
        emptying.blocked.clear();
        emptying.is_waiting = true;
        control.procedures.drains.insert(id, emptying);
        return None;
    }
    let running = control.procedures.running.get(&node.cluster).cloned().unwrap_or_default();
    let typical = control.procedures.measured.typical();
    let mut targets = Targets::new(control, node, &candidates);
    let seen = Observed { regions: &regions, running: &running, typical };
    let limits = control.procedures.limits;
    let next = emptying.work.step(&seen, &limits, |region| targets.choose(region), now);
    control.procedures.drains.insert(id, emptying);
    Some(next)
}

/// What a drain of this node would do now, and how long it would take.
pub(super) fn plan(control: &Control, node: NodeKey, now: BootTime) -> Plan {
    let candidates = failover::candidates(control, node.cluster, now);
    let regions: Vec<RegionId> = control
        .leader
        .nodes()
        .get(&node)
        .map(|entry| entry.regions.keys().copied().collect())
        .unwrap_or_default();
    let mut targets = Targets::new(control, node, &candidates);
    let Procedures { limits, measured, .. } = &control.procedures;
    planned(&regions, limits, measured.typical(), |region| targets.choose(region))
}

fn finish(control: &mut Control, id: ProcedureId, end: End) {
    let Control { leader, mailbox, work, procedures, .. } = control;
    let Some(emptying) = procedures.drains.get_mut(&id) else { return };
    let why = emptying.cancel.as_ref().map_or("", |(reason, _)| reason.as_str());
    let mut transaction = Transaction::delete(leader, id, emptying.revision);
    transaction.events.push(told::drain_ended(&emptying.stored, end, why));
    emptying.commit = Some(Step::Finish(end));
    transaction.send(id, leader, mailbox, work);
}

/// A transaction has ended.
pub(super) fn committed(
    control: &mut Control,
    id: ProcedureId,
    outcome: Result<i64, Failure>,
    now: BootTime,
) {
    let term = control.leader.term();
    let Some(emptying) = control.procedures.drains.get_mut(&id) else { return };
    let Some(step) = emptying.commit.take() else { return };
    match (outcome, step) {
        (Ok(revision), Step::Begin) => {
            emptying.revision = revision;
            let node = emptying.node();
            tracing::info!(%term, procedure = %id, %node, regions = emptying.stored.drain.total, "drain begins");
            if let Some((answer, reply)) = emptying.asked.take() {
                // Nobody waits any more where the caller went away.
                let _ = reply.send(Ok(DrainNodeResponse { procedure_id: id.0, ..answer }));
            }
            if let Some(committed) = emptying.beside.take() {
                committed(control, revision);
            }
        }
        (Ok(_) | Err(Failure::Found(None)), Step::Finish(end)) => ended(control, id, end),
        (Err(failure), Step::Begin) => {
            let why = failure.for_people();
            tracing::warn!(%term, procedure = %id, %why, "a drain could not begin");
            let asked = emptying.asked.take();
            forget(control, id);
            if let Some((_, reply)) = asked {
                let _ = reply.send(Err(why));
            }
        }
        (Err(Failure::Over), _) => emptying.pause.for_good(),
        (Err(Failure::Found(Some(held))), _) => {
            emptying.revision = held.revision;
            emptying.pause.failed(now);
            tracing::error!(%term, procedure = %id, "the record of a drain was changed by somebody else");
        }
        (Err(Failure::Not(error)), _) => {
            emptying.pause.failed(now);
            tracing::warn!(%term, procedure = %id, %error, "the end of a drain was not stored; it is tried again");
        }
    }
}

fn ended(control: &mut Control, id: ProcedureId, end: End) {
    let term = control.leader.term();
    let Some(emptying) = control.procedures.drains.get_mut(&id) else { return };
    let (node, cancel) = (emptying.node(), emptying.cancel.take());
    tracing::info!(%term, procedure = %id, %node, ?end, "drain ends");
    forget(control, id);
    if let Some((_, reply)) = cancel {
        let answer = match end {
            End::Cancelled => Ok(CancelProcedureResponse {}),
            End::Empty => Err(ControlError::Refused("it ended before it could be cancelled".to_owned())),
        };
        let _ = reply.send(answer);
    }
}

fn forget(control: &mut Control, id: ProcedureId) {
    let Some(emptying) = control.procedures.drains.remove(&id) else { return };
    if let Some(running) = control.procedures.running.get_mut(&emptying.stored.cluster) {
        running.remove(id);
    }
}
