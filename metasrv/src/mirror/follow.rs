//! The loop of a mirror: list at one revision, watch from the next one on, and begin again when anything is in doubt.
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
//! | `taken` | a takeover has moved the state out | same |
//!
//! A progress notification is a sign of life and nothing more: old releases let it overtake events (etcd issue 15220).
//! `quiet` is no fault where others write to the same etcd: the list then shows that nothing was missed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use metasrv_core::time::BootTime;
use tokio::sync::watch;

use super::Mirror;
use super::state::{Event, State};
use crate::leader::Leader;
use crate::store::{Page, StoreError};

/// Time between two linearizable reads of the store's revision.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A watch is given up after so long without a word. It is asked for one every second.
const SILENCE: Duration = Duration::from_secs(3);

/// The state is read again when the store has moved on for so long without a change of ours. Leases of connected nodes
/// change every few seconds, so that this is rare where there is anything to miss.
const QUIET: Duration = Duration::from_secs(10);

/// Deadline for opening a watch, its connection included.
const OPENING: Duration = Duration::from_secs(2);

/// Pause before the state is read again; longer each time in a row, so that a store in trouble is not read to death.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

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

/// A watch on the mirrored keys.
#[async_trait]
pub trait Watch: Send {
    /// What comes next. Dropping the future loses nothing.
    async fn next(&mut self) -> Result<Heard, WatchEnd>;
}

/// The store, as a mirror reads it.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// Every mirrored record at one revision; linearizable, with a deadline of its own.
    async fn list(&self) -> Result<Page, StoreError>;

    /// Every change of a mirrored key after this revision.
    async fn watch(&self, after: i64) -> Result<Box<dyn Watch>, StoreError>;

    /// The store's revision; linearizable, with a deadline of its own.
    async fn revision(&self) -> Result<i64, StoreError>;

    /// Asks another member from now on.
    fn move_on(&self);
}

/// Why a round ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    List,
    Watch,
    Compacted,
    Silent,
    Behind,
    Quiet,
    Order,
    SetBack,
    Taken,
    /// This replica leads.
    Leads,
}

impl End {
    fn name(self) -> &'static str {
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
            End::Leads => "leads",
        }
    }

    fn is_the_members_fault(self) -> bool {
        matches!(self, End::List | End::Watch | End::Silent | End::Behind | End::Order)
    }
}

/// Keeps the mirror current while this replica does not lead. Ends when nobody publishes any more who does.
pub async fn follow(
    mirror: Mirror,
    source: Arc<dyn Source>,
    mut leader: watch::Receiver<Option<Arc<Leader>>>,
) {
    let mut pause = PAUSES.0;
    loop {
        if leader.wait_for(Option::is_none).await.map(drop).is_err() {
            return;
        }
        let began = mirror.shared.clock.now();
        let end = Round::new(&mirror, source.as_ref()).run(&mut leader).await;
        if end == End::Leads {
            mirror.clear();
            continue;
        }
        mirror.suspend();
        mirror.shared.metrics.mirror_restarts.with_label_values(&[end.name()]).inc();
        mirror.report();
        if end.is_the_members_fault() {
            source.move_on();
        }
        tracing::debug!(reason = end.name(), revision = ?mirror.revision(), "the mirror begins again");
        let long = mirror.shared.clock.now().since(began) >= SILENCE;
        pause = if long { PAUSES.0 } else { PAUSES.1.min(pause.saturating_mul(2)) };
        let patience = if end == End::Taken { TAKEN } else { pause.mul_f64(rand::random_range(0.5..1.0)) };
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

/// One list and one watch.
struct Round<'a> {
    mirror: &'a Mirror,
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

impl<'a> Round<'a> {
    fn new(mirror: &'a Mirror, source: &'a dyn Source) -> Round<'a> {
        let now = mirror.shared.clock.now();
        Round { mirror, source, heard_at: now, moved_at: now, owed: None, unconfirmed: None }
    }

    fn now(&self) -> BootTime {
        self.mirror.shared.clock.now()
    }

    async fn run(mut self, leader: &mut watch::Receiver<Option<Arc<Leader>>>) -> End {
        let mut watch = tokio::select! {
            biased;
            () = leads(leader) => return End::Leads,
            begun = self.begin() => match begun {
                Ok(watch) => watch,
                Err(end) => return end,
            },
        };
        (self.heard_at, self.moved_at) = (self.now(), self.now());
        let mut check = Box::pin(check(self.mirror, self.source));
        loop {
            let silence = SILENCE.saturating_sub(self.now().since(self.heard_at));
            let end = tokio::select! {
                biased;
                () = leads(leader) => Some(End::Leads),
                heard = watch.next() => match heard {
                    Ok(heard) => self.hear(&heard),
                    Err(WatchEnd::Compacted) => Some(End::Compacted),
                    Err(WatchEnd::Broken(error)) => {
                        tracing::debug!(%error, "the mirror's watch ended");
                        Some(End::Watch)
                    }
                },
                checked = &mut check => {
                    check = Box::pin(self::check(self.mirror, self.source));
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
        let asked_at = self.now();
        let page = self.source.list().await.map_err(|error| {
            tracing::debug!(%error, "the mirror could not be read");
            End::List
        })?;
        let state = State::of(&self.mirror.shared.keys, page.revision, &page.records);
        let missed = self.mirror.install(state, asked_at).unwrap_or_default();
        tracing::debug!(
            revision = page.revision,
            put = missed.put,
            deleted = missed.deleted,
            "the mirror was read"
        );
        let opened = tokio::time::timeout(OPENING, self.source.watch(page.revision)).await;
        opened.map_err(|_| End::Watch)?.map_err(|error| {
            tracing::debug!(%error, "the mirror's watch could not be opened");
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
        match self.mirror.apply(&heard.events) {
            Ok(true) => {
                if let Some((revision, asked_at)) = self.unconfirmed {
                    self.mirror.confirm(revision, asked_at);
                }
                None
            }
            Ok(false) => Some(End::Taken),
            Err(error) => {
                tracing::warn!(%error, "the mirror's watch is not in order; reading the state again");
                Some(End::Order)
            }
        }
    }

    /// Compares what is held with what a linearizable read showed.
    fn compare(&mut self, checked: Option<Checked>) -> Option<End> {
        self.mirror.report();
        let Some(held) = self.mirror.revision() else { return Some(End::Taken) };
        // Where the store does not answer, what that means is the watch's to say.
        let checked = checked?;
        if checked.revision < checked.held_before {
            tracing::warn!(
                revision = checked.revision,
                held = checked.held_before,
                "the store has gone back: it was restored from a backup; reading the state again"
            );
            return Some(End::SetBack);
        }
        let now = self.now();
        self.unconfirmed = Some((checked.revision, checked.asked_at));
        self.mirror.confirm(checked.revision, checked.asked_at);
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
async fn check(mirror: &Mirror, source: &dyn Source) -> Option<Checked> {
    tokio::time::sleep(CHECK_INTERVAL).await;
    let (asked_at, held_before) = (mirror.shared.clock.now(), mirror.revision()?);
    let revision = source.revision().await.ok()?;
    Some(Checked { revision, held_before, asked_at })
}
