//! What is taken away for good: a region's route, and a node. Each in one fenced transaction with the history of it.

use metasrv_core::id::{Epoch, NodeKey, RegionId};
use metasrv_proto::admin::StoredEvent;

use super::{Leader, RelocateError};
use crate::store::Change;
use crate::store::fenced::{CommitError, Write};

impl Leader {
    /// Takes a region's route away. Its node learns by its next heartbeat that it is to close the region.
    ///
    /// # Errors
    /// [`RelocateError::Moved`] where the node does not lead it under this epoch any more; nothing was written then.
    pub async fn drop_region(
        &self,
        node: &NodeKey,
        region: RegionId,
        at: Epoch,
        events: Vec<StoredEvent>,
    ) -> Result<(), RelocateError> {
        let _serial = self.metadata.lock().await;
        let found = self.nodes.get(node).and_then(|entry| {
            entry.regions.get(&region).filter(|known| known.epoch == at).map(|known| known.revision)
        });
        let expected_mod_revision = found.ok_or(RelocateError::Moved(region))?;
        let change = Change::Delete { key: self.keys.region(region) };
        let mut writes = vec![Write { change, expected_mod_revision }];
        writes.extend(self.timeline_entry(events));
        match self.commit(writes).await {
            Ok(_) => {}
            // Somebody deleted it by hand: that it is gone is what was wanted, and what counts.
            Err(CommitError::Conflict { found }) if found.first().is_some_and(Option::is_none) => {
                tracing::error!(term = %self.term, %region, "a route was deleted by somebody else");
            }
            Err(error) => {
                if let CommitError::Conflict { found } = &error {
                    self.relearn_routes(node, found.get(..1).unwrap_or_default());
                }
                return Err(error.into());
            }
        }
        if let Some(mut entry) = self.nodes.get_mut(node) {
            entry.regions.remove(&region);
        }
        self.metrics.regions.dec();
        tracing::info!(term = %self.term, %region, %node, epoch = %at, "region dropped");
        Ok(())
    }

    /// Forgets a node that has no regions and is not connected, and with `order` what was wanted of it. Should it come back,
    /// it is a new node. Returns the revision at which what is left of it stands.
    ///
    /// # Errors
    /// [`RelocateError::Commit`]: where a process of it was recorded meanwhile, nothing is forgotten.
    pub async fn decommission(
        &self,
        node: &NodeKey,
        order: Write,
        events: Vec<StoredEvent>,
    ) -> Result<i64, RelocateError> {
        let recorded = self.nodes.get(node).map_or(0, |entry| entry.record_revision);
        let mut writes = vec![order];
        if recorded != 0 {
            let change = Change::Delete { key: self.keys.node(node) };
            writes.push(Write { change, expected_mod_revision: recorded });
        }
        let revision = match self.change_routes(&[], writes, events).await {
            Ok(revision) => revision,
            Err(error) => {
                if let RelocateError::Commit(CommitError::Conflict { found }) = &error
                    && recorded != 0
                {
                    self.relearn_node(node, found.get(1).and_then(Option::as_ref));
                }
                return Err(error);
            }
        };
        // What is written behind follows; a queue that is full leaves a line in a list, and nothing else.
        for key in [self.keys.lease(node), self.keys.stats(node)] {
            if self.write_behind.remove(key).is_err() {
                tracing::warn!(term = %self.term, %node, "a record of a forgotten node stays: the queue is full");
            }
        }
        self.nodes.remove_if(node, |_, entry| entry.regions.is_empty());
        Ok(revision)
    }
}
