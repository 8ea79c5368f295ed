//! The warm standby: what a leader begins with, held by every replica that does not lead, and kept current by a watch.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | the handle: a takeover takes the state, a follower's answers read it |
//! | `state.rs`, `homes.rs` | what is held, and how a change alters it; which node each region is under |
//! | `follow.rs` | the loop: round after round, while this replica does not lead |
//! | `round.rs` | one list and one watch, and why that ends; the board of routes is kept by the same |
//!
//! A mirror is a hint until a takeover has seen its own first transaction in it: events come in the order of revisions,
//! so that everything before that transaction is there, and no earlier leader can write after it. It is not enough that
//! the mirror stands at a revision as high: a store that was set back gives the same revisions to other changes.
//!
//! A leader has no mirror: it is the one who writes what a mirror would repeat, so the state is moved into it, and read
//! anew when it leads no longer.

pub mod follow;
mod homes;
pub mod round;
pub mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metasrv_core::id::{Fence, Term};
use metasrv_core::time::{BootTime, Clock};
use metasrv_proto::admin::FollowerView;
use tokio::sync::watch;

use crate::keys::Keys;
use crate::metrics::Metrics;
use state::{Difference, Event, OutOfOrder, State};

/// The state that a replica holds while it does not lead. Clones are cheap and share it.
#[derive(Clone)]
pub struct Mirror {
    shared: Arc<Shared>,
}

struct Shared {
    keys: Keys,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    /// Locked for the time of a change, or of a copy: milliseconds at most.
    held: Mutex<Option<Held>>,
    /// Says that `held` has changed.
    moved: watch::Sender<()>,
}

struct Held {
    state: State,
    /// An instant at which this was what the store had.
    as_of: BootTime,
    /// A watch is open that follows this. None outlives a restart of its etcd member, and so none goes on from one life of
    /// the store to the next, in which the same revision may stand for another change.
    live: bool,
}

/// Why a takeover did not get the state from here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Lag {
    /// It was never read, or was taken a moment ago.
    #[error("the mirror holds nothing yet")]
    Empty,
    /// The takeover's own transaction has not been seen within the time it was given.
    #[error("the mirror lags behind")]
    Behind,
}

impl Mirror {
    /// A mirror that holds nothing yet; [`follow::follow`] fills it.
    pub fn new(keys: Keys, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Mirror {
        let shared = Shared { keys, clock, metrics, held: Mutex::new(None), moved: watch::channel(()).0 };
        Mirror { shared: Arc::new(shared) }
    }

    /// Moves the state out, once it has seen that the key of this fence was changed at exactly this revision: by the
    /// first transaction of the term that is about to begin. Waits for that so long and no longer.
    ///
    /// # Errors
    /// [`Lag`]: read the store instead.
    pub async fn take(&self, fence: &str, revision: i64, patience: Duration) -> Result<State, Lag> {
        let mut moved = self.shared.moved.subscribe();
        let caught_up = async {
            loop {
                moved.borrow_and_update();
                {
                    let mut held = self.lock();
                    let Held { state, live, .. } = held.as_ref().ok_or(Lag::Empty)?;
                    if *live && state.fences.get(fence).is_some_and(|key| key.revision == revision) {
                        return held.take().map(|held| held.state).ok_or(Lag::Empty);
                    }
                }
                // The sender is part of what `self` holds.
                moved.changed().await.map_err(|_| Lag::Empty)?;
            }
        };
        let taken = tokio::time::timeout(patience, caught_up).await.unwrap_or(Err(Lag::Behind));
        if taken.is_ok() {
            self.shared.moved.send_replace(());
            self.report();
        }
        taken
    }

    /// Moves the state out, if it has seen a term in the key of this fence, and says at which revision that was written: by the
    /// transaction that ended the term before. To be believed once a read of the key shows the same revision.
    pub fn take_begun(&self, fence: &Fence) -> Option<(State, i64)> {
        let taken = {
            let mut held = self.lock();
            let Held { state, live, .. } = held.as_ref()?;
            let key = state.fences.get(&fence.key).filter(|_| *live)?;
            let begun = key.create_revision == fence.create_revision && key.term > Term(0);
            let revision = begun.then_some(key.revision)?;
            held.take().map(|held| (held.state, revision))
        };
        self.shared.moved.send_replace(());
        self.report();
        taken
    }

    /// Resolves once there is a term in this candidate's key: it was begun in the transaction that ended the one before. Returns the fence. As all that a mirror says, a hint: what is done about it begins with a read of the store.
    pub async fn has_term(&self, key: &str) -> Fence {
        let mut moved = self.shared.moved.subscribe();
        loop {
            moved.borrow_and_update();
            let seen = self.lock().as_ref().and_then(|held| held.state.fences.get(key).copied());
            if let Some(seen) = seen.filter(|seen| seen.term > Term(0)) {
                return Fence { key: key.to_owned(), create_revision: seen.create_revision };
            }
            if moved.changed().await.is_err() {
                // The sender is part of what `self` holds.
                std::future::pending::<()>().await;
            }
        }
    }

    /// A copy of what is held, and where it stands; nothing before it was read, and while this replica leads.
    pub fn read(&self) -> Option<(State, FollowerView)> {
        let held = self.lock();
        let held = held.as_ref()?;
        Some((held.state.clone(), self.view(held)))
    }

    /// How many nodes and regions it holds.
    pub fn counts(&self) -> Option<(usize, usize)> {
        self.lock().as_ref().map(|held| (held.state.nodes(), held.state.regions()))
    }

    /// Where it stands.
    pub fn standing(&self) -> Option<FollowerView> {
        self.lock().as_ref().map(|held| self.view(held))
    }

    fn view(&self, held: &Held) -> FollowerView {
        let age = self.shared.clock.now().since(held.as_of);
        FollowerView {
            revision: u64::try_from(held.state.revision).unwrap_or(0),
            as_of_ms_ago: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Puts what was listed in the place of what was held, whole: nothing of it is believed any more, because a store
    /// that was set back may have other values under the same revisions. Returns what the list showed that the watch
    /// had not; nothing, where nothing was held.
    fn install(&self, state: State, as_of: BootTime) -> Option<Difference> {
        let before = self.lock().replace(Held { state, as_of, live: true });
        let difference =
            before.and_then(|before| self.lock().as_ref().map(|held| before.state.difference(&held.state)));
        self.shared.moved.send_replace(());
        self.report();
        difference
    }

    /// Applies what the watch delivered; `Ok(false)` where a takeover has taken the state meanwhile.
    fn apply(&self, events: &[Event]) -> Result<bool, OutOfOrder> {
        {
            let mut held = self.lock();
            let Some(held) = held.as_mut() else { return Ok(false) };
            held.state.apply(&self.shared.keys, events)?;
        }
        self.shared.moved.send_replace(());
        self.report();
        Ok(true)
    }

    /// The store had this revision after `asked_at`. Whoever has seen as much was current then: events come in order.
    fn confirm(&self, revision: i64, asked_at: BootTime) {
        if let Some(held) = self.lock().as_mut().filter(|held| revision <= held.state.revision) {
            held.as_of = held.as_of.max(asked_at);
        }
    }

    /// The revision that is held.
    fn revision(&self) -> Option<i64> {
        self.lock().as_ref().map(|held| held.state.revision)
    }

    /// The watch has ended: what is held can be read, and no takeover relies on it.
    fn suspend(&self) {
        if let Some(held) = self.lock().as_mut() {
            held.live = false;
        }
    }

    fn clear(&self) {
        *self.lock() = None;
        self.shared.moved.send_replace(());
        self.report();
    }

    /// Brings the gauges up to date.
    fn report(&self) {
        let standing = self.standing().unwrap_or_default();
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.shared.metrics.mirror_revision.set(gauge(standing.revision));
        self.shared.metrics.mirror_age.set(gauge(standing.as_of_ms_ago / 1_000));
    }

    fn lock(&self) -> MutexGuard<'_, Option<Held>> {
        // A change that panicked half way leaves a state that no takeover can be sure of; the loop dies with it, and
        // the replica with the loop.
        self.shared.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod state_tests;
#[cfg(test)]
mod takeover_tests;
#[cfg(test)]
mod tests;
