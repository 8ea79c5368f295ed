//! The loop of a mirror: round after round of list and watch (`round.rs`), while this replica does not lead.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use metasrv_core::time::BootTime;
use tokio::sync::watch;

use super::Mirror;
use super::round::{End, Keeper, Pauses, round};
use super::state::{Event, OutOfOrder, State};
use crate::leader::Leader;
use crate::store::{Page, StoreError};

/// A mirror whose state was taken waits so long for the term to begin. Where it does not, the mirror begins again.
const TAKEN: Duration = Duration::from_secs(2);

/// What a watch delivers at a time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heard {
    /// The revision of the member that speaks. What the watch has delivered may be less.
    pub member_revision: i64,
    /// Whole revisions, in order; none: a sign of life.
    pub events: Vec<Event>,
}

/// Why a watch came to its end.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WatchEnd {
    /// The changes it would have to deliver next are gone.
    #[error("the store has dropped the changes that come next")]
    Compacted,
    /// It broke.
    #[error(transparent)]
    Broken(#[from] StoreError),
}

/// A watch on a range of keys.
#[async_trait]
pub trait Watch: Send {
    /// What comes next. Dropping the future loses nothing.
    async fn next(&mut self) -> Result<Heard, WatchEnd>;
}

/// A range of the store's keys, as it is kept current by a mirror or by the board of routes.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// Every record of the range at one revision; linearizable, with a deadline of its own.
    async fn list(&self) -> Result<Page, StoreError>;

    /// Every change of a key of the range after this revision.
    async fn watch(&self, after: i64) -> Result<Box<dyn Watch>, StoreError>;

    /// The store's revision; linearizable, with a deadline of its own.
    async fn revision(&self) -> Result<i64, StoreError>;

    /// Asks another member from now on.
    fn move_on(&self);
}

/// Keeps the mirror current while this replica does not lead. Ends when nobody publishes any more who does.
pub async fn follow(
    mirror: Mirror,
    source: Arc<dyn Source>,
    mut leader: watch::Receiver<Option<Arc<Leader>>>,
) {
    let mut pauses = Pauses::new();
    loop {
        if leader.wait_for(Option::is_none).await.map(drop).is_err() {
            return;
        }
        let began = mirror.now();
        let end = tokio::select! {
            biased;
            () = leads(&mut leader) => {
                mirror.clear();
                continue;
            }
            end = round(&mirror, source.as_ref()) => end,
        };
        mirror.suspend();
        mirror.shared.metrics.mirror_restarts.with_label_values(&[end.name()]).inc();
        mirror.report();
        if end.is_the_members_fault() {
            source.move_on();
        }
        tracing::debug!(reason = end.name(), revision = ?mirror.revision(), "the mirror begins again");
        let pause = pauses.after(mirror.now().since(began));
        let patience = if end == End::Taken { TAKEN } else { pause };
        tokio::select! {
            biased;
            () = leads(&mut leader) => {}
            () = tokio::time::sleep(patience) => {}
        }
    }
}

/// Resolves when this replica leads.
async fn leads(leader: &mut watch::Receiver<Option<Arc<Leader>>>) {
    if leader.wait_for(Option::is_some).await.map(drop).is_err() {
        // Nobody will ever publish it; the loop finds that out at its top.
        std::future::pending().await
    }
}

impl Keeper for Mirror {
    fn name(&self) -> &'static str {
        "mirror"
    }

    fn now(&self) -> BootTime {
        self.shared.clock.now()
    }

    fn install(&self, page: Page, as_of: BootTime) {
        let state = State::of(&self.shared.keys, page.revision, &page.records);
        let missed = Mirror::install(self, state, as_of).unwrap_or_default();
        let (put, deleted) = (missed.put, missed.deleted);
        tracing::debug!(revision = page.revision, put, deleted, "the mirror was read");
    }

    fn apply(&self, events: &[Event]) -> Result<bool, OutOfOrder> {
        Mirror::apply(self, events)
    }

    fn revision(&self) -> Option<i64> {
        Mirror::revision(self)
    }

    fn confirm(&self, revision: i64, asked_at: BootTime) {
        Mirror::confirm(self, revision, asked_at);
    }

    fn report(&self) {
        Mirror::report(self);
    }
}
