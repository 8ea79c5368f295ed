//! The `Operations` service: what an operator decides about nodes, regions and failovers, and what the leader says of its own
//! decisions.
//!
//! A request is checked ([`fields`]), handed to the leader's control loop, and answered with what that says. From the moment
//! that the loop has it, it is carried out whether the caller waits for the answer or went away: what is written is written by
//! tasks of the loop.

mod fields;

use std::sync::Arc;

use metasrv_proto::admin::operations_server::Operations;
use metasrv_proto::admin::{
    AnnounceRestartRequest, AnnounceRestartResponse, CancelProcedureRequest, CancelProcedureResponse,
    CheckStoreRequest, CheckStoreResponse, CordonNodeRequest, CordonNodeResponse, DecommissionNodeRequest,
    DecommissionNodeResponse, DrainNodeRequest, DrainNodeResponse, DropRegionRequest, DropRegionResponse,
    ExplainRegionRequest, ExplainRegionResponse, GetFailoverRequest, GetFailoverResponse, ListEventsRequest,
    ListEventsResponse, ListProceduresRequest, ListProceduresResponse, MigrateRegionRequest,
    MigrateRegionResponse, RebalanceRequest, RebalanceResponse, SetFailoverRequest, SetMaintenanceRequest,
};
use tonic::{Request, Response, Status};

use super::heartbeat::Shared;
use super::{check, refusal, timeline};
use crate::control::{Command, Reply};
use crate::keys::Keys;
use crate::store::Store;

/// Events that an explanation brings along: what happened to the region lately.
const EVENTS: u32 = 10;

/// The service.
pub struct OperationsService {
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
    keys: Keys,
}

impl OperationsService {
    /// Over what the heartbeat streams share.
    pub fn new(shared: Arc<Shared>, store: Arc<dyn Store>, keys: Keys) -> OperationsService {
        OperationsService { shared, store, keys }
    }

    async fn ask<R, T>(
        &self,
        request: R,
        check: fn(&R) -> Result<(), Status>,
        command: fn(R, Reply<T>) -> Command,
    ) -> Result<T, Status> {
        check(&request)?;
        let leader = refusal::leader(&self.shared)?;
        leader.control().ask(|reply| command(request, reply)).await.map_err(refusal::status)
    }

    async fn command<R, T>(
        &self,
        method: &str,
        request: Request<R>,
        check: fn(&R) -> Result<(), Status>,
        command: fn(R, Reply<T>) -> Command,
    ) -> Result<Response<T>, Status> {
        let result = self.ask(request.into_inner(), check, command).await;
        refusal::counted(&self.shared, method, result)
    }

    async fn explain(&self, request: ExplainRegionRequest) -> Result<ExplainRegionResponse, Status> {
        let region_id = request.region_id;
        let mut explained = self.ask(request, fields::explain_region, Command::ExplainRegion).await?;
        let asked = ListEventsRequest { region_id, limit: EVENTS, ..ListEventsRequest::default() };
        explained.events = timeline::list_events(self.store.as_ref(), &self.keys, &asked).await?.events;
        explained.events.reverse();
        Ok(explained)
    }
}

#[tonic::async_trait]
impl Operations for OperationsService {
    async fn migrate_region(
        &self,
        request: Request<MigrateRegionRequest>,
    ) -> Result<Response<MigrateRegionResponse>, Status> {
        self.command("migrate_region", request, fields::migrate_region, Command::MigrateRegion).await
    }

    async fn drop_region(
        &self,
        request: Request<DropRegionRequest>,
    ) -> Result<Response<DropRegionResponse>, Status> {
        self.command("drop_region", request, fields::drop_region, Command::DropRegion).await
    }

    async fn explain_region(
        &self,
        request: Request<ExplainRegionRequest>,
    ) -> Result<Response<ExplainRegionResponse>, Status> {
        let result = self.explain(request.into_inner()).await;
        refusal::counted(&self.shared, "explain_region", result)
    }

    async fn cordon_node(
        &self,
        request: Request<CordonNodeRequest>,
    ) -> Result<Response<CordonNodeResponse>, Status> {
        self.command("cordon_node", request, fields::cordon_node, Command::CordonNode).await
    }

    async fn drain_node(
        &self,
        request: Request<DrainNodeRequest>,
    ) -> Result<Response<DrainNodeResponse>, Status> {
        self.command("drain_node", request, fields::drain_node, Command::DrainNode).await
    }

    async fn decommission_node(
        &self,
        request: Request<DecommissionNodeRequest>,
    ) -> Result<Response<DecommissionNodeResponse>, Status> {
        self.command("decommission_node", request, fields::decommission_node, Command::DecommissionNode).await
    }

    async fn announce_restart(
        &self,
        request: Request<AnnounceRestartRequest>,
    ) -> Result<Response<AnnounceRestartResponse>, Status> {
        self.command("announce_restart", request, fields::announce_restart, Command::AnnounceRestart).await
    }

    async fn get_failover(
        &self,
        request: Request<GetFailoverRequest>,
    ) -> Result<Response<GetFailoverResponse>, Status> {
        self.command("get_failover", request, fields::get_failover, Command::GetFailover).await
    }

    async fn set_failover(
        &self,
        request: Request<SetFailoverRequest>,
    ) -> Result<Response<GetFailoverResponse>, Status> {
        self.command("set_failover", request, fields::set_failover, Command::SetFailover).await
    }

    async fn set_maintenance(
        &self,
        request: Request<SetMaintenanceRequest>,
    ) -> Result<Response<GetFailoverResponse>, Status> {
        self.command("set_maintenance", request, fields::set_maintenance, Command::SetMaintenance).await
    }

    async fn rebalance(
        &self,
        request: Request<RebalanceRequest>,
    ) -> Result<Response<RebalanceResponse>, Status> {
        self.command("rebalance", request, fields::rebalance, Command::Rebalance).await
    }

    async fn list_procedures(
        &self,
        request: Request<ListProceduresRequest>,
    ) -> Result<Response<ListProceduresResponse>, Status> {
        self.command("list_procedures", request, fields::list_procedures, Command::ListProcedures).await
    }

    async fn cancel_procedure(
        &self,
        request: Request<CancelProcedureRequest>,
    ) -> Result<Response<CancelProcedureResponse>, Status> {
        self.command("cancel_procedure", request, fields::cancel_procedure, Command::CancelProcedure).await
    }

    async fn list_events(
        &self,
        request: Request<ListEventsRequest>,
    ) -> Result<Response<ListEventsResponse>, Status> {
        let result = timeline::list_events(self.store.as_ref(), &self.keys, request.get_ref()).await;
        refusal::counted(&self.shared, "list_events", result)
    }

    async fn check_store(
        &self,
        _: Request<CheckStoreRequest>,
    ) -> Result<Response<CheckStoreResponse>, Status> {
        let result = check::check_store(self.store.as_ref(), &self.keys).await;
        refusal::counted(&self.shared, "check_store", result)
    }
}
