//! The calls of operators and tools.
//!
//! The leader is found as for heartbeats. What is certainly not done (a replica does not lead, a connection could not
//! be opened) is tried again until the deadline. A change whose answer was lost is **not** repeated: it may have been
//! done, and creating regions twice is no retry. The caller is told so by [`ClientError::Unknown`].

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
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Response, Status, Streaming};

use crate::client::{Leader, MetaClient};
use crate::error::{ClientError, describe};

/// Where a replica that does not lead says who does.
const LEADER_KEY: &str = "metasrv-leader";

/// When no replica answers at all, waiting longer helps only if one is just being restarted.
const NOBODY_PATIENCE: Duration = Duration::from_secs(3);

/// Longest list that is collected: ten times what the largest known installations hold.
const MOST_LISTED: usize = 10_000_000;

/// Calls to metasrv's `Admin` service. Clones are cheap.
#[derive(Clone)]
pub struct AdminClient {
    client: MetaClient,
    limit: Duration,
}

/// The regions at one moment.
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

/// What a second attempt would do after an answer was lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// The same: it only reads.
    Harmless,
    /// Perhaps twice what was asked.
    Never,
}

/// Why one attempt failed.
enum Failure {
    /// Certainly not done, and another attempt may succeed.
    Again(ClientError),
    /// No further attempt.
    Final(ClientError),
}

impl AdminClient {
    pub(crate) fn new(client: MetaClient) -> AdminClient {
        let limit = client.config().timeouts.admin;
        AdminClient { client, limit }
    }

    /// The same calls with another deadline, counted from the beginning of each.
    pub fn with_deadline(self, limit: Duration) -> AdminClient {
        AdminClient { limit, ..self }
    }

    /// Creates regions and returns them. Never repeated once it was sent.
    pub async fn create_regions(&self, request: CreateRegionsRequest) -> Result<Vec<Region>, ClientError> {
        let call = |mut stub: Stub<Channel>| {
            let request = request.clone();
            async move { Ok(stub.create_regions(request).await?.into_inner().regions) }
        };
        self.on_leader("create regions", Repeat::Never, call).await
    }

    /// All regions, or those that the routes give to one node.
    pub async fn list_regions(&self, node_id: Option<u64>) -> Result<RegionList, ClientError> {
        let request = ListRegionsRequest { node_id, allow_follower: false };
        let call = |stub: Stub<Channel>| collect_regions(stub, request, self.limit);
        self.on_leader("list regions", Repeat::Harmless, call).await
    }

    /// The same, as the replica at `addr` has seen them in the store, if it does not lead.
    pub async fn regions_seen_by(&self, addr: &str, node_id: Option<u64>) -> Result<RegionList, ClientError> {
        let request = ListRegionsRequest { node_id, allow_follower: true };
        let call = |stub: Stub<Channel>| collect_regions(stub, request, self.first_answer());
        self.on_replica_within(self.limit, "list regions", addr, call).await
    }

    /// All nodes, of every role.
    pub async fn list_nodes(&self) -> Result<NodeList, ClientError> {
        let request = ListNodesRequest { allow_follower: false };
        let call = |stub: Stub<Channel>| collect_nodes(stub, request, self.limit);
        self.on_leader("list nodes", Repeat::Harmless, call).await
    }

    /// The same, as the replica at `addr` has seen them in the store, if it does not lead.
    pub async fn nodes_seen_by(&self, addr: &str) -> Result<NodeList, ClientError> {
        let request = ListNodesRequest { allow_follower: true };
        let call = |stub: Stub<Channel>| collect_nodes(stub, request, self.first_answer());
        self.on_replica_within(self.limit, "list nodes", addr, call).await
    }

    /// Asks the leader to give up leadership, to the replica named `to` if that is not empty; returns the term that
    /// ended. Never repeated once it was sent: the next
    /// leader would be asked to give up as well.
    pub async fn transfer_leadership(&self, to: &str, reason: &str) -> Result<u64, ClientError> {
        let call = |mut stub: Stub<Channel>| {
            let request = TransferLeadershipRequest { reason: reason.to_owned(), to: to.to_owned() };
            async move { Ok(stub.transfer_leadership(request).await?.into_inner().term) }
        };
        self.on_leader("transfer leadership", Repeat::Never, call).await
    }

    /// The replicas, as the first one that answers knows them. Needs no leader.
    pub async fn list_members(&self) -> Result<Vec<Member>, ClientError> {
        let mut asked: FuturesUnordered<_> =
            self.client.peers().iter().map(|peer| self.members_of(peer)).collect();
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
        let call = |mut stub: Stub<Channel>| async move {
            Ok(stub.list_members(ListMembersRequest {}).await?.into_inner().members)
        };
        self.on_replica("list members", addr, call).await
    }

    /// The status of the replica at `addr`, whatever its role.
    pub async fn status_of(&self, addr: &str) -> Result<GetStatusResponse, ClientError> {
        let call = |mut stub: Stub<Channel>| async move {
            Ok(stub.get_status(GetStatusRequest { allow_follower: true }).await?.into_inner())
        };
        self.on_replica("get status", addr, call).await
    }

    /// The status of every configured replica, asked all at once, in the configured order.
    pub async fn status(&self) -> Vec<(String, Result<GetStatusResponse, ClientError>)> {
        let peers = self.client.peers();
        let all = peers.iter().map(|peer| async move { (peer.clone(), self.status_of(peer).await) });
        futures_util::future::join_all(all).await
    }

    async fn on_replica<T, F>(
        &self,
        what: &'static str,
        addr: &str,
        call: impl FnOnce(Stub<Channel>) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        self.on_replica_within(self.first_answer(), what, addr, call).await
    }

    /// One replica is given up when it has not begun to answer after this time.
    fn first_answer(&self) -> Duration {
        self.client.config().timeouts.ask.min(self.limit)
    }

    async fn on_replica_within<T, F>(
        &self,
        limit: Duration,
        what: &'static str,
        addr: &str,
        call: impl FnOnce(Stub<Channel>) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let lent = self.client.channels().get(addr)?;
        match tokio::time::timeout(limit, call(self.stub(lent.channel.clone()))).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(status)) => {
                self.client.channels().forget(&lent);
                Err(ClientError::transport(addr, &status))
            }
            Err(_) => {
                self.client.channels().forget(&lent);
                Err(ClientError::TimedOut { what, after: limit, why: format!("{addr} does not answer") })
            }
        }
    }

    async fn on_leader<T, F>(
        &self,
        what: &'static str,
        repeat: Repeat,
        call: impl Fn(Stub<Channel>) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let started = Instant::now();
        let mut waits = self.client.config().back_off.start();
        loop {
            let left = self.limit.saturating_sub(started.elapsed());
            let error = match self.attempt(what, repeat, left, &call).await {
                Ok(value) => return Ok(value),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Again(error)) => error,
            };
            let given_up = match &error {
                ClientError::NobodyReachable { .. } => NOBODY_PATIENCE.min(self.limit),
                _ => self.limit,
            };
            let wait = if error.names_leader() { Duration::from_millis(1) } else { waits.next_wait() };
            if started.elapsed() + wait >= given_up {
                return Err(match error {
                    ClientError::NobodyReachable { .. } | ClientError::NoLeader { .. } => error,
                    other => ClientError::TimedOut { what, after: self.limit, why: other.to_string() },
                });
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt<T, F>(
        &self,
        what: &'static str,
        repeat: Repeat,
        left: Duration,
        call: impl Fn(Stub<Channel>) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let leader = match self.client.leader() {
            Some(leader) => leader,
            None => self.client.ask_leader().await.map_err(Failure::Again)?,
        };
        // A connection of its own: if it cannot be opened, then nothing was sent.
        let channel = match self.client.channels().connect(&leader.addr).await {
            Ok(channel) => channel,
            Err(error) => {
                self.client.forget_leader(&leader);
                return Err(Failure::Again(error));
            }
        };
        match tokio::time::timeout(left, call(self.stub(channel))).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(status)) if status.code() == Code::FailedPrecondition => {
                Err(self.refused(&leader, &status).await)
            }
            Ok(Err(status)) => {
                let failure = judge(what, repeat, &leader, &status);
                if matches!(failure, Failure::Again(_)) {
                    self.client.forget_leader(&leader);
                }
                Err(failure)
            }
            Err(_) => {
                self.client.forget_leader(&leader);
                let why = format!("{} did not answer in time", leader.addr);
                Err(Failure::Final(match repeat {
                    Repeat::Harmless => ClientError::TimedOut { what, after: self.limit, why },
                    Repeat::Never => ClientError::Unknown { what, why },
                }))
            }
        }
    }

    /// FAILED_PRECONDITION is said by a replica that does not lead, and by a leader that will not do it. Where the
    /// metadata does not tell, the other replicas do: the leader's own refusal is final.
    async fn refused(&self, asked: &Leader, status: &Status) -> Failure {
        let named =
            status.metadata().get(LEADER_KEY).map(|value| value.to_str().unwrap_or_default().to_owned());
        let not_leader = |leader: Option<String>| {
            Failure::Again(ClientError::NotLeader { addr: asked.addr.clone(), leader, term: asked.term })
        };
        self.client.forget_leader(asked);
        if let Some(named) = named {
            let followed = named != asked.addr && self.client.hint(&named, self.client.highest_term());
            return not_leader(Some(named).filter(|_| followed));
        }
        match self.client.ask_leader().await {
            Ok(leader) if leader == *asked && !speaks_of_leadership(status) => {
                Failure::Final(ClientError::Refused(status.message().to_owned()))
            }
            Ok(leader) if leader != *asked => not_leader(Some(leader.addr)),
            _ => not_leader(None),
        }
    }

    fn stub(&self, channel: Channel) -> Stub<Channel> {
        let largest = self.client.config().max_message_bytes;
        Stub::new(channel).max_decoding_message_size(largest).max_encoding_message_size(largest)
    }
}

/// A replica that lost leadership a moment ago may still be named by the others.
fn speaks_of_leadership(status: &Status) -> bool {
    status.message().contains("does not lead")
}

/// What a failed call means for the change it asked for.
fn judge(what: &'static str, repeat: Repeat, leader: &Leader, status: &Status) -> Failure {
    let message = || status.message().to_owned();
    // A status that the leader sent has no cause on this side; a broken connection has one.
    let said_by_leader = std::error::Error::source(status).is_none();
    match status.code() {
        Code::NotFound => Failure::Final(ClientError::NotFound(message())),
        Code::InvalidArgument | Code::OutOfRange => Failure::Final(ClientError::InvalidArgument(message())),
        Code::ResourceExhausted | Code::AlreadyExists | Code::PermissionDenied | Code::Unauthenticated => {
            Failure::Final(ClientError::Refused(message()))
        }
        Code::Unimplemented => Failure::Final(ClientError::Refused(describe(status))),
        Code::Unavailable if said_by_leader && repeat == Repeat::Never => {
            Failure::Final(ClientError::Failed(message()))
        }
        _ if repeat == Repeat::Harmless => Failure::Again(ClientError::transport(&leader.addr, status)),
        _ => Failure::Final(ClientError::Unknown {
            what,
            why: format!("{}: {}", leader.addr, describe(status)),
        }),
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
