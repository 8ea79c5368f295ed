//! The Lease service.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Member;
use super::kv::asker;
use super::pb::etcdserverpb::lease_server::Lease;
use super::pb::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest,
    LeaseRevokeResponse,
};
use super::txn::header;

/// Answers on one stream that nobody has read yet.
const UNREAD: usize = 16;

#[tonic::async_trait]
impl Lease for Member {
    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let asked = request.into_inner();
        let done = self.write(|state| {
            let (id, ttl) = state.grant(asked.ttl)?;
            Ok(LeaseGrantResponse { header: Some(header(state.revision())), id, ttl, error: String::new() })
        });
        done.await.map(Response::new)
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let by = asker(&request);
        let id = request.get_ref().id;
        let done = self.write(|state| {
            state.revoke(id, by)?;
            Ok(LeaseRevokeResponse { header: Some(header(state.revision())) })
        });
        done.await.map(Response::new)
    }

    type LeaseKeepAliveStream = ReceiverStream<Result<LeaseKeepAliveResponse, Status>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let mut asked = request.into_inner();
        let (sender, answers) = mpsc::channel(UNREAD);
        let member = self.clone();
        tokio::spawn(async move {
            while let Ok(Some(LeaseKeepAliveRequest { id })) = asked.message().await {
                let answer = member.ready().await.map(|()| {
                    let mut state = member.etcd.state();
                    let ttl = state.keep_alive(id);
                    LeaseKeepAliveResponse { header: Some(header(state.revision())), id, ttl }
                });
                let failed = answer.is_err();
                if sender.send(answer).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}
