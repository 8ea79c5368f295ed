//! The `Supervisor` service: a process of a datanode has ended, and its parent has reaped it.
//!
//! A certificate ends the waiting for the leases of exactly that process, told by its nonce; of any other it proves nothing. A
//! supervisor repeats it until a leader has taken it, which is when it is stored: where that leader ends before it has moved the
//! regions, the next one knows.

use std::sync::Arc;

use metasrv_core::id::{ClusterId, NodeId, NodeKey};
use metasrv_proto::admin::certify_end_request::How;
use metasrv_proto::admin::supervisor_server::Supervisor;
use metasrv_proto::admin::{CertifyEndRequest, CertifyEndResponse};
use tonic::{Request, Response, Status};

use super::admission::peer;
use super::heartbeat::Shared;
use super::refusal;

/// The service.
pub struct SupervisorService {
    shared: Arc<Shared>,
}

impl SupervisorService {
    /// Over what the heartbeat streams share.
    pub fn new(shared: Arc<Shared>) -> SupervisorService {
        SupervisorService { shared }
    }

    async fn certify(&self, request: &CertifyEndRequest) -> Result<CertifyEndResponse, Status> {
        if request.node_id == 0 {
            return Err(Status::invalid_argument("node_id: 0 is no node"));
        }
        if request.incarnation_nonce == 0 {
            return Err(Status::invalid_argument("incarnation_nonce: 0 names no process"));
        }
        let Some(how) = &request.how else {
            return Err(Status::invalid_argument("how: an exit code or a signal must be set"));
        };
        let leader = refusal::leader(&self.shared)?;
        if request.installation != 0 && request.installation != leader.installation() {
            return Err(Status::invalid_argument(format!(
                "installation: the node belongs to {:016x}, this is {:016x}",
                request.installation,
                leader.installation()
            )));
        }
        let node = NodeKey::datanode(ClusterId(request.cluster_id), NodeId(request.node_id));
        let how = match how {
            How::ExitCode(code) => format!("exit code {code}"),
            How::Signal(signal) => format!("signal {signal}"),
        };
        let ended = leader
            .certify_end(&node, request.incarnation_nonce, &how)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let recorded = leader.nodes().get(&node).and_then(|entry| entry.holder.current());
        let newer_is_known =
            ended.is_none() && recorded.is_some_and(|recorded| recorded.epoch > request.node_epoch);
        Ok(CertifyEndResponse { term: leader.term().0, newer_is_known })
    }
}

#[tonic::async_trait]
impl Supervisor for SupervisorService {
    async fn certify_end(
        &self,
        request: Request<CertifyEndRequest>,
    ) -> Result<Response<CertifyEndResponse>, Status> {
        let node =
            NodeKey::datanode(ClusterId(request.get_ref().cluster_id), NodeId(request.get_ref().node_id));
        self.shared.admission.node(&peer(&request), &node)?;
        let result = self.certify(request.get_ref()).await;
        refusal::counted(&self.shared, "certify_end", result)
    }
}
