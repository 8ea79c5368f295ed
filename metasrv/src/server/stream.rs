//! One node's stream: request after request through the line of handlers, until one side ends it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use metasrv_core::id::{Incarnation, NodeKey, Role, Term};
use metasrv_core::time::BootTime;
use metasrv_proto::admin::{Capability, DirectoryLock};
use metasrv_proto::code;
use metasrv_proto::meta::{HeartbeatConfig, HeartbeatRequest, HeartbeatResponse};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::admission::Peer;
use super::farewell::{self, End};
use super::heartbeat::Shared;
use super::limits::{self, Fixed};
use crate::clock::wall_clock_ms;
use crate::handler::Context;
use crate::leader::{Identity, Leader};
use crate::observer::View;
use crate::pusher::{PusherId, Replaced, ResponseSender};
use crate::wire;

/// Responses on their way to one node: one per request and a few instructions. A node that lets them pile up does
/// not read, and is told nothing more until it does.
const RESPONSES: usize = 32;

/// Whoever opens a stream and says nothing for so long is no node; the first request goes out with the stream.
const FIRST_REQUEST: Duration = Duration::from_secs(5);

/// A node that does not read for so long loses its stream.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// A heartbeat waits so long for the store to record its process.
const RECORD_PATIENCE: Duration = Duration::from_secs(1);

/// Least time between two attempts of a node to connect.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Begins to serve a stream; returns its responses.
pub fn open(
    shared: Arc<Shared>,
    who: Peer,
    requests: Streaming<HeartbeatRequest>,
) -> impl futures_util::Stream<Item = Result<HeartbeatResponse, Status>> + Send + use<> {
    let (sender, responses) = mpsc::channel(RESPONSES);
    // It ends with its requests, its reader, or its term; tonic drops the responses when the node is gone.
    let queue = shared.view.clone();
    tokio::spawn(Stream { shared, who, sender, session: None, counted: false, queue }.run(requests));
    ReceiverStream::new(responses).map(|response| response.map(|response| *response))
}

/// One node's stream.
struct Stream {
    shared: Arc<Shared>,
    /// Whom the certificate of its connection names.
    who: Peer,
    sender: ResponseSender,
    session: Option<Session>,
    /// It is a node's, by its first request, and not a replica's that sends probes.
    counted: bool,
    /// The queue of replicas, as far as this node was told of it.
    queue: watch::Receiver<View>,
}

/// What the first message made of a stream.
pub struct Session {
    /// The leader of the term that it lasts for.
    pub leader: Arc<Leader>,
    /// The node, with the id it was given.
    pub node: NodeKey,
    /// What later messages must repeat.
    pub fixed: Fixed,
    /// The process was the current one of its node on this stream.
    pub was_current: bool,
    /// The replica that it was told is next to lead.
    standby: Option<String>,
    /// When its last request came.
    heard_at: BootTime,
    /// The interval that its node was told last; zero: none yet.
    told_interval: Duration,
    /// What the process holds in the kernel, as it said when it came.
    lock: Option<DirectoryLock>,
    pusher: Option<(PusherId, Replaced)>,
}

impl Stream {
    async fn run(mut self, requests: Streaming<HeartbeatRequest>) {
        let end = self.serve(requests).await;
        let node = self.session.as_ref().map(|session| session.node.to_string());
        // Before the last word, which a node that does not read can hold up: nothing is pushed to it any more.
        self.unregister();
        let last = match end {
            End::Closed => None,
            End::Refused(status) => {
                tracing::warn!(node, code = ?status.code(), why = status.message(), "heartbeat refused");
                let reason = farewell::reason(&status);
                self.shared.metrics.heartbeat_refused.with_label_values(&[reason]).inc();
                Some(Err(status))
            }
            End::Told(response) => Some(Ok(response)),
        };
        if let Some(last) = last {
            // Nobody is left to be told where this fails.
            let _ = tokio::time::timeout(WRITE_TIMEOUT, self.sender.send(last)).await;
        }
        if self.counted {
            self.shared.metrics.streams.dec();
        }
    }

    fn unregister(&mut self) {
        let Some(session) = self.session.take() else { return };
        if let Some((id, _)) = session.pusher {
            if self.shared.group.pushers().unregister(&session.node, id) {
                session.leader.left(&session.node);
            }
            self.shared.metrics.pushers.with_label_values(&[session.node.role.name()]).dec();
            tracing::info!(term = %session.leader.term(), node = %session.node, "disconnected");
        }
    }

    async fn serve(&mut self, mut requests: Streaming<HeartbeatRequest>) -> End {
        loop {
            let request = match self.next(&mut requests).await {
                Ok(request) => request,
                Err(end) => return end,
            };
            self.shared.faults.hold_here(self.shared.clock.as_ref()).await;
            if request.probe {
                let response = match self.probe(&request) {
                    Ok(response) => response,
                    Err(end) => return end,
                };
                // A prober that does not read is gone.
                if self.sender.try_send(Ok(Box::new(response))).is_err() {
                    return End::Closed;
                }
                continue;
            }
            if !self.counted {
                self.counted = true;
                self.shared.metrics.streams.inc();
            }
            let started = self.shared.clock.now();
            if let Some(session) = &mut self.session {
                session.heard_at = started;
                if session.leader.hands_over() {
                    return farewell::term_ended(session, self.shared.view.clone()).await;
                }
            }
            match self.answer(&request).await {
                Ok(response) => {
                    let ends = response.header.as_ref().is_some_and(|header| header.error.is_some());
                    if let Some(session) = &self.session {
                        let result = if ends { "error" } else { "ok" };
                        self.shared
                            .metrics
                            .heartbeats
                            .with_label_values(&[session.node.role.name(), result])
                            .inc();
                        if !ends {
                            session.leader.answered();
                        }
                    }
                    let took = self.shared.clock.now().since(started);
                    self.shared.metrics.heartbeat_duration.observe(took.as_secs_f64());
                    if ends {
                        return End::Told(Box::new(response));
                    }
                    match tokio::time::timeout(WRITE_TIMEOUT, self.sender.send(Ok(Box::new(response)))).await
                    {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return End::Closed,
                        Err(_) => {
                            return End::Refused(Status::deadline_exceeded(
                                "the node does not read its responses",
                            ));
                        }
                    }
                }
                Err(end) => return end,
            }
        }
    }

    /// The next request, unless the term, the node's claim to its id, or the connection ends before it comes.
    async fn next(&mut self, requests: &mut Streaming<HeartbeatRequest>) -> Result<HeartbeatRequest, End> {
        let received = match &mut self.session {
            None => match tokio::time::timeout(FIRST_REQUEST, requests.message()).await {
                Ok(received) => received,
                Err(_) => {
                    let why = format!("no request came within {FIRST_REQUEST:?}");
                    return Err(End::Refused(Status::deadline_exceeded(why)));
                }
            },
            Some(session) => {
                let replaced = async {
                    match &mut session.pusher {
                        Some((_, replaced)) => replaced.await.ok(),
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    () = session.leader.ended() => {
                        let since = self.shared.clock.now().since(session.heard_at);
                        let turn = farewell::turn(since, session.leader.heartbeat_interval());
                        tokio::select! {
                            // Nor longer than until it has something to say.
                            _ = requests.message() => {}
                            () = tokio::time::sleep(turn) => {}
                        }
                        return Err(farewell::term_ended(session, self.shared.view.clone()).await);
                    }
                    by = replaced => return Err(farewell::replaced(session, by)),
                    () = self.sender.closed() => return Err(End::Closed),
                    received = requests.message() => received,
                }
            }
        };
        match received {
            Ok(Some(request)) => Ok(request),
            Ok(None) => Err(End::Closed),
            Err(status) if status.code() == tonic::Code::OutOfRange => {
                let limit = limits::MESSAGE_BYTES;
                let why = format!("message (bytes): at most {limit} are accepted: {}", status.message());
                Err(End::Refused(Status::resource_exhausted(why)))
            }
            Err(status) if matches!(status.code(), tonic::Code::Internal) => {
                Err(End::Refused(Status::invalid_argument(format!("message: {}", status.message()))))
            }
            Err(_) => Err(End::Closed),
        }
    }

    async fn answer(&mut self, request: &HeartbeatRequest) -> Result<HeartbeatResponse, End> {
        let (header, sent) = limits::header(request.header.as_ref()).map_err(End::Refused)?;
        let first = self.session.is_none();
        if first {
            self.shared.admission.node(&self.who, &sent).map_err(End::Refused)?;
            let leading = self.shared.leading_soon().await;
            let Some(leader) = leading else { return self.not_leader(request, sent) };
            if header.installation != 0 && header.installation != leader.installation() {
                return Ok(farewell::other_installation(&sent, &leader, header.installation));
            }
            let node = assign(&leader, sent)?;
            let fixed = Fixed { sent, process: None, begun: false, last_duration_ms: 0 };
            let heard_at = self.shared.clock.now();
            self.session = Some(Session {
                leader,
                node,
                fixed,
                heard_at,
                told_interval: Duration::ZERO,
                standby: None,
                lock: None,
                pusher: None,
                was_current: false,
            });
        }
        let Some(session) = &mut self.session else { return Err(End::Closed) };
        limits::term(header, session.leader.term()).map_err(End::Refused)?;
        if header.installation == session.leader.installation() {
            session.leader.hear_of_term(Term(header.term));
        }
        let node = session.node;
        // An id that was just given is not in the request yet.
        let in_request =
            if sent.role == Role::Frontend && sent.id.0 == 0 { session.fixed.sent } else { sent };
        limits::body(request, &if sent.id.0 == 0 { sent } else { node }).map_err(End::Refused)?;
        session.fixed.follow(request, &in_request, &node).map_err(End::Refused)?;

        if let (Some(process), Some(peer)) = (session.fixed.process, &request.peer) {
            if session.lock.is_none() {
                session.lock.clone_from(&request.directory_lock);
            }
            let lock = session.lock.as_ref();
            match session.leader.identify(&node, process, &peer.addr, lock, RECORD_PATIENCE).await {
                Identity::Current => session.was_current = true,
                Identity::Waiting => {}
                Identity::Stale(known) => return Ok(farewell::stale(session, known)),
            }
        }
        self.register();

        let Some(session) = &self.session else { return Err(End::Closed) };
        let context = self.context(session.node, session.fixed.process, Some(Arc::clone(&session.leader)));
        let mut response = self.handle(request, &context)?;
        if first {
            response.capabilities = understood(&request.capabilities);
        }
        if self.has_news() {
            response.heartbeat_config = self.session.as_ref().map(|session| HeartbeatConfig {
                heartbeat_interval_ms: millis(session.told_interval),
                retry_interval_ms: millis(RETRY_INTERVAL),
                standby: session.standby.as_deref().map(wire::peer),
            });
        }
        Ok(response)
    }

    /// Whether the interval, or the replica that is next to lead, is another one than the node was told; it is told with the
    /// answer to this request.
    fn has_news(&mut self) -> bool {
        let Some(session) = &mut self.session else { return false };
        let interval = session.leader.heartbeat_interval();
        let mut news = std::mem::replace(&mut session.told_interval, interval) != interval;
        if session.standby.is_none() || self.queue.has_changed().unwrap_or_default() {
            let queue = self.queue.borrow_and_update();
            if queue.standby() != session.standby.as_deref() {
                session.standby = queue.standby().map(str::to_owned);
                news = true;
            }
        }
        news
    }

    /// A probe makes no session: it is judged by itself, by the same line of handlers, and by the election's pulse.
    fn probe(&self, request: &HeartbeatRequest) -> Result<HeartbeatResponse, End> {
        self.shared.admission.replica(&self.who).map_err(End::Refused)?;
        let (_, sent) = limits::header(request.header.as_ref()).map_err(End::Refused)?;
        let context = self.context(NodeKey { role: Role::Frontend, ..sent }, None, self.shared.leading());
        let mut response = self.handle(request, &context)?;
        let stands_still = self.shared.election.as_ref().and_then(|election| election.keeps_pace().err());
        if let (Some(why), Some(header)) = (stands_still, &mut response.header) {
            header.error = Some(wire::error(code::STANDS_STILL, why));
        }
        Ok(response)
    }

    fn handle(&self, request: &HeartbeatRequest, context: &Context) -> Result<HeartbeatResponse, End> {
        let handled = self.shared.group.handle(request, context);
        handled.map_err(|error| End::Refused(Status::internal(error.to_string())))
    }

    /// The pusher is registered once per stream: with the first accepted message, which for a datanode is the first
    /// that names its process.
    fn register(&mut self) {
        let Some(session) = self.session.as_mut().filter(|session| session.pusher.is_none()) else { return };
        if session.node.role == Role::Datanode && session.fixed.process.is_none() {
            return;
        }
        let process = session.fixed.process.unwrap_or_default();
        session.pusher =
            Some(self.shared.group.pushers().register(session.node, process, self.sender.clone()));
        session.leader.connected(&session.node);
        self.shared.metrics.pushers.with_label_values(&[session.node.role.name()]).inc();
        tracing::info!(term = %session.leader.term(), node = %session.node, node_epoch = process.epoch, "connected");
    }

    /// Lets the line of handlers say who leads.
    fn not_leader(&self, request: &HeartbeatRequest, sent: NodeKey) -> Result<HeartbeatResponse, End> {
        let context = self.context(sent, None, None);
        self.shared.metrics.heartbeats.with_label_values(&[sent.role.name(), "not_leader"]).inc();
        self.handle(request, &context)
    }

    fn context(&self, node: NodeKey, process: Option<Incarnation>, leader: Option<Arc<Leader>>) -> Context {
        Context {
            node,
            process,
            leader,
            known_leader: self.shared.other_leader(),
            clock: Arc::clone(&self.shared.clock),
            now: self.shared.clock.now(),
            wall_ms: wall_clock_ms(),
            metrics: Arc::clone(&self.shared.metrics),
        }
    }
}

/// The id this stream's node goes by: its own, or for a frontend without one an id from this leader.
fn assign(leader: &Leader, sent: NodeKey) -> Result<NodeKey, End> {
    match sent.role {
        Role::Datanode | Role::Flownode => limits::member_id(&sent).map(|()| sent).map_err(End::Refused),
        Role::Frontend if sent.id.0 == 0 => Ok(NodeKey { id: leader.frontend_id(), ..sent }),
        Role::Frontend if leader.gave_frontend_id(sent.id) => Ok(sent),
        Role::Frontend => Err(End::Refused(limits::foreign_frontend_id(&sent))),
    }
}

/// Those of a node's capabilities that are understood here.
fn understood(named: &[i32]) -> Vec<i32> {
    let sets = i32::from(Capability::RegionSets);
    if named.contains(&sets) { vec![sets] } else { Vec::new() }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
