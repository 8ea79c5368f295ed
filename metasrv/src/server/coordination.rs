//! How a replica comes to lead, and how it stops: by an election in etcd, or, in embedded mode, because it is the only one.

use std::sync::Arc;

use metasrv_core::election::Leave;
use metasrv_core::id::Fence;
use metasrv_core::lease::LeadershipLease;
use metasrv_core::time::BootTime;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{SHUTDOWN, ServeError};
use crate::election::ElectionHandle;
use crate::keys::Keys;
use crate::leader::{Candidate, Leader, resign, take_over};
use crate::record;
use crate::store::{Change, Outcome, Store, Txn};

/// How this replica comes to lead, and how it stops.
pub enum Coordination {
    /// By an election in etcd.
    Elected {
        /// Speaks to it.
        handle: ElectionHandle,
        /// Its task.
        running: tokio::task::JoinHandle<()>,
    },
    /// It is the only one.
    Alone {
        /// What it has as leader.
        leader: Arc<Leader>,
        /// The leader's tasks.
        leading: JoinSet<()>,
        /// Where everything is kept.
        store: Arc<dyn Store>,
        /// Under which names.
        keys: Keys,
        /// Says who leads.
        seen: watch::Sender<Option<Arc<Leader>>>,
    },
}

impl Coordination {
    /// Speaks to the election; nothing in embedded mode.
    pub fn handle(&self) -> Option<ElectionHandle> {
        match self {
            Coordination::Elected { handle, .. } => Some(handle.clone()),
            Coordination::Alone { .. } => None,
        }
    }

    /// Resolves when what should go on until the replica leaves has ended; never, if all is well.
    pub async fn ended(&mut self) -> ServeError {
        match self {
            Coordination::Elected { running, .. } => {
                if let Err(error) = running.await {
                    tracing::error!(%error, "the election died");
                }
                ServeError::Task("the election")
            }
            // The task that settles earlier terms ends when it has done so.
            Coordination::Alone { leader, leading, .. } => loop {
                tokio::select! {
                    biased;
                    () = leader.outranked() => return ServeError::Outranked(leader.term()),
                    Some(ended) = leading.join_next() => if let Err(error) = ended {
                        tracing::error!(%error, "a task of the leader died");
                        return ServeError::Task("a task of the leader");
                    },
                }
            },
        }
    }

    /// Gives leadership up: nothing is granted afterwards, what was queued is written, and the store knows.
    pub async fn leave(&mut self) {
        match self {
            Coordination::Elected { handle, running } => {
                handle.leave(Leave::Shutdown).await;
                if let Err(error) = running.await {
                    tracing::error!(%error, "the election ended badly; its lease will expire");
                }
            }
            Coordination::Alone { leader, leading, store, keys, seen } => {
                leader.stop_granting();
                leader.drain(SHUTDOWN / 2).await;
                leader.end();
                seen.send_replace(None);
                while leading.join_next().await.is_some() {}
                let (fence, record, revision) = leader.last_will().await;
                let outcome = resign(store.as_ref(), keys, &fence, Some((record, revision)), None).await;
                tracing::info!(term = %leader.term(), ?outcome, "resigned");
            }
        }
    }
}

/// Embedded mode: the one replica makes its own fence. The store's lock keeps a second process out; a fence of an
/// earlier process is replaced, so that its create revision changes.
///
/// # Errors
/// [`ServeError`] where the store cannot be written, or makes no sense.
pub async fn lead_alone(candidate: Candidate) -> Result<(Arc<Leader>, JoinSet<()>), ServeError> {
    let began = candidate.clock.now();
    let key = candidate.keys.embedded_fence();
    let delete = Txn { compares: vec![], changes: vec![Change::Delete { key: key.clone() }] };
    let put = Change::Put { key: key.clone(), value: record::encode(&candidate.record) };
    candidate.store.commit(delete).await?;
    let create_revision = match candidate.store.commit(Txn { compares: vec![], changes: vec![put] }).await? {
        Outcome::Done { revision } => revision,
        Outcome::Refused { revision, .. } => revision,
    };
    let fence = Fence { key, create_revision };
    let for_ever = Arc::new(LeadershipLease::new(BootTime::MAX, candidate.timing.election_ttl));
    let prepared = take_over(candidate, fence, for_ever, None).await?;
    Ok(prepared.lead(began))
}
