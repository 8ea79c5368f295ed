//! Death certificates: a supervisor that reaped its process tells metasrv, so that nobody waits for that process's lease.
//!
//! Saying it twice changes nothing, so it is said until the leader has taken it, through any change of leader. What it is
//! not worth repeating is a refusal that another attempt would meet again.

use std::time::Duration;

use metasrv_proto::admin::supervisor_client::SupervisorClient;
use metasrv_proto::admin::{CertifyEndRequest, CertifyEndResponse};
use tonic::{Code, Status};

use crate::client::{Leader, MetaClient};
use crate::error::{ClientError, describe};

/// Where a replica that does not lead says who does.
const LEADER_KEY: &str = "metasrv-leader";

const WHAT: &str = "certify the end of a process";

/// Why one attempt failed.
enum Failure {
    /// Another one may succeed.
    Again(ClientError),
    /// None will.
    Final(ClientError),
}

impl MetaClient {
    /// Tells the leader that a process of this node has ended: its parent has reaped it. Asks who leads, and tries again
    /// with back-off, until the leader has taken it or knows of a newer process of the node, or until `limit`.
    ///
    /// # Errors
    /// [`ClientError::TimedOut`] where no leader took it in time, also where its answer was lost: repeating it is harmless.
    /// [`ClientError::InvalidArgument`] and [`ClientError::Refused`] are final; a metasrv that does not know of certificates
    /// refuses.
    pub async fn certify_end(
        &self,
        request: &CertifyEndRequest,
        limit: Duration,
    ) -> Result<CertifyEndResponse, ClientError> {
        let mut waits = self.config().back_off.start();
        let mut last = None;
        let attempts = async {
            loop {
                match self.certify_once(request).await {
                    Ok(response) => return Ok(response),
                    Err(Failure::Final(error)) => return Err(error),
                    Err(Failure::Again(error)) => last = Some(error),
                }
                waits.wait().await;
            }
        };
        let done = tokio::time::timeout(limit, attempts).await;
        done.unwrap_or_else(|_| {
            let why = last.map_or_else(|| "no answer in time".to_owned(), |error| error.to_string());
            Err(ClientError::TimedOut { what: WHAT, after: limit, why })
        })
    }

    async fn certify_once(&self, request: &CertifyEndRequest) -> Result<CertifyEndResponse, Failure> {
        let leader = match self.leader() {
            Some(leader) => leader,
            None => self.ask_leader().await.map_err(Failure::Again)?,
        };
        let lent = self.channels().get(&leader.addr).map_err(Failure::Again)?;
        let mut stub = SupervisorClient::new(lent.channel.clone());
        let after = self.config().timeouts.ask;
        match tokio::time::timeout(after, stub.certify_end(*request)).await {
            Ok(Ok(response)) => {
                let response = response.into_inner();
                let highest = self.highest_term();
                if response.term < highest {
                    // It was succeeded, and may have written nothing down.
                    self.forget_leader(&leader);
                    let (addr, term) = (leader.addr, response.term);
                    return Err(Failure::Again(ClientError::LowerTerm { addr, term, highest }));
                }
                Ok(response)
            }
            Ok(Err(status)) => {
                self.forget_leader(&leader);
                if status.code() != Code::FailedPrecondition {
                    self.channels().forget(&lent);
                }
                Err(self.judge_refusal(&leader, &status))
            }
            Err(_) => {
                self.forget_leader(&leader);
                self.channels().forget(&lent);
                let why = format!("{} does not answer", leader.addr);
                Err(Failure::Again(ClientError::TimedOut { what: WHAT, after, why }))
            }
        }
    }

    fn judge_refusal(&self, leader: &Leader, status: &Status) -> Failure {
        let message = || status.message().to_owned();
        match status.code() {
            Code::InvalidArgument | Code::OutOfRange => {
                Failure::Final(ClientError::InvalidArgument(message()))
            }
            Code::PermissionDenied | Code::Unauthenticated => Failure::Final(ClientError::Refused(message())),
            Code::Unimplemented => Failure::Final(ClientError::Refused(describe(status))),
            Code::FailedPrecondition => {
                let named = status.metadata().get(LEADER_KEY).and_then(|value| value.to_str().ok());
                let followed = named
                    .filter(|named| *named != leader.addr && self.hint(named, self.highest_term()))
                    .map(str::to_owned);
                Failure::Again(ClientError::NotLeader {
                    addr: leader.addr.clone(),
                    leader: followed,
                    term: leader.term,
                })
            }
            _ => Failure::Again(ClientError::transport(&leader.addr, status)),
        }
    }
}
