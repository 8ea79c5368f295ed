//! Which requests of a stream still wait for their answers, and since when. The sending half notes what it sends, the
//! receiving half what is answered, and whoever judges the other end waits for either.

use std::collections::VecDeque;
use std::sync::Arc;

use metasrv_proto::meta::HeartbeatResponse;
use tokio::sync::watch;
use tokio::time::Instant;

/// Requests that are kept apart. At the usual interval of a second a stream is given up with two unanswered; reports of
/// changes come at most each 20 ms, so that as many are sent in the second that the shortest silence takes. More than
/// these are counted as one with the youngest of them: what is asked for is the oldest.
const MOST: usize = 64;

/// The requests of one stream. Clones share what they know.
#[derive(Clone, Debug)]
pub(crate) struct Unanswered(Arc<watch::Sender<Tally>>);

#[derive(Default, Debug)]
struct Tally {
    /// Number and send time, oldest first.
    waiting: VecDeque<(u64, Instant)>,
    /// When the latest request was sent that was answered.
    accepted: Option<Instant>,
}

impl Unanswered {
    /// Of a stream on which nothing was sent.
    pub(crate) fn new() -> Unanswered {
        Unanswered(Arc::new(watch::Sender::new(Tally::default())))
    }

    /// A request goes out now.
    pub(crate) fn send(&self, sequence: u64) {
        let now = Instant::now();
        self.0.send_modify(|tally| {
            if tally.waiting.len() < MOST {
                tally.waiting.push_back((sequence, now));
            } else if let Some(youngest) = tally.waiting.back_mut() {
                youngest.0 = sequence;
            }
        });
    }

    /// A response came and was accepted.
    pub(crate) fn answer(&self, response: &HeartbeatResponse) {
        let number = match response.sequence {
            // A peer that does not number its answers gives one for each request; pushed messages are none.
            0 if response.mailbox_message.is_none() => u64::MAX,
            number => number,
        };
        self.0.send_if_modified(|tally| {
            let before = tally.waiting.len();
            while let Some((_, sent)) =
                tally.waiting.front().copied().filter(|(waiting, _)| *waiting <= number)
            {
                tally.waiting.pop_front();
                tally.accepted = Some(sent);
            }
            tally.waiting.len() != before
        });
    }

    /// When the oldest request was sent that still waits.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.0.borrow().oldest()
    }

    /// When the latest request was sent that was answered.
    pub(crate) fn accepted(&self) -> Option<Instant> {
        self.0.borrow().accepted
    }

    /// The send time of the oldest request that waits, once there is one.
    pub(crate) async fn waits(&self) -> Instant {
        let mut tally = self.0.subscribe();
        loop {
            if let Some(sent) = tally.borrow_and_update().oldest() {
                return sent;
            }
            if tally.changed().await.is_err() {
                // The sender is ours.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Resolves once the oldest request is another one than that of this send time.
    pub(crate) async fn answered(&self, sent: Instant) {
        let mut tally = self.0.subscribe();
        // An error means that the sender is gone, which is ours.
        let _ = tally.wait_for(|tally| tally.oldest() != Some(sent)).await;
    }
}

impl Tally {
    fn oldest(&self) -> Option<Instant> {
        self.waiting.front().map(|(_, sent)| *sent)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use metasrv_proto::meta::MailboxMessage;

    use super::*;

    fn answer(sequence: u64) -> HeartbeatResponse {
        HeartbeatResponse { sequence, ..HeartbeatResponse::default() }
    }

    /// Goal: the oldest request that waits is known exactly, whatever is answered. Method: one request a second on a
    /// paused clock, answers in the middle, twice, and without a number.
    #[tokio::test(start_paused = true)]
    async fn the_oldest_unanswered_request_is_known() {
        let unanswered = Unanswered::new();
        let begin = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!((unanswered.oldest(), unanswered.accepted()), (None, None));
        for sequence in 1..=4 {
            unanswered.send(sequence);
            tokio::time::advance(second).await;
        }
        assert_eq!(unanswered.oldest(), Some(begin));
        unanswered.answer(&answer(2));
        assert_eq!(unanswered.oldest(), Some(begin + 2 * second), "an answer speaks of all before it");
        assert_eq!(unanswered.accepted(), Some(begin + second));
        unanswered.answer(&answer(1));
        let pushed = HeartbeatResponse { mailbox_message: Some(MailboxMessage::default()), ..answer(0) };
        unanswered.answer(&pushed);
        assert_eq!(unanswered.oldest(), Some(begin + 2 * second), "a push and a late answer change nothing");
        unanswered.answer(&answer(0));
        assert_eq!(unanswered.oldest(), None, "a peer that does not number answers one by one");
        assert_eq!(unanswered.accepted(), Some(begin + 3 * second));
    }

    /// Goal: what is kept is bounded, and the oldest is kept. Method: a thousand requests.
    #[tokio::test(start_paused = true)]
    async fn a_thousand_requests_are_not_kept_apart() {
        let unanswered = Unanswered::new();
        let begin = Instant::now();
        for sequence in 1..=1_000 {
            unanswered.send(sequence);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(unanswered.0.borrow().waiting.len(), MOST);
        assert_eq!(unanswered.waits().await, begin);
        unanswered.answer(&answer(999));
        assert!(unanswered.oldest().is_some(), "the last one waits");
        unanswered.answer(&answer(1_000));
        assert_eq!(unanswered.oldest(), None);
    }
}
