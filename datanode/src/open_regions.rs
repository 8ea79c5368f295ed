//! The open regions of this process: their countdowns, the digest of all of them, and what metasrv was not told of yet.
//!
//! Each change of how a region is held raises the *version* of the set. An answer names the version of the set that it
//! renews, so a region that was opened, raised or stopped since the request takes nothing from it.

use std::collections::{BTreeMap, BTreeSet};

use metasrv_core::digest::Digest;
use metasrv_core::id::RegionId;
use metasrv_core::procedure::instruction::Held;

use crate::countdown::CountdownTaskHandle;

/// See the module.
#[derive(Default)]
pub(crate) struct OpenRegions {
    handles: BTreeMap<RegionId, CountdownTaskHandle>,
    digest: Digest,
    version: u64,
    /// Changed since the last request that said what has changed.
    unsaid: BTreeSet<RegionId>,
}

impl OpenRegions {
    /// The countdown of an open region.
    pub(crate) fn get(&self, region: RegionId) -> Option<&CountdownTaskHandle> {
        self.handles.get(&region)
    }

    /// All of them, in the order of ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&RegionId, &CountdownTaskHandle)> {
        self.handles.iter()
    }

    /// Those behind this one, in the order of ids.
    pub(crate) fn after(&self, region: Option<RegionId>) -> impl Iterator<Item = &RegionId> {
        let after = region.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.handles.range((after, std::ops::Bound::Unbounded)).map(|(region, _)| region)
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.handles.len()
    }

    /// Of all that is open.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// Raised by each change.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The version that the next change will have.
    pub(crate) fn next_version(&self) -> u64 {
        self.version.saturating_add(1)
    }

    /// Opens a region, whose countdown was made for [`OpenRegions::next_version`].
    pub(crate) fn insert(&mut self, region: RegionId, handle: CountdownTaskHandle) {
        let held = handle.held();
        self.handles.insert(region, handle);
        self.changed(region, None, Some(held));
    }

    /// Closes a region.
    pub(crate) fn remove(&mut self, region: RegionId) -> Option<CountdownTaskHandle> {
        let removed = self.handles.remove(&region)?;
        self.changed(region, Some(removed.held()), None);
        Some(removed)
    }

    /// Changes how a region is held, by something that takes the version which that makes. Only here: the digest has to follow.
    pub(crate) fn change(&mut self, region: RegionId, change: impl FnOnce(&CountdownTaskHandle, u64)) {
        let next = self.next_version();
        let Some(handle) = self.handles.get(&region) else { return };
        let before = handle.held();
        change(handle, next);
        let after = handle.held();
        if before != after {
            self.changed(region, Some(before), Some(after));
        }
    }

    fn changed(&mut self, region: RegionId, before: Option<Held>, after: Option<Held>) {
        if let Some(before) = before {
            self.digest.remove(region, before);
        }
        if let Some(after) = after {
            self.digest.insert(region, after);
        }
        self.version = self.next_version();
        self.unsaid.insert(region);
    }

    /// What metasrv was not told of yet; from now on it counts as told.
    pub(crate) fn take_unsaid(&mut self) -> BTreeSet<RegionId> {
        std::mem::take(&mut self.unsaid)
    }
}
