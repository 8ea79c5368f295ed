//! Executes what `metasrv_core::election` decides: calls to etcd go out as tasks, their answers come back as events.

mod ending;
mod handle;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metasrv_core::election::{Attempt, Effect, Election, Event, KeySeen, LeaseId, LeaseSeen, Leave, Vitals};
use metasrv_core::id::Fence;
use metasrv_core::time::BootTime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};

pub use handle::ElectionHandle;
use handle::Loop;

use crate::etcd::election::{EtcdElection, KeptAlive};
use crate::faults::Faults;
use crate::leader::{Candidate, Ground, Leader, Prepared, take_over};
use crate::observer::View;
use crate::probe::Answer;
use crate::record;
use ending::DRAIN;

/// Answers on their way to the loop. At most a handful of calls are under way at once: one keep-alive and one read
/// per fifth of a TTL, each bounded by its own deadline.
const EVENT_QUEUE: usize = 64;

/// The loop turns at least so often, also where nothing is due: whoever asks whether it stands still need not wait long
/// to know.
const PULSE: Duration = Duration::from_millis(50);

enum Message {
    Event(Event),
    /// The term is raised and the state loaded.
    Prepared(Attempt, Box<Prepared>),
}

/// What the elector knows of its own replica's work, and of the others.
pub struct VitalSigns {
    /// The last probe heartbeat that came back through this replica's own listener.
    pub answers: watch::Receiver<Option<Answer>>,
    /// The queue.
    pub view: watch::Receiver<View>,
    /// Faults that somebody asked for; none in a replica that was not started for that.
    pub faults: Faults,
}

/// Runs elections until told to shut down; publishes what this replica has as leader.
pub struct Elector {
    election: Election,
    api: Arc<EtcdElection>,
    candidate: Candidate,
    seen: watch::Sender<Option<Arc<Leader>>>,
    kept: Loop,
    vitals: VitalSigns,
    sender: mpsc::Sender<Message>,
    messages: mpsc::Receiver<Message>,
    calls: JoinSet<()>,
    /// Of each attempt that is not given up: its campaign, and who looks whether its term was begun for it.
    campaigns: HashMap<Attempt, Vec<AbortHandle>>,
    prepared: Option<(Attempt, Box<Prepared>)>,
    leading: Option<(Arc<Leader>, JoinSet<()>)>,
    fence: Option<Fence>,
    /// What a term is begun on, read since the campaign of this attempt was won.
    ground: Option<oneshot::Receiver<Ground>>,
    attempt: Attempt,
    /// Resolves when the resignation under way, if any, has its answer.
    resigned: Option<oneshot::Receiver<()>>,
}

impl Elector {
    /// A candidate that publishes its leadership in `seen`.
    pub fn new(
        api: Arc<EtcdElection>,
        candidate: Candidate,
        seen: watch::Sender<Option<Arc<Leader>>>,
        vitals: VitalSigns,
    ) -> (Elector, ElectionHandle) {
        let (handle, kept) = ElectionHandle::new(&candidate);
        let (sender, messages) = mpsc::channel(EVENT_QUEUE);
        let election = Election::new(candidate.timing, rand::random(), candidate.clock.now());
        let elector = Elector {
            election,
            api,
            candidate,
            seen,
            kept,
            vitals,
            sender,
            messages,
            calls: JoinSet::new(),
            campaigns: HashMap::new(),
            prepared: None,
            leading: None,
            fence: None,
            ground: None,
            attempt: Attempt(0),
            resigned: None,
        };
        (elector, handle)
    }

    /// Runs until this replica has left for good.
    pub async fn run(mut self) {
        loop {
            self.vitals.faults.block_here().await;
            let now = self.candidate.clock.now();
            self.kept.turned.send_replace(now);
            let wake = tokio::time::sleep(self.election.wakes_at().since(now).min(PULSE));
            let event = tokio::select! {
                biased;
                Some(leave) = self.kept.inbox.recv() => Event::Leave(leave),
                Some(message) = self.messages.recv() => match message {
                    Message::Event(event) => event,
                    Message::Prepared(attempt, prepared) => {
                        let term = prepared.term();
                        self.prepared = Some((attempt, prepared));
                        Event::TermRaised(attempt, term)
                    }
                },
                Some(ended) = self.calls.join_next() => match death(ended, self.attempt) {
                    Some(event) => event,
                    None => continue,
                },
                event = trouble(&mut self.leading, self.attempt) => event,
                () = wake => Event::Tick,
            };
            let now = self.candidate.clock.now();
            let mut effects = self.election.step(now, Event::Vitals(self.vitals()));
            effects.extend(self.election.step(now, event));
            for effect in effects {
                if matches!(effect, Effect::Stopped) {
                    self.finish().await;
                    return;
                }
                self.execute(effect);
            }
        }
    }

    /// What is known at this instant. A leader that is not told that it leads has proved nothing.
    fn vitals(&self) -> Vitals {
        let leading = self.leading.as_ref().map(|(leader, _)| leader.term());
        let answer = *self.vitals.answers.borrow();
        let proof = answer.filter(|answer| leading.is_none() || answer.term == leading);
        let view = self.vitals.view.borrow();
        let own = &self.candidate.record;
        let rivals = view.members.iter().any(|member| member.name != own.name || member.addr != own.addr);
        Vitals { proved_at: proof.map(|proof| proof.sent_at), rivals: view.read_at.map(|_| rivals) }
    }

    /// Lets the last releases end.
    async fn finish(mut self) {
        let released = async { while self.calls.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, released).await.is_err() {
            tracing::warn!("the election lease could not be released in time; it will expire");
        }
    }

    fn execute(&mut self, effect: Effect) {
        let api = Arc::clone(&self.api);
        let clock = Arc::clone(&self.candidate.clock);
        match effect {
            Effect::Grant(attempt) => {
                self.attempt = attempt;
                self.ground = None;
                let ttl = self.candidate.timing.election_ttl;
                self.call(async move {
                    match api.grant(ttl).await {
                        Ok((lease, ttl)) => Some(Event::Granted(attempt, LeaseId(lease), ttl)),
                        Err(error) => {
                            tracing::warn!(%error, "no election lease");
                            Some(Event::GrantFailed(attempt))
                        }
                    }
                });
            }
            Effect::KeepAlive(attempt, lease) => {
                let timeout = self.candidate.timing.keep_alive_timeout();
                self.call(async move {
                    let sent_at = clock.now();
                    match api.keep_alive_once(lease.0, timeout).await {
                        Ok(KeptAlive::Yes) => Some(Event::KeptAlive(attempt, sent_at, LeaseSeen::Alive)),
                        Ok(KeptAlive::Gone) => Some(Event::KeptAlive(attempt, sent_at, LeaseSeen::Gone)),
                        Err(error) => {
                            tracing::debug!(%error, "a keep-alive was not confirmed");
                            None
                        }
                    }
                });
            }
            Effect::Withhold(_) => {
                self.candidate.metrics.renewals_withheld.inc();
                tracing::warn!(
                    "no probe heartbeat came back through the own listener: the lease is not renewed"
                );
            }
            Effect::ReadQueue(attempt, lease) => {
                let (name, key) = (self.candidate.keys.election(), self.candidate.keys.candidate(lease));
                self.call(async move {
                    let queue = api.candidates(&name).await.ok()?;
                    let first = queue.records.into_iter().next()?;
                    let ours = first.key == key;
                    ours.then_some(Event::Campaigned(
                        attempt,
                        Fence { key: first.key, create_revision: first.create_revision },
                    ))
                });
            }
            Effect::Read(attempt, fence) => {
                if self.fence.is_none() && self.ground.is_none() {
                    self.kept.taking_over.send_replace(true);
                    self.read_ground(fence.clone());
                }
                self.call(async move {
                    let sent_at = clock.now();
                    match api.read_key(&fence.key).await {
                        Ok(found) => {
                            let ours = found.is_some_and(|key| key.create_revision == fence.create_revision);
                            let seen = if ours { KeySeen::Ours } else { KeySeen::NotOurs };
                            Some(Event::Read(attempt, sent_at, seen))
                        }
                        Err(error) => {
                            tracing::debug!(%error, "the election key could not be read");
                            None
                        }
                    }
                });
            }
            Effect::Campaign(attempt, lease) => self.campaign(attempt, lease),
            Effect::RaiseTerm(attempt, fence, leadership) => {
                self.fence = Some(fence.clone());
                let (candidate, sender) = (self.candidate.clone(), self.sender.clone());
                let ground = self.ground.take();
                self.calls.spawn(async move {
                    let ground = match ground {
                        Some(ground) => ground.await.ok(),
                        None => None,
                    };
                    let message = match take_over(candidate, fence, leadership, ground).await {
                        Ok(prepared) => Message::Prepared(attempt, Box::new(prepared)),
                        Err(error) => {
                            tracing::error!(%error, "cannot take over");
                            Message::Event(Event::TermNotRaised(attempt))
                        }
                    };
                    // The loop outlives its calls.
                    let _ = sender.send(message).await;
                });
            }
            Effect::Lead(attempt, term, read_back) => self.lead(attempt, term.0, read_back),
            Effect::StepDown(_, why) => {
                self.candidate.metrics.step_downs.with_label_values(&[why.name()]).inc();
                self.step_down(why.name());
            }
            Effect::HandOver(attempt) => self.hand_over(attempt),
            Effect::Release(attempt, lease) => {
                self.kept.taking_over.send_replace(false);
                self.release(attempt, lease);
            }
            Effect::Stopped => {}
        }
    }

    fn call(&mut self, call: impl Future<Output = Option<Event>> + Send + 'static) {
        let sender = self.sender.clone();
        self.calls.spawn(async move {
            if let Some(event) = call.await {
                // The loop outlives its calls.
                let _ = sender.send(Message::Event(event)).await;
            }
        });
    }

    /// Reads what the term will be begun on, beside the read-back of the key: a trip less without a leader.
    fn read_ground(&mut self, fence: Fence) {
        let (candidate, (answer, ground)) = (self.candidate.clone(), oneshot::channel());
        self.ground = Some(ground);
        self.calls.spawn(async move {
            match Ground::read(&candidate, &fence).await {
                // Nobody takes it where the win was none.
                Ok(ground) => drop(answer.send(ground)),
                Err(error) => tracing::debug!(%error, "what a term is begun on is read again"),
            }
        });
    }

    fn campaign(&mut self, attempt: Attempt, lease: LeaseId) {
        let (api, sender) = (Arc::clone(&self.api), self.sender.clone());
        let name = self.candidate.keys.election();
        let value = record::encode(&self.candidate.record);
        tracing::info!(
            candidate = self.candidate.record.name,
            lease = format!("{:x}", lease.0),
            "campaigning"
        );
        let campaign = self.calls.spawn(async move {
            let event = match api.campaign(&name, lease.0, value).await {
                Ok(fence) => Event::Campaigned(attempt, fence),
                Err(error) => {
                    tracing::warn!(%error, "the campaign failed; it may have been won all the same");
                    Event::CampaignFailed(attempt)
                }
            };
            let _ = sender.send(Message::Event(event)).await;
        });
        let mut campaigns = vec![campaign];
        campaigns.extend(self.await_begun_term(attempt, lease));
        self.campaigns.insert(attempt, campaigns);
    }

    /// The campaign ends with the predecessor's key, and says so after two trips; a term in the own key says it at once.
    fn await_begun_term(&mut self, attempt: Attempt, lease: LeaseId) -> Option<AbortHandle> {
        let (mirror, sender) = (self.candidate.mirror.clone()?, self.sender.clone());
        let key = self.candidate.keys.candidate(lease);
        Some(self.calls.spawn(async move {
            let fence = mirror.has_term(&key).await;
            let _ = sender.send(Message::Event(Event::Campaigned(attempt, fence))).await;
        }))
    }

    fn lead(&mut self, attempt: Attempt, term: u64, read_back: BootTime) {
        let Some((_, prepared)) = self.prepared.take().filter(|(prepared, _)| *prepared == attempt) else {
            return tracing::error!(term, "the state of this term was not loaded");
        };
        let (leader, tasks) = prepared.lead(read_back);
        self.candidate.metrics.elections.with_label_values(&["won"]).inc();
        self.seen.send_replace(Some(Arc::clone(&leader)));
        self.kept.taking_over.send_replace(false);
        self.leading = Some((leader, tasks));
    }
}

/// What the leader has to tell its owner; nothing where this replica does not lead, or all is well.
async fn trouble(leading: &mut Option<(Arc<Leader>, JoinSet<()>)>, attempt: Attempt) -> Event {
    let Some((leader, tasks)) = leading else { return std::future::pending().await };
    loop {
        tokio::select! {
            biased;
            () = leader.fence_lost() => return Event::FenceLost(attempt),
            () = leader.outranked() => return Event::Leave(Leave::Transfer),
            Some(ended) = tasks.join_next() => {
                if let Some(event) = death(ended, attempt) {
                    return event;
                }
            }
        }
    }
}

/// A task that ended as it should is none of our business; after one that died nothing can be relied upon.
fn death(ended: Result<(), JoinError>, attempt: Attempt) -> Option<Event> {
    let error = ended.err().filter(JoinError::is_panic)?;
    tracing::error!(%error, "a task of the election or of the leader died");
    Some(Event::TaskDied(attempt))
}
