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

/// While a leader keeps us waiting, the others are asked this often whether there is another one.
const LOOK_AROUND: BackOff = BackOff { first: Duration::from_millis(300), most: Duration::from_millis(1000) };

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
        let found = self.race(self.failed_leader()).await?;
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

    /// Resolves once another leader than `present` is known, and remembers it.
    pub(crate) async fn other_leader(&self, present: &Leader) -> Leader {
        let mut waits = LOOK_AROUND.start();
        loop {
            waits.wait().await;
            if let Ok(found) = self.race(Some(present.clone())).await
                && found != *present
            {
                self.remember(found.clone());
                return found;
            }
        }
    }

    /// One round. `avoided` wins only if nobody names another leader.
    async fn race(&self, avoided: Option<Leader>) -> Result<Leader, ClientError> {
        let mut peers = self.peers().to_vec();
        peers.shuffle(&mut rand::rng());
        let mut waiting = peers.into_iter();
        let mut asked = FuturesUnordered::new();
        let mut round = Round { avoided, ..Round::default() };
        asked.extend(waiting.next().map(|peer| self.ask(peer)));
        loop {
            tokio::select! {
                biased;
                Some((peer, answer)) = asked.next(), if !asked.is_empty() => {
                    if let Some(leader) = round.take(peer, answer) {
                        return Ok(leader);
                    }
                    asked.extend(waiting.next().map(|peer| self.ask(peer)));
                }
                () = tokio::time::sleep(self.config().stagger), if waiting.len() > 0 => {
                    asked.extend(waiting.next().map(|peer| self.ask(peer)));
                }
                else => return round.end(),
            }
        }
    }

    async fn ask(&self, peer: String) -> (String, Answer) {
        let answer = match tokio::time::timeout(self.config().timeouts.ask, self.ask_one(&peer)).await {
            Ok(answer) => answer,
            Err(_) => {
                // It may be stopped or cut off; the next question takes a connection of its own.
                if let Ok(lent) = self.channels().get(&peer) {
                    self.channels().forget(&lent);
                }
                Answer::Silent(format!("no answer within {:?}", self.config().timeouts.ask))
            }
        };
        (peer, answer)
    }

    async fn ask_one(&self, peer: &str) -> Answer {
        let lent = match self.channels().get(peer) {
            Ok(lent) => lent,
            Err(error) => return Answer::Silent(error.to_string()),
        };
        let request = AskLeaderRequest { header: Some(self.request_header()) };
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
            return match self.judge(peer, response.header.as_ref()) {
                Err(error @ ClientError::OtherInstallation { .. }) => Answer::Nobody(error.to_string()),
                _ => Answer::Nobody("knows of no leader".to_owned()),
            };
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
