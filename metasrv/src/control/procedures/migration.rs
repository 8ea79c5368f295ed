//! A migration at work in this term: what the core decides ([`metasrv_core::procedure::migrate`]) is stored, told, and kept from
//! being contradicted by a heartbeat's answer.
//!
//! | what the core says | what is done here |
//! | --- | --- |
//! | stay, and tell a node | the instruction goes out beside the loop; its reply wakes it |
//! | go on | nothing is stored; what is next is asked at once |
//! | store this | one fenced transaction with the record alone |
//! | commit the route | the same with the route and what is told of it; from then on heartbeats know it |
//! | finish | the record goes, with what is told of it |
//!
//! Nothing is granted for the region from the moment at which the transaction is *sent* that lets the source stop, and, where that
//! is certain not to have happened, again. Later would be too late: a grant after the commit is one that nobody waits for.
//! The target's copy is not closed as a stray while it is a candidate.

use std::sync::Arc;

use metasrv_core::procedure::migrate::{End, Migrating, Migration, Next, State, Why};
use metasrv_core::procedure::{Procedure, ProcedureId};
use metasrv_core::time::BootTime;
use metasrv_proto::admin::{CancelProcedureResponse, MigrateRegionResponse, ProcedureRecord};

use super::commit::Failure;
use super::moving::{Moving, Step};
use super::record::{Stored, state_name};
use super::{Done, Event, instruct};
use crate::control::{self, Control, ControlError};
use crate::leader::RouteChange;
use crate::mirror::state::Held;

/// Has the first record of a new migration stored.
pub(super) fn store(control: &mut Control, moving: Moving) {
    let id = moving.stored().id;
    control.procedures.migrations.insert(id, moving);
    send(control, id, Step::Begin, None);
}

/// Looks at one; says when to look again, if nothing happens before.
pub(super) fn step(control: &mut Control, id: ProcedureId, now: BootTime) -> BootTime {
    let Control { leader, mailbox, work, procedures, .. } = control;
    let Some(moving) = procedures.migrations.get_mut(&id) else { return BootTime::MAX };
    moving.hold(leader);
    if moving.commit.is_some() {
        return BootTime::MAX;
    }
    if now < moving.pause.until() {
        return moving.pause.until();
    }
    let Migration { from, to, .. } = *moving.stored();
    let running = procedures.running.entry(moving.begun_as.cluster).or_default();
    let has_room = running.has_room_for_gap(&[from, to], &procedures.limits);
    let seen = moving.observed(leader, mailbox.pushers(), has_room, now);
    match moving.cancelled().unwrap_or_else(|| moving.work.step(&seen, now)) {
        Next::Stay { tell, look_at } => {
            if let Some(tell) = tell {
                let stream = if tell.node == from { seen.from.stream } else { seen.to.stream };
                moving.work.told(stream, now);
                let (leader, mailbox) = (Arc::clone(leader), Arc::clone(mailbox));
                let (node, patience) = (moving.key(tell.node), procedures.patience);
                work.spawn(async move {
                    let said = instruct::send(&leader, &mailbox, &node, &tell, &patience).await;
                    control::Done::Procedure(Done(Event::Replied { id, said }))
                });
            }
            return look_at;
        }
        Next::GoOn(then) => {
            moving.work.goes_on(then, now);
            entered(control, id);
            // Also those that this one kept waiting, and that were looked at before it.
            return now;
        }
        Next::Persist(then) => send(control, id, Step::Store(then), None),
        Next::CommitRoute { route, then } => {
            let (from, to) = (moving.from(), moving.key(route.node));
            let (region, at) = (moving.region(), moving.stored().epoch);
            let change = RouteChange { region, from, at, to, epoch: route.epoch };
            send(control, id, Step::Route(then), Some(change));
        }
        Next::Finish(end) => send(control, id, Step::Finish(end), None),
    }
    BootTime::MAX
}

fn send(control: &mut Control, id: ProcedureId, step: Step, route: Option<RouteChange>) {
    let Control { leader, mailbox, work, procedures, .. } = control;
    let Some(moving) = procedures.migrations.get_mut(&id) else { return };
    let transaction = moving.transaction(leader, &step, route);
    moving.commit = Some(step);
    // Before it is sent: a grant that follows the commit would be one too many.
    moving.hold(leader);
    procedures.running.entry(moving.begun_as.cluster).or_default().insert(id, moving.in_flight());
    transaction.send(id, leader, mailbox, work);
}

/// A transaction has ended.
pub(super) fn committed(
    control: &mut Control,
    id: ProcedureId,
    outcome: Result<i64, Failure>,
    now: BootTime,
) {
    let Some(moving) = control.procedures.migrations.get_mut(&id) else { return };
    let Some(step) = moving.commit.take() else { return };
    match (outcome, step) {
        (Ok(revision), Step::Begin) => {
            moving.revision = revision;
            moving.pause.over();
            // Its time counts from here on, not from when the store was asked.
            moving.work =
                Migrating::on_leader_change(moving.stored().clone(), control.procedures.patience, now);
            moving.watch(&control.leader);
            say(control, id);
            begun(control, id);
        }
        (Ok(revision), Step::Store(then) | Step::Route(then)) => {
            moving.pause.over();
            persisted(control, id, then, revision, now);
        }
        (Ok(_), Step::Finish(end)) => ended(control, id, &end, now),
        (Err(failure), Step::Begin) => {
            let why = failure.for_people();
            tracing::warn!(procedure = %id, %why, "a migration could not begin");
            let asked = moving.asked.take();
            forget(control, id, Some(&why.to_string()), now);
            if let Some(asked) = asked {
                let _ = asked.send(Err(why));
            }
        }
        (Err(Failure::Over), _) => moving.pause.for_good(),
        (Err(Failure::Found(Some(held))), _) => {
            moving.pause.failed(now);
            reread(control, id, &held, now);
        }
        (Err(Failure::Found(None)), Step::Finish(end)) => ended(control, id, &end, now),
        (Err(Failure::Found(None)), step) => {
            tracing::error!(procedure = %id, ?step, "the record of a migration was taken away by somebody else");
            forget(control, id, Some("its record was taken away"), now);
        }
        (Err(Failure::Not(error)), step) => {
            moving.pause.failed(now);
            moving.hold(&control.leader);
            let running = control.procedures.running.entry(moving.begun_as.cluster).or_default();
            running.insert(id, moving.in_flight());
            tracing::warn!(procedure = %id, ?step, %error, "a step of a migration was not stored; it is looked at again");
        }
    }
}

/// Whoever asked for it is told.
fn begun(control: &mut Control, id: ProcedureId) {
    let Some(moving) = control.procedures.migrations.get_mut(&id) else { return };
    let Some(asked) = moving.asked.take() else { return };
    let Migration { from, to, .. } = *moving.stored();
    let answer = MigrateRegionResponse { procedure_id: id.0, from_node: from.0, to_node: to.0 };
    // Nobody waits any more where the caller went away.
    let _ = asked.send(Ok(answer));
}

/// The store has this now.
fn persisted(control: &mut Control, id: ProcedureId, then: Migration, revision: i64, now: BootTime) {
    let Control { leader, procedures, .. } = control;
    let Some(moving) = procedures.migrations.get_mut(&id) else { return };
    match (&then.state, moving.stopped) {
        (State::Downgrading, _) => moving.stopped = Some(now),
        (State::Upgrading, Some(stopped)) => leader.measure_stopped(now.since(stopped)),
        _ => {}
    }
    moving.work.persisted(then, now);
    moving.revision = revision;
    moving.hold(leader);
    if matches!(moving.stored().state, State::Undoing { why: Why::Cancelled(_), .. })
        && let Some((_, reply)) = moving.cancel.take()
    {
        let _ = reply.send(Ok(CancelProcedureResponse {}));
    }
    entered(control, id);
}

/// It is in another state: others see it, and the log says so.
fn entered(control: &mut Control, id: ProcedureId) {
    let procedures = &mut control.procedures;
    let Some(moving) = procedures.migrations.get(&id) else { return };
    procedures.running.entry(moving.begun_as.cluster).or_default().insert(id, moving.in_flight());
    say(control, id);
}

/// Somebody else changed the record: what is there counts.
fn reread(control: &mut Control, id: ProcedureId, held: &Held<ProcedureRecord>, now: BootTime) {
    match Stored::from_record(&held.value) {
        Ok(Stored::Migration(found)) if found.migration.id == id => {
            tracing::warn!(procedure = %id, "the record of a migration is another one than was known; it goes on from there");
            persisted(control, id, found.migration, held.revision, now);
        }
        found => {
            tracing::error!(procedure = %id, ?found, "the record of a migration was changed by somebody else")
        }
    }
}

fn ended(control: &mut Control, id: ProcedureId, end: &End, now: BootTime) {
    let term = control.leader.term();
    let Some(moving) = control.procedures.migrations.get(&id) else { return };
    let took = now.since(moving.began);
    let (region, from, to) = (moving.region(), moving.from(), moving.to());
    match end {
        End::Done => {
            tracing::info!(%term, procedure = %id, %region, %from, %to, ?took, "migration done");
            control.procedures.measured.done(took);
            control.leader.count_migration("done");
            forget(control, id, None, now);
        }
        End::Undone(why) => {
            tracing::warn!(%term, procedure = %id, %region, %from, %to, %why, "migration undone");
            control.leader.count_migration("undone");
            forget(control, id, Some(&why.to_string()), now);
        }
    }
}

/// Nothing is left of it; `failed` says why, where the region did not move.
fn forget(control: &mut Control, id: ProcedureId, failed: Option<&str>, now: BootTime) {
    let Control { leader, procedures, .. } = control;
    let Some(mut moving) = procedures.migrations.remove(&id) else { return };
    moving.let_go(leader);
    if let Some(running) = procedures.running.get_mut(&moving.begun_as.cluster) {
        running.remove(id);
    }
    if let Some((_, reply)) = moving.cancel.take() {
        let _ = reply.send(Err(ControlError::Refused("it ended before it could be cancelled".to_owned())));
    }
    for (drain, emptying) in &mut procedures.drains {
        let failed = failed.filter(|_| moving.begun_as.drain == Some(*drain));
        emptying.migration_ended(moving.region(), failed, now);
    }
}

fn say(control: &Control, id: ProcedureId) {
    let Some(moving) = control.procedures.migrations.get(&id) else { return };
    let (region, from, to) = (moving.region(), moving.from(), moving.to());
    let Migration { state, epoch, .. } = moving.stored();
    tracing::info!(
        term = %control.leader.term(), procedure = %id, %region, %from, %to, %epoch, state = state_name(state), "migration"
    );
}
