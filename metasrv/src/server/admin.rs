//! The `Admin` service: what operators and tools ask.

use std::pin::Pin;
use std::sync::Arc;

use metasrv_core::grant::Reported;
use metasrv_core::id::{ClusterId, NodeId, NodeKey};
use metasrv_proto::admin::admin_server::Admin;
use metasrv_proto::admin::{
    CreateRegionsRequest, CreateRegionsResponse, GetStatusRequest, GetStatusResponse, ListMembersRequest,
    ListMembersResponse, ListNodesRequest, ListNodesResponse, ListRegionsRequest, ListRegionsResponse,
    Member, TransferLeadershipRequest, TransferLeadershipResponse,
};
use metasrv_proto::meta::mailbox_message;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use super::follower::Seen;
use super::heartbeat::Shared;
use super::{listing, transfer};
use crate::keys::Keys;
use crate::leader::{CreateError, Leader};
use crate::mirror::Mirror;
use crate::store::Store;
use crate::wire;

/// Regions that one call may create.
const MOST_REGIONS: u32 = 10_000;
/// Bytes of a reason.
const REASON_BYTES: usize = 1_024;

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
        self.shared.leading().ok_or_else(|| self.not_leader())
    }

    /// What this replica has seen in the store, where it does not lead and was allowed to say so.
    fn seen(&self, allowed: bool) -> Result<Option<Seen>, Status> {
        if !allowed || self.shared.leading().is_some() {
            return Ok(None);
        }
        Seen::in_mirror(self.shared.mirror.as_ref(), &self.keys)
    }

    fn regions(&self, request: &ListRegionsRequest) -> Result<ListStream<ListRegionsResponse>, Status> {
        if let Some(seen) = self.seen(request.allow_follower)? {
            let follower = Some(seen.view);
            return Ok(Box::pin(listing::chunks(&seen.regions(request.node_id), move |regions| {
                ListRegionsResponse { regions, term: 0, follower }
            })));
        }
        let leader = self.leader()?;
        let term = leader.term().0;
        let regions = listing::regions(&leader, request.node_id, self.shared.clock.now());
        Ok(Box::pin(listing::chunks(&regions, move |regions| ListRegionsResponse {
            regions,
            term,
            follower: None,
        })))
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

    fn not_leader(&self) -> Status {
        let known = self.shared.other_leader();
        let mut status = Status::failed_precondition(match &known {
            Some(known) => format!("this replica does not lead; {} at {} does", known.name, known.addr),
            None => "this replica does not lead, and knows of no leader".to_owned(),
        });
        if let Some(Ok(addr)) = known.map(|known| MetadataValue::try_from(known.addr)) {
            status.metadata_mut().insert("metasrv-leader", addr);
        }
        status
    }

    fn count(&self, method: &str, code: tonic::Code) {
        self.shared.metrics.admin_requests.with_label_values(&[method, &format!("{code:?}")]).inc();
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
        check_reason(&request.reason)?;
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
        // What cannot be understood is no reason to say nothing at all.
        if let Ok(Some(seen)) = self.seen(allow_follower) {
            status.follower = Some(seen.view);
            (status.nodes, status.regions) = seen.counts();
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
    let on = request.node_id.map(NodeId);
    let created = leader
        .create_regions(shared.group.pushers(), ClusterId(request.cluster_id), on, count, &request.reason)
        .await
        .map_err(|error| match &error {
            CreateError::NotLeader { .. } => Status::aborted(error.to_string()),
            CreateError::NotEnoughDatanodes(_) => Status::resource_exhausted(error.to_string()),
            CreateError::NoSuchNode(_) => Status::not_found(error.to_string()),
            CreateError::Store { .. } => Status::unavailable(error.to_string()),
        })?;
    let now = shared.clock.now();
    let mut regions = Vec::with_capacity(count);
    for (node, created) in created {
        for chunk in created.chunks(listing::CHUNK) {
            announce(&shared, &leader, &node, chunk);
        }
        regions.extend(listing::created(&leader, &node, &created, now));
    }
    regions.sort_unstable_by_key(|region| region.region_id);
    Ok(CreateRegionsResponse { regions })
}

/// Tells a node of new regions at once; whatever is lost here is repeated with a heartbeat.
fn announce(shared: &Shared, leader: &Leader, node: &NodeKey, regions: &[Reported]) {
    let group = &shared.group;
    if group.pushers().process(node).is_none_or(|process| process.nonce == 0) {
        return;
    }
    let payload = mailbox_message::Payload::Instruction(wire::open_regions(leader.term(), regions));
    let message = group.mailbox().message(node, "open regions", payload);
    let header = wire::response_header(node, leader.term(), leader.installation());
    let outcome = match group.mailbox().push(node, header, message) {
        Ok(()) => "sent",
        Err(error) => {
            tracing::debug!(%error, "an instruction waits for the node's next heartbeat");
            "not_sent"
        }
    };
    shared.metrics.instructions.with_label_values(&["open_regions", outcome]).inc();
}

fn check_reason(reason: &str) -> Result<(), Status> {
    if reason.len() > REASON_BYTES {
        return Err(Status::resource_exhausted(format!(
            "reason (bytes): at most {REASON_BYTES} are accepted"
        )));
    }
    Ok(())
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
        self.count("create_regions", result.as_ref().err().map_or(tonic::Code::Ok, Status::code));
        result.map(Response::new)
    }

    async fn list_regions(
        &self,
        request: Request<ListRegionsRequest>,
    ) -> Result<Response<Self::ListRegionsStream>, Status> {
        let result = self.regions(request.get_ref());
        self.count("list_regions", result.as_ref().err().map_or(tonic::Code::Ok, Status::code));
        result.map(Response::new)
    }

    async fn list_nodes(
        &self,
        request: Request<ListNodesRequest>,
    ) -> Result<Response<Self::ListNodesStream>, Status> {
        let result = self.nodes(request.get_ref()).await;
        self.count("list_nodes", result.as_ref().err().map_or(tonic::Code::Ok, Status::code));
        result.map(Response::new)
    }

    async fn list_members(
        &self,
        _: Request<ListMembersRequest>,
    ) -> Result<Response<ListMembersResponse>, Status> {
        self.count("list_members", tonic::Code::Ok);
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
        Ok(Response::new(ListMembersResponse { members }))
    }

    async fn transfer_leadership(
        &self,
        request: Request<TransferLeadershipRequest>,
    ) -> Result<Response<TransferLeadershipResponse>, Status> {
        let request = request.into_inner();
        let transfer = async {
            check_reason(&request.reason)?;
            transfer::transfer(&self.shared, self.leader()?, &request).await
        };
        let result = transfer.await;
        self.count("transfer_leadership", result.as_ref().err().map_or(tonic::Code::Ok, Status::code));
        result.map(Response::new)
    }

    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        self.count("get_status", tonic::Code::Ok);
        Ok(Response::new(self.status(request.get_ref().allow_follower)))
    }
}
