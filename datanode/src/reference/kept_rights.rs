//! A datanode that breaks the one rule that there is, for tests of the tests (`--write-without-right`): whoever claims that no two
//! nodes ever wrote to a region at the same time has to show that it would have been noticed.
//!
//! Such a node keeps every right that it once had, and writes by it when it has ended, whatever the clock and the storage say.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use datanode::{RegionId, WriteGuard};

/// The latest right to each region.
#[derive(Default)]
pub struct KeptRights(Mutex<HashMap<RegionId, WriteGuard>>);

impl KeptRights {
    fn lock(&self) -> MutexGuard<'_, HashMap<RegionId, WriteGuard>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps this one, in the place of an earlier one.
    pub fn keep(&self, guard: &WriteGuard) {
        self.lock().insert(guard.region(), guard.clone());
    }

    /// The one that was kept.
    pub fn of(&self, region: RegionId) -> Option<WriteGuard> {
        self.lock().get(&region).cloned()
    }
}
