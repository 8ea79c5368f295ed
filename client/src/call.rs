//! How a call of an operator or a tool reaches whoever answers it, for every service that has such calls.
//!
//! The leader is found as for heartbeats. What is certainly not done (a replica does not lead, a connection could not
//! be opened) is tried again until the deadline. What happens after that depends on the call:
//!
//! | the answer | a read, or a change that may be made twice | any other change |
//! | --- | --- | --- |
//! | does not come in time | `TimedOut` | `Unknown` |
//! | is lost with its connection | tried again | `Unknown` |
//! | says that it is not known whether it was done | tried again | `Unknown` |
//! | says that it cannot be done now | tried again | `Failed` |
//! | says no | final | final |
//!
//! What any replica answers is asked of one after another, each a little later than the one before: the first answer
//! counts, a silent replica costs no more than that little, and no replica works for nothing as a rule.

use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::client::{Leader, MetaClient};
use crate::error::{ClientError, describe};

/// Where a replica that does not lead says who does.
const LEADER_KEY: &str = "metasrv-leader";

/// When no replica answers at all, waiting longer helps only if one is just being restarted.
const NOBODY_PATIENCE: Duration = Duration::from_secs(3);

/// Finds who answers, with one deadline for all attempts of a call. Clones are cheap.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) client: MetaClient,
    pub(crate) limit: Duration,
}

/// What a second attempt would do after an answer was lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Repeat {
    /// The same: it only reads.
    Harmless,
    /// Perhaps twice what was asked.
    Never,
}

/// Why one attempt failed.
enum Failure {
    /// Certainly not done, and another attempt may succeed.
    Again(ClientError),
    /// No further attempt.
    Final(ClientError),
}

/// Why one replica's answer is none.
enum Missed {
    /// It said so itself.
    Said(Status),
    /// Nothing came.
    Lost(ClientError),
}

impl Caller {
    /// With the deadline for calls of tools that the client is configured with.
    pub(crate) fn new(client: MetaClient) -> Caller {
        let limit = client.config().timeouts.admin;
        Caller { client, limit }
    }

    /// The largest message that is sent or taken, in bytes.
    pub(crate) fn largest_message(&self) -> usize {
        self.client.config().max_message_bytes
    }

    /// One call that any replica answers: the first answer counts. A refusal that every other one would repeat is final.
    pub(crate) async fn on_any<T, F>(
        &self,
        what: &'static str,
        call: impl Fn(Channel) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let started = Instant::now();
        let call = &call;
        let ask = |addr| async move {
            let left = self.limit.saturating_sub(started.elapsed());
            (addr, self.ask(left, what, addr, call).await)
        };
        let mut asked = FuturesUnordered::new();
        let mut peers = self.client.peers().iter().map(String::as_str);
        let (mut said, mut lost) = (Vec::new(), Vec::new());
        loop {
            let next = peers.next().map(|addr| asked.push(ask(addr)));
            // Each but the last has a head start. The last ones have all the time that is left.
            let patience = if next.is_some() { self.first_answer() } else { self.limit };
            match tokio::time::timeout(patience, asked.next()).await {
                Ok(Some((_, Ok(answer)))) => return Ok(answer),
                Ok(Some((addr, Err(Missed::Said(status))))) => match final_word(&status) {
                    Some(word) => return Err(word),
                    None => said.push(format!("{addr}: {}", describe(&status))),
                },
                Ok(Some((_, Err(Missed::Lost(error))))) => lost.push(error.to_string()),
                Ok(None) if next.is_none() => break,
                Ok(None) | Err(_) => {}
            }
        }
        // Who answers and cannot is a better reason than who does not answer.
        Err(match said.is_empty() {
            true => ClientError::NobodyReachable { why: lost.join("; ") },
            false => ClientError::Failed(format!("{what}: {}", said.join("; "))),
        })
    }

    /// One call to one replica, which is given up after [`Caller::first_answer`].
    pub(crate) async fn on_replica<T, F>(
        &self,
        what: &'static str,
        addr: &str,
        call: impl FnOnce(Channel) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        self.on_replica_within(self.first_answer(), what, addr, call).await
    }

    /// One replica is given up when it has not begun to answer after this time.
    pub(crate) fn first_answer(&self) -> Duration {
        self.client.config().timeouts.ask.min(self.limit)
    }

    /// The same with a deadline of its own.
    pub(crate) async fn on_replica_within<T, F>(
        &self,
        limit: Duration,
        what: &'static str,
        addr: &str,
        call: impl FnOnce(Channel) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        self.ask(limit, what, addr, call).await.map_err(|missed| match missed {
            Missed::Said(status) => ClientError::transport(addr, &status),
            Missed::Lost(error) => error,
        })
    }

    async fn ask<T, F>(
        &self,
        limit: Duration,
        what: &'static str,
        addr: &str,
        call: impl FnOnce(Channel) -> F,
    ) -> Result<T, Missed>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let lent = self.client.channels().get(addr).map_err(Missed::Lost)?;
        let answer = tokio::time::timeout(limit, call(lent.channel.clone())).await;
        if !matches!(answer, Ok(Ok(_))) {
            self.client.channels().forget(&lent);
        }
        match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(status)) if said_by_peer(&status) => Err(Missed::Said(status)),
            Ok(Err(status)) => Err(Missed::Lost(ClientError::transport(addr, &status))),
            Err(_) => {
                let why = format!("{addr} does not answer");
                Err(Missed::Lost(ClientError::TimedOut { what, after: limit, why }))
            }
        }
    }

    /// One call to the leader, wherever it is: tried again until the deadline as far as `repeat` allows.
    pub(crate) async fn on_leader<T, F>(
        &self,
        what: &'static str,
        repeat: Repeat,
        call: impl Fn(Channel) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let started = Instant::now();
        let mut waits = self.client.config().back_off.start();
        loop {
            let left = self.limit.saturating_sub(started.elapsed());
            let error = match self.attempt(what, repeat, left, &call).await {
                Ok(value) => return Ok(value),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Again(error)) => error,
            };
            let given_up = match &error {
                ClientError::NobodyReachable { .. } => NOBODY_PATIENCE.min(self.limit),
                _ => self.limit,
            };
            let wait = if error.names_leader() { Duration::from_millis(1) } else { waits.next_wait() };
            if started.elapsed() + wait >= given_up {
                return Err(match error {
                    ClientError::NobodyReachable { .. } | ClientError::NoLeader { .. } => error,
                    other => ClientError::TimedOut { what, after: self.limit, why: other.to_string() },
                });
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt<T, F>(
        &self,
        what: &'static str,
        repeat: Repeat,
        left: Duration,
        call: impl Fn(Channel) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let leader = match self.client.leader() {
            Some(leader) => leader,
            None => self.client.ask_leader().await.map_err(Failure::Again)?,
        };
        // A connection of its own: if it cannot be opened, then nothing was sent.
        let channel = match self.client.channels().connect(&leader.addr).await {
            Ok(channel) => channel,
            Err(error) => {
                self.client.forget_leader(&leader);
                return Err(Failure::Again(error));
            }
        };
        match tokio::time::timeout(left, call(channel)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(status)) if status.code() == Code::FailedPrecondition => {
                Err(self.refused(&leader, &status).await)
            }
            Ok(Err(status)) => {
                let failure = judge(what, repeat, &leader, &status);
                if matches!(failure, Failure::Again(_)) {
                    self.client.forget_leader(&leader);
                }
                Err(failure)
            }
            Err(_) => {
                self.client.forget_leader(&leader);
                let why = format!("{} did not answer in time", leader.addr);
                Err(Failure::Final(match repeat {
                    Repeat::Harmless => ClientError::TimedOut { what, after: self.limit, why },
                    Repeat::Never => ClientError::Unknown { what, why },
                }))
            }
        }
    }

    /// FAILED_PRECONDITION is said by a replica that does not lead, and by a leader that will not do it. Where the
    /// metadata does not tell, the other replicas do: the leader's own refusal is final.
    async fn refused(&self, asked: &Leader, status: &Status) -> Failure {
        let named =
            status.metadata().get(LEADER_KEY).map(|value| value.to_str().unwrap_or_default().to_owned());
        let not_leader = |leader: Option<String>| {
            Failure::Again(ClientError::NotLeader { addr: asked.addr.clone(), leader, term: asked.term })
        };
        self.client.forget_leader(asked);
        if let Some(named) = named {
            let followed = named != asked.addr && self.client.hint(&named, self.client.highest_term());
            return not_leader(Some(named).filter(|_| followed));
        }
        match self.client.ask_leader().await {
            Ok(leader) if leader == *asked && !speaks_of_leadership(status) => {
                Failure::Final(ClientError::Refused(status.message().to_owned()))
            }
            Ok(leader) if leader != *asked => not_leader(Some(leader.addr)),
            _ => not_leader(None),
        }
    }
}

/// A replica that lost leadership a moment ago may still be named by the others.
fn speaks_of_leadership(status: &Status) -> bool {
    status.message().contains("does not lead")
}

/// A status that the other end sent has no cause on this side; a broken connection has one.
fn said_by_peer(status: &Status) -> bool {
    std::error::Error::source(status).is_none()
}

/// What a failed call means for the change it asked for.
fn judge(what: &'static str, repeat: Repeat, leader: &Leader, status: &Status) -> Failure {
    let message = || status.message().to_owned();
    match status.code() {
        Code::NotFound => Failure::Final(ClientError::NotFound(message())),
        Code::InvalidArgument | Code::OutOfRange => Failure::Final(ClientError::InvalidArgument(message())),
        Code::ResourceExhausted | Code::AlreadyExists | Code::PermissionDenied | Code::Unauthenticated => {
            Failure::Final(ClientError::Refused(message()))
        }
        Code::Unimplemented => Failure::Final(ClientError::Refused(describe(status))),
        Code::Unavailable if said_by_peer(status) && repeat == Repeat::Never => {
            Failure::Final(ClientError::Failed(message()))
        }
        _ if repeat == Repeat::Harmless => Failure::Again(ClientError::transport(&leader.addr, status)),
        _ => Failure::Final(ClientError::Unknown {
            what,
            why: format!("{}: {}", leader.addr, describe(status)),
        }),
    }
}

/// What one replica says of a question that every other one would say too.
fn final_word(status: &Status) -> Option<ClientError> {
    let message = || status.message().to_owned();
    match status.code() {
        Code::NotFound => Some(ClientError::NotFound(message())),
        Code::InvalidArgument | Code::OutOfRange => Some(ClientError::InvalidArgument(message())),
        Code::PermissionDenied | Code::Unauthenticated | Code::ResourceExhausted => {
            Some(ClientError::Refused(message()))
        }
        _ => None,
    }
}
