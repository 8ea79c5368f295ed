//! Probe heartbeats: a light stream to a replica, a request every 100 ms, and when the last one that came back was sent.
//!
//! A probe takes the way of every heartbeat: the listener, the stream's loop, the line of handlers. It leaves nothing
//! behind there. A replica probes itself, to earn the renewal of its lease (`metasrv_core::election`), and the leader,
//! to see whether others are served (`standby`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use metasrv_core::id::Term;
use metasrv_core::time::{BootTime, Clock};
use metasrv_proto::PROTOCOL_VERSION;
use metasrv_proto::meta::heartbeat_client::HeartbeatClient;
use metasrv_proto::meta::{HeartbeatRequest, HeartbeatResponse, RequestHeader, Role};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use crate::dial::Dialer;
use crate::peer;

/// Time between two probes, and between two attempts to connect.
pub const INTERVAL: Duration = Duration::from_millis(100);

/// A connection is made within this time, or another attempt begins.
const CONNECT: Duration = Duration::from_millis(500);

/// A probe that has no answer for so long: the connection may be what is broken, so the next one takes another.
const PATIENCE: Duration = Duration::from_millis(500);

/// Probes on their way. One more than the patience lasts for are never under way.
const QUEUE: usize = 8;

/// An answer to a probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// When the probe was sent.
    pub sent_at: BootTime,
    /// The term that the replica leads; absent where it says that it does not lead.
    pub term: Option<Term>,
}

/// Probes the replica at this address until the receivers are gone; publishes the last answer.
pub async fn probe(
    addr: String,
    dialer: Dialer,
    clock: Arc<dyn Clock>,
    answers: watch::Sender<Option<Answer>>,
) {
    loop {
        let ended = tokio::select! {
            biased;
            () = answers.closed() => return,
            ended = session(&addr, &dialer, clock.as_ref(), &answers) => ended,
        };
        tracing::trace!(addr, why = ended, "the probes' stream ended; another one follows");
        tokio::time::sleep(INTERVAL).await;
    }
}

/// One stream of probes; says why it ended.
async fn session(
    addr: &str,
    dialer: &Dialer,
    clock: &dyn Clock,
    answers: &watch::Sender<Option<Answer>>,
) -> String {
    let channel = match tokio::time::timeout(CONNECT, peer::connect(dialer, addr)).await {
        Ok(Ok(channel)) => channel,
        Ok(Err(why)) => return why,
        Err(_) => return format!("no connection within {CONNECT:?}"),
    };
    let (sender, queue) = mpsc::channel(QUEUE);
    let mut client = HeartbeatClient::new(channel);
    let opened = tokio::time::timeout(PATIENCE, client.heartbeat(ReceiverStream::new(queue))).await;
    let mut responses = match opened {
        Ok(Ok(responses)) => responses.into_inner(),
        Ok(Err(status)) => return status.message().to_owned(),
        Err(_) => return format!("no stream within {PATIENCE:?}"),
    };
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut under_way: VecDeque<(u64, BootTime)> = VecDeque::with_capacity(QUEUE);
    let mut sequence = 0_u64;
    loop {
        tokio::select! {
            biased;
            received = responses.message() => match received {
                Ok(Some(response)) => {
                    while under_way.front().is_some_and(|(number, _)| *number < response.sequence) {
                        under_way.pop_front();
                    }
                    let sent = under_way.pop_front().filter(|(number, _)| *number == response.sequence);
                    if let Some(answer) = sent.and_then(|(_, sent_at)| judge(sent_at, &response)) {
                        answers.send_replace(Some(answer));
                    }
                }
                Ok(None) => return "it ended the stream".to_owned(),
                Err(status) => return status.message().to_owned(),
            },
            _ = ticks.tick() => {
                let now = clock.now();
                if under_way.front().is_some_and(|(_, sent_at)| now.since(*sent_at) >= PATIENCE) {
                    return format!("no answer within {PATIENCE:?}");
                }
                sequence = sequence.saturating_add(1);
                if sender.try_send(request(sequence)).is_err() {
                    return "it does not read".to_owned();
                }
                under_way.push_back((sequence, now));
            }
        }
    }
}

fn request(sequence: u64) -> HeartbeatRequest {
    let header = RequestHeader {
        protocol_version: PROTOCOL_VERSION,
        role: Role::Frontend as i32,
        ..RequestHeader::default()
    };
    HeartbeatRequest { header: Some(header), probe: true, sequence, ..HeartbeatRequest::default() }
}

/// What an answer proves; nothing where the replica says that something is wrong with it.
fn judge(sent_at: BootTime, response: &HeartbeatResponse) -> Option<Answer> {
    let header = response.header.as_ref()?;
    match &header.error {
        None => Some(Answer { sent_at, term: Some(Term(header.term)) }),
        Some(error) if error.code == metasrv_proto::code::NOT_LEADER => Some(Answer { sent_at, term: None }),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metasrv_proto::code;
    use metasrv_proto::meta::{Error, ResponseHeader};

    fn judged(term: u64, code: Option<i32>) -> Option<Option<Term>> {
        let error = code.map(|code| Error { code, ..Error::default() });
        let header = ResponseHeader { term, error, ..ResponseHeader::default() };
        let response = HeartbeatResponse { header: Some(header), ..HeartbeatResponse::default() };
        judge(BootTime::from_millis(7), &response).map(|answer| answer.term)
    }

    #[test]
    fn only_a_replica_that_is_well_proves_anything() {
        assert_eq!(judged(3, None), Some(Some(Term(3))));
        assert_eq!(judged(3, Some(code::NOT_LEADER)), Some(None), "it answers, and does not lead");
        assert_eq!(judged(3, Some(code::STANDS_STILL)), None);
        assert_eq!(judge(BootTime::ZERO, &HeartbeatResponse::default()), None);
    }
}
