//! The calls of operators and tools.
//!
//! How a call finds who answers it, and what is tried again, is in `call.rs`. A change whose answer was lost is **not**
//! repeated: it may have been done, and creating regions twice is no retry. The caller is told so by
//! [`ClientError::Unknown`].

use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use metasrv_proto::admin::admin_client::AdminClient as Stub;
use metasrv_proto::admin::{
    CreateRegionsRequest, FollowerView, GetStatusRequest, GetStatusResponse, ListMembersRequest,
    ListNodesRequest, ListNodesResponse, ListRegionsRequest, ListRegionsResponse, Member, Node, Region,
    TransferLeadershipRequest,
};
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use crate::call::{Caller, Repeat};
use crate::client::MetaClient;
use crate::error::ClientError;

/// Longest list that is collected: ten times what the largest known installations hold.
const MOST_LISTED: usize = 10_000_000;

/// Calls to metasrv's `Admin` service. Clones are cheap.
#[derive(Clone)]
pub struct AdminClient {
    caller: Caller,
}

/// The regions, each once; those that change while they are listed are shown as they were or as they are.
#[derive(Clone, PartialEq, Debug)]
pub struct RegionList {
    /// Ordered by id.
    pub regions: Vec<Region>,
    /// The term of the leader that listed them. 0: a follower did.
    pub term: u64,
    /// Where the follower stands that listed them. Absent: the leader did.
    pub follower: Option<FollowerView>,
}

/// The nodes at one moment.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeList {
    /// Ordered by role, cluster and id.
    pub nodes: Vec<Node>,
    /// The term of the leader that listed them. 0: a follower did.
    pub term: u64,
    /// Where the follower stands that listed them. Absent: the leader did.
    pub follower: Option<FollowerView>,
}

impl AdminClient {
    pub(crate) fn new(client: MetaClient) -> AdminClient {
        AdminClient { caller: Caller::new(client) }
    }

    /// The same calls with another deadline, counted from the beginning of each.
    pub fn with_deadline(self, limit: Duration) -> AdminClient {
        AdminClient { caller: Caller { limit, ..self.caller } }
    }

    /// Creates regions and returns them. Never repeated once it was sent.
    pub async fn create_regions(&self, request: CreateRegionsRequest) -> Result<Vec<Region>, ClientError> {
        let call = |channel| {
            let mut stub = self.stub(channel);
            let request = request.clone();
            async move { Ok(stub.create_regions(request).await?.into_inner().regions) }
        };
        self.caller.on_leader("create regions", Repeat::Never, call).await
    }

    /// All regions, or those that the routes give to one node.
    pub async fn list_regions(&self, node_id: Option<u64>) -> Result<RegionList, ClientError> {
        let request = ListRegionsRequest { node_id, allow_follower: false };
        let call = |channel| collect_regions(self.stub(channel), request, self.caller.limit);
        self.caller.on_leader("list regions", Repeat::Harmless, call).await
    }

    /// The same, as the replica at `addr` has seen them in the store, if it does not lead.
    pub async fn regions_seen_by(&self, addr: &str, node_id: Option<u64>) -> Result<RegionList, ClientError> {
        let request = ListRegionsRequest { node_id, allow_follower: true };
        let call = |channel| collect_regions(self.stub(channel), request, self.caller.first_answer());
        self.caller.on_replica_within(self.caller.limit, "list regions", addr, call).await
    }

    /// All nodes, of every role.
    pub async fn list_nodes(&self) -> Result<NodeList, ClientError> {
        let request = ListNodesRequest { allow_follower: false };
        let call = |channel| collect_nodes(self.stub(channel), request, self.caller.limit);
        self.caller.on_leader("list nodes", Repeat::Harmless, call).await
    }

    /// The same, as the replica at `addr` has seen them in the store, if it does not lead.
    pub async fn nodes_seen_by(&self, addr: &str) -> Result<NodeList, ClientError> {
        let request = ListNodesRequest { allow_follower: true };
        let call = |channel| collect_nodes(self.stub(channel), request, self.caller.first_answer());
        self.caller.on_replica_within(self.caller.limit, "list nodes", addr, call).await
    }

    /// Asks the leader to give up leadership, to the replica named `to` if that is not empty; returns the term that
    /// ended. Never repeated once it was sent: the next leader would be asked to give up as well.
    pub async fn transfer_leadership(&self, to: &str, reason: &str) -> Result<u64, ClientError> {
        let call = |channel| {
            let mut stub = self.stub(channel);
            let request = TransferLeadershipRequest { reason: reason.to_owned(), to: to.to_owned() };
            async move { Ok(stub.transfer_leadership(request).await?.into_inner().term) }
        };
        self.caller.on_leader("transfer leadership", Repeat::Never, call).await
    }

    /// The replicas, as the first one that answers knows them. Needs no leader.
    pub async fn list_members(&self) -> Result<Vec<Member>, ClientError> {
        let mut asked: FuturesUnordered<_> =
            self.caller.client.peers().iter().map(|peer| self.members_of(peer)).collect();
        let mut why = Vec::new();
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(members) => return Ok(members),
                Err(error) => why.push(error.to_string()),
            }
        }
        Err(ClientError::NobodyReachable { why: why.join("; ") })
    }

    /// The replicas, as the one at `addr` knows them.
    pub async fn members_of(&self, addr: &str) -> Result<Vec<Member>, ClientError> {
        let call = |channel| {
            let mut stub = self.stub(channel);
            async move { Ok(stub.list_members(ListMembersRequest {}).await?.into_inner().members) }
        };
        self.caller.on_replica("list members", addr, call).await
    }

    /// The status of the replica at `addr`, whatever its role.
    pub async fn status_of(&self, addr: &str) -> Result<GetStatusResponse, ClientError> {
        let call = |channel| {
            let mut stub = self.stub(channel);
            async move { Ok(stub.get_status(GetStatusRequest { allow_follower: true }).await?.into_inner()) }
        };
        self.caller.on_replica("get status", addr, call).await
    }

    /// The status of every configured replica, asked all at once, in the configured order.
    pub async fn status(&self) -> Vec<(String, Result<GetStatusResponse, ClientError>)> {
        let peers = self.caller.client.peers();
        let all = peers.iter().map(|peer| async move { (peer.clone(), self.status_of(peer).await) });
        futures_util::future::join_all(all).await
    }

    fn stub(&self, channel: Channel) -> Stub<Channel> {
        let largest = self.caller.largest_message();
        Stub::new(channel).max_decoding_message_size(largest).max_encoding_message_size(largest)
    }
}

async fn collect_regions(
    mut stub: Stub<Channel>,
    request: ListRegionsRequest,
    first_answer: Duration,
) -> Result<RegionList, Status> {
    let begun = stub.list_regions(request);
    let read = |part: ListRegionsResponse| (part.regions, part.term, part.follower);
    let (regions, term, follower) = collect(begun, first_answer, read).await?;
    Ok(RegionList { regions, term, follower })
}

async fn collect_nodes(
    mut stub: Stub<Channel>,
    request: ListNodesRequest,
    first_answer: Duration,
) -> Result<NodeList, Status> {
    let begun = stub.list_nodes(request);
    let read = |part: ListNodesResponse| (part.nodes, part.term, part.follower);
    let (nodes, term, follower) = collect(begun, first_answer, read).await?;
    Ok(NodeList { nodes, term, follower })
}

/// A list that comes in parts, whole: its items, and the term and the view that its last part names.
async fn collect<P, I>(
    begun: impl Future<Output = Result<Response<Streaming<P>>, Status>>,
    first_answer: Duration,
    read: impl Fn(P) -> (Vec<I>, u64, Option<FollowerView>),
) -> Result<(Vec<I>, u64, Option<FollowerView>), Status> {
    let begun = tokio::time::timeout(first_answer, begun).await;
    let mut parts = begun.map_err(|_| late())??.into_inner();
    let mut list = (Vec::new(), 0, None);
    while let Some(part) = parts.message().await? {
        let (items, term, follower) = read(part);
        list.0.extend(items);
        (list.1, list.2) = (term, follower);
        check_length(list.0.len())?;
    }
    Ok(list)
}

fn late() -> Status {
    Status::deadline_exceeded("it does not begin to answer")
}

fn check_length(length: usize) -> Result<(), Status> {
    if length > MOST_LISTED {
        return Err(Status::resource_exhausted(format!("the list is longer than {MOST_LISTED}")));
    }
    Ok(())
}
