//! The KV service: reads are linearizable, so a member that does not reach the others answers none.

use tonic::{Request, Response, Status};

use super::Member;
use super::pb::etcdserverpb::kv_server::Kv;
use super::pb::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use super::txn::{self, header};
use crate::net::PeerHost;

/// The host at the other end, where the network is a simulated one.
pub fn asker<T>(request: &Request<T>) -> Option<String> {
    request.extensions().get::<PeerHost>().map(|peer| peer.0.clone())
}

#[tonic::async_trait]
impl Kv for Member {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        self.ready().await?;
        let state = self.etcd.state();
        txn::read(&state, request.get_ref(), state.revision()).map(Response::new)
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let by = asker(&request);
        let request = request.into_inner();
        self.write(|state| txn::put_alone(state, request, by)).await.map(Response::new)
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let by = asker(&request);
        let request = request.into_inner();
        let done = self.write(|state| {
            let mut write = state.begin(Vec::new(), by);
            let response = txn::delete(&mut write, &request);
            write.end();
            Ok(response)
        });
        done.await.map(Response::new)
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let by = asker(&request);
        let request = request.into_inner();
        self.write(|state| txn::commit(state, request, by)).await.map(Response::new)
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let revision = request.get_ref().revision;
        let done = self.write(|state| {
            state.compact(revision)?;
            Ok(CompactionResponse { header: Some(header(state.revision())) })
        });
        done.await.map(Response::new)
    }
}
