//! What operators decide and ask: `metasrv.v1.Operations`, one method for each call.
//!
//! How a call finds who answers it, and what is tried again, is in `call.rs`. Which of the changes may be made twice:
//!
//! | call | made twice |
//! | --- | --- |
//! | cordon, announce a restart, set failover, set maintenance | the same as once: sent again until the leader has answered |
//! | migrate, drain, rebalance | begins twice: [`ClientError::Unknown`] where the answer is lost |
//! | drop, decommission, cancel | the second finds nothing, and would report a success as an error: likewise |
//! | dry runs, and whatever only looks | harmless |
//!
//! [`ClientError::Unknown`]: crate::ClientError::Unknown

use std::future::Future;
use std::time::Duration;

use metasrv_proto::admin::operations_client::OperationsClient as Stub;
use metasrv_proto::admin::{
    AnnounceRestartRequest, AnnounceRestartResponse, CancelProcedureRequest, CheckStoreRequest,
    CheckStoreResponse, CordonNodeRequest, DecommissionNodeRequest, DrainNodeRequest, DrainNodeResponse,
    DropRegionRequest, DropRegionResponse, Event, ExplainRegionRequest, ExplainRegionResponse,
    GetFailoverRequest, GetFailoverResponse, ListEventsRequest, ListProceduresRequest,
    ListProceduresResponse, MigrateRegionRequest, MigrateRegionResponse, RebalanceRequest, RebalanceResponse,
    SetFailoverRequest, SetMaintenanceRequest,
};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::call::{Caller, Repeat};
use crate::client::MetaClient;
use crate::error::ClientError;

/// Calls to metasrv's `Operations` service. Clones are cheap.
#[derive(Clone)]
pub struct OperationsClient {
    caller: Caller,
}

impl OperationsClient {
    pub(crate) fn new(client: MetaClient) -> OperationsClient {
        OperationsClient { caller: Caller::new(client) }
    }

    /// The same calls with another deadline, counted from the beginning of each.
    pub fn with_deadline(self, limit: Duration) -> OperationsClient {
        OperationsClient { caller: Caller { limit, ..self.caller } }
    }

    /// Begins to move a live region. Never repeated once it was sent.
    pub async fn migrate_region(
        &self,
        request: MigrateRegionRequest,
    ) -> Result<MigrateRegionResponse, ClientError> {
        let call = async |mut stub: Stub<Channel>| stub.migrate_region(request.clone()).await;
        self.leader("migrate a region", Repeat::Never, call).await
    }

    /// Takes a region's route away. Never repeated once it was sent.
    pub async fn drop_region(&self, request: DropRegionRequest) -> Result<DropRegionResponse, ClientError> {
        let call = async |mut stub: Stub<Channel>| stub.drop_region(request.clone()).await;
        self.leader("drop a region", Repeat::Never, call).await
    }

    /// Where a region is and why, and what would happen to it.
    pub async fn explain_region(&self, region_id: u64) -> Result<ExplainRegionResponse, ClientError> {
        let request = ExplainRegionRequest { region_id };
        let call = async |mut stub: Stub<Channel>| stub.explain_region(request).await;
        self.leader("explain a region", Repeat::Harmless, call).await
    }

    /// Cordons a node, or takes that back.
    pub async fn cordon_node(&self, request: CordonNodeRequest) -> Result<(), ClientError> {
        let call = async |mut stub: Stub<Channel>| stub.cordon_node(request.clone()).await;
        self.leader("cordon a node", Repeat::Harmless, call).await.map(|_| ())
    }

    /// Begins to move all regions away from a node, or says what that would do. Beginning is never repeated once it was
    /// sent.
    pub async fn drain_node(&self, request: DrainNodeRequest) -> Result<DrainNodeResponse, ClientError> {
        let repeat = unless_dry(request.dry_run);
        let call = async |mut stub: Stub<Channel>| stub.drain_node(request.clone()).await;
        self.leader("drain a node", repeat, call).await
    }

    /// Forgets a node for good. Never repeated once it was sent.
    pub async fn decommission_node(&self, request: DecommissionNodeRequest) -> Result<(), ClientError> {
        let call = async |mut stub: Stub<Channel>| stub.decommission_node(request.clone()).await;
        self.leader("decommission a node", Repeat::Never, call).await.map(|_| ())
    }

    /// Announces that a node will be restarted, or takes that back. An answer that was lost is asked for again, and then
    /// the time counts from then.
    pub async fn announce_restart(
        &self,
        request: AnnounceRestartRequest,
    ) -> Result<AnnounceRestartResponse, ClientError> {
        let call = async |mut stub: Stub<Channel>| stub.announce_restart(request.clone()).await;
        self.leader("announce a restart", Repeat::Harmless, call).await
    }

    /// Whether failovers proceed in a cluster, and why not.
    pub async fn failover(&self, cluster_id: u64) -> Result<GetFailoverResponse, ClientError> {
        let request = GetFailoverRequest { cluster_id };
        let call = async |mut stub: Stub<Channel>| stub.get_failover(request).await;
        self.leader("get failover", Repeat::Harmless, call).await
    }

    /// Pauses failovers, or ends a pause.
    pub async fn set_failover(
        &self,
        request: SetFailoverRequest,
    ) -> Result<GetFailoverResponse, ClientError> {
        let call = async |mut stub: Stub<Channel>| stub.set_failover(request.clone()).await;
        self.leader("set failover", Repeat::Harmless, call).await
    }

    /// Switches maintenance mode.
    pub async fn set_maintenance(
        &self,
        request: SetMaintenanceRequest,
    ) -> Result<GetFailoverResponse, ClientError> {
        let call = async |mut stub: Stub<Channel>| stub.set_maintenance(request.clone()).await;
        self.leader("set maintenance", Repeat::Harmless, call).await
    }

    /// Begins to even out loads, or says what that would move. Beginning is never repeated once it was sent.
    pub async fn rebalance(&self, request: RebalanceRequest) -> Result<RebalanceResponse, ClientError> {
        let repeat = unless_dry(request.dry_run);
        let call = async |mut stub: Stub<Channel>| stub.rebalance(request.clone()).await;
        self.leader("rebalance", repeat, call).await
    }

    /// The procedures at work.
    pub async fn procedures(&self) -> Result<ListProceduresResponse, ClientError> {
        let call = async |mut stub: Stub<Channel>| stub.list_procedures(ListProceduresRequest {}).await;
        self.leader("list procedures", Repeat::Harmless, call).await
    }

    /// Asks for a procedure to be undone. Never repeated once it was sent.
    pub async fn cancel_procedure(&self, request: CancelProcedureRequest) -> Result<(), ClientError> {
        let call = async |mut stub: Stub<Channel>| stub.cancel_procedure(request.clone()).await;
        self.leader("cancel a procedure", Repeat::Never, call).await.map(|_| ())
    }

    /// What was decided, the oldest first. Needs no leader.
    pub async fn events(&self, request: ListEventsRequest) -> Result<Vec<Event>, ClientError> {
        let call = async |mut stub: Stub<Channel>| stub.list_events(request).await;
        Ok(self.any("list events", call).await?.events)
    }

    /// Checks that all that is stored fits together. Needs no leader.
    pub async fn check_store(&self) -> Result<CheckStoreResponse, ClientError> {
        let call = async |mut stub: Stub<Channel>| stub.check_store(CheckStoreRequest {}).await;
        self.any("check the store", call).await
    }

    async fn leader<T>(
        &self,
        what: &'static str,
        repeat: Repeat,
        call: impl AsyncFn(Stub<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, ClientError> {
        let call = &call;
        let of_channel = |channel| answer(call(self.stub(channel)));
        self.caller.on_leader(what, repeat, of_channel).await
    }

    async fn any<T>(
        &self,
        what: &'static str,
        call: impl AsyncFn(Stub<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, ClientError> {
        let call = &call;
        let of_channel = |channel| answer(call(self.stub(channel)));
        self.caller.on_any(what, of_channel).await
    }

    fn stub(&self, channel: Channel) -> Stub<Channel> {
        let largest = self.caller.largest_message();
        Stub::new(channel).max_decoding_message_size(largest).max_encoding_message_size(largest)
    }
}

async fn answer<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    Ok(call.await?.into_inner())
}

fn unless_dry(dry_run: bool) -> Repeat {
    if dry_run { Repeat::Harmless } else { Repeat::Never }
}
