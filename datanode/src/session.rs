//! One stream after another: connect, beat until the stream ends, connect again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use metasrv_client::{
    BadInterval, ClientError, HeartbeatSender, HeartbeatStream, Rhythm, Suspicion, Waits, dictated_interval,
    wall_clock_ms,
};
use metasrv_proto::admin::Capability;
use metasrv_proto::meta::{HeartbeatRequest, Peer};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::heartbeat_task::Shared;
use crate::mailbox::OutgoingMessage;
use crate::response::{HandleControl, HandlerError, HeartbeatResponseHandler, ResponseContext};

/// Changes of regions are reported at once, but those of so long a time together: an instruction that opens a thousand
/// regions causes a few reports, not a thousand.
const GATHER: Duration = Duration::from_millis(20);

/// Takes the interval that metasrv dictates.
pub(crate) struct HeartbeatConfigHandler {
    pub(crate) interval: watch::Sender<Duration>,
}

impl HeartbeatResponseHandler for HeartbeatConfigHandler {
    fn name(&self) -> &'static str {
        "HeartbeatConfig"
    }

    fn handle(&self, context: &mut ResponseContext<'_>) -> Result<HandleControl, HandlerError> {
        let dictated = dictated_interval(context.response);
        let failed = |error: BadInterval| HandlerError { handler: self.name(), why: error.to_string() };
        let Some(interval) = dictated.map_err(failed)? else { return Ok(HandleControl::Continue) };
        self.interval.send_if_modified(|before| {
            let changed = *before != interval;
            *before = interval;
            changed
        });
        Ok(HandleControl::Continue)
    }
}

/// The sending half of the heartbeat, over all its streams.
pub(crate) struct Session {
    shared: Arc<Shared>,
    interval: watch::Receiver<Duration>,
    replies: mpsc::Receiver<OutgoingMessage>,
    rhythm: Rhythm,
    waits: Waits,
    /// A stream of this process was accepted once. From then on a newer process means that this one ends: it never
    /// takes a higher epoch again, so that two never fight for ever.
    had_session: bool,
    /// The leader at the other end knows digests.
    knows_sets: bool,
}

/// Both halves of a stream that is left for a leader of a higher term: it stays open until that one has accepted
/// another.
struct Left {
    _sender: HeartbeatSender,
    _receiving: Receiving,
}

impl Session {
    pub(crate) fn new(
        shared: Arc<Shared>,
        interval: watch::Receiver<Duration>,
        replies: mpsc::Receiver<OutgoingMessage>,
    ) -> Session {
        let waits = shared.client.config().back_off.start();
        let rhythm = Rhythm::new(*interval.borrow());
        Session { shared, interval, replies, rhythm, waits, had_session: false, knows_sets: false }
    }

    /// Keeps a stream to the leader. Returns only when a newer process of this node took over, and says so.
    pub(crate) async fn run(&mut self) -> String {
        let mut hinted = false;
        let mut logged = None;
        let mut left: Option<Left> = None;
        loop {
            let (error, wait) = match self.shared.client.heartbeat(self.report(true)).await {
                Ok((sender, stream)) => {
                    drop(left.take());
                    (hinted, logged) = (false, None);
                    let suspicion = stream.suspicion();
                    self.opened(&stream);
                    let (error, halves) = self.beat(sender, stream).await;
                    let changed = matches!(error, ClientError::LeaderChanged { .. });
                    left = changed.then_some(halves);
                    // Who is told where to go is told in its turn. Who has a region that nobody writes to is in a hurry.
                    let awaited = self.shared.keeper.is_awaited();
                    let wait = match changed || error.names_leader() || awaited {
                        true => Duration::ZERO,
                        false => self.rhythm.reconnect_after(suspicion.accepted()),
                    };
                    tracing::warn!(%error, next_after = ?wait, "heartbeat stream ended");
                    (error, Some(wait))
                }
                Err(error) => {
                    // Attempts go on several times a second: a line for each new kind of failure is enough.
                    let kind = Some(std::mem::discriminant(&error));
                    if logged != kind {
                        logged = kind;
                        tracing::warn!(%error, "no heartbeat stream; attempts go on");
                    } else {
                        tracing::debug!(%error, "no heartbeat stream");
                    }
                    (error, None)
                }
            };
            let names_leader = error.names_leader();
            match error {
                ClientError::StaleIncarnation { known, message } if !self.had_session => {
                    let next = known.saturating_add(1);
                    tracing::warn!(
                        known,
                        next,
                        message,
                        "the clock stepped back since this node's last process"
                    );
                    self.shared.node_epoch.store(next, Ordering::Release);
                }
                ClientError::StaleIncarnation { message, .. } | ClientError::Superseded { message } => {
                    return message;
                }
                _ => {}
            }
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => {
                    // A hint is followed at once, but not one that follows another: two replicas may name each other.
                    hinted = names_leader && !hinted;
                    if !hinted {
                        self.waits.wait().await;
                    }
                }
            }
        }
    }

    fn opened(&mut self, stream: &HeartbeatStream) {
        self.had_session = true;
        self.waits.reset();
        self.shared.streams.fetch_add(1, Ordering::Relaxed);
        let leader = stream.leader();
        tracing::info!(leader = leader.addr, term = leader.term, "heartbeat stream opened");
    }

    /// Beats until the stream is of no use any more; says why, and gives its halves back.
    async fn beat(&mut self, mut sender: HeartbeatSender, stream: HeartbeatStream) -> (ClientError, Left) {
        let leader = stream.leader().addr.clone();
        self.knows_sets = stream.understands(Capability::RegionSets);
        let suspicion = stream.suspicion();
        let (quit_sender, quit) = oneshot::channel();
        // Answers that arrive on a stream that was given up are not heard: the half ends with its handle.
        let receiving = Receiving(tokio::spawn(receive(Arc::clone(&self.shared), stream, quit_sender)));
        let error = tokio::select! {
            biased;
            quit = quit => quit.unwrap_or(ClientError::Ended { addr: leader }),
            error = self.send(&mut sender, &suspicion) => error,
        };
        (error, Left { _sender: sender, _receiving: receiving })
    }

    /// Sends what there is to send until that fails, or the leader is silent; says why.
    async fn send(&mut self, sender: &mut HeartbeatSender, suspicion: &Suspicion) -> ClientError {
        // Another interval may have been dictated while there was no stream.
        let period = *self.interval.borrow_and_update();
        if period != self.rhythm.interval() {
            self.rhythm.change(period);
        }
        // The handshake was a heartbeat, at once.
        self.rhythm.beat();
        let mut leave = std::pin::pin!(suspicion.confirmed(period));
        let mut gathered: Option<Instant> = None;
        loop {
            let gathering = async {
                match gathered {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let request = tokio::select! {
                biased;
                error = &mut leave => return error,
                Some(reply) = self.replies.recv() => self.reply(reply),
                counts = self.shared.keeper.urgent() => {
                    if counts {
                        gathered = None;
                    }
                    self.report(false)
                }
                () = self.shared.keeper.changed(), if gathered.is_none() => {
                    gathered = Some(Instant::now() + GATHER);
                    continue;
                }
                () = gathering => {
                    gathered = None;
                    self.report(false)
                }
                Ok(()) = self.interval.changed() => {
                    let period = *self.interval.borrow_and_update();
                    tracing::info!(interval = ?period, "metasrv dictates the heartbeat interval");
                    self.rhythm.change(period);
                    leave.set(suspicion.confirmed(period));
                    continue;
                }
                () = self.rhythm.due() => {
                    self.rhythm.beat();
                    self.report(false)
                }
            };
            if let Err(error) = sender.send(request).await {
                return error;
            }
        }
    }

    /// A heartbeat of this moment: the stats of all open regions, or their digest and what has changed.
    fn report(&self, handshake: bool) -> HeartbeatRequest {
        let (duration_since_epoch, (region_stats, region_set)) =
            self.shared.keeper.report(handshake, self.knows_sets);
        HeartbeatRequest {
            duration_since_epoch,
            region_stats,
            region_set: Some(region_set).filter(|_| handshake || self.knows_sets),
            capabilities: if handshake { vec![Capability::RegionSets.into()] } else { Vec::new() },
            info: handshake.then(|| self.shared.info.clone()),
            directory_lock: self.shared.directory_lock.clone().filter(|_| handshake),
            ..self.bare()
        }
    }

    /// A request that carries a reply carries no stats.
    fn reply(&self, reply: OutgoingMessage) -> HeartbeatRequest {
        HeartbeatRequest { mailbox_message: Some(reply.into_wire(wall_clock_ms())), ..self.bare() }
    }

    fn bare(&self) -> HeartbeatRequest {
        HeartbeatRequest {
            peer: Some(Peer { id: self.shared.client.member_id(), addr: self.shared.addr.clone() }),
            node_epoch: self.shared.node_epoch.load(Ordering::Acquire),
            incarnation_nonce: self.shared.nonce,
            ..HeartbeatRequest::default()
        }
    }
}

/// The receiving half; ends when it is dropped.
struct Receiving(JoinHandle<()>);

impl Drop for Receiving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Takes responses until the stream ends, with or without an error, and raises the quit signal then.
async fn receive(shared: Arc<Shared>, mut stream: HeartbeatStream, quit: oneshot::Sender<ClientError>) {
    let error = loop {
        match stream.next().await {
            Ok(response) => {
                tracing::trace!(sequence = response.sequence, "response");
                shared.executor.handle(&response);
                if let Some(notifier) = &shared.leases_notifier {
                    notifier.notify_one();
                }
            }
            Err(error) => break error,
        }
    };
    // The sending half has given the stream up already where nobody listens.
    let _ = quit.send(error);
}
