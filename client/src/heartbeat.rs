//! One heartbeat stream: the handshake, and the two halves that it leaves behind.
//!
//! The first response is awaited before the stream is handed out, so that "I do not lead" or "a newer process of this
//! node is known" is an error of [`MetaClient::heartbeat`], not a surprise later. A stream that gave an error, ended, or
//! spoke for a lower term is given up for good: nothing that still arrives on it is heard.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metasrv_proto::admin::Capability;
use metasrv_proto::meta::heartbeat_client::HeartbeatClient;
use metasrv_proto::meta::{HeartbeatRequest, HeartbeatResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tracing::debug;

use crate::channels::Lent;
use crate::client::{Leader, MetaClient};
use crate::error::ClientError;
use crate::suspicion::Suspicion;
use crate::unanswered::Unanswered;

/// Requests that wait for the connection: one a second at the usual interval and the replies to instructions. If as
/// many wait, the peer has not read for seconds, and the next one fails at its deadline.
const QUEUE: usize = 16;

impl MetaClient {
    /// Opens a stream to the leader, which is asked for if it is not known. `handshake` is sent as the first request,
    /// with its header and sequence filled in; the stream yields its response first.
    ///
    /// Fails within the `handshake` deadline, earlier if another replica becomes leader meanwhile. After a failure the
    /// next call asks again who leads, or follows the hint that was given.
    pub async fn heartbeat(
        &self,
        handshake: HeartbeatRequest,
    ) -> Result<(HeartbeatSender, HeartbeatStream), ClientError> {
        let leader = match self.leader() {
            Some(leader) => leader,
            None => self.ask_leader().await?,
        };
        let lent = self.channels().get(&leader.addr)?;
        let opened = tokio::select! {
            biased;
            opened = self.open(&leader, &lent, handshake) => opened,
            other = self.other_leader(&leader) => {
                self.channels().forget(&lent);
                return Err(ClientError::LeaderChanged { addr: other.addr, term: other.term });
            }
        };
        if let Err(error) = &opened {
            self.learn_from(error, &leader, &lent);
        }
        opened
    }

    async fn open(
        &self,
        leader: &Leader,
        lent: &Lent,
        handshake: HeartbeatRequest,
    ) -> Result<(HeartbeatSender, HeartbeatStream), ClientError> {
        let limit = self.config().timeouts.handshake;
        let (sender, mut stream) =
            match tokio::time::timeout(limit, self.shake_hands(leader, lent, handshake)).await {
                Ok(opened) => opened?,
                Err(_) => {
                    let why = format!("no response to the handshake within {limit:?}");
                    return Err(ClientError::Transport { addr: leader.addr.clone(), why });
                }
            };
        stream.leader.term = stream.leader.term.max(self.highest_term());
        self.remember(stream.leader.clone());
        debug!(leader = leader.addr, term = stream.leader.term, "heartbeat stream opened");
        Ok((sender, stream))
    }

    async fn shake_hands(
        &self,
        leader: &Leader,
        lent: &Lent,
        handshake: HeartbeatRequest,
    ) -> Result<(HeartbeatSender, HeartbeatStream), ClientError> {
        let largest = self.config().max_message_bytes;
        let mut stub = HeartbeatClient::new(lent.channel.clone())
            .max_decoding_message_size(largest)
            .max_encoding_message_size(largest);
        let (requests, queue) = mpsc::channel(QUEUE);
        let unanswered = Unanswered::new();
        let mut sender = HeartbeatSender {
            client: self.clone(),
            requests,
            sequence: 0,
            limit: self.config().timeouts.send,
            addr: leader.addr.clone(),
            unanswered: unanswered.clone(),
        };
        sender.send(handshake).await?;
        let responses = stub.heartbeat(ReceiverStream::new(queue)).await;
        let responses =
            responses.map_err(|status| ClientError::transport(&leader.addr, &status))?.into_inner();
        let mut stream = HeartbeatStream {
            client: self.clone(),
            leader: leader.clone(),
            lent: lent.clone(),
            first: None,
            understood: Vec::new(),
            responses: Some(responses),
            unanswered,
        };
        let first = stream.receive().await?;
        stream.understood.clone_from(&first.capabilities);
        stream.first = Some(first);
        Ok((sender, stream))
    }

    /// What a failed stream says about where to go next.
    pub(crate) fn learn_from(&self, error: &ClientError, leader: &Leader, lent: &Lent) {
        match error {
            ClientError::NotLeader { leader: named, term, .. } => {
                self.forget_leader(leader);
                if let Some(named) = named.as_deref().filter(|named| *named != leader.addr) {
                    self.hint(named, *term);
                }
            }
            ClientError::StaleIncarnation { .. } | ClientError::Superseded { .. } => {}
            _ => {
                self.forget_leader(leader);
                self.channels().forget(lent);
            }
        }
    }
}

/// The requests' half of a stream.
pub struct HeartbeatSender {
    client: MetaClient,
    requests: mpsc::Sender<HeartbeatRequest>,
    sequence: u64,
    limit: Duration,
    addr: String,
    unanswered: Unanswered,
}

impl HeartbeatSender {
    /// Numbers a request, fills its header, and hands it to the connection; returns its number. An error, also the
    /// passing of the `send` deadline because the peer does not read, means that the stream is to be given up.
    pub async fn send(&mut self, mut request: HeartbeatRequest) -> Result<u64, ClientError> {
        request.header = Some(self.client.request_header());
        request.sequence = self.sequence + 1;
        // Before it is handed over: a peer that does not read does not answer either.
        self.unanswered.send(request.sequence);
        match tokio::time::timeout(self.limit, self.requests.send(request)).await {
            Ok(Ok(())) => {
                self.sequence += 1;
                Ok(self.sequence)
            }
            Ok(Err(_)) => Err(ClientError::Ended { addr: self.addr.clone() }),
            Err(_) => {
                let why = format!("does not read: a request waited for {:?}", self.limit);
                Err(ClientError::Transport { addr: self.addr.clone(), why })
            }
        }
    }

    /// The number of the last request that was sent.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

/// The responses' half of a stream.
pub struct HeartbeatStream {
    client: MetaClient,
    leader: Leader,
    lent: Lent,
    first: Option<HeartbeatResponse>,
    /// What the handshake named, and the leader understands.
    understood: Vec<i32>,
    /// `None` once the stream was given up.
    responses: Option<Streaming<HeartbeatResponse>>,
    unanswered: Unanswered,
}

impl HeartbeatStream {
    /// The next response: first the one to the handshake. Any error is the last thing this stream yields, apart from
    /// [`ClientError::Ended`] again; the client then knows that it has to ask again who leads. Dropping the future
    /// loses nothing.
    pub async fn next(&mut self) -> Result<HeartbeatResponse, ClientError> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        let received = self.receive().await;
        if let Err(error) = &received
            && self.responses.take().is_some()
        {
            self.client.learn_from(error, &self.leader, &self.lent);
        }
        received
    }

    /// The leader at the other end.
    pub fn leader(&self) -> &Leader {
        &self.leader
    }

    /// Whether the handshake named this capability, and the leader at the other end has it.
    pub fn understands(&self, capability: Capability) -> bool {
        self.understood.contains(&i32::from(capability))
    }

    /// Judges the leader at the other end by what it does not answer.
    pub fn suspicion(&self) -> Suspicion {
        Suspicion::new(self.client.clone(), self.leader.clone(), self.lent.clone(), self.unanswered.clone())
    }

    async fn receive(&mut self) -> Result<HeartbeatResponse, ClientError> {
        let addr = &self.leader.addr;
        let ended = || ClientError::Ended { addr: addr.clone() };
        let responses = self.responses.as_mut().ok_or_else(ended)?;
        let response = match responses.message().await {
            Ok(Some(response)) => response,
            Ok(None) => return Err(ended()),
            Err(status) => return Err(ClientError::transport(addr, &status)),
        };
        self.client.judge(addr, response.header.as_ref())?;
        self.unanswered.answer(&response);
        self.client.keep_standby_near(&response);
        Ok(response)
    }
}

/// Milliseconds since 1970. They order the processes of a node (`node_epoch`), and nothing else is decided by them.
pub fn wall_clock_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}
