//! I2: what is offered to the storage with a valid right has epochs that never decrease, and each epoch is one process's.
//!
//! The storage would refuse an old epoch. That it never has to is the work of the leases.

use super::{Invariant, Moment};

/// See the module; the storage remembers.
pub struct StorageEpochs;

impl Invariant for StorageEpochs {
    fn name(&self) -> &'static str {
        "I2 epochs at the storage"
    }

    fn look(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        match moment.world.storage.take_broken() {
            broken if broken.is_empty() => Ok(()),
            broken => Err(broken.join("; ")),
        }
    }
}
