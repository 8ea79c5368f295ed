//! One thing after another for each region, while different regions are worked on beside each other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use metasrv_core::id::RegionId;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// Regions that are remembered before those that nobody works on are looked for. Above what is worked on at once.
const LOOK: usize = 256;

/// See the module.
#[derive(Default)]
pub(crate) struct Turns(Mutex<HashMap<RegionId, Weak<AsyncMutex<()>>>>);

impl Turns {
    /// Waits until nobody else works on this region, and keeps others off until the guard is dropped.
    pub(crate) async fn take(&self, region: RegionId) -> OwnedMutexGuard<()> {
        self.of(region).lock_owned().await
    }

    fn of(&self, region: RegionId) -> Arc<AsyncMutex<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(&region).and_then(Weak::upgrade) {
            return turn;
        }
        if turns.len() >= LOOK {
            turns.retain(|_, turn| turn.strong_count() > 0);
        }
        let turn = Arc::new(AsyncMutex::new(()));
        turns.insert(region, Arc::downgrade(&turn));
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_region_excludes_itself_and_no_other_and_none_is_remembered_for_ever() {
        let turns = Turns::default();
        let first = turns.take(RegionId(1)).await;
        assert!(turns.of(RegionId(1)).try_lock().is_err());
        for region in 2..=10_000 {
            drop(turns.take(RegionId(region)).await);
        }
        assert!(turns.of(RegionId(1)).try_lock().is_err(), "what is in use is not forgotten");
        assert!(turns.0.lock().unwrap().len() <= LOOK);
        drop(first);
        assert!(turns.of(RegionId(1)).try_lock().is_ok());
    }
}
