//! The board of routes: who leads each region, held by every replica all the time, whether it leads or not, and told to
//! every frontend that watches. docs/routes.md says what they can rely on.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | the board as it is shared: the loop that keeps it writes, the streams of readers read |
//! | `board.rs` | what is on it, and how a change in the store alters it |
//! | `ring.rs` | the last changes, in order |
//! | `cursor.rs` | how far a reader was told, and what comes next for it |
//! | `addresses.rs`, `labels.rs` | datanodes and labels as numbers |
//! | `embedded.rs` | a watch on the embedded store |
//!
//! It has a watch of its own, beside that of the mirror. A mirror is given away when its replica begins to lead; a board
//! stays, so that a change of leader is nothing to whoever watches. The price is a second stream of events of the same
//! few keys.
//!
//! | a reader comes | it is told |
//! | --- | --- |
//! | with no revision, or that of another installation | a snapshot |
//! | with a revision that the ring covers | every change after it |
//! | with an older one | a snapshot |
//! | with one that the board has not reached | it waits for the board, up to 2.5 s |
//! | with one that the store itself has not reached, read after it came | a snapshot: the store was set back |
//! | to a board that nobody has kept current for 2 s | its stream ends: another replica knows more |

pub mod addresses;
pub mod board;
pub mod cursor;
pub mod embedded;
pub mod labels;
mod moves;
pub mod ring;

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use metasrv_core::id::ClusterId;
use metasrv_core::time::{BootTime, Clock};
use tokio::sync::watch;

use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::mirror::follow::Source;
use crate::mirror::round::{Keeper, Pauses, round};
use crate::mirror::state::{Event, OutOfOrder};
use crate::store::Page;
use board::{Board, unsigned};
use cursor::{Beginning, Cursor, Next};

/// A board that nobody keeps current for so long sends its readers away. A watch that breaks is replaced within
/// milliseconds where the store is there.
const FORSAKEN: Duration = Duration::from_secs(2);

/// A reader waits so long for the board to reach its revision, or for the proof that the store has not. That takes a
/// read, of which there is one a second.
const PATIENCE: Duration = Duration::from_millis(2_500);

/// The board of one replica. Clones are cheap and share it.
#[derive(Clone)]
pub struct RouteBoard {
    shared: Arc<Shared>,
}

struct Shared {
    keys: Keys,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    /// Written for the time of a change, read for that of one message.
    board: RwLock<Board>,
    standing: Mutex<Standing>,
    /// Says that readers may be told something new.
    changed: watch::Sender<()>,
    /// Says that the board has come further, or that the store's revision was read.
    progress: watch::Sender<()>,
}

/// How the board stands to the store.
struct Standing {
    /// A watch is open that keeps it.
    kept: bool,
    /// Since when that is so, or not so.
    since: BootTime,
    /// A revision that the store had after an instant.
    store: Option<(i64, BootTime)>,
}

/// Why a reader is sent to another replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unready {
    /// It was not read yet, or the store cannot be reached from here.
    #[error("this replica does not hear of changes in the store at the moment")]
    Forsaken,
    /// It has not reached the reader's revision in time.
    #[error("this replica has not heard yet of all that was told elsewhere")]
    Behind,
}

impl RouteBoard {
    /// A board on which there is nothing yet; [`keep`] fills it.
    pub fn new(keys: Keys, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> RouteBoard {
        let standing = Standing { kept: false, since: clock.now(), store: None };
        let shared = Shared {
            keys,
            clock,
            metrics,
            board: RwLock::default(),
            standing: Mutex::new(standing),
            changed: watch::channel(()).0,
            progress: watch::channel(()).0,
        };
        RouteBoard { shared: Arc::new(shared) }
    }

    /// The place of a reader that knows all up to this revision of this installation. Waits where the board has not come
    /// as far.
    ///
    /// # Errors
    /// [`Unready`]: another replica may know more.
    pub async fn begin(
        &self,
        cluster: ClusterId,
        after: u64,
        installation: u64,
    ) -> Result<(Cursor, Beginning), Unready> {
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let asked_at = self.shared.clock.now();
        let mut progress = self.shared.progress.subscribe();
        let begun = async {
            loop {
                progress.borrow_and_update();
                if let Some(begun) = self.try_begin(cluster, after, installation, asked_at) {
                    return Ok(begun);
                }
                // The sender is part of what `self` holds.
                progress.changed().await.map_err(|_| Unready::Forsaken)?;
            }
        };
        let begun = tokio::time::timeout(PATIENCE, begun).await;
        begun.unwrap_or_else(|_| {
            Err(if self.standing(|it| it.kept) { Unready::Behind } else { Unready::Forsaken })
        })
    }

    fn try_begin(
        &self,
        cluster: ClusterId,
        after: i64,
        installation: u64,
        asked_at: BootTime,
    ) -> Option<(Cursor, Beginning)> {
        let (kept, read) = self.standing(|standing| (standing.kept, standing.store));
        let board = self.read();
        // Before the first leader there is no installation, and nothing to tell.
        if !kept || board.installation == 0 {
            return None;
        }
        let is_proven_wrong = read.is_some_and(|(store, read_at)| store < after && read_at >= asked_at);
        let reached = installation != board.installation || after <= board.held || is_proven_wrong;
        reached.then(|| board.begin(cluster, after, installation))
    }

    /// What comes next for a reader.
    pub fn advance(&self, cursor: &mut Cursor) -> Next {
        self.read().advance(cursor)
    }

    /// The same; where there is nothing, a sign of life.
    pub fn advance_or_sign(&self, cursor: &mut Cursor) -> Next {
        self.read().advance_or_sign(cursor)
    }

    /// Says whenever readers may be told something new.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
    }

    /// Whether its readers should ask another replica.
    pub fn is_forsaken(&self) -> bool {
        let now = self.shared.clock.now();
        self.standing(|standing| !standing.kept && now.since(standing.since) > FORSAKEN)
    }

    /// Counters and gauges.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    fn keep(&self, kept: bool) {
        let now = self.shared.clock.now();
        self.standing(|standing| {
            if standing.kept != kept {
                (standing.kept, standing.since) = (kept, now);
            }
        });
    }

    fn standing<T>(&self, look: impl FnOnce(&mut Standing) -> T) -> T {
        look(&mut self.shared.standing.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn read(&self) -> RwLockReadGuard<'_, Board> {
        // A change that panicked half way ends the loop, and the replica with it.
        self.shared.board.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the board current, for ever.
pub async fn keep(board: RouteBoard, source: Arc<dyn Source>) {
    let mut pauses = Pauses::new();
    loop {
        let began = board.now();
        let end = round(&board, source.as_ref()).await;
        board.keep(false);
        board.shared.metrics.route_board_restarts.with_label_values(&[end.name()]).inc();
        if end.is_the_members_fault() {
            source.move_on();
        }
        tracing::debug!(reason = end.name(), revision = ?board.revision(), "the board of routes begins again");
        tokio::time::sleep(pauses.after(board.now().since(began))).await;
    }
}

impl Keeper for RouteBoard {
    fn name(&self) -> &'static str {
        "board of routes"
    }

    fn now(&self) -> BootTime {
        self.shared.clock.now()
    }

    fn install(&self, page: Page, _as_of: BootTime) {
        let (set_back, regions) = {
            let mut board = self.shared.board.write().unwrap_or_else(PoisonError::into_inner);
            let set_back = board.install(&self.shared.keys, &page);
            (set_back, board.routes.len())
        };
        if set_back {
            tracing::warn!(
                revision = page.revision,
                "the store was set back: every reader of routes gets a snapshot"
            );
        }
        tracing::debug!(revision = page.revision, regions, "the board of routes was read");
        self.keep(true);
        self.shared.changed.send_replace(());
        self.shared.progress.send_replace(());
        self.report();
    }

    fn apply(&self, events: &[Event]) -> Result<bool, OutOfOrder> {
        let changes = {
            let mut board = self.shared.board.write().unwrap_or_else(PoisonError::into_inner);
            board.apply(&self.shared.keys, events)?
        };
        // Leases of nodes change all the time, and are nothing to a reader.
        if changes > 0 {
            self.shared.changed.send_replace(());
            self.shared.metrics.route_changes.inc_by(u64::try_from(changes).unwrap_or(0));
        }
        self.shared.progress.send_replace(());
        self.report();
        Ok(true)
    }

    fn revision(&self) -> Option<i64> {
        Some(self.read().held)
    }

    fn confirm(&self, revision: i64, asked_at: BootTime) {
        self.standing(|standing| standing.store = Some((revision, asked_at)));
        self.shared.progress.send_replace(());
    }

    fn report(&self) {
        let revision = unsigned(self.read().revision);
        self.shared.metrics.route_board_revision.set(i64::try_from(revision).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod handle_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod reader;
#[cfg(test)]
mod tests;
