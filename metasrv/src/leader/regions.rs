//! Creating regions: placed, committed under the fence, then told to their nodes.

use std::collections::BTreeMap;

use metasrv_core::grant::Reported;
use metasrv_core::id::{ClusterId, Epoch, NodeId, NodeKey, RegionId, Role};
use metasrv_core::placement;
use metasrv_proto::admin::CounterRecord;

use super::Leader;
use super::node::Region;
use crate::clock::wall_clock_ms;
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
    /// Creates `count` regions in a cluster, on the node that is named or on those with the fewest regions, and
    /// returns them by node when they are committed. Regions are created in transactions of up to 126.
    ///
    /// # Errors
    /// [`CreateError`]; what was created before the error stays.
    pub async fn create_regions(
        &self,
        pushers: &Pushers,
        cluster: ClusterId,
        on: Option<NodeId>,
        count: usize,
        reason: &str,
    ) -> Result<BTreeMap<NodeKey, Vec<Reported>>, CreateError> {
        let mut sequence = self.metadata.lock().await;
        let nodes = self.place(pushers, cluster, on, count)?;
        let mut created: BTreeMap<NodeKey, Vec<Reported>> = BTreeMap::new();
        let mut done = 0_usize;
        // One change of each transaction is the counter of ids.
        for chunk in nodes.chunks(MAX_CHANGES - 1) {
            let committed =
                self.commit_regions(&mut sequence, chunk, reason).await.map_err(|error| match error {
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

    fn place(
        &self,
        pushers: &Pushers,
        cluster: ClusterId,
        on: Option<NodeId>,
        count: usize,
    ) -> Result<Vec<NodeKey>, CreateError> {
        if let Some(id) = on {
            let node = NodeKey::datanode(cluster, id);
            return match pushers.is_connected(&node) && self.nodes.contains_key(&node) {
                true => Ok(vec![node; count]),
                false => Err(CreateError::NoSuchNode(node)),
            };
        }
        let mut candidates: Vec<placement::Candidate> = self
            .nodes
            .iter()
            .filter(|entry| entry.key().role == Role::Datanode && entry.key().cluster == cluster)
            .filter(|entry| pushers.is_connected(entry.key()))
            .map(|entry| placement::Candidate::new(entry.key().id, entry.regions.len()))
            .collect();
        candidates.sort_unstable_by_key(|candidate| candidate.node);
        let chosen =
            placement::choose(&candidates, count).map_err(|_| CreateError::NotEnoughDatanodes(cluster))?;
        Ok(chosen.into_iter().map(|id| NodeKey::datanode(cluster, id)).collect())
    }

    async fn commit_regions(
        &self,
        sequence: &mut Sequence,
        nodes: &[NodeKey],
        reason: &str,
    ) -> Result<Vec<(NodeKey, RegionId)>, CommitError> {
        let created_at_ms = wall_clock_ms();
        let mut last = sequence.last;
        let mut writes = Vec::with_capacity(nodes.len().saturating_add(1));
        let mut regions = Vec::with_capacity(nodes.len());
        for node in nodes {
            last = last.saturating_add(1);
            let region = Region {
                epoch: FIRST_EPOCH,
                revision: 0,
                term: self.term,
                created_at_ms,
                reason: reason.to_owned(),
                granted_at: None,
            };
            writes.push(Write {
                change: Change::Put {
                    key: self.keys.region(RegionId(last)),
                    value: record::encode(&self.route_record(node, &region)),
                },
                expected_mod_revision: 0,
            });
            regions.push((*node, RegionId(last), region));
        }
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
            entry.regions.insert(id, Region { revision, ..region });
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
