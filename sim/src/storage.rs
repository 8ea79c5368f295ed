//! The storage that all datanodes share: it takes a region's writes from whoever has claimed the region's highest epoch.
//!
//! It is also a witness. What is offered to it with a valid right is noted before it is judged, because the protocol has to
//! keep two writers apart in time, without the storage's help.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// See the module. Clones share it.
#[derive(Clone, Default)]
pub struct Storage {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    shelves: BTreeMap<u64, Shelf>,
    /// What must not happen and did.
    broken: Vec<String>,
    written: u64,
}

#[derive(Default)]
struct Shelf {
    epoch: u64,
    process: u64,
    /// The highest epoch under which a write was offered with a valid right, and by whom.
    offered: (u64, u64),
}

impl Storage {
    fn with<T>(&self, use_it: impl FnOnce(&mut State) -> T) -> T {
        use_it(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on this process writes to the region, and none of a lower epoch.
    ///
    /// # Errors
    /// The epoch that the region has, where it is not lower.
    pub fn claim(&self, region: u64, epoch: u64, process: u64) -> Result<(), u64> {
        self.with(|state| {
            let shelf = state.shelves.entry(region).or_default();
            let same = shelf.epoch == epoch && shelf.process == process;
            if shelf.epoch >= epoch && !same {
                if shelf.epoch == epoch {
                    let first = shelf.process;
                    state.broken.push(format!(
                        "region {region}: processes {first} and {process} both claim epoch {epoch}"
                    ));
                }
                return Err(state.shelves[&region].epoch);
            }
            shelf.epoch = epoch;
            shelf.process = process;
            Ok(())
        })
    }

    /// A write by a process that has a valid right; says whether it is taken.
    pub fn write(&self, region: u64, epoch: u64, process: u64) -> bool {
        self.with(|state| {
            let shelf = state.shelves.entry(region).or_default();
            let before = shelf.offered;
            if epoch < before.0 || (epoch == before.0 && process != before.1) {
                state.broken.push(format!(
                    "region {region}: process {process} writes under epoch {epoch} after process {} under {}",
                    before.1, before.0
                ));
                return false;
            }
            shelf.offered = (epoch, process);
            let taken = shelf.epoch == epoch && shelf.process == process;
            state.written += u64::from(taken);
            taken
        })
    }

    /// What must not have happened, since this was asked last.
    pub fn take_broken(&self) -> Vec<String> {
        self.with(|state| std::mem::take(&mut state.broken))
    }

    /// How many writes were taken so far.
    pub fn written(&self) -> u64 {
        self.with(|state| state.written)
    }
}
