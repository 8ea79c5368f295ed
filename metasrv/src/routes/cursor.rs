//! How far a reader was told, and what it is told next. A reader has no queue: it has its place on the board.
//!
//! | stage | told | goes on with |
//! | --- | --- | --- |
//! | snapshot | the routes in the order of their regions, as they are when their turn comes | the rest |
//! | rest | what has changed since the snapshot began, as it is now, once more | live, with `complete` |
//! | live | every change, in order, at its revision | |
//!
//! A reader whose place in the ring is gone, or whose board began another era, gets a new snapshot on the same stream;
//! in the middle of a snapshot its stream ends, because it could not tell the two apart.
//!
//! **Revisions.** Until a snapshot is complete its messages have revision 0: whoever resumes with what it has of it begins
//! anew. Every later message says up to where all is known, and says less rather than half of a transaction.

use std::collections::BTreeSet;

use metasrv_core::id::{ClusterId, RegionId};
use metasrv_proto::admin::{Route, WatchRoutesResponse};

use super::board::{Board, Entry, unsigned};
use super::ring::Change;

/// Routes in one message: some 60 KB.
pub const CHUNK: usize = 1_000;

/// Where a reader begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beginning {
    /// Where it was before.
    Resumed,
    /// With all there is.
    Snapshot,
}

/// What there is to tell.
#[derive(Clone, PartialEq, Debug)]
pub enum Next {
    /// This.
    Message(WatchRoutesResponse),
    /// Nothing at the moment.
    Nothing,
    /// Its snapshot cannot be finished. It begins again, on another stream.
    FellBehind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Regions after this one are to come, then the changes from `since` on.
    Snapshot { after: Option<u64>, since: u64 },
    /// The changes from this one on, as they are now.
    Rest { next: u64 },
    /// The changes from this one on, one by one.
    Live { next: u64 },
}

/// See the module.
#[derive(Clone, PartialEq, Debug)]
pub struct Cursor {
    cluster: ClusterId,
    era: u64,
    stage: Stage,
    /// All up to here was told.
    revision: i64,
    /// It was told that it knows all there is.
    told_complete: bool,
    /// Snapshots that were begun again.
    again: u64,
}

impl Board {
    /// The place of a reader who knows all up to this revision of this installation. It is not above `held`, unless the
    /// store was set back.
    pub fn begin(&self, cluster: ClusterId, after: i64, installation: u64) -> (Cursor, Beginning) {
        let is_known = after > 0 && after <= self.held && installation == self.installation;
        let next = self.ring.after(after).filter(|_| is_known);
        let (stage, beginning) = match next {
            Some(next) => (Stage::Live { next }, Beginning::Resumed),
            None => (self.whole_snapshot(), Beginning::Snapshot),
        };
        let revision = if is_known { after } else { 0 };
        (Cursor { cluster, era: self.era, stage, revision, told_complete: false, again: 0 }, beginning)
    }

    fn whole_snapshot(&self) -> Stage {
        Stage::Snapshot { after: None, since: self.ring.head() }
    }

    /// What comes next for a reader. Its place moves on.
    pub fn advance(&self, cursor: &mut Cursor) -> Next {
        let needs = match cursor.stage {
            Stage::Snapshot { since, .. } => since,
            Stage::Rest { next } | Stage::Live { next } => next,
        };
        if cursor.era != self.era || needs < self.ring.first() {
            if !matches!(cursor.stage, Stage::Live { .. }) {
                return Next::FellBehind;
            }
            if cursor.era != self.era {
                cursor.revision = 0;
            }
            (cursor.era, cursor.stage) = (self.era, self.whole_snapshot());
            (cursor.told_complete, cursor.again) = (false, cursor.again.saturating_add(1));
        }
        match cursor.stage {
            Stage::Snapshot { after, since } => Next::Message(self.snapshot(cursor, after, since)),
            Stage::Rest { next } => Next::Message(self.rest(cursor, next)),
            Stage::Live { next } => self.live(cursor, next),
        }
    }

    /// What comes next for a reader who was told nothing for a while; where there is nothing, a sign of life.
    pub fn advance_or_sign(&self, cursor: &mut Cursor) -> Next {
        match self.advance(cursor) {
            Next::Nothing => {}
            next => return next,
        }
        cursor.revision = cursor.revision.max(self.revision);
        Next::Message(WatchRoutesResponse {
            revision: unsigned(cursor.revision),
            installation: self.installation,
            complete: true,
            ..WatchRoutesResponse::default()
        })
    }

    fn snapshot(&self, cursor: &mut Cursor, after: Option<u64>, since: u64) -> WatchRoutesResponse {
        let mut changed = Vec::new();
        let mut last = None;
        for (region, entry) in self.routes.iter_after(after.map(RegionId)) {
            let Some(route) = self.on_wire(cursor.cluster, region.0, entry) else { continue };
            if changed.len() == CHUNK {
                // There is one more.
                cursor.stage = Stage::Snapshot { after: last, since };
                return self.part_of_snapshot(changed, Vec::new());
            }
            last = Some(region.0);
            changed.push(route);
        }
        cursor.stage = Stage::Rest { next: since };
        let part = self.part_of_snapshot(changed, Vec::new());
        if since == self.ring.head() { self.completed(cursor, part) } else { part }
    }

    fn rest(&self, cursor: &mut Cursor, next: u64) -> WatchRoutesResponse {
        let changes = self.ring.from(next).into_iter().flatten().take(CHUNK);
        let mut until = next;
        let mut regions = BTreeSet::new();
        for (number, change) in changes {
            until = number.saturating_add(1);
            if self.is_of(cursor.cluster, change) {
                regions.insert(change.region);
            }
        }
        let (mut changed, mut dropped) = (Vec::new(), Vec::new());
        for region in regions {
            match self
                .routes
                .get(&RegionId(region))
                .and_then(|entry| self.on_wire(cursor.cluster, region, entry))
            {
                Some(route) => changed.push(route),
                None => dropped.push(region),
            }
        }
        cursor.stage = Stage::Rest { next: until };
        let part = self.part_of_snapshot(changed, dropped);
        if until == self.ring.head() { self.completed(cursor, part) } else { part }
    }

    fn part_of_snapshot(&self, changed: Vec<Route>, dropped: Vec<u64>) -> WatchRoutesResponse {
        WatchRoutesResponse {
            revision: 0,
            installation: self.installation,
            snapshot: true,
            complete: false,
            changed,
            dropped_region_ids: dropped,
        }
    }

    fn completed(&self, cursor: &mut Cursor, part: WatchRoutesResponse) -> WatchRoutesResponse {
        cursor.stage = Stage::Live { next: self.ring.head() };
        cursor.revision = cursor.revision.max(self.revision);
        cursor.told_complete = true;
        WatchRoutesResponse { revision: unsigned(cursor.revision), complete: true, ..part }
    }

    fn live(&self, cursor: &mut Cursor, next: u64) -> Next {
        let mut told = Told::default();
        let mut until = next;
        for (number, change) in self.ring.from(next).into_iter().flatten() {
            if !self.is_of(cursor.cluster, change) {
                until = number.saturating_add(1);
                continue;
            }
            if !told.take(self, cursor.cluster, change) {
                break;
            }
            until = number.saturating_add(1);
        }
        cursor.stage = Stage::Live { next: until };
        let complete = until == self.ring.head();
        let known = match self.ring.get(until) {
            // All of the revisions before that of the next change.
            Some(next) => next.revision.saturating_sub(1).min(self.revision),
            None => self.revision,
        };
        if told.is_empty() && (!complete || cursor.told_complete) {
            return Next::Nothing;
        }
        cursor.revision = cursor.revision.max(known);
        cursor.told_complete |= complete;
        Next::Message(WatchRoutesResponse {
            revision: unsigned(cursor.revision),
            installation: self.installation,
            snapshot: false,
            complete,
            changed: told.changed,
            dropped_region_ids: told.dropped,
        })
    }
}

impl Cursor {
    /// How many snapshots were begun again on this stream.
    pub fn again(&self) -> u64 {
        self.again
    }
}

/// The changes of one message: what is dropped counts after what is changed.
#[derive(Default)]
struct Told {
    changed: Vec<Route>,
    dropped: Vec<u64>,
}

impl Told {
    /// Takes one more, unless the message is full, or would say it in the wrong order.
    fn take(&mut self, board: &Board, cluster: ClusterId, change: &Change) -> bool {
        if self.changed.len().saturating_add(self.dropped.len()) >= CHUNK
            || (!change.dropped && self.dropped.contains(&change.region))
        {
            return false;
        }
        let Change { revision, region, epoch, node, label, dropped } = *change;
        if dropped {
            self.dropped.push(region);
        } else {
            self.changed.extend(board.on_wire(cluster, region, &Entry { epoch, revision, node, label }));
        }
        true
    }

    fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.dropped.is_empty()
    }
}
