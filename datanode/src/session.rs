//! One stream after another: connect, beat until the stream ends, connect again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metasrv_client::{
    BadInterval, ClientError, HeartbeatSender, HeartbeatStream, Waits, dictated_interval, heartbeat_ticks,
    wall_clock_ms,
};
use metasrv_proto::meta::{HeartbeatRequest, HeartbeatResponse, Peer};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::heartbeat_task::Shared;
use crate::mailbox::OutgoingMessage;
use crate::response::{HandleControl, HandlerError, HeartbeatResponseHandler, ResponseContext};

/// Changes of regions are reported at once, but those of so long a time together: an instruction that opens a thousand
/// regions causes a few reports, not a thousand.
const GATHER: Duration = Duration::from_millis(20);

/// A leader that answers nothing for so long, and for two intervals, is taken for hung even where its connection lives.
const SILENCE: Duration = Duration::from_secs(1);

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
    waits: Waits,
    /// A stream of this process was accepted once. From then on a newer process means that this one ends: it never
    /// takes a higher epoch again, so that two never fight for ever.
    had_session: bool,
}

/// What both halves of a stream know of its answers.
#[derive(Default)]
struct Progress {
    /// Number of the last request that was sent.
    sent: AtomicU64,
    /// Number of the last request that was answered.
    answered: AtomicU64,
}

impl Session {
    pub(crate) fn new(
        shared: Arc<Shared>,
        interval: watch::Receiver<Duration>,
        replies: mpsc::Receiver<OutgoingMessage>,
    ) -> Session {
        let waits = shared.client.config().back_off.start();
        Session { shared, interval, replies, waits, had_session: false }
    }

    /// Keeps a stream to the leader. Returns only when a newer process of this node took over, and says so.
    pub(crate) async fn run(&mut self) -> String {
        let mut hinted = false;
        let mut logged = None;
        loop {
            let error = match self.shared.client.heartbeat(self.report(true)).await {
                Ok((sender, stream)) => {
                    let opened = Instant::now();
                    self.had_session = true;
                    self.shared.streams.fetch_add(1, Ordering::Relaxed);
                    tracing::info!(
                        leader = stream.leader().addr,
                        term = stream.leader().term,
                        "heartbeat stream opened"
                    );
                    let error = self.beat(sender, stream).await;
                    if opened.elapsed() >= *self.interval.borrow() {
                        self.waits.reset();
                        hinted = false;
                    }
                    tracing::warn!(%error, "heartbeat stream ended");
                    logged = None;
                    error
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
                    error
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
            // A hint is followed at once, but not one that follows another: two replicas may name each other.
            hinted = names_leader && !hinted;
            if !hinted {
                self.waits.wait().await;
            }
        }
    }

    /// Beats until the stream is of no use any more; says why.
    async fn beat(&mut self, mut sender: HeartbeatSender, stream: HeartbeatStream) -> ClientError {
        let leader = stream.leader().addr.clone();
        let progress = Arc::new(Progress::default());
        progress.sent.store(sender.sequence(), Ordering::Release);
        let (quit_sender, mut quit) = oneshot::channel();
        // Answers that arrive on a stream that was given up are not heard: the half ends with this call.
        let _receiving = Receiving(tokio::spawn(receive(
            Arc::clone(&self.shared),
            stream,
            Arc::clone(&progress),
            quit_sender,
        )));
        let mut period = *self.interval.borrow_and_update();
        // The handshake was the first heartbeat, at once.
        let mut ticks = heartbeat_ticks(period);
        let mut gathered: Option<Instant> = None;
        let mut awaited = (sender.sequence(), Instant::now());
        loop {
            let gathering = async {
                match gathered {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let request = tokio::select! {
                biased;
                quit = &mut quit => return quit.unwrap_or(ClientError::Ended { addr: leader }),
                Some(reply) = self.replies.recv() => self.reply(reply),
                () = self.shared.keeper.changed(), if gathered.is_none() => {
                    gathered = Some(Instant::now() + GATHER);
                    continue;
                }
                () = gathering => {
                    gathered = None;
                    self.report(false)
                }
                Ok(()) = self.interval.changed() => {
                    period = *self.interval.borrow_and_update();
                    tracing::info!(interval = ?period, "metasrv dictates the heartbeat interval");
                    ticks = heartbeat_ticks(period);
                    continue;
                }
                _ = ticks.tick() => {
                    let silent = awaited.1.elapsed();
                    if progress.answered() < awaited.0 && silent > (period * 2).max(SILENCE) {
                        let why = format!("has not answered for {silent:.1?}");
                        return ClientError::Transport { addr: leader, why };
                    }
                    self.report(false)
                }
            };
            let sent_at = Instant::now();
            match sender.send(request).await {
                Ok(sequence) => {
                    progress.sent.store(sequence, Ordering::Release);
                    if awaited.0 <= progress.answered() {
                        awaited = (sequence, sent_at);
                    }
                }
                Err(error) => return error,
            }
        }
    }

    /// A heartbeat of this moment: the stats of all open regions.
    fn report(&self, handshake: bool) -> HeartbeatRequest {
        // Read before the regions are: a region that is opened in between is newer than this request.
        let duration_since_epoch = self.shared.keeper.duration_since_epoch_ms();
        HeartbeatRequest {
            duration_since_epoch,
            region_stats: self.shared.keeper.report(),
            info: handshake.then(|| self.shared.info.clone()),
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

impl Progress {
    fn answered(&self) -> u64 {
        self.answered.load(Ordering::Acquire)
    }

    fn take(&self, response: &HeartbeatResponse) {
        let number = match response.sequence {
            // A peer that does not number its answers gives one for each request; pushed messages are none.
            0 if response.mailbox_message.is_none() => self.sent.load(Ordering::Acquire),
            number => number,
        };
        self.answered.fetch_max(number, Ordering::AcqRel);
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
async fn receive(
    shared: Arc<Shared>,
    mut stream: HeartbeatStream,
    progress: Arc<Progress>,
    quit: oneshot::Sender<ClientError>,
) {
    let error = loop {
        match stream.next().await {
            Ok(response) => {
                tracing::trace!(sequence = response.sequence, "response");
                progress.take(&response);
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
