//! A change of an order on its way to the store, with the history of it; and the operator's answer once that is certain.

use std::sync::Arc;

use metasrv_core::id::NodeKey;
use metasrv_core::time::BootTime;
use metasrv_proto::admin::{
    AnnounceRestartResponse, CordonNodeResponse, DecommissionNodeResponse, GetFailoverResponse, StoredEvent,
};

use super::Change;
use crate::clock::wall_clock_ms;
use crate::control::command::{self, answer, failover};
use crate::control::{Control, ControlError, Done as LoopDone, Reply, event};
use crate::leader::RelocateError;
use crate::store::fenced::{CommitError, Write};

/// A change has ended.
#[derive(Debug)]
pub struct Done(Box<Ended>);

#[derive(Debug)]
struct Ended {
    change: Change,
    outcome: Result<i64, RelocateError>,
    told: Told,
    answer: Answer,
}

/// What the log says of a change, and the history where it is worth it.
#[derive(Clone, Debug)]
pub struct Told {
    /// The event.
    pub event: StoredEvent,
    /// Nobody asked for it: it goes into no history.
    pub by_itself: bool,
}

/// Who waits for a change, and for what.
#[derive(Debug)]
pub enum Answer {
    /// Nobody.
    Nobody,
    /// Of a cordon.
    Cordon(Reply<CordonNodeResponse>),
    /// Of a node that is forgotten.
    Decommission(Reply<DecommissionNodeResponse>),
    /// Of a restart, which lasts until then by the wall clock.
    Restart(Reply<AnnounceRestartResponse>, u64),
    /// Of a pause and the like.
    Failover(Reply<GetFailoverResponse>),
}

/// Commits a change beside the loop.
pub fn begin(control: &mut Control, (write, change): (Write, Change), told: Told, answer: Answer) {
    let leader = Arc::clone(&control.leader);
    let events = if told.by_itself { Vec::new() } else { vec![told.event.clone()] };
    control.work.spawn(async move {
        let outcome = leader.change_routes(&[], vec![write], events).await;
        LoopDone::Order(Done(Box::new(Ended { change, outcome, told, answer })))
    });
}

/// Commits that a node is forgotten, and with it what is wanted of it.
pub fn begin_to_forget(
    control: &mut Control,
    node: NodeKey,
    (write, change): (Write, Change),
    told: Told,
    answer: Answer,
) {
    let leader = Arc::clone(&control.leader);
    let events = vec![told.event.clone()];
    control.work.spawn(async move {
        let outcome = leader.decommission(&node, write, events).await;
        LoopDone::Order(Done(Box::new(Ended { change, outcome, told, answer })))
    });
}

/// A change has ended: what is in memory follows, and the operator is told.
pub fn done(control: &mut Control, done: Done) {
    let Ended { change, outcome, told, answer } = *done.0;
    let StoredEvent { kind, cluster_id, node_id, why, .. } = told.event;
    let term = control.leader.term();
    let result = match outcome {
        Ok(revision) => {
            tracing::info!(%term, event = kind, cluster_id, node_id, reason = why, "an order is committed");
            control.orders.committed(change, revision);
            Ok(())
        }
        Err(error) => {
            tracing::warn!(%term, event = kind, cluster_id, node_id, %error, "an order is not committed");
            let now = control.leader.clock().now();
            match &error {
                RelocateError::Commit(CommitError::Conflict { found }) => {
                    // The order's record is the first of what was written.
                    let found = found.first().and_then(Option::as_ref);
                    control.orders.overtaken(change, found, now, wall_clock_ms());
                }
                _ => control.orders.failed(change, now),
            }
            Err(command::not_done(error))
        }
    };
    conclude(control, answer, result);
}

/// Tells the operator what became of it.
fn conclude(control: &Control, waiting: Answer, result: Result<(), ControlError>) {
    match waiting {
        Answer::Nobody => {}
        Answer::Cordon(reply) => answer(reply, result.map(|()| CordonNodeResponse {})),
        Answer::Decommission(reply) => answer(reply, result.map(|()| DecommissionNodeResponse {})),
        Answer::Restart(reply, until_ms) => {
            answer(reply, result.map(|()| AnnounceRestartResponse { until_ms }));
        }
        Answer::Failover(reply) => {
            answer(reply, result.map(|()| failover::standing(control, None)));
        }
    }
}

/// Lets commands go on that waited for a record, tells the brake what is wanted, and has the record of a restart whose time is
/// over go.
pub fn turn(control: &mut Control, now: BootTime) {
    for command in control.orders.ready() {
        command::handle(control, command);
    }
    control.orders.apply_to(&mut control.brake, now);
    if let Some((node, write)) = control.orders.outlived(control.leader.keys(), now) {
        let event = event::restart_over(&node);
        begin(control, write, Told { event, by_itself: true }, Answer::Nobody);
    }
}
