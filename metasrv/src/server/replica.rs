//! The `Replica` service: what the replicas ask one another.

use std::sync::Arc;

use metasrv_core::election::Leave;
use metasrv_core::id::Term;
use metasrv_proto::admin::replica_server::Replica;
use metasrv_proto::admin::{SuspectsRequest, SuspectsResponse, YieldRequest, YieldResponse};
use tonic::{Request, Response, Status};

use crate::election::ElectionHandle;
use crate::standby::Standby;

/// The service.
pub struct ReplicaService {
    election: ElectionHandle,
    standby: Arc<Standby>,
}

impl ReplicaService {
    /// Over this replica's place in the queue, and its eye on the leader.
    pub fn new(election: ElectionHandle, standby: Arc<Standby>) -> ReplicaService {
        ReplicaService { election, standby }
    }
}

#[tonic::async_trait]
impl Replica for ReplicaService {
    async fn suspects(
        &self,
        request: Request<SuspectsRequest>,
    ) -> Result<Response<SuspectsResponse>, Status> {
        let opinion = self.standby.opinion(Term(request.get_ref().term));
        Ok(Response::new(SuspectsResponse {
            suspects: opinion.suspects,
            term: opinion.term.0,
            silent_ms: u64::try_from(opinion.silence.as_millis()).unwrap_or(u64::MAX),
        }))
    }

    async fn r#yield(&self, request: Request<YieldRequest>) -> Result<Response<YieldResponse>, Status> {
        tracing::info!(reason = request.get_ref().reason, "asked to stand back in the queue");
        self.election.leave(Leave::Yield).await;
        Ok(Response::new(YieldResponse {}))
    }
}
