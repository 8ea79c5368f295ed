//! What an operator asks for, carried out by the control loop.
//!
//! | file | what |
//! | --- | --- |
//! | `command.rs` | which command is whose, and what they have in common |
//! | `command/node.rs` | cordon, announced restart, decommission |
//! | `command/failover.rs` | pause, resumption, maintenance, and how failovers stand |
//! | `command/region.rs` | drop |
//! | `command/drain.rs` | empty a node, or say what that would do |
//! | `command/balance.rs` | move regions until loads are even |
//! | `explain.rs` | where a region is, and why |
//! | `procedures/` | migrate, list, cancel |
//!
//! A command is checked against what the loop knows, and refused with the reason where a safety check fails. What is to be
//! written goes to the store on a task; the operator is answered when that is certain.

mod balance;
mod drain;
pub(super) mod failover;
mod node;
mod region;

use metasrv_core::id::{ClusterId, NodeId, NodeKey, Role};
use metasrv_core::time::BootTime;
use metasrv_proto::admin::ListProceduresResponse;

use super::orders::{Given, Subject};
use super::{Command, Control, ControlError, Reply, duty, explain, procedures};
use crate::clock::wall_clock_ms;
use crate::leader::RelocateError;
use crate::store::fenced::CommitError;

/// Carries it out.
pub(super) fn handle(control: &mut Control, command: Command) {
    if let Some(subject) = subject(&command).filter(|subject| control.orders.is_changing(*subject)) {
        if let Err(command) = control.orders.wait(subject, command) {
            refuse(*command, ControlError::Busy);
        }
        return;
    }
    let now = control.leader.clock().now();
    match command {
        Command::MigrateRegion(request, reply) => procedures::migrate(control, &request, reply),
        Command::DropRegion(request, reply) => region::drop(control, &request, reply),
        Command::ExplainRegion(request, reply) => answer(reply, explain::region(control, &request, now)),
        Command::CordonNode(request, reply) => node::cordon(control, &request, reply, now),
        Command::DrainNode(request, reply) => drain::drain(control, &request, reply, now),
        Command::DecommissionNode(request, reply) => node::decommission(control, &request, reply),
        Command::AnnounceRestart(request, reply) => node::announce_restart(control, &request, reply, now),
        Command::GetFailover(request, reply) => {
            answer(reply, Ok(failover::standing(control, Some(ClusterId(request.cluster_id)))));
        }
        Command::SetFailover(request, reply) => failover::set(control, &request, reply, now),
        Command::SetMaintenance(request, reply) => failover::maintain(control, &request, reply, now),
        Command::Rebalance(request, reply) => answer(reply, balance::rebalance(control, &request, now)),
        Command::ListProcedures(_, reply) => {
            let procedures = control.procedures.list();
            answer(reply, Ok(ListProceduresResponse { procedures, term: control.leader.term().0 }));
        }
        Command::CancelProcedure(request, reply) => procedures::cancel(control, &request, reply),
        Command::Duties(reply) => answer(reply, Ok(duty::all(control, now))),
    }
}

/// The order that a command changes.
fn subject(command: &Command) -> Option<Subject> {
    let node = |cluster: u64, id: u64| Some(Subject::Node(datanode(cluster, id)));
    match command {
        Command::CordonNode(request, _) => node(request.cluster_id, request.node_id),
        Command::DrainNode(request, _) => node(request.cluster_id, request.node_id),
        Command::DecommissionNode(request, _) => node(request.cluster_id, request.node_id),
        Command::AnnounceRestart(request, _) => node(request.cluster_id, request.node_id),
        Command::SetFailover(..) | Command::SetMaintenance(..) => Some(Subject::Failover),
        Command::MigrateRegion(..)
        | Command::DropRegion(..)
        | Command::ExplainRegion(..)
        | Command::GetFailover(..)
        | Command::Rebalance(..)
        | Command::ListProcedures(..)
        | Command::CancelProcedure(..)
        | Command::Duties(..) => None,
    }
}

/// Tells whoever gave the command that it is not carried out.
fn refuse(command: Command, why: ControlError) {
    match command {
        Command::MigrateRegion(_, reply) => answer(reply, Err(why)),
        Command::DropRegion(_, reply) => answer(reply, Err(why)),
        Command::ExplainRegion(_, reply) => answer(reply, Err(why)),
        Command::CordonNode(_, reply) => answer(reply, Err(why)),
        Command::DrainNode(_, reply) => answer(reply, Err(why)),
        Command::DecommissionNode(_, reply) => answer(reply, Err(why)),
        Command::AnnounceRestart(_, reply) => answer(reply, Err(why)),
        Command::GetFailover(_, reply) => answer(reply, Err(why)),
        Command::SetFailover(_, reply) | Command::SetMaintenance(_, reply) => answer(reply, Err(why)),
        Command::Rebalance(_, reply) => answer(reply, Err(why)),
        Command::ListProcedures(_, reply) => answer(reply, Err(why)),
        Command::CancelProcedure(_, reply) => answer(reply, Err(why)),
        Command::Duties(reply) => answer(reply, Err(why)),
    }
}

/// Answers. One that went away does not hear it.
pub(super) fn answer<T>(reply: Reply<T>, result: Result<T, ControlError>) {
    let _ = reply.send(result);
}

/// The datanode that a request names.
fn datanode(cluster: u64, id: u64) -> NodeKey {
    NodeKey::datanode(ClusterId(cluster), NodeId(id))
}

/// The datanode that a request names, where there is one.
fn known(control: &Control, cluster: u64, id: u64) -> Result<NodeKey, ControlError> {
    let node = datanode(cluster, id);
    if control.leader.nodes().contains_key(&node) {
        return Ok(node);
    }
    let of_cluster = |key: &NodeKey| key.role == Role::Datanode && key.cluster == node.cluster;
    let count = control.leader.nodes().iter().filter(|entry| of_cluster(entry.key())).count();
    Err(ControlError::NotFound(format!("there is no {node}; cluster {cluster} has {count} datanodes")))
}

/// Who gives an order, and when.
fn given<'a>(control: &Control, reason: &'a str, now: BootTime) -> Given<'a> {
    Given { reason, term: control.leader.term(), now, wall_ms: wall_clock_ms() }
}

/// Why something was not written.
pub(super) fn not_done(error: RelocateError) -> ControlError {
    match error {
        RelocateError::Moved(_) | RelocateError::TooMany(_) => ControlError::Refused(error.to_string()),
        RelocateError::Commit(CommitError::FenceLost | CommitError::LeadershipEnded) => {
            ControlError::NotLeading
        }
        RelocateError::Commit(error) => ControlError::Store(error),
    }
}

#[cfg(test)]
mod tests;
