//! Routes change: in one fenced transaction with whatever records belong to the change, and with what is to be told of it.

use metasrv_core::id::{Epoch, NodeKey, RegionId};
use metasrv_proto::admin::{EventsRecord, StoredEvent};

use super::Leader;
use crate::clock::wall_clock_ms;
use crate::record;
use crate::store::fenced::{CommitError, Write};
use crate::store::{Change, MAX_CHANGES};

/// One route that changes: the region goes to another node, or its node leads it under a higher epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RouteChange {
    /// The region.
    pub region: RegionId,
    /// The node that the route gives it to.
    pub from: NodeKey,
    /// Under which epoch.
    pub at: Epoch,
    /// The node that the route shall give it to.
    pub to: NodeKey,
    /// Under which epoch. Higher than `at`.
    pub epoch: Epoch,
}

/// Why routes were not changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RelocateError {
    /// Its route is another one by now: nothing was written.
    #[error("the route of region {0} was changed by something else meanwhile")]
    Moved(RegionId),
    /// More than a transaction takes: nothing was written.
    #[error("{0} changes do not fit into one transaction")]
    TooMany(usize),
    /// The transaction was not done, or it is not known.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Leader {
    /// Changes routes and other records, all or nothing, and writes to the timeline what is told of it; what is in memory
    /// follows. Returns the revision at which everything written stands.
    ///
    /// It waits for nobody: a region without a writer must not stand behind other changes. Of two changes of one route the
    /// store takes one, by the revision that both compare.
    ///
    /// # Errors
    /// [`RelocateError`]: the outcome is certain, but where leadership ended.
    pub async fn change_routes(
        &self,
        changes: &[RouteChange],
        others: Vec<Write>,
        events: Vec<StoredEvent>,
    ) -> Result<i64, RelocateError> {
        let mut writes = Vec::with_capacity(changes.len().saturating_add(others.len()).saturating_add(1));
        for change in changes {
            writes.push(self.route_write(change).ok_or(RelocateError::Moved(change.region))?);
        }
        writes.extend(others);
        writes.extend(self.timeline_entry(events));
        if writes.len() > MAX_CHANGES {
            return Err(RelocateError::TooMany(writes.len()));
        }
        let revision = match self.commit(writes).await {
            Ok(revision) => revision,
            Err(error) => {
                if let CommitError::Conflict { found } = &error {
                    for (change, found) in changes.iter().zip(found) {
                        self.relearn_routes(&change.from, std::slice::from_ref(found));
                    }
                }
                return Err(error.into());
            }
        };
        for change in changes {
            self.apply(change, revision);
        }
        Ok(revision)
    }

    /// The write that puts these events on the timeline; none where there is none. Its record must be absent.
    pub fn timeline_entry(&self, events: Vec<StoredEvent>) -> Option<Write> {
        if events.is_empty() {
            return None;
        }
        let value = record::encode(&EventsRecord { term: self.term.0, at_ms: wall_clock_ms(), events });
        let key = self.keys.timeline_entry(self.new_id());
        Some(Write { change: Change::Put { key, value }, expected_mod_revision: 0 })
    }

    /// `None` where the route is not what the change begins with.
    fn route_write(&self, change: &RouteChange) -> Option<Write> {
        let entry = self.nodes.get(&change.from)?;
        let region = entry.regions.get(&change.region).filter(|region| region.epoch == change.at)?;
        if change.epoch <= change.at {
            return None;
        }
        let route = self.route_record(&change.to, change.epoch, region);
        let key = self.keys.region(change.region);
        Some(Write {
            change: Change::Put { key, value: record::encode(&route) },
            expected_mod_revision: region.revision,
        })
    }

    fn apply(&self, change: &RouteChange, revision: i64) {
        let RouteChange { region: id, from, to, epoch, .. } = *change;
        let known = self.nodes.get(&from).and_then(|entry| entry.regions.get(&id).cloned());
        let Some(region) = known else { return };
        let region = region.under(epoch, revision);
        // The new place first, so that no heartbeat and no procedure ever finds the region without a route. Under the old one
        // nothing is granted any more.
        {
            let mut entry = self.nodes.entry(to).or_default();
            entry.kept_open.remove(&id);
            entry.regions.release(&id);
            entry.regions.insert(id, region);
            // The new epoch is to be told with the next heartbeat at the latest.
            entry.openings.begin_anew();
        }
        if from != to
            && let Some(mut entry) = self.nodes.get_mut(&from)
        {
            entry.regions.remove(&id);
        }
        tracing::info!(term = %self.term, region = %id, %from, %to, %epoch, "route changed");
    }
}
