//! A planned change of leader: the candidates before the chosen one stand back, then the leader hands over.

use std::sync::Arc;
use std::time::Duration;

use metasrv_core::election::Leave;
use metasrv_proto::admin::replica_client::ReplicaClient;
use metasrv_proto::admin::{
    CandidateRecord, TransferLeadershipRequest, TransferLeadershipResponse, YieldRequest,
};
use tonic::Status;

use super::heartbeat::Shared;
use crate::dial::Dialer;
use crate::leader::Leader;
use crate::peer;

/// A transfer waits so long for the leader to have given up: its last drain, and room.
const PATIENCE: Duration = Duration::from_secs(5);

/// The others have so long to stand back: a second until they queue again, and room.
const YIELD: Duration = Duration::from_secs(3);

/// Deadline of asking one of them.
const ASK: Duration = Duration::from_secs(1);

/// Gives leadership up, to the replica that was named or to whoever is next.
///
/// # Errors
/// NOT_FOUND where no replica of this name stands in the queue, UNAVAILABLE where nobody can take over, or the others did
/// not stand back: then this leader goes on. DEADLINE_EXCEEDED where it has not given up in time.
pub async fn transfer(
    shared: &Shared,
    leader: Arc<Leader>,
    request: &TransferLeadershipRequest,
) -> Result<TransferLeadershipResponse, Status> {
    let election = shared.election.as_ref().ok_or_else(|| {
        Status::unimplemented("embedded mode has one replica: there is nobody to hand over to")
    })?;
    let members = queue(shared);
    // The first is this replica.
    if members.len() < 2 {
        return Err(Status::unavailable("there is no other replica in the queue to hand over to"));
    }
    tracing::info!(term = %leader.term(), to = request.to, reason = request.reason, "asked to transfer leadership");
    if !request.to.is_empty() {
        bring_forward(shared, &members, request).await?;
    }
    let ended = leader.ended();
    election.leave(Leave::Transfer).await;
    match tokio::time::timeout(PATIENCE, ended).await {
        Ok(()) => Ok(TransferLeadershipResponse { term: leader.term().0 }),
        Err(_) => Err(Status::deadline_exceeded("the leader has not given up in time; it goes on trying")),
    }
}

/// The queue of candidates as it was seen last, the leader first.
fn queue(shared: &Shared) -> Vec<CandidateRecord> {
    shared.view.borrow().members.clone()
}

/// Lets everybody before the chosen one stand back, and waits until it is the next.
async fn bring_forward(
    shared: &Shared,
    members: &[CandidateRecord],
    request: &TransferLeadershipRequest,
) -> Result<(), Status> {
    let to = &request.to;
    let Some(position) = members.iter().position(|member| member.name == *to) else {
        let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        let why = format!("to: no replica named {to:?} stands in the queue; there are {}", names.join(", "));
        return Err(Status::not_found(why));
    };
    if position == 0 {
        return Err(Status::invalid_argument(format!("to: {to:?} leads already")));
    }
    for before in members.get(1..position).unwrap_or_default() {
        let asked = tokio::time::timeout(
            ASK,
            stand_back(&shared.dialer, &before.addr, format!("{to} shall lead next")),
        )
        .await;
        match asked {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return Err(cannot_yield(before, &why)),
            Err(_) => return Err(cannot_yield(before, "no answer")),
        }
    }
    let mut view = shared.view.clone();
    let next = view.wait_for(|view| view.members.get(1).is_some_and(|member| member.name == *to));
    let is_next = tokio::time::timeout(YIELD, next).await.is_ok_and(|seen| seen.is_ok());
    if is_next {
        return Ok(());
    }
    let next = queue(shared).get(1).map_or_else(|| "nobody".to_owned(), |member| member.name.clone());
    let why = format!("{to} is not next in the queue after {YIELD:?}, {next} is; the leader stays");
    Err(Status::unavailable(why))
}

fn cannot_yield(before: &CandidateRecord, why: &str) -> Status {
    let name = &before.name;
    Status::unavailable(format!(
        "{name} stands before it in the queue and does not stand back ({why}); the leader stays"
    ))
}

async fn stand_back(dialer: &Dialer, addr: &str, reason: String) -> Result<(), String> {
    let asked = ReplicaClient::new(peer::connect(dialer, addr).await?).r#yield(YieldRequest { reason }).await;
    asked.map(drop).map_err(|status| status.message().to_owned())
}
