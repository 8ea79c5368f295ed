//! A leader that lets a response deadline pass is suspected. Its stream stays open and still counts, while the other
//! replicas are asked whether somebody leads in a higher term.
//!
//! | state | ends with | then |
//! | --- | --- | --- |
//! | trusted | the oldest unanswered request is older than the deadline | suspected |
//! | suspected | that request is answered | trusted |
//! | suspected | a replica names a leader of a higher term | the stream is left for that leader, at once |
//! | suspected | the last limit passes | the stream is left, and the next one takes a connection of its own |
//!
//! The deadline is short, because a suspicion costs a few questions to replicas that have little to do, and no stream.
//! TCP would notice a leader that hangs after minutes, HTTP/2's keep-alive never: its process's kernel may answer on.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};

use crate::channels::Lent;
use crate::client::{Leader, MetaClient};
use crate::error::ClientError;
use crate::unanswered::Unanswered;

/// No stream is given up for silence alone before this, however short the interval: to open another one to the same
/// leader costs it more than to answer.
const LEAST_LIMIT: Duration = Duration::from_secs(1);

/// Judges the other end of one stream by what it does not answer.
#[derive(Clone)]
pub struct Suspicion {
    client: MetaClient,
    leader: Leader,
    lent: Lent,
    unanswered: Unanswered,
}

impl Suspicion {
    pub(crate) fn new(client: MetaClient, leader: Leader, lent: Lent, unanswered: Unanswered) -> Suspicion {
        Suspicion { client, leader, lent, unanswered }
    }

    /// When the latest request was sent that was answered. `None` before the first answer.
    pub fn accepted(&self) -> Option<Instant> {
        self.unanswered.accepted()
    }

    /// Resolves when the stream has to be left, for a heartbeat each `interval`; says why.
    /// [`ClientError::LeaderChanged`]: for a leader of a higher term, which the client knows from then on, so that
    /// nothing that still arrives on this stream is heard. Anything else: it has been silent for too long, and the client
    /// has given its connection up.
    pub async fn confirmed(&self, interval: Duration) -> ClientError {
        let patience = Patience::new(self.client.config().timeouts.response, interval);
        loop {
            let sent = self.unanswered.waits().await;
            sleep_until(sent + patience.deadline).await;
            if self.unanswered.oldest() != Some(sent) {
                continue;
            }
            let Leader { addr, term } = &self.leader;
            info!(leader = addr, term, after = ?patience.deadline, "leader suspected: it does not answer");
            self.client.count_suspicion();
            tokio::select! {
                biased;
                () = self.unanswered.answered(sent) => {
                    info!(leader = addr, term, after = ?sent.elapsed(), "leader trusted again: it answered");
                }
                higher = self.client.higher_leader(&self.leader) => {
                    return ClientError::LeaderChanged { addr: higher.addr, term: higher.term };
                }
                () = sleep_until(sent + patience.limit) => {
                    debug!(leader = addr, term, limit = ?patience.limit, "leader left: it does not answer");
                    let why = format!("has not answered for {:.1?}", sent.elapsed());
                    let error = ClientError::Transport { addr: addr.clone(), why };
                    self.client.learn_from(&error, &self.leader, &self.lent);
                    return error;
                }
            }
        }
    }
}

/// How long an answer is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Patience {
    /// Until the leader is suspected.
    deadline: Duration,
    /// Until the stream is given up where nobody leads in a higher term.
    limit: Duration,
}

impl Patience {
    /// The deadline is the configured one, and at most half an interval: where heartbeats are frequent, leases are
    /// short. The limit is two intervals. A region lease lasts at least as long, by default five, so that there is time
    /// for a new connection to an unchanged leader before the lease of the last answer ends.
    fn new(configured: Duration, interval: Duration) -> Patience {
        let limit = interval.saturating_mul(2).max(LEAST_LIMIT);
        Patience { deadline: configured.min(interval / 2), limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_is_at_most_half_an_interval_and_the_limit_two() {
        let table = [
            // configured, interval, deadline, limit; in milliseconds
            (300, 1_000, 300, 2_000),
            (300, 400, 200, 1_000),
            (300, 50, 25, 1_000),
            (300, 60_000, 300, 120_000),
            (5_000, 1_000, 500, 2_000),
        ];
        for (configured, interval, deadline, limit) in table {
            let [configured, interval, deadline, limit] =
                [configured, interval, deadline, limit].map(Duration::from_millis);
            assert_eq!(Patience::new(configured, interval), Patience { deadline, limit });
        }
    }
}
