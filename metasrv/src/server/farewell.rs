//! How a stream ends: why, and the last word to its node, which says what to do next.

use std::ops::RangeInclusive;
use std::time::Duration;

use metasrv_core::id::{Incarnation, NodeKey};
use metasrv_proto::meta::HeartbeatResponse;
use metasrv_proto::{code, meta};
use tokio::sync::watch;
use tonic::Status;

use super::stream::Session;
use crate::leader::Leader;
use crate::observer::View;
use crate::pusher::Pushers;
use crate::wire;

/// After the end of a term its streams wait so long for the next leader to show itself, to name it to their nodes.
const HINT_PATIENCE: Duration = Duration::from_millis(300);

/// What part of the time until a node's next heartbeat its stream waits before it is told.
const SHARES: RangeInclusive<f64> = 0.6..=0.9;

/// All are told within this time.
const LAST_TURN: Duration = Duration::from_secs(1);

/// Time between two looks at how many are left to be told.
const LOOK: Duration = Duration::from_millis(10);

/// Why a stream ends.
pub enum End {
    /// The node ended it, or is gone.
    Closed,
    /// The node broke a rule of the protocol.
    Refused(Status),
    /// The last response says why, in its header.
    Told(Box<HeartbeatResponse>),
}

/// How long a stream waits for its turn to be told that the term is over, by the time since its node's last heartbeat. A
/// thousand nodes that are told in one moment all come to the next leader in the next one, and whose heartbeat is due
/// then waits behind those who have most of a second left. So they are told in the order in which their heartbeats are
/// due, each a little before its own.
pub fn turn(since_heartbeat: Duration, interval: Duration) -> Duration {
    interval.saturating_sub(since_heartbeat).min(LAST_TURN).mul_f64(rand::random_range(SHARES))
}

/// Waits until every stream was told, for as long as that takes: a connection that is closed under a stream is no word of
/// farewell, and all would be closed in one moment.
pub async fn all_told(pushers: &Pushers) {
    let told = async {
        while !pushers.is_empty() {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(LAST_TURN + HINT_PATIENCE, told).await.is_err() {
        tracing::debug!(left = pushers.len(), "not every stream was told");
    }
}

/// The term is over: name the next leader, if it shows itself soon.
pub async fn term_ended(session: &Session, mut view: watch::Receiver<View>) -> End {
    let own_term = session.leader.term();
    let next = view.wait_for(|view| view.leader_after(own_term).is_some());
    // Without it the node asks round.
    let _ = tokio::time::timeout(HINT_PATIENCE, next).await.map(|seen| seen.is_ok());
    let known = view.borrow().leader_after(own_term).cloned();
    let mut header = wire::response_header(
        &session.node,
        known.as_ref().map_or(own_term, |known| known.term),
        session.leader.installation(),
    );
    header.error = Some(wire::error(code::NOT_LEADER, format!("term {own_term} of this replica is over")));
    header.leader = known.map(|known| wire::peer(&known.addr));
    End::Told(Box::new(HeartbeatResponse { header: Some(header), ..HeartbeatResponse::default() }))
}

/// Another stream of this node was registered.
pub fn replaced(session: &Session, by: Option<Incarnation>) -> End {
    match by {
        Some(by) if session.fixed.process.is_some_and(|own| own < by) => {
            End::Told(Box::new(superseded(session, by.epoch)))
        }
        // The same process has connected again; nobody reads this stream any more.
        _ => End::Refused(Status::aborted("this node has opened another stream")),
    }
}

/// A newer process of the node is known than one that was the current one itself: it has to end.
fn superseded(session: &Session, known: u64) -> HeartbeatResponse {
    tracing::warn!(
        term = %session.leader.term(), node = %session.node, node_epoch = session.fixed.process.map(|own| own.epoch),
        known, "a process is superseded by a newer one with its node id; it is granted nothing any more"
    );
    let mut header =
        wire::response_header(&session.node, session.leader.term(), session.leader.installation());
    let why =
        format!("a newer process of {} is known (node_epoch {known}): this one is superseded", session.node);
    header.error = Some(meta::Error { known_node_epoch: known, ..wire::error(code::SUPERSEDED, why) });
    HeartbeatResponse { header: Some(header), ..HeartbeatResponse::default() }
}

/// A newer process of the node is known: one that never had a session may go on above it.
pub fn stale(session: &Session, known: u64) -> HeartbeatResponse {
    if session.was_current {
        return superseded(session, known);
    }
    let mut header =
        wire::response_header(&session.node, session.leader.term(), session.leader.installation());
    let why = format!("a newer process of {} is known, of node_epoch {known}", session.node);
    header.error = Some(meta::Error { known_node_epoch: known, ..wire::error(code::STALE_INCARNATION, why) });
    HeartbeatResponse { header: Some(header), ..HeartbeatResponse::default() }
}

/// The node belongs to another installation.
pub fn other_installation(node: &NodeKey, leader: &Leader, theirs: u64) -> HeartbeatResponse {
    let mut header = wire::response_header(node, leader.term(), leader.installation());
    let why = format!(
        "header.installation: {node} belongs to installation {theirs:016x}, this is {:016x}",
        leader.installation()
    );
    tracing::warn!(%node, why, "heartbeat refused");
    header.error = Some(wire::error(code::OTHER_INSTALLATION, why));
    HeartbeatResponse { header: Some(header), ..HeartbeatResponse::default() }
}

/// Why a stream was refused, as its metric names it.
pub fn reason(status: &Status) -> &'static str {
    match status.code() {
        tonic::Code::InvalidArgument => "invalid_argument",
        tonic::Code::ResourceExhausted => "resource_exhausted",
        tonic::Code::DeadlineExceeded => "too_slow",
        tonic::Code::Aborted => "replaced",
        tonic::Code::PermissionDenied => "identity",
        _ => "internal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: nobody is told after its next heartbeat is due, and nobody waits for long. Method: times since the last
    /// heartbeat in milliseconds, for several intervals.
    #[test]
    fn a_stream_is_told_before_its_next_heartbeat_is_due() {
        for interval in [50, 1_000, 300_000].map(Duration::from_millis) {
            for ms in 0..1_000 {
                let since = Duration::from_millis(ms);
                let turn = turn(since, interval);
                assert!(
                    turn <= interval.saturating_sub(since) && turn <= LAST_TURN,
                    "{since:?} of {interval:?}"
                );
            }
            assert_eq!(turn(interval, interval), Duration::ZERO, "it is due: at once");
        }
    }
}
