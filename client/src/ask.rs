//! Who leads? A staggered race: all peers in random order, the next one asked after a moment or as soon as one fails,
//! the earlier ones still listened to. One slow or dead replica costs a moment, not its whole deadline.

use std::fmt::Write as _;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use metasrv_proto::meta::heartbeat_client::HeartbeatClient;
use metasrv_proto::meta::{AskLeaderRequest, AskLeaderResponse};
use rand::seq::SliceRandom as _;
use tracing::debug;

use crate::back_off::BackOff;
use crate::client::{Leader, MetaClient};
use crate::config::parse_address;
use crate::error::{ClientError, describe};

/// While a leader keeps us waiting, the others are asked this often whether there is another one. Of a thousand nodes a
/// replica of three is asked 2,200 times a second at first, if all wait at once, and 1,300 times later. It could answer
/// ten thousand.
const LOOK_AROUND: BackOff = BackOff { first: Duration::from_millis(300), most: Duration::from_millis(500) };

/// Where a leader failed, the next replica is asked after so many staggers only. The first one keeps the question until it
/// knows of the next leader, which takes longer than a stagger where the machine is busy with a thousand nodes that all
/// ask: if each then asked everybody, it would be busier still, with connections that nobody needs.
const HELD: u32 = 3;

/// What one replica said.
enum Answer {
    /// It names a leader that can be believed.
    Leader(Leader),
    /// It answered, but its answer leads nowhere.
    Nobody(String),
    /// It did not answer.
    Silent(String),
}

impl MetaClient {
    /// Asks all configured replicas who leads, once. The first answer wins that names a leader whose term is not lower
    /// than the highest one seen; a leader that just failed is believed only if no other one is named. The leader is
    /// remembered. Takes at most the `ask` deadline and one stagger for each further replica.
    pub async fn ask_leader(&self) -> Result<Leader, ClientError> {
        let found = self.race(self.peers().to_vec(), self.failed_leader()).await?;
        self.remember(found.clone());
        Ok(found)
    }

    /// The leader, asked for until there is one or until `limit`, with back-off.
    pub async fn find_leader(&self, limit: Duration) -> Result<Leader, ClientError> {
        if let Some(leader) = self.leader() {
            return Ok(leader);
        }
        let mut waits = self.config().back_off.start();
        let mut last = None;
        let search = async {
            loop {
                match self.ask_leader().await {
                    Ok(leader) => return leader,
                    Err(error) => last = Some(error),
                }
                waits.wait().await;
            }
        };
        let found = tokio::time::timeout(limit, search).await;
        found
            .map_err(|_| last.unwrap_or(ClientError::NobodyReachable { why: "no answer in time".to_owned() }))
    }

    /// Resolves once another leader is known than the one that was asked for a stream, and remembers it. It has the
    /// response deadline to answer before anybody is asked.
    pub(crate) async fn other_leader(&self, present: &Leader) -> Leader {
        tokio::time::sleep(self.config().timeouts.response).await;
        self.look_around(present, |found| found != present).await
    }

    /// Resolves once somebody leads in a higher term than a leader that is suspected, and remembers it.
    pub(crate) async fn higher_leader(&self, suspected: &Leader) -> Leader {
        // Streams that hang together were not opened together, but some of a thousand deadlines pass in one moment.
        tokio::time::sleep(self.config().stagger.mul_f64(rand::random_range(0.0..=1.0))).await;
        self.look_around(suspected, |found| found.term > suspected.term).await
    }

    /// Rounds among the replicas other than `present` until one names a leader that is `wanted`.
    async fn look_around(&self, present: &Leader, wanted: impl Fn(&Leader) -> bool) -> Leader {
        let mut waits = LOOK_AROUND.start();
        let mut others: Vec<String> =
            self.peers().iter().filter(|peer| **peer != present.addr).cloned().collect();
        if others.is_empty() {
            others = self.peers().to_vec();
        }
        loop {
            // A round ends when everybody answered: one that is stopped as well must not hold it up.
            let round = self.race(others.clone(), Some(present.clone()));
            if let Ok(Ok(found)) = tokio::time::timeout(self.config().timeouts.response, round).await
                && wanted(&found)
            {
                self.remember(found.clone());
                return found;
            }
            waits.wait().await;
        }
    }

    /// One round. `avoided` wins only if nobody names another leader. It failed: it is asked last, and where there are
    /// others it is not waited for longer than for a heartbeat.
    async fn race(&self, mut peers: Vec<String>, avoided: Option<Leader>) -> Result<Leader, ClientError> {
        let failed = avoided.as_ref().map(|avoided| avoided.addr.clone()).filter(|_| peers.len() > 1);
        let failed_term = avoided.as_ref().map_or(0, |avoided| avoided.term);
        peers.shuffle(&mut rand::rng());
        // Where a leader died, a thousand nodes make new connections: of the others first those to which there is one. Only
        // then: whoever always asked the replica that it asked before would believe one that lags behind for ever.
        let has_connection = |peer: &String| avoided.is_some() && self.channels().has(peer);
        peers.sort_by_key(|peer| (failed.as_ref() == Some(peer), !has_connection(peer)));
        let limits = self.config().timeouts;
        let ask = |peer: String| {
            let limit =
                if failed.as_ref() == Some(&peer) { limits.ask.min(limits.response) } else { limits.ask };
            self.ask(peer, failed_term, limit)
        };
        // How long those asked before have to answer, before this one is asked.
        let head_start = |peer: &String| match &failed {
            Some(failed) if failed == peer => limits.response,
            Some(_) => self.config().stagger * HELD,
            None => self.config().stagger,
        };
        let mut waiting = peers.into_iter().peekable();
        let mut asked = FuturesUnordered::new();
        let mut round = Round { avoided, ..Round::default() };
        asked.extend(waiting.next().map(ask));
        loop {
            let next_after = waiting.peek().map(head_start);
            tokio::select! {
                biased;
                Some((peer, answer)) = asked.next(), if !asked.is_empty() => {
                    if let Some(leader) = round.take(peer, answer) {
                        return Ok(leader);
                    }
                    asked.extend(waiting.next().map(ask));
                }
                () = tokio::time::sleep(next_after.unwrap_or_default()), if next_after.is_some() => {
                    asked.extend(waiting.next().map(ask));
                }
                else => return round.end(),
            }
        }
    }

    async fn ask(&self, peer: String, failed_term: u64, limit: Duration) -> (String, Answer) {
        let answer = match tokio::time::timeout(limit, self.ask_one(&peer, failed_term)).await {
            Ok(answer) => answer,
            Err(_) => {
                // It may be stopped or cut off; the next question takes a connection of its own.
                if let Ok(lent) = self.channels().get(&peer) {
                    self.channels().forget(&lent);
                }
                Answer::Silent(format!("no answer within {limit:?}"))
            }
        };
        (peer, answer)
    }

    /// Asks one replica for the sake of the connection to it. What it says counts as it does from anybody: a higher term is
    /// remembered, and a failure ends the connection.
    pub(crate) async fn ask_quietly(&self, peer: &str) {
        let limit = self.config().timeouts.ask;
        if let (_, Answer::Silent(why)) = self.ask(peer.to_owned(), 0, limit).await {
            debug!(peer, why, "no connection to the replica that is next to lead");
        }
    }

    async fn ask_one(&self, peer: &str, failed_term: u64) -> Answer {
        let lent = match self.channels().get(peer) {
            Ok(lent) => lent,
            Err(error) => return Answer::Silent(error.to_string()),
        };
        let request = AskLeaderRequest { header: Some(self.request_header()), failed_term };
        match HeartbeatClient::new(lent.channel.clone()).ask_leader(request).await {
            Ok(response) => self.believe(peer, response.into_inner()),
            Err(status) => {
                self.channels().forget(&lent);
                Answer::Silent(describe(&status))
            }
        }
    }

    fn believe(&self, peer: &str, response: AskLeaderResponse) -> Answer {
        let Some(named) = response.leader.filter(|leader| !leader.addr.is_empty()) else {
            // It speaks for no term, so that none is judged.
            let installation = response.header.map_or(0, |header| header.installation);
            return Answer::Nobody(match self.judge_installation(peer, installation) {
                Err(error) => error.to_string(),
                Ok(()) => "knows of no leader".to_owned(),
            });
        };
        if let Err(error) = self.judge(peer, response.header.as_ref()) {
            return Answer::Nobody(error.to_string());
        }
        match parse_address(&named.addr) {
            Ok(addr) => {
                Answer::Leader(Leader { addr, term: response.header.map_or(0, |header| header.term) })
            }
            Err(why) => Answer::Nobody(format!("names the leader {:?}, which {why}", named.addr)),
        }
    }
}

/// What was heard so far in one round.
#[derive(Default)]
struct Round {
    avoided: Option<Leader>,
    fallback: Option<Leader>,
    heard: bool,
    why: String,
}

impl Round {
    /// Takes one answer; returns the leader if the round is decided.
    fn take(&mut self, peer: String, answer: Answer) -> Option<Leader> {
        let why = match answer {
            Answer::Leader(leader) if self.avoided.as_ref() == Some(&leader) => {
                self.heard = true;
                self.fallback = Some(leader);
                return None;
            }
            Answer::Leader(leader) => return Some(leader),
            Answer::Nobody(why) => {
                self.heard = true;
                why
            }
            Answer::Silent(why) => why,
        };
        debug!(peer, why, "replica named no leader");
        let separator = if self.why.is_empty() { "" } else { "; " };
        let _ = write!(self.why, "{separator}{peer}: {why}");
        None
    }

    /// What the round comes to once everybody was asked.
    fn end(self) -> Result<Leader, ClientError> {
        match self.fallback {
            Some(leader) => Ok(leader),
            None if self.heard => Err(ClientError::NoLeader { why: self.why }),
            None => Err(ClientError::NobodyReachable { why: self.why }),
        }
    }
}
