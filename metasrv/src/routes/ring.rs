//! The last changes of routes, in their order: what a reader goes on from who was here before, on whichever replica.
//!
//! Each change has a number, which never comes back, and the revision of the store at which it was made. Readers keep
//! the number of the change that is next for them, so that a reader costs the ring nothing.

use std::collections::VecDeque;

use super::addresses::NodeNumber;
use super::labels::Label;

/// Changes that are kept: 2.6 MB at 40 bytes. A drain of 100 nodes with 600 regions each is no reason for a snapshot.
pub const KEPT: usize = 65_536;

/// One change of one route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// The store's revision.
    pub revision: i64,
    /// The region's id.
    pub region: u64,
    /// Its epoch from now on.
    pub epoch: u64,
    /// Its datanode from now on; where it was dropped, the one that it had.
    pub node: NodeNumber,
    /// Its label.
    pub label: Label,
    /// It is gone.
    pub dropped: bool,
}

/// See the module.
pub struct Ring {
    changes: VecDeque<Change>,
    /// The number of the oldest change that is kept.
    first: u64,
    /// Whoever knows all up to this revision, or a later one, misses nothing that is not here.
    floor: i64,
    kept: usize,
}

impl Ring {
    /// An empty one that keeps so many changes.
    pub fn new(kept: usize) -> Ring {
        Ring { changes: VecDeque::new(), first: 0, floor: i64::MAX, kept }
    }

    /// Adds a change. Revisions do not go down.
    pub fn push(&mut self, change: Change) {
        while self.changes.len() >= self.kept.max(1) {
            if let Some(gone) = self.changes.pop_front() {
                self.first = self.first.saturating_add(1);
                self.floor = self.floor.max(gone.revision);
            }
        }
        self.changes.push_back(change);
    }

    /// Nobody goes on from a revision below this one: what happened before it was not seen as changes.
    pub fn raise_floor(&mut self, revision: i64) {
        self.floor = revision;
    }

    /// Forgets every change.
    pub fn clear(&mut self) {
        self.first = self.head();
        self.changes.clear();
    }

    /// The number of the oldest change that is kept.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The number that the next change will get.
    pub fn head(&self) -> u64 {
        self.first.saturating_add(u64::try_from(self.changes.len()).unwrap_or(u64::MAX))
    }

    /// The number of the first change that is news to whoever knows all up to a revision; nothing, where something that is
    /// news may not be here.
    pub fn after(&self, revision: i64) -> Option<u64> {
        if revision < self.floor {
            return None;
        }
        let known = self.changes.partition_point(|change| change.revision <= revision);
        Some(self.first.saturating_add(u64::try_from(known).unwrap_or(u64::MAX)))
    }

    /// The change with this number.
    pub fn get(&self, number: u64) -> Option<&Change> {
        let index = number.checked_sub(self.first)?;
        self.changes.get(usize::try_from(index).ok()?)
    }

    /// The changes from this number on, with their numbers; nothing, where that one is forgotten.
    pub fn from(&self, number: u64) -> Option<impl Iterator<Item = (u64, &Change)>> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        Some((number..).zip(self.changes.iter().skip(index)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::addresses::Addresses;
    use super::*;
    use metasrv_core::id::{ClusterId, NodeId, NodeKey};

    fn change(revision: i64) -> Change {
        let node = Addresses::default().number(NodeKey::datanode(ClusterId(0), NodeId(1)));
        Change { revision, region: 1, epoch: 1, node, label: Label::NONE, dropped: false }
    }

    #[test]
    fn numbers_go_on_when_the_oldest_changes_go() {
        let mut ring = Ring::new(3);
        ring.raise_floor(10);
        for revision in 11..=15 {
            ring.push(change(revision));
        }
        assert_eq!((ring.first(), ring.head()), (2, 5));
        assert_eq!(ring.get(2).map(|change| change.revision), Some(13));
        assert_eq!(ring.get(1), None);
        assert!(ring.from(1).is_none() && ring.from(5).is_some_and(|mut rest| rest.next().is_none()));
    }

    #[test]
    fn whoever_knows_less_than_is_kept_cannot_go_on() {
        let mut ring = Ring::new(3);
        assert_eq!(ring.after(100), None, "nothing was read yet");
        ring.raise_floor(10);
        assert_eq!((ring.after(9), ring.after(10), ring.after(11)), (None, Some(0), Some(0)));
        for revision in [11, 11, 12, 14, 14] {
            ring.push(change(revision));
        }
        assert_eq!(ring.after(10), None, "both changes of 11 are gone");
        assert_eq!(
            (ring.after(11), ring.after(12), ring.after(13), ring.after(14)),
            (Some(2), Some(3), Some(3), Some(5))
        );
    }

    /// Goal: half of a transaction is never taken for the whole of it.
    #[test]
    fn a_revision_of_which_one_change_is_gone_is_gone() {
        let mut ring = Ring::new(3);
        ring.raise_floor(10);
        for revision in [12, 12, 12, 13] {
            ring.push(change(revision));
        }
        assert_eq!(ring.after(11), None, "one change of 12 is gone");
        assert_eq!(ring.after(12), Some(3));
    }

    #[test]
    fn what_was_listed_again_is_no_row_of_changes() {
        let mut ring = Ring::new(9);
        ring.raise_floor(10);
        ring.push(change(11));
        ring.clear();
        ring.raise_floor(5);
        assert_eq!((ring.first(), ring.head()), (1, 1), "numbers do not come back");
        assert_eq!((ring.after(4), ring.after(5)), (None, Some(1)));
    }
}
