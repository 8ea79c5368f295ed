//! One list and one watch of something that is kept current from the store: list at one revision, watch from the next
//! one on, and stop when anything is in doubt. Whoever keeps it begins another round then.
//!
//! | reason to begin again | how it is noticed | etcd member |
//! | --- | --- | --- |
//! | `list` | the state could not be read | next |
//! | `watch` | the watch could not be opened, or ended | next |
//! | `compacted` | etcd has dropped the changes that the watch would begin with | same |
//! | `silent` | nothing came for three seconds, although an answer is asked for every second | next |
//! | `behind` | the member answers, and has not reached within three seconds what a linearizable read showed | next |
//! | `quiet` | the store has moved on for ten seconds, and the watch has delivered nothing | same |
//! | `order` | an event does not follow what is held | next |
//! | `set_back` | the store has a lower revision than what is held: it was restored from a backup | same |
//! | `taken` | what was held is held no more: a takeover has moved a mirror's state out | same |
//!
//! A progress notification is a sign of life and nothing more: old releases let it overtake events (etcd issue 15220).
//! `quiet` is no fault where others write to the same etcd: the list then shows that nothing was missed.

use std::time::Duration;

use metasrv_core::time::BootTime;

use super::follow::{Heard, Source, Watch, WatchEnd};
use super::state::{Event, OutOfOrder};
use crate::store::Page;

/// Time between two linearizable reads of the store's revision.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A watch is given up after so long without a word. It is asked for one every second.
pub const SILENCE: Duration = Duration::from_secs(3);

/// The state is read again when the store has moved on for so long without a change of ours. Leases of connected nodes
/// change every few seconds, so that this is rare where there is anything to miss.
const QUIET: Duration = Duration::from_secs(10);

/// Deadline for opening a watch, its connection included.
const OPENING: Duration = Duration::from_secs(2);

/// Pause before the state is read again; longer each time in a row, so that a store in trouble is not read to death.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// What is kept current.
pub trait Keeper: Send + Sync {
    /// What it is called in logs.
    fn name(&self) -> &'static str;

    /// The present instant.
    fn now(&self) -> BootTime;

    /// Puts what was listed in the place of what was held, whole: nothing of it is believed any more, because a store
    /// that was set back may have other values under the same revisions.
    fn install(&self, page: Page, as_of: BootTime);

    /// Applies what the watch delivered; `Ok(false)` where nothing is held any more.
    ///
    /// # Errors
    /// [`OutOfOrder`] where it does not follow what is held.
    fn apply(&self, events: &[Event]) -> Result<bool, OutOfOrder>;

    /// The revision that is held; nothing, where nothing is.
    fn revision(&self) -> Option<i64>;

    /// The store had this revision after `asked_at`. Whoever has seen as much was current then: events come in order.
    fn confirm(&self, revision: i64, asked_at: BootTime);

    /// Brings its gauges up to date.
    fn report(&self);
}

/// Why a round ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// See the table of the module, for this one and the next.
    List,
    /// The watch.
    Watch,
    /// Compacted.
    Compacted,
    /// Silent.
    Silent,
    /// Behind.
    Behind,
    /// Quiet.
    Quiet,
    /// Order.
    Order,
    /// Set back.
    SetBack,
    /// Taken.
    Taken,
}

impl End {
    /// Its name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            End::List => "list",
            End::Watch => "watch",
            End::Compacted => "compacted",
            End::Silent => "silent",
            End::Behind => "behind",
            End::Quiet => "quiet",
            End::Order => "order",
            End::SetBack => "set_back",
            End::Taken => "taken",
        }
    }

    /// Whether another member of the store should be asked now.
    pub fn is_the_members_fault(self) -> bool {
        matches!(self, End::List | End::Watch | End::Silent | End::Behind | End::Order)
    }
}

/// The pauses between rounds.
pub struct Pauses(Duration);

impl Pauses {
    /// Before the first round.
    pub fn new() -> Pauses {
        Pauses(PAUSES.0)
    }

    /// The pause after a round that lasted so long.
    pub fn after(&mut self, lasted: Duration) -> Duration {
        let long = lasted >= SILENCE;
        self.0 = if long { PAUSES.0 } else { PAUSES.1.min(self.0.saturating_mul(2)) };
        self.0.mul_f64(rand::random_range(0.5..1.0))
    }
}

impl Default for Pauses {
    fn default() -> Pauses {
        Pauses::new()
    }
}

/// One list and one watch. Dropping the future ends it.
pub async fn round(keeper: &dyn Keeper, source: &dyn Source) -> End {
    let now = keeper.now();
    Round { keeper, source, heard_at: now, moved_at: now, owed: None, unconfirmed: None }.run().await
}

/// One list and one watch.
struct Round<'a> {
    keeper: &'a dyn Keeper,
    source: &'a dyn Source,
    /// When the watch said anything.
    heard_at: BootTime,
    /// When the state was listed, or a change came.
    moved_at: BootTime,
    /// What the member has to reach, and since when.
    owed: Option<(i64, BootTime)>,
    /// A revision that the store had, and when it was asked for; confirmed by the first change that is as high.
    unconfirmed: Option<(i64, BootTime)>,
}

impl Round<'_> {
    fn now(&self) -> BootTime {
        self.keeper.now()
    }

    async fn run(mut self) -> End {
        let mut watch = match self.begin().await {
            Ok(watch) => watch,
            Err(end) => return end,
        };
        (self.heard_at, self.moved_at) = (self.now(), self.now());
        let mut check = Box::pin(check(self.keeper, self.source));
        loop {
            let silence = SILENCE.saturating_sub(self.now().since(self.heard_at));
            let end = tokio::select! {
                biased;
                heard = watch.next() => match heard {
                    Ok(heard) => self.hear(&heard),
                    Err(WatchEnd::Compacted) => Some(End::Compacted),
                    Err(WatchEnd::Broken(error)) => {
                        tracing::debug!(what = self.keeper.name(), %error, "a watch ended");
                        Some(End::Watch)
                    }
                },
                checked = &mut check => {
                    check = Box::pin(self::check(self.keeper, self.source));
                    self.compare(checked)
                }
                () = tokio::time::sleep(silence) => Some(End::Silent),
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    async fn begin(&mut self) -> Result<Box<dyn Watch>, End> {
        let (asked_at, what) = (self.now(), self.keeper.name());
        let page = self.source.list().await.map_err(|error| {
            tracing::debug!(what, %error, "it could not be read");
            End::List
        })?;
        let revision = page.revision;
        self.keeper.install(page, asked_at);
        let opened = tokio::time::timeout(OPENING, self.source.watch(revision)).await;
        opened.map_err(|_| End::Watch)?.map_err(|error| {
            tracing::debug!(what, %error, "its watch could not be opened");
            End::Watch
        })
    }

    fn hear(&mut self, heard: &Heard) -> Option<End> {
        let now = self.now();
        self.heard_at = now;
        self.owed = self.owed.filter(|(owed, _)| *owed > heard.member_revision);
        if heard.events.is_empty() {
            return self.behind(now);
        }
        self.moved_at = now;
        match self.keeper.apply(&heard.events) {
            Ok(true) => {
                if let Some((revision, asked_at)) = self.unconfirmed {
                    self.keeper.confirm(revision, asked_at);
                }
                None
            }
            Ok(false) => Some(End::Taken),
            Err(error) => {
                tracing::warn!(what = self.keeper.name(), %error, "a watch is not in order; reading the state again");
                Some(End::Order)
            }
        }
    }

    /// Compares what is held with what a linearizable read showed.
    fn compare(&mut self, checked: Option<Checked>) -> Option<End> {
        self.keeper.report();
        let Some(held) = self.keeper.revision() else { return Some(End::Taken) };
        // Where the store does not answer, what that means is the watch's to say.
        let checked = checked?;
        if checked.revision < checked.held_before {
            tracing::warn!(
                what = self.keeper.name(),
                revision = checked.revision,
                held = checked.held_before,
                "the store has gone back: it was restored from a backup; reading the state again"
            );
            return Some(End::SetBack);
        }
        let now = self.now();
        self.unconfirmed = Some((checked.revision, checked.asked_at));
        self.keeper.confirm(checked.revision, checked.asked_at);
        if checked.revision <= held {
            return None;
        }
        self.owed = self.owed.or(Some((checked.revision, now)));
        if now.since(self.moved_at) >= QUIET {
            return Some(End::Quiet);
        }
        self.behind(now)
    }

    fn behind(&self, now: BootTime) -> Option<End> {
        let (_, since) = self.owed?;
        (now.since(since) >= SILENCE).then_some(End::Behind)
    }
}

/// What a linearizable read of the revision showed.
struct Checked {
    revision: i64,
    held_before: i64,
    asked_at: BootTime,
}

/// Nothing where the store does not answer, or nothing is held any more.
async fn check(keeper: &dyn Keeper, source: &dyn Source) -> Option<Checked> {
    tokio::time::sleep(CHECK_INTERVAL).await;
    let (asked_at, held_before) = (keeper.now(), keeper.revision()?);
    let revision = source.revision().await.ok()?;
    Some(Checked { revision, held_before, asked_at })
}
