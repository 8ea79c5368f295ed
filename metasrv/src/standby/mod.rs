//! A standby's eye on the leader: where there is evidence that it does not lead any more, it is deposed instead of waited for.
//! One transaction removes its key and begins the term of whoever is next (`metasrv_core::handover`); then its lease is revoked,
//! which alone suffices where that transaction is not possible.
//!
//! | file | evidence | takes |
//! | --- | --- | --- |
//! | `port.rs` | the leader's process is gone | milliseconds |
//! | `vote.rs` | a majority of the replicas hears nothing of it | a second |
//! | | none: its lease expires | the TTL |
//!
//! Evidence may be wrong, and acting on it is safe all the same: a leader that was deposed can write nothing, because every
//! write compares the fence; and before a region changes hands, a successor of a leader that did not resign waits for
//! TTL + L·(1+ρ), so for everything that leader may have granted (design 03, "fast takeover").

mod port;
mod vote;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metasrv_core::election::LeaseId;
use metasrv_core::id::Term;
use metasrv_core::suspicion::{Opinion, Suspicion};
use metasrv_core::time::{BootTime, Clock};
use tokio::sync::watch;

use crate::dial::Dialer;
use crate::etcd::election::EtcdElection;
use crate::handler::KnownLeader;
use crate::keys::Keys;
use crate::leader::{Resignation, Succession, resign};
use crate::metrics::Metrics;
use crate::observer::View;
use crate::store::Store;

/// After a revocation, or a failed one, the leader is looked at again after so long.
const RETRY: Duration = Duration::from_millis(500);

/// A standby reads for so long whose turn is next.
const PREPARE: Duration = Duration::from_millis(250);

/// See the module.
pub struct Standby {
    election: Arc<EtcdElection>,
    store: Arc<dyn Store>,
    keys: Keys,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    dialer: Dialer,
    suspicion: Mutex<Suspicion>,
}

impl Standby {
    /// `longest` is the most patience with a silent leader: the TTL of its lease.
    pub fn new(
        election: Arc<EtcdElection>,
        store: Arc<dyn Store>,
        keys: Keys,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        dialer: Dialer,
        longest: Duration,
    ) -> Arc<Standby> {
        let suspicion = Mutex::new(Suspicion::new(longest));
        Arc::new(Standby { election, store, keys, clock, metrics, dialer, suspicion })
    }

    /// What this replica thinks of the leader of this term.
    pub fn opinion(&self, term: Term) -> Opinion {
        let now = self.clock.now();
        self.with(|suspicion| suspicion.opinion(term, now))
    }

    fn heard(&self, term: Term, sent_at: BootTime) {
        self.with(|suspicion| suspicion.heard(term, sent_at));
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut Suspicion) -> T) -> T {
        use_it(&mut self.suspicion.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Watches whoever leads, until the process ends.
    pub async fn watch(self: Arc<Self>, view: watch::Receiver<View>) {
        let mut changes = view.clone();
        loop {
            let leader = other_leader(&changes.borrow_and_update());
            let now = self.clock.now();
            let term = leader.as_ref().map_or(Term(0), |(leader, _)| leader.term);
            self.with(|suspicion| suspicion.listen(term, now));
            let watched = async {
                match &leader {
                    Some((leader, lease)) => (self.watch_leader(leader, &view).await, leader, *lease),
                    None => std::future::pending().await,
                }
            };
            let changed = async {
                // What is not about who leads is no news here.
                let news = changes.wait_for(|view| other_leader(view) != leader).await;
                news.is_ok()
            };
            tokio::select! {
                biased;
                // The sender is gone only when the replica is.
                news = changed => if !news { return },
                (evidence, known, lease) = watched => {
                    // Goes on to its end, though others see the next leader before.
                    self.depose(known, lease, evidence).await;
                    // Its key is gone, and the view will say so; if not, there is no hurry to look again.
                    let news = changes.wait_for(|view| other_leader(view) != leader);
                    let _ = tokio::time::timeout(RETRY, news).await.map(|news| news.is_ok());
                }
            }
        }
    }

    /// Comes back with evidence that this leader does not lead any more.
    async fn watch_leader(&self, leader: &KnownLeader, view: &watch::Receiver<View>) -> &'static str {
        tokio::select! {
            () = port::gone(&self.dialer, &leader.addr) => "gone",
            () = vote::deposed(self, leader, view) => "silent",
        }
    }

    async fn depose(&self, leader: &KnownLeader, lease: LeaseId, evidence: &'static str) {
        tracing::warn!(
            term = %leader.term, leader = leader.name, addr = leader.addr, evidence,
            "{}; deposing it",
            match evidence {
                "gone" => "the leader's process is gone: its connection ended and its port refuses",
                _ => "a majority of the replicas hears nothing of the leader",
            }
        );
        self.pass_on(lease).await;
        match self.election.revoke(lease.0).await {
            Ok(_) => self.metrics.depositions.with_label_values(&[evidence]).inc(),
            Err(error) => tracing::warn!(%error, "the lease could not be revoked; it expires by itself"),
        }
    }

    /// Ends the leadership under this lease, and begins the term of whoever is next, where that can be told soon. Whatever
    /// comes of it, the lease is revoked afterwards.
    async fn pass_on(&self, lease: LeaseId) {
        let (store, key) = (self.store.as_ref(), self.keys.candidate(lease));
        let preparing = Succession::prepare(store, &self.keys, &key);
        let next = match tokio::time::timeout(PREPARE, preparing).await {
            Ok(Ok(next)) => next,
            Ok(Err(why)) => return tracing::info!(%why, "whoever leads next begins its term itself"),
            Err(_) => return tracing::info!("the store has not said in time whose turn is next"),
        };
        match resign(store, &self.keys, &next.ends, None, Some(&next)).await {
            Resignation::HandedOver => {
                tracing::info!(next = next.name, term = %next.term, "deposed, and began the next term")
            }
            other => tracing::info!(outcome = ?other, "the next term is left to whoever leads it"),
        }
    }
}

/// The leader, if it is another replica, and the lease under its key.
fn other_leader(view: &View) -> Option<(KnownLeader, LeaseId)> {
    let leader = view.leader.clone().filter(|leader| Some(&leader.addr) != view.own_addr.as_ref())?;
    Some((leader, view.leader_lease?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(leader: &str, own: &str, lease: Option<i64>) -> View {
        let known = KnownLeader { addr: leader.to_owned(), name: "x".to_owned(), term: Term(1) };
        View {
            leader: Some(known),
            own_addr: Some(own.to_owned()),
            leader_lease: lease.map(LeaseId),
            ..View::default()
        }
    }

    #[test]
    fn only_another_replica_whose_lease_is_known_is_watched() {
        assert!(other_leader(&view("a:1", "b:1", Some(7))).is_some());
        assert!(other_leader(&view("a:1", "a:1", Some(7))).is_none(), "not ourselves");
        assert!(other_leader(&view("a:1", "b:1", None)).is_none());
        assert!(other_leader(&View::default()).is_none());
    }
}
