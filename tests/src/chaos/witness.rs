//! Witnesses: raw heartbeat streams that beat every few milliseconds, one for each replica, faithful to it.
//!
//! A datanode follows the leader; a witness does not. It asks its one replica again and again, whether that leads or
//! not, so that what a deposed leader still grants is seen, and so that the first and the last grant of a term are known
//! to a few milliseconds. It goes on sending while nobody answers: whatever a paused or cut-off replica finds in its
//! sockets when it is back was sent long after its successor began.

use std::collections::BTreeMap;
use std::time::Duration;

use metasrv_core::time::BootTime;
use metasrv_proto::meta::{HeartbeatRequest, HeartbeatResponse, RequestHeader};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::transport::{Channel, Endpoint};

use super::nodes::{SharedLedger, look};
use crate::node::{HeartbeatStream, Identity, error_code};
use crate::wait::now;

/// Time between two requests, and between two streams to a replica that does not lead.
const BEAT: Duration = Duration::from_millis(5);

/// A stream that is silent for so long is left behind, and another one opened; what it still says is heard.
const SILENT: Duration = Duration::from_millis(500);

/// How long a stream that was left behind is listened to: TCP sends again what a black hole swallowed after up to
/// twice the time that it was there.
const LINGER: Duration = Duration::from_secs(25);

/// Opening a stream, connecting included.
const OPENING: Duration = Duration::from_millis(500);

/// Ids of witnesses begin above those of nodes.
pub const FIRST_ID: u64 = 1_000_001;

/// The witnesses. They stop when this is dropped.
pub struct Witnesses {
    /// Ends its tasks with itself.
    _tasks: JoinSet<()>,
}

impl Witnesses {
    /// One witness for each of these replicas, with ids from [`FIRST_ID`].
    pub fn start(addrs: &[String], ledger: &SharedLedger) -> Witnesses {
        let mut tasks = JoinSet::new();
        for (id, addr) in (FIRST_ID..).zip(addrs) {
            let witness = Witness {
                addr: addr.clone(),
                identity: Identity::datanode(id),
                started: now(),
                ledger: SharedLedger::clone(ledger),
            };
            tasks.spawn(witness.run());
        }
        Witnesses { _tasks: tasks }
    }
}

/// What a stream has asked and was not answered yet.
struct Asked {
    stream: HeartbeatStream,
    sequence: u64,
    sent: BTreeMap<u64, BootTime>,
}

#[derive(Clone)]
struct Witness {
    addr: String,
    identity: Identity,
    started: BootTime,
    ledger: SharedLedger,
}

impl Witness {
    async fn run(self) {
        let mut left_behind = JoinSet::new();
        let mut channel = self.channel();
        loop {
            if let Some(silent) = self.stream(channel.clone()).await {
                // The connection may be as dead as the stream.
                channel = self.channel();
                left_behind.spawn(self.clone().listen(silent));
            }
            while left_behind.try_join_next().is_some() {}
            tokio::time::sleep(BEAT).await;
        }
    }

    fn channel(&self) -> Option<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.addr)).ok()?;
        Some(endpoint.connect_timeout(OPENING).tcp_nodelay(true).connect_lazy())
    }

    /// Asks on one stream until that ends, or is silent; the latter is returned.
    async fn stream(&self, channel: Option<Channel>) -> Option<Asked> {
        let sent_at = now();
        let opening = HeartbeatStream::open_on(channel?, self.request(1));
        let stream = timeout(OPENING, opening).await.ok()?.ok()?;
        let mut asked = Asked { stream, sequence: 1, sent: BTreeMap::from([(1, sent_at)]) };
        let mut ticks = interval(BEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut heard = now();
        loop {
            tokio::select! {
                biased;
                response = asked.stream.next() => {
                    heard = now();
                    if !self.take(&mut asked, response.ok().flatten()) {
                        return None;
                    }
                }
                _ = ticks.tick() => {
                    if now().since(heard) > SILENT {
                        return Some(asked);
                    }
                    let sequence = asked.sequence + 1;
                    let sent_at = now();
                    // Where the stream takes no more, this beat is left out; the next one is due soon.
                    let sending = asked.stream.send(self.request(sequence));
                    if timeout(BEAT, sending).await.is_ok_and(|sent| sent.is_ok()) {
                        asked.sequence = sequence;
                        asked.sent.insert(sequence, sent_at);
                    }
                }
            }
        }
    }

    /// Hears what a silent stream still says.
    async fn listen(self, mut silent: Asked) {
        let listening = async {
            loop {
                match silent.stream.next().await {
                    // Nothing came for a while; it may yet.
                    Err(status) if status.code() == tonic::Code::DeadlineExceeded => {}
                    response => {
                        if !self.take(&mut silent, response.ok().flatten()) {
                            return;
                        }
                    }
                }
            }
        };
        // Whether it ended by itself says nothing.
        let _ = timeout(LINGER, listening).await;
    }

    /// Takes a response into the ledger; says whether the stream goes on.
    fn take(&self, asked: &mut Asked, response: Option<HeartbeatResponse>) -> bool {
        let Some(response) = response.filter(|response| error_code(response) == 0) else { return false };
        let sent_at = asked.sent.remove(&response.sequence);
        // Answers come in order: what is older than this one is not answered any more.
        asked.sent = asked.sent.split_off(&response.sequence);
        if let (Some(sent_at), Some(header), Some(_)) = (sent_at, &response.header, &response.region_lease) {
            look(&self.ledger).witness(header.term, sent_at, now());
        }
        true
    }

    fn request(&self, sequence: u64) -> HeartbeatRequest {
        let request = self.identity.heartbeat([]);
        let since_started = now().since(self.started).as_millis();
        HeartbeatRequest {
            sequence,
            duration_since_epoch: u64::try_from(since_started).unwrap_or(u64::MAX),
            // It knows of no term: a leader that is told of a higher one ends by itself, and this one shall be judged
            // by what it does of its own accord.
            header: request.header.map(|header| RequestHeader { term: 0, installation: 0, ..header }),
            ..request
        }
    }
}
