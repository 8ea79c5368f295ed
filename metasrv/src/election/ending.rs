//! How this replica's leadership and its attempts end: what is told to the store, and in which order.

use std::sync::Arc;
use std::time::Duration;

use metasrv_core::election::{Attempt, Event, LeaseId};
use metasrv_core::id::Fence;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::{Elector, Message};
use crate::etcd::election::Revoked;
use crate::leader::{Candidate, Leader, Resignation, Succession, resign};

/// The last drain before a resignation may take so long.
pub(super) const DRAIN: Duration = Duration::from_secs(2);

/// The streams of a leader that handed over wait so long for the next one to show itself, before they are told.
const SUCCESSOR: Duration = Duration::from_millis(300);

/// A release waits so long for the resignation before it: a little more than a call to the store takes.
const RESIGN: Duration = Duration::from_millis(2_500);

/// A leader that hands over reads for so long whose turn is next.
const PREPARE: Duration = Duration::from_millis(500);

/// Time between two attempts to release a lease.
const RELEASE_RETRY: Duration = Duration::from_millis(500);

impl Elector {
    /// Ends what only a leader has, at once; then tells the store, whose fence has the last word.
    pub(super) fn step_down(&mut self, why: &'static str) {
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
            log_resignation(&candidate, &fence, own, None).await;
            drop(answered);
            finish_tasks(tasks).await;
        });
    }

    /// Gives leadership up on request: what is queued is written, nothing is granted any more, the key goes, and then the
    /// streams are told who is next.
    pub(super) fn hand_over(&mut self, attempt: Attempt) {
        self.fence = None;
        let Some((leader, tasks)) = self.leading.take() else { return };
        let (candidate, sender, seen) = (self.candidate.clone(), self.sender.clone(), self.seen.clone());
        let mut view = self.vitals.view.clone();
        self.calls.spawn(async move {
            let term = leader.term();
            tracing::info!(%term, "handing leadership over");
            // What is queued is written while it still grants, and nothing more is queued: so that nobody waits for the
            // store between the last grant of this leader and the resignation.
            leader.last_drain(DRAIN).await;
            let next = prepare(&candidate, &leader).await;
            leader.stop_granting();
            let (fence, record, revision) = leader.last_will().await;
            log_resignation(&candidate, &fence, Some((record, revision)), next).await;
            candidate.metrics.step_downs.with_label_values(&["handed_over"]).inc();
            let _ = sender.send(Message::Event(Event::HandedOver(attempt))).await;
            // A thousand streams that end now would take from the successor the time that it needs to begin. Whoever has
            // something to say meanwhile is told that this replica does not lead.
            let next = view.wait_for(|view| view.leader_after(term).is_some());
            let next = tokio::time::timeout(SUCCESSOR, next).await.is_ok();
            tracing::debug!(%term, next, "the streams are told");
            leader.end();
            // A later term may have begun meanwhile: only this one's leader is taken away.
            seen.send_if_modified(|seen| seen.take_if(|seen| Arc::ptr_eq(seen, &leader)).is_some());
            finish_tasks(tasks).await;
        });
    }

    /// Ends the campaign and revokes the lease until etcd says that it is gone, so that no key is left in the queue.
    pub(super) fn release(&mut self, attempt: Attempt, lease: LeaseId) {
        for campaign in self.campaigns.remove(&attempt).unwrap_or_default() {
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

/// What the resignation of this leader adds for its successor, if that can be told soon. It still grants meanwhile.
async fn prepare(candidate: &Candidate, leader: &Leader) -> Option<Succession> {
    let (fence, ..) = leader.last_will().await;
    let preparing = Succession::prepare(candidate.store.as_ref(), &candidate.keys, &fence.key);
    let why = match tokio::time::timeout(PREPARE, preparing).await {
        Ok(Ok(next)) => return Some(next),
        Ok(Err(why)) => why.to_string(),
        Err(_) => format!("the store has not answered within {PREPARE:?}"),
    };
    tracing::info!(term = %leader.term(), why, "whoever leads next begins its term itself");
    None
}

async fn finish_tasks(mut tasks: JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

async fn log_resignation(
    candidate: &Candidate,
    fence: &Fence,
    own: Option<(metasrv_proto::admin::TermRecord, i64)>,
    next: Option<Succession>,
) {
    let term = own.as_ref().map_or(0, |(record, _)| record.term);
    match resign(candidate.store.as_ref(), &candidate.keys, fence, own, next.as_ref()).await {
        Resignation::Done => tracing::info!(term, key = fence.key, "resigned"),
        Resignation::HandedOver => {
            let (next, begun) = next.map_or_else(Default::default, |next| (next.name, next.term.0));
            tracing::info!(term, key = fence.key, next, begun, "resigned, and began the successor's term");
        }
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
