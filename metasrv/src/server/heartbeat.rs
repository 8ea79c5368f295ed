//! The `Heartbeat` service: who leads, and a stream for each node.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use metasrv_core::id::Term;
use metasrv_core::time::Clock;
use metasrv_proto::meta::heartbeat_server::Heartbeat;
use metasrv_proto::meta::{AskLeaderRequest, AskLeaderResponse, HeartbeatRequest, HeartbeatResponse};
use metasrv_proto::{PROTOCOL_VERSION, meta};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::limits;
use super::stream;
use crate::dial::Dialer;
use crate::election::ElectionHandle;
use crate::faults::Faults;
use crate::handler::{HeartbeatHandlerGroup, KnownLeader};
use crate::leader::Leader;
use crate::metrics::Metrics;
use crate::mirror::Mirror;
use crate::observer::View;
use crate::wire;

/// A question for the leader waits so long for one to be known. Below the deadline after which a node asks the next
/// replica anyway, and several times as long as a change of leader takes.
const KNOWN_PATIENCE: Duration = Duration::from_millis(100);

/// A node that comes to a replica which has won and does not lead yet waits so long. A takeover takes some milliseconds,
/// or a list of the whole state.
const TAKEOVER_PATIENCE: Duration = Duration::from_millis(500);

/// What every stream shares.
pub struct Shared {
    /// The line of handlers, the pushers, the mailbox.
    pub group: HeartbeatHandlerGroup,
    /// What this replica has as leader.
    pub leader: watch::Receiver<Option<Arc<Leader>>>,
    /// Who leads, as seen in the store.
    pub view: watch::Receiver<View>,
    /// What this replica has seen in the store while it does not lead; none in embedded mode.
    pub mirror: Option<Mirror>,
    /// Where `now` comes from.
    pub clock: Arc<dyn Clock>,
    /// How other replicas are reached.
    pub dialer: Dialer,
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// The pulse of this replica's election; absent in embedded mode.
    pub election: Option<ElectionHandle>,
    /// Faults that somebody asked for; none in a replica that was not started for that.
    pub faults: Faults,
}

impl Shared {
    /// The leader that the store shows, where it is another replica. Whether this one leads it knows better itself:
    /// while the store cannot be read, the last thing seen there may be that we did.
    pub fn other_leader(&self) -> Option<KnownLeader> {
        let view = self.view.borrow();
        let own = view.own_addr.as_deref();
        view.leader.clone().filter(|known| Some(known.addr.as_str()) != own)
    }

    /// Waits for a leader of a later term than this to become known, or this replica to lead, for a moment: between two
    /// leaders an answer that comes a little later spares a node its next question.
    async fn later_leader(&self, failed: Term) {
        let (mut leader, mut view) = (self.leader.clone(), self.view.clone());
        let known = async {
            tokio::select! {
                _ = leader.wait_for(Option::is_some) => {}
                _ = view.wait_for(|view| view.leader_after(failed).is_some()) => {}
            }
        };
        if tokio::time::timeout(KNOWN_PATIENCE, known).await.is_err() {
            tracing::trace!(%failed, "no later leader is known yet");
        }
    }

    /// What this replica has as leader; waits where it is about to have it.
    pub async fn leading_soon(&self) -> Option<Arc<Leader>> {
        if let Some(election) = self.election.as_ref().filter(|_| self.leading().is_none()) {
            election.taken_over(TAKEOVER_PATIENCE).await;
        }
        self.leading()
    }

    /// What this replica has as leader, if it leads at this instant.
    pub fn leading(&self) -> Option<Arc<Leader>> {
        self.leader.borrow().clone().filter(|leader| leader.leads(self.clock.now()))
    }
}

/// The service.
pub struct HeartbeatService {
    shared: Arc<Shared>,
}

impl HeartbeatService {
    /// Over what every stream shares.
    pub fn new(shared: Arc<Shared>) -> HeartbeatService {
        HeartbeatService { shared }
    }
}

type ResponseStream = Pin<Box<dyn futures_util::Stream<Item = Result<HeartbeatResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Heartbeat for HeartbeatService {
    type HeartbeatStream = ResponseStream;

    async fn heartbeat(
        &self,
        request: Request<Streaming<HeartbeatRequest>>,
    ) -> Result<Response<ResponseStream>, Status> {
        Ok(Response::new(Box::pin(stream::open(Arc::clone(&self.shared), request.into_inner()))))
    }

    async fn ask_leader(
        &self,
        request: Request<AskLeaderRequest>,
    ) -> Result<Response<AskLeaderResponse>, Status> {
        let (header, node) = limits::header(request.get_ref().header.as_ref())?;
        let failed = Term(request.get_ref().failed_term);
        let is_later = |known: &KnownLeader| known.term > failed;
        if self.shared.leading_soon().await.is_none()
            && !self.shared.other_leader().as_ref().is_some_and(is_later)
        {
            self.shared.later_leader(failed).await;
        }
        let (leading, other) = (self.shared.leading_soon().await, self.shared.other_leader());
        if let Some(leader) = leading.as_ref().filter(|leader| leader.installation() == header.installation) {
            // A node that refuses our term opens no stream: it is heard here.
            limits::term(header, leader.term())?;
            leader.hear_of_term(Term(header.term));
        }
        let seen = self.shared.view.borrow().leader.as_ref().map_or(Term(0), |known| known.term);
        let (term, installation) = match &leading {
            Some(leader) => (leader.term(), leader.installation()),
            None => (seen, 0),
        };
        let header = meta::ResponseHeader {
            protocol_version: PROTOCOL_VERSION,
            cluster_id: node.cluster.0,
            term: term.0,
            installation,
            ..Default::default()
        };
        let standing = self.shared.mirror.as_ref().filter(|_| leading.is_none()).and_then(Mirror::standing);
        let revision = standing.map_or(0, |standing| standing.revision);
        let leader = match leading {
            Some(_) => self.shared.view.borrow().own_addr.clone(),
            None => other.map(|other| other.addr),
        };
        Ok(Response::new(AskLeaderResponse {
            header: Some(header),
            leader: leader.as_deref().map(wire::peer),
            revision,
        }))
    }
}
