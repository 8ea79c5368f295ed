//! [`RouteCache`]: who leads each region, kept current from any replica, for whoever sends requests to datanodes.
//!
//! One stream is open to one replica, whether that leads or not. Where it ends, or is silent, the next one goes to another
//! replica and continues at the revision that was reached. So a change of leader is nothing to the cache, unless the
//! leader was the replica that it listened to. What it knows is a hint: a datanode refuses what it does not lead, and then
//! the cache is about to learn, or [`RouteCache::wait_for`] waits until it has.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::client::MetaClient;
use crate::error::ClientError;
use crate::route_follower::Follower;
use crate::route_table::{Route, RouteChange, RouteTable};

/// Changes that wait for a reader of [`RouteCache::watch`]: one that is slower is told [`RouteChange::Replaced`].
const WAITING: usize = 4_096;

/// Who leads each region, as far as this process knows. Clones are cheap and share it; the stream ends with the last one.
#[derive(Clone)]
pub struct RouteCache {
    shared: Arc<Shared>,
    _task: Arc<Task>,
}

/// What a route cache has been through.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RouteCacheCounts {
    /// Streams that brought something.
    pub streams: u64,
    /// Snapshots that were taken.
    pub snapshots: u64,
    /// Messages that were refused because they would have led back.
    pub refused: u64,
    /// Times that the store was set back.
    pub set_backs: u64,
}

/// The changes of a route cache, one after another.
pub struct RouteChanges(broadcast::Receiver<RouteChange>);

impl RouteChanges {
    /// The next change; [`RouteChange::Replaced`] where so many came that some were lost. `None`: the cache is gone.
    pub async fn next(&mut self) -> Option<RouteChange> {
        match self.0.recv().await {
            Ok(change) => Some(change),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(RouteChange::Replaced),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the cache and its follower share.
pub(crate) struct Shared {
    pub(crate) known: RwLock<Known>,
    /// Sent to while `known` is locked, so that changes are told in their order.
    pub(crate) changes: broadcast::Sender<RouteChange>,
    /// Says that `known` has changed.
    pub(crate) moved: watch::Sender<()>,
}

/// What is known, and from whom.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) table: RouteTable,
    /// When a replica said last that this is all it knows.
    pub(crate) current_at: Option<Instant>,
    /// The replica that is listened to.
    pub(crate) replica: Option<String>,
    pub(crate) streams: u64,
    pub(crate) refused: u64,
    /// Why the last stream ended, or was not opened.
    pub(crate) last_end: String,
}

impl MetaClient {
    /// Begins to watch the routes of a cluster. Needs a Tokio runtime.
    pub fn route_cache(&self, cluster_id: u64) -> RouteCache {
        let shared = Arc::new(Shared {
            known: RwLock::default(),
            changes: broadcast::channel(WAITING).0,
            moved: watch::channel(()).0,
        });
        let follower = Follower::new(self.clone(), cluster_id, Arc::clone(&shared));
        let task = tokio::spawn(follower.run()).abort_handle();
        RouteCache { shared, _task: Arc::new(Task(task)) }
    }
}

impl RouteCache {
    /// Who leads a region; nothing where it is not known, or there is no such region.
    pub fn get(&self, region_id: u64) -> Option<Route> {
        self.known().table.get(region_id).cloned()
    }

    /// All routes, in the order of their regions.
    pub fn all(&self) -> Vec<Route> {
        let mut routes: Vec<Route> = self.known().table.routes().cloned().collect();
        routes.sort_unstable_by_key(|route| route.region_id);
        routes
    }

    /// How many routes are known.
    pub fn len(&self) -> usize {
        self.known().table.len()
    }

    /// Whether no route is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All changes up to this revision of the store are known. 0: nothing was heard yet.
    pub fn revision(&self) -> u64 {
        self.known().table.revision()
    }

    /// How long ago a replica that keeps its routes current said that this is all. It is a second where all is well.
    /// `None`: none has said so yet.
    pub fn age(&self) -> Option<Duration> {
        self.known().current_at.map(|at| at.elapsed())
    }

    /// The replica that is listened to, where one is.
    pub fn replica(&self) -> Option<String> {
        self.known().replica.clone()
    }

    /// What it has been through.
    pub fn counts(&self) -> RouteCacheCounts {
        let known = self.known();
        RouteCacheCounts {
            streams: known.streams,
            snapshots: known.table.snapshots(),
            refused: known.refused,
            set_backs: known.table.set_backs(),
        }
    }

    /// Every change from now on.
    pub fn watch(&self) -> RouteChanges {
        RouteChanges(self.shared.changes.subscribe())
    }

    /// Waits until a first snapshot is there.
    ///
    /// # Errors
    /// [`ClientError::TimedOut`].
    pub async fn ready(&self, limit: Duration) -> Result<(), ClientError> {
        self.wait(limit, |table| (table.revision() > 0).then_some(())).await
    }

    /// Waits until all changes up to this revision are known.
    ///
    /// # Errors
    /// [`ClientError::TimedOut`].
    pub async fn wait_for_revision(&self, revision: u64, limit: Duration) -> Result<(), ClientError> {
        self.wait(limit, |table| (table.revision() >= revision).then_some(())).await
    }

    /// Waits until a region's route is as wanted, and returns it. Whoever was refused by a datanode waits for a route of a
    /// higher epoch, say.
    ///
    /// # Errors
    /// [`ClientError::TimedOut`].
    pub async fn wait_for(
        &self,
        region_id: u64,
        limit: Duration,
        wanted: impl Fn(Option<&Route>) -> bool,
    ) -> Result<Option<Route>, ClientError> {
        self.wait(limit, |table| {
            let route = table.get(region_id);
            wanted(route).then(|| route.cloned())
        })
        .await
    }

    async fn wait<T>(
        &self,
        limit: Duration,
        look: impl Fn(&RouteTable) -> Option<T>,
    ) -> Result<T, ClientError> {
        let mut moved = self.shared.moved.subscribe();
        let looking = async {
            loop {
                moved.borrow_and_update();
                if let Some(found) = look(&self.known().table) {
                    return found;
                }
                if moved.changed().await.is_err() {
                    // The sender is part of what `self` holds.
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(limit, looking).await.map_err(|_| ClientError::TimedOut {
            what: "watch routes",
            after: limit,
            why: self.standing(),
        })
    }

    /// Where it stands, in words.
    fn standing(&self) -> String {
        let known = self.known();
        let revision = known.table.revision();
        match &known.replica {
            Some(replica) => format!("revision {revision} is known, from {replica}"),
            None => format!("revision {revision} is known; last {}", known.last_end),
        }
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.shared.known.read().unwrap_or_else(PoisonError::into_inner)
    }
}
