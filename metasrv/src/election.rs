//! Executes what `metasrv_core::election` decides: calls to etcd go out as tasks, their answers come back as events.

mod handle;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metasrv_core::election::{Attempt, Effect, Election, Event, KeySeen, LeaseId, LeaseSeen, Leave};
use metasrv_core::id::Fence;
use metasrv_core::time::BootTime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};

pub use handle::ElectionHandle;

use crate::etcd::election::{EtcdElection, KeptAlive, Revoked};
use crate::leader::{Candidate, Leader, Prepared, Resignation, resign, take_over};
use crate::record;

/// Answers on their way to the loop. At most a handful of calls are under way at once: one keep-alive and one read
/// per fifth of a TTL, each bounded by its own deadline.
const EVENT_QUEUE: usize = 64;

/// The last drain before a resignation may take so long.
const DRAIN: Duration = Duration::from_secs(2);

/// A release waits so long for the resignation before it: a little more than a call to the store takes.
const RESIGN: Duration = Duration::from_millis(2_500);

/// Time between two attempts to release a lease.
const RELEASE_RETRY: Duration = Duration::from_millis(500);

enum Message {
    Event(Event),
    /// The term is raised and the state loaded.
    Prepared(Attempt, Box<Prepared>),
}

/// Runs elections until told to shut down; publishes what this replica has as leader.
pub struct Elector {
    election: Election,
    api: Arc<EtcdElection>,
    candidate: Candidate,
    seen: watch::Sender<Option<Arc<Leader>>>,
    leave: mpsc::Receiver<Leave>,
    /// When the loop turned last.
    turned: watch::Sender<BootTime>,
    sender: mpsc::Sender<Message>,
    messages: mpsc::Receiver<Message>,
    calls: JoinSet<()>,
    campaigns: HashMap<Attempt, AbortHandle>,
    prepared: Option<(Attempt, Box<Prepared>)>,
    leading: Option<(Arc<Leader>, JoinSet<()>)>,
    fence: Option<Fence>,
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
    ) -> (Elector, ElectionHandle) {
        let (handle, leave, turned) = ElectionHandle::new(&candidate);
        let (sender, messages) = mpsc::channel(EVENT_QUEUE);
        let election = Election::new(candidate.timing, rand::random(), candidate.clock.now());
        let elector = Elector {
            election,
            api,
            candidate,
            seen,
            leave,
            turned,
            sender,
            messages,
            calls: JoinSet::new(),
            campaigns: HashMap::new(),
            prepared: None,
            leading: None,
            fence: None,
            attempt: Attempt(0),
            resigned: None,
        };
        (elector, handle)
    }

    /// Runs until this replica has left for good.
    pub async fn run(mut self) {
        loop {
            let now = self.candidate.clock.now();
            self.turned.send_replace(now);
            let wake = tokio::time::sleep(self.election.wakes_at().since(now));
            let event = tokio::select! {
                biased;
                Some(leave) = self.leave.recv() => Event::Leave(leave),
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
            for effect in self.election.step(now, event) {
                if matches!(effect, Effect::Stopped) {
                    self.finish().await;
                    return;
                }
                self.execute(effect);
            }
        }
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
            Effect::ReadQueue(attempt, lease) => {
                let name = self.candidate.keys.election();
                self.call(async move {
                    let queue = api.candidates(&name).await.ok()?;
                    let first = queue.records.into_iter().next()?;
                    let ours = first.key == key_of(&name, lease);
                    ours.then_some(Event::Campaigned(
                        attempt,
                        Fence { key: first.key, create_revision: first.create_revision },
                    ))
                });
            }
            Effect::Read(attempt, fence) => self.call(async move {
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
            }),
            Effect::Campaign(attempt, lease) => self.campaign(attempt, lease),
            Effect::RaiseTerm(attempt, fence, leadership) => {
                self.fence = Some(fence.clone());
                let (candidate, sender) = (self.candidate.clone(), self.sender.clone());
                self.calls.spawn(async move {
                    let message = match take_over(candidate, fence, leadership).await {
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
            Effect::Release(attempt, lease) => self.release(attempt, lease),
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
        self.campaigns.insert(attempt, campaign);
    }

    fn lead(&mut self, attempt: Attempt, term: u64, read_back: BootTime) {
        let Some((_, prepared)) = self.prepared.take().filter(|(prepared, _)| *prepared == attempt) else {
            return tracing::error!(term, "the state of this term was not loaded");
        };
        let (leader, tasks) = prepared.lead(read_back);
        self.candidate.metrics.elections.with_label_values(&["won"]).inc();
        self.seen.send_replace(Some(Arc::clone(&leader)));
        self.leading = Some((leader, tasks));
    }

    /// Ends what only a leader has, at once; then tells the store, whose fence has the last word.
    fn step_down(&mut self, why: &'static str) {
        self.prepared = None;
        let fence = self.fence.take();
        let leading = self.leading.take();
        match &leading {
            Some((leader, _)) => {
                leader.end();
                self.seen.send_replace(None);
                tracing::warn!(term = %leader.term(), why, "stepping down");
            }
            None => self.candidate.metrics.elections.with_label_values(&["lost"]).inc(),
        }
        let Some(fence) = fence else { return };
        let candidate = self.candidate.clone();
        let (answered, resigned) = oneshot::channel();
        self.resigned = Some(resigned);
        self.calls.spawn(async move {
            // Dropped with this task, whatever becomes of it: the release goes on then.
            let answered = answered;
            let (own, tasks) = match leading {
                Some((leader, tasks)) => {
                    let (_, record, revision) = leader.last_will().await;
                    (Some((record, revision)), tasks)
                }
                None => (None, JoinSet::new()),
            };
            log_resignation(&candidate, &fence, own).await;
            drop(answered);
            finish_tasks(tasks).await;
        });
    }

    /// Gives leadership up on request: nothing is granted any more, what is queued is written, then the key goes.
    fn hand_over(&mut self, attempt: Attempt) {
        self.fence = None;
        let Some((leader, tasks)) = self.leading.take() else { return };
        let (candidate, sender, seen) = (self.candidate.clone(), self.sender.clone(), self.seen.clone());
        self.calls.spawn(async move {
            leader.stop_granting();
            tracing::info!(term = %leader.term(), "handing leadership over");
            leader.drain(DRAIN).await;
            leader.end();
            // A later term may have begun meanwhile: only this one's leader is taken away.
            seen.send_if_modified(|seen| seen.take_if(|seen| Arc::ptr_eq(seen, &leader)).is_some());
            let (fence, record, revision) = leader.last_will().await;
            log_resignation(&candidate, &fence, Some((record, revision))).await;
            candidate.metrics.step_downs.with_label_values(&["handed_over"]).inc();
            let _ = sender.send(Message::Event(Event::HandedOver(attempt))).await;
            finish_tasks(tasks).await;
        });
    }

    /// Ends the campaign and revokes the lease until etcd says that it is gone, so that no key is left in the queue.
    fn release(&mut self, attempt: Attempt, lease: LeaseId) {
        if let Some(campaign) = self.campaigns.remove(&attempt) {
            campaign.abort();
        }
        let api = Arc::clone(&self.api);
        // A key that is revoked before it was resigned costs the successor a longer wait.
        let resigned = self.resigned.take();
        self.calls.spawn(async move {
            if let Some(resigned) = resigned {
                // Resolves also when the resignation failed; what it does not end, the revocation does.
                let _ = tokio::time::timeout(RESIGN, resigned).await;
            }
            loop {
                match api.revoke(lease.0).await {
                    Ok(Revoked::Done | Revoked::NotFound) => break,
                    Err(error) => tracing::debug!(%error, "an election lease could not be revoked yet"),
                }
                tokio::time::sleep(RELEASE_RETRY).await;
            }
        });
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

/// The key that etcd makes for a candidate.
fn key_of(election: &str, lease: LeaseId) -> String {
    format!("{election}/{:x}", lease.0)
}

async fn finish_tasks(mut tasks: JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

async fn log_resignation(
    candidate: &Candidate,
    fence: &Fence,
    own: Option<(metasrv_proto::admin::TermRecord, i64)>,
) {
    let term = own.as_ref().map_or(0, |(record, _)| record.term);
    match resign(candidate.store.as_ref(), &candidate.keys, fence, own).await {
        Resignation::Done => tracing::info!(term, key = fence.key, "resigned"),
        Resignation::FenceGone => tracing::warn!(
            term,
            key = fence.key,
            create_revision = fence.create_revision,
            "fenced write refused: the key is gone, this term is over"
        ),
        Resignation::Conflict => {
            tracing::warn!(term, "the record of this term was changed; it ends without one")
        }
        Resignation::Unknown(error) => {
            tracing::warn!(term, %error, "whether this term is recorded as resigned is unknown");
        }
    }
}
