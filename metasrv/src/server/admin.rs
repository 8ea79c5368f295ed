//! The `Admin` service: what operators and tools ask.

use std::pin::Pin;
use std::sync::Arc;

use metasrv_core::id::{ClusterId, NodeId};
use metasrv_proto::admin::admin_server::Admin;
use metasrv_proto::admin::{
    CreateRegionsRequest, CreateRegionsResponse, GetStatusRequest, GetStatusResponse, ListMembersRequest,
    ListMembersResponse, ListNodesRequest, ListNodesResponse, ListRegionsRequest, ListRegionsResponse,
    Member, TransferLeadershipRequest, TransferLeadershipResponse,
};
use tonic::{Request, Response, Status};

use super::follower::Seen;
use super::heartbeat::Shared;
use super::{listing, refusal, regions, transfer};
use crate::keys::Keys;
use crate::leader::{CreateError, Leader, Wanted};
use crate::mirror::Mirror;
use crate::store::Store;

/// Regions that one call may create.
const MOST_REGIONS: u32 = 10_000;
/// Bytes of the label of a group.
const GROUP_BYTES: usize = 256;

/// The service.
pub struct AdminService {
    shared: Arc<Shared>,
    name: String,
    store: Arc<dyn Store>,
    keys: Keys,
}

type ListStream<T> = Pin<Box<dyn futures_util::Stream<Item = Result<T, Status>> + Send>>;

impl AdminService {
    /// Over what the heartbeat streams share.
    pub fn new(shared: Arc<Shared>, name: String, store: Arc<dyn Store>, keys: Keys) -> AdminService {
        AdminService { shared, name, store, keys }
    }

    fn leader(&self) -> Result<Arc<Leader>, Status> {
        refusal::leader(&self.shared)
    }

    /// What this replica has seen in the store, where it does not lead and was allowed to say so.
    fn seen(&self, allowed: bool) -> Result<Option<Seen>, Status> {
        if !allowed || self.shared.leading().is_some() {
            return Ok(None);
        }
        Seen::in_mirror(self.shared.mirror.as_ref(), &self.keys)
    }

    fn regions(&self, request: &ListRegionsRequest) -> Result<ListStream<ListRegionsResponse>, Status> {
        match self.seen(request.allow_follower)? {
            Some(seen) => Ok(Box::pin(regions::of_follower(seen, request.node_id))),
            None => Ok(Box::pin(regions::of_leader(self.leader()?, request.node_id))),
        }
    }

    async fn nodes(&self, request: &ListNodesRequest) -> Result<ListStream<ListNodesResponse>, Status> {
        if let Some(seen) = self.seen(request.allow_follower)? {
            let follower = Some(seen.view);
            return Ok(Box::pin(listing::chunks(&seen.nodes(), move |nodes| ListNodesResponse {
                nodes,
                term: 0,
                follower,
            })));
        }
        let leader = self.leader()?;
        let term = leader.term().0;
        let nodes =
            listing::nodes(&leader, self.shared.group.pushers(), self.store.as_ref(), &self.keys).await?;
        Ok(Box::pin(listing::chunks(&nodes, move |nodes| ListNodesResponse { nodes, term, follower: None })))
    }

    async fn create(&self, request: CreateRegionsRequest) -> Result<CreateRegionsResponse, Status> {
        if request.count == 0 || request.count > MOST_REGIONS {
            return Err(Status::invalid_argument(format!(
                "count: {} is not in 1..={MOST_REGIONS}",
                request.count
            )));
        }
        if request.node_id == Some(0) {
            return Err(Status::invalid_argument("node_id: 0 is no node"));
        }
        refusal::reason(&request.reason)?;
        if request.group.len() > GROUP_BYTES {
            return Err(Status::resource_exhausted(format!(
                "group (bytes): at most {GROUP_BYTES} are accepted"
            )));
        }
        let leader = self.leader()?;
        // On a task of its own: a caller that goes away in the middle of a transaction must not keep this leader from
        // learning what became of it. The task ends with its last transaction, which the end of the term ends at the latest.
        let creating = tokio::spawn(create_and_announce(Arc::clone(&self.shared), leader, request));
        creating.await.map_err(|error| Status::internal(format!("creating regions ended badly: {error}")))?
    }

    fn status(&self, allow_follower: bool) -> GetStatusResponse {
        let now = self.shared.clock.now();
        let view = self.shared.view.borrow().clone();
        let mut status = GetStatusResponse {
            name: self.name.clone(),
            role: if view.members.iter().any(|member| member.name == self.name) {
                "follower"
            } else {
                "candidate"
            }
            .to_owned(),
            term: view.leader.as_ref().map_or(0, |leader| leader.term.0),
            leader_addr: view.leader.as_ref().map(|leader| leader.addr.clone()).unwrap_or_default(),
            leader_name: view.leader.as_ref().map(|leader| leader.name.clone()).unwrap_or_default(),
            seen_ms_ago: view.read_at.map(|at| u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX)),
            ..GetStatusResponse::default()
        };
        if self.shared.leading().is_none() {
            status.follower = self.shared.mirror.as_ref().and_then(Mirror::standing);
        }
        if allow_follower
            && self.shared.leading().is_none()
            && let Some((nodes, regions)) = self.shared.mirror.as_ref().and_then(Mirror::counts)
        {
            (status.nodes, status.regions) = (listing::as_u64(nodes), listing::as_u64(regions));
        }
        if let Ok(leader) = self.leader() {
            status.follower = None;
            status.seen_ms_ago = None;
            status.role = "leader".to_owned();
            status.term = leader.term().0;
            status.leader_addr = view.own_addr.unwrap_or_default();
            status.leader_name.clone_from(&self.name);
            status.installation = leader.installation();
            status.heartbeats = leader.heartbeats();
            let millis =
                |interval: std::time::Duration| u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
            status.heartbeat_interval_ms = millis(leader.heartbeat_interval());
            status.configured_interval_ms = millis(leader.timing().heartbeat_interval);
            status.nodes_connected = listing::as_u64(self.shared.group.pushers().len());
            for entry in leader.nodes() {
                status.nodes = status.nodes.saturating_add(1);
                status.regions = status.regions.saturating_add(listing::as_u64(entry.regions.len()));
                status.regions_writable = status
                    .regions_writable
                    .saturating_add(listing::as_u64(listing::writable(&entry, &leader, now)));
            }
        }
        status
    }
}

/// Creates regions and tells their nodes; what is told is also repeated with a heartbeat.
async fn create_and_announce(
    shared: Arc<Shared>,
    leader: Arc<Leader>,
    request: CreateRegionsRequest,
) -> Result<CreateRegionsResponse, Status> {
    let count = usize::try_from(request.count).unwrap_or(usize::MAX);
    let wanted = Wanted {
        cluster: ClusterId(request.cluster_id),
        on: request.node_id.map(NodeId),
        count,
        group: &request.group,
        reason: &request.reason,
    };
    let created = leader.create_regions(shared.group.pushers(), &wanted).await.map_err(not_created)?;
    let now = shared.clock.now();
    let mut regions = Vec::with_capacity(count);
    for (node, created) in created {
        for chunk in created.chunks(listing::CHUNK) {
            shared.group.mailbox().open_regions(&leader, &node, chunk);
        }
        regions.extend(listing::created(&leader, &node, &created, now));
    }
    regions.sort_unstable_by_key(|region| region.region_id);
    Ok(CreateRegionsResponse { regions })
}

fn not_created(error: CreateError) -> Status {
    let words = error.to_string();
    match error {
        CreateError::NotLeader { .. } => Status::aborted(words),
        CreateError::NotEnoughDatanodes(_) | CreateError::Excluded(_) => Status::resource_exhausted(words),
        CreateError::NoSuchNode(_) => Status::not_found(words),
        CreateError::Unfit { .. } => Status::failed_precondition(words),
        CreateError::Store { .. } => Status::unavailable(words),
        CreateError::Control(error) => refusal::status(error),
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    type ListRegionsStream = ListStream<ListRegionsResponse>;
    type ListNodesStream = ListStream<ListNodesResponse>;

    async fn create_regions(
        &self,
        request: Request<CreateRegionsRequest>,
    ) -> Result<Response<CreateRegionsResponse>, Status> {
        let result = self.create(request.into_inner()).await;
        refusal::counted(&self.shared, "create_regions", result)
    }

    async fn list_regions(
        &self,
        request: Request<ListRegionsRequest>,
    ) -> Result<Response<Self::ListRegionsStream>, Status> {
        let result = self.regions(request.get_ref());
        refusal::counted(&self.shared, "list_regions", result)
    }

    async fn list_nodes(
        &self,
        request: Request<ListNodesRequest>,
    ) -> Result<Response<Self::ListNodesStream>, Status> {
        let result = self.nodes(request.get_ref()).await;
        refusal::counted(&self.shared, "list_nodes", result)
    }

    async fn list_members(
        &self,
        _: Request<ListMembersRequest>,
    ) -> Result<Response<ListMembersResponse>, Status> {
        let view = self.shared.view.borrow().clone();
        let leader = view.leader.map(|leader| leader.name);
        let members = view
            .members
            .into_iter()
            .map(|member| {
                let leads = leader.as_ref() == Some(&member.name);
                Member {
                    role: if leads { "leader" } else { "follower" }.to_owned(),
                    term: if leads { member.term } else { 0 },
                    name: member.name,
                    addr: member.addr,
                    version: member.version,
                    started_at_ms: member.started_at_ms,
                }
            })
            .collect();
        refusal::counted(&self.shared, "list_members", Ok(ListMembersResponse { members }))
    }

    async fn transfer_leadership(
        &self,
        request: Request<TransferLeadershipRequest>,
    ) -> Result<Response<TransferLeadershipResponse>, Status> {
        let request = request.into_inner();
        let transfer = async {
            refusal::reason(&request.reason)?;
            transfer::transfer(&self.shared, self.leader()?, &request).await
        };
        let result = transfer.await;
        refusal::counted(&self.shared, "transfer_leadership", result)
    }

    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        let status = self.status(request.get_ref().allow_follower);
        refusal::counted(&self.shared, "get_status", Ok(status))
    }
}
