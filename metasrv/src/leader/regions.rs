//! Creating regions: placed, committed under the fence with the history of it, then told to their nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use metasrv_core::grant::Reported;
use metasrv_core::id::{ClusterId, Epoch, NodeKey, RegionId};
use metasrv_core::placement::Exclusion;
use metasrv_proto::admin::{CounterRecord, StoredEvent};

use super::region::{About, Region};
use super::{Leader, Wanted};
use crate::clock::wall_clock_ms;
use crate::control::{ControlError, event};
use crate::pusher::Pushers;
use crate::record;
use crate::store::fenced::{CommitError, Write};
use crate::store::{Change, MAX_CHANGES, Record};

/// The counter of region ids, as the store has it.
#[derive(Clone, Copy, Debug)]
pub struct Sequence {
    /// The last id that was given.
    pub last: u64,
    /// Mod revision of the counter; 0: it does not exist yet.
    pub revision: i64,
}

/// The epoch a region begins with.
const FIRST_EPOCH: Epoch = Epoch(1);

/// Bytes of a reason that the history repeats with each region.
const REASON_BYTES: usize = 128;

/// Why regions were not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// This replica does not lead any more.
    #[error("this replica does not lead any more; {created} of {count} regions were created")]
    NotLeader {
        /// So many were.
        created: usize,
        /// So many were asked for.
        count: usize,
    },
    /// No datanode is connected.
    #[error("no datanode of cluster {0} is connected: there is nothing to place a region on")]
    NotEnoughDatanodes(ClusterId),
    /// The node that was asked for is not there.
    #[error("{0} is not connected: start it, or leave the choice to metasrv")]
    NoSuchNode(NodeKey),
    /// The node that was asked for takes no regions.
    #[error("{node} cannot take regions: {why}")]
    Unfit {
        /// The node.
        node: NodeKey,
        /// Why not.
        why: Exclusion,
    },
    /// Every node is excluded; says why each one is.
    #[error("{0}")]
    Excluded(String),
    /// The control loop, which knows what operators want of nodes, did not say.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The store refused.
    #[error("{created} of {count} regions were created: {error}")]
    Store {
        /// So many were.
        created: usize,
        /// So many were asked for.
        count: usize,
        /// What it said.
        error: CommitError,
    },
}

impl Leader {
    /// Creates regions, and returns them by node when they are committed: in transactions of up to 125.
    ///
    /// # Errors
    /// [`CreateError`]; what was created before the error stays.
    pub async fn create_regions(
        &self,
        pushers: &Pushers,
        wanted: &Wanted<'_>,
    ) -> Result<BTreeMap<NodeKey, Vec<Reported>>, CreateError> {
        let mut sequence = self.metadata.lock().await;
        let nodes = self.place(pushers, wanted).await?;
        let count = wanted.count;
        let about = Arc::new(About::new(wanted.reason, wanted.group));
        let mut created: BTreeMap<NodeKey, Vec<Reported>> = BTreeMap::new();
        let mut done = 0_usize;
        // Two changes of each transaction are the counter of ids and the history.
        for chunk in nodes.chunks(MAX_CHANGES - 2) {
            let committed = self.commit_regions(&mut sequence, chunk, &about);
            let committed = committed.await.map_err(|error| match error {
                CommitError::FenceLost | CommitError::LeadershipEnded => {
                    CreateError::NotLeader { created: done, count }
                }
                error => CreateError::Store { created: done, count, error },
            })?;
            done = done.saturating_add(committed.len());
            for (node, region) in committed {
                created.entry(node).or_default().push(Reported { region, epoch: FIRST_EPOCH });
            }
        }
        self.metrics.regions.add(i64::try_from(done).unwrap_or(0));
        Ok(created)
    }

    async fn commit_regions(
        &self,
        sequence: &mut Sequence,
        nodes: &[NodeKey],
        about: &Arc<About>,
    ) -> Result<Vec<(NodeKey, RegionId)>, CommitError> {
        let created_at_ms = wall_clock_ms();
        let mut last = sequence.last;
        let mut writes = Vec::with_capacity(nodes.len().saturating_add(2));
        let (mut regions, mut events) = (Vec::with_capacity(nodes.len()), Vec::with_capacity(nodes.len()));
        for node in nodes {
            last = last.saturating_add(1);
            let region = Region::new(FIRST_EPOCH, 0, created_at_ms, Arc::clone(about));
            writes.push(Write {
                change: Change::Put {
                    key: self.keys.region(RegionId(last)),
                    value: record::encode(&self.route_record(node, FIRST_EPOCH, &region)),
                },
                expected_mod_revision: 0,
            });
            events.push(created_event(node, RegionId(last), &about.reason));
            regions.push((*node, RegionId(last), region));
        }
        // The counter comes last: it is relearnt from there.
        writes.extend(self.timeline_entry(events));
        writes.push(Write {
            change: Change::Put {
                key: self.keys.region_sequence(),
                value: record::encode(&CounterRecord { value: last }),
            },
            expected_mod_revision: sequence.revision,
        });
        let revision = match self.commit(writes).await {
            Ok(revision) => revision,
            Err(error) => {
                if let CommitError::Conflict { found } = &error {
                    self.relearn_sequence(sequence, found.last().and_then(Option::as_ref));
                }
                return Err(error);
            }
        };
        *sequence = Sequence { last, revision };
        let now = self.clock.now();
        let mut created = Vec::with_capacity(regions.len());
        for (node, id, region) in regions {
            let mut entry = self.nodes.entry(node).or_default();
            entry.regions.insert(id, region.under(FIRST_EPOCH, revision));
            // The caller tells the node now; heartbeats repeat it if that is lost.
            entry.openings.announced(now);
            tracing::info!(term = %self.term, region = %id, %node, epoch = %FIRST_EPOCH, "region created");
            created.push((node, id));
        }
        Ok(created)
    }

    /// Somebody else changed the counter that only a leader writes: go on from what is there, never back.
    fn relearn_sequence(&self, sequence: &mut Sequence, found: Option<&Record>) {
        let revision = found.map_or(0, |found| found.mod_revision);
        let counted = found
            .and_then(|found| record::decode::<CounterRecord>(found).ok())
            .map_or(0, |found| found.value);
        tracing::error!(term = %self.term, counted, "the counter of region ids was changed by somebody else");
        *sequence = Sequence { last: sequence.last.max(counted), revision };
    }
}

/// What the history says of a new region. The route keeps the whole reason; a history of thousands need not repeat it.
fn created_event(node: &NodeKey, region: RegionId, reason: &str) -> StoredEvent {
    let cut = reason.char_indices().map(|(at, _)| at).find(|at| *at >= REASON_BYTES);
    let why = cut.and_then(|at| reason.get(..at)).unwrap_or(reason);
    event::region_created(node, region, FIRST_EPOCH, why)
}
