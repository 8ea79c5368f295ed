//! The epoch cache in front of the persisted stats: what a datanode reported since the last drain.
//!
//! `node_epoch` tells incarnations apart. A higher one than the cache's drops what the older process reported and is
//! drained at once, so that readers soon see the new process; a lower one is ignored; an equal one appends, and at a
//! threshold everything cached is drained in one batch.
//!
//! A batch has the regions of its last heartbeat, and of those before it the sums: what each region did every second would
//! cost a leader several times the memory of all that it decides by, and the store as many bytes each second. Regions that were
//! named because they have changed are few, and are kept with each heartbeat.

use crate::id::{Epoch, RegionId};

/// What one heartbeat reported of a datanode.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct NodeStat {
    /// Wall clock of the leader, in milliseconds since 1970.
    pub timestamp_ms: u64,
    /// Read capacity units of the period, over all regions.
    pub rcus: i64,
    /// Write capacity units of the period, over all regions.
    pub wcus: i64,
    /// Bytes, over all regions.
    pub approximate_bytes: i64,
    /// The regions; none where they are left out.
    pub regions: Vec<RegionStat>,
    /// How many are left out.
    pub omitted: usize,
    /// The regions are a few that have changed: they are kept also where they do not end a batch.
    pub is_partial: bool,
}

/// What one heartbeat reported of a region.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RegionStat {
    /// The region.
    pub region: RegionId,
    /// The epoch it is held under; 0 from peers that do not know of epochs.
    pub epoch: Epoch,
    /// Read capacity units of the period.
    pub rcus: i64,
    /// Write capacity units of the period.
    pub wcus: i64,
    /// Bytes.
    pub approximate_bytes: i64,
    /// Name of its engine.
    pub engine: String,
    /// Its role, as on the wire.
    pub role: u32,
}

impl NodeStat {
    /// How many regions it is about.
    pub fn region_count(&self) -> usize {
        self.regions.len().saturating_add(self.omitted)
    }

    /// Leaves the regions out; their sums stay.
    pub fn omit_regions(&mut self) {
        self.omitted = self.region_count();
        self.regions = Vec::new();
    }
}

/// Heartbeats of one batch.
const THRESHOLD: usize = 10;
/// What could not be drained is kept up to this many heartbeats; the oldest go first.
const MOST_KEPT: usize = THRESHOLD * 2;

/// What became of a stat that was offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is cached.
    Appended,
    /// It is cached, and it is time to drain.
    Flush,
    /// It is ignored: a process of this higher epoch is known.
    Stale {
        /// The epoch.
        known: u64,
    },
}

/// What is drained in one go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// The process that reported it.
    pub node_epoch: u64,
    /// The oldest first.
    pub stats: Vec<NodeStat>,
}

/// The cache of one datanode.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct EpochCache {
    epoch: Option<u64>,
    stats: Vec<NodeStat>,
    /// So many heartbeats fewer has the batch that is being filled.
    ahead: usize,
}

impl EpochCache {
    /// The cache of a process that an earlier leader heard of, and drained. The first batch under this one is a shorter
    /// one, by a `phase` that differs from node to node: a thousand nodes come to a new leader within a second, and if
    /// all had to be drained then, or all ten seconds later, the store would be busy just when it is needed.
    pub fn inherited(node_epoch: u64, phase: u64) -> EpochCache {
        let most = u64::try_from(THRESHOLD).unwrap_or(u64::MAX);
        let ahead = phase.checked_rem(most).and_then(|ahead| usize::try_from(ahead).ok()).unwrap_or_default();
        EpochCache { epoch: Some(node_epoch), stats: Vec::new(), ahead }
    }

    /// Whether the next stat of this process ends a batch: only then its regions are kept.
    pub fn keeps_regions(&self, node_epoch: u64) -> bool {
        let filled = self.stats.len().saturating_add(self.ahead).saturating_add(1);
        self.epoch != Some(node_epoch) || filled >= THRESHOLD
    }

    /// Takes a stat of the process with this `node_epoch`.
    pub fn offer(&mut self, node_epoch: u64, mut stat: NodeStat) -> Verdict {
        if let Some(known) = self.epoch
            && node_epoch < known
        {
            return Verdict::Stale { known };
        }
        let newer = self.epoch != Some(node_epoch);
        if newer {
            *self = EpochCache { epoch: Some(node_epoch), ..EpochCache::default() };
        }
        let flush = newer || self.keeps_regions(node_epoch);
        if !flush && !stat.is_partial {
            stat.omit_regions();
        }
        self.stats.push(stat);
        self.shorten();
        if flush { Verdict::Flush } else { Verdict::Appended }
    }

    /// Takes everything cached out. `None` where there is nothing.
    pub fn drain(&mut self) -> Option<Batch> {
        let node_epoch = self.epoch.filter(|_| !self.stats.is_empty())?;
        self.ahead = 0;
        Some(Batch { node_epoch, stats: std::mem::take(&mut self.stats) })
    }

    /// Takes a batch back that could not be written, in front of what came since. A batch of an older process is
    /// dropped.
    pub fn restore(&mut self, mut batch: Batch) {
        if self.epoch != Some(batch.node_epoch) {
            return;
        }
        batch.stats.iter_mut().for_each(NodeStat::omit_regions);
        batch.stats.append(&mut self.stats);
        self.stats = batch.stats;
        self.shorten();
    }

    fn shorten(&mut self) {
        let excess = self.stats.len().saturating_sub(MOST_KEPT);
        self.stats.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(timestamp_ms: u64) -> NodeStat {
        NodeStat { timestamp_ms, ..NodeStat::default() }
    }

    fn times(batch: Option<Batch>) -> Vec<u64> {
        batch.map(|batch| batch.stats.iter().map(|stat| stat.timestamp_ms).collect()).unwrap_or_default()
    }

    #[test]
    fn the_first_stat_of_a_process_is_drained_at_once() {
        let mut cache = EpochCache::default();
        assert_eq!(cache.offer(5, stat(1)), Verdict::Flush);
        assert_eq!(times(cache.drain()), [1]);
        assert_eq!(cache.drain(), None);
    }

    #[test]
    fn equal_epochs_append_until_the_threshold() {
        let mut cache = EpochCache::default();
        cache.offer(5, stat(0));
        cache.drain();
        for time in 1..10 {
            assert_eq!(cache.offer(5, stat(time)), Verdict::Appended);
        }
        assert_eq!(cache.offer(5, stat(10)), Verdict::Flush);
        assert_eq!(times(cache.drain()), (1..=10).collect::<Vec<_>>(), "all of them, in one batch");
    }

    /// Goal: the nodes of an earlier leader are not drained together by the next one. Method: one node for each phase, all
    /// heard of ten times; each ends its first batch after another number of heartbeats, and all later ones after ten.
    #[test]
    fn inherited_processes_end_their_first_batches_one_after_another() {
        let first = |phase| {
            let mut cache = EpochCache::inherited(5, phase);
            let ends = (1..=30).filter(|time| {
                let ends = cache.keeps_regions(5);
                assert_eq!(
                    cache.offer(5, stat(*time)),
                    if ends { Verdict::Flush } else { Verdict::Appended }
                );
                if ends {
                    cache.drain();
                }
                ends
            });
            let ends: Vec<u64> = ends.collect();
            assert!(ends.windows(2).all(|pair| pair[1] - pair[0] == 10), "{ends:?}");
            ends[0]
        };
        let firsts: Vec<u64> = (0..10).map(first).collect();
        assert_eq!(firsts, [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(first(u64::MAX), 5, "a phase is what is left of it");
        let mut cache = EpochCache::inherited(5, 3);
        assert_eq!(cache.offer(6, stat(1)), Verdict::Flush, "another process is drained at once");
        assert_eq!(cache.offer(4, stat(1)), Verdict::Stale { known: 6 });
    }

    #[test]
    fn a_higher_epoch_drops_what_the_older_process_reported() {
        let mut cache = EpochCache::default();
        cache.offer(5, stat(1));
        cache.offer(5, stat(2));
        assert_eq!(cache.offer(6, stat(3)), Verdict::Flush);
        assert_eq!(cache.drain(), Some(Batch { node_epoch: 6, stats: vec![stat(3)] }));
    }

    #[test]
    fn a_lower_epoch_is_ignored() {
        let mut cache = EpochCache::default();
        cache.offer(6, stat(1));
        assert_eq!(cache.offer(5, stat(2)), Verdict::Stale { known: 6 });
        assert_eq!(times(cache.drain()), [1]);
        assert_eq!(cache.offer(5, stat(3)), Verdict::Stale { known: 6 }, "also when nothing is cached");
    }

    /// Goal: what is cached does not grow with the regions of a node, and the sums and the count of each heartbeat are kept.
    #[test]
    fn regions_are_those_of_the_heartbeat_that_ends_the_batch() {
        let large = |time| NodeStat { regions: vec![RegionStat::default(); 10_000], rcus: 7, ..stat(time) };
        let mut cache = EpochCache::default();
        assert_eq!(cache.offer(5, large(0)), Verdict::Flush);
        assert_eq!(
            cache.drain().unwrap().stats[0].regions.len(),
            10_000,
            "the first one of a process ends one"
        );
        for time in 1..10 {
            assert!(!cache.keeps_regions(5));
            assert_eq!(cache.offer(5, large(time)), Verdict::Appended);
        }
        assert!(cache.keeps_regions(5) && cache.keeps_regions(6));
        assert!(cache.stats.iter().all(|stat| stat.regions.capacity() == 0));
        assert_eq!(cache.offer(5, large(10)), Verdict::Flush);
        let batch = cache.drain().unwrap();
        let regions: Vec<_> = batch.stats.iter().map(|stat| stat.regions.len()).collect();
        assert_eq!(regions, [[0; 9].as_slice(), &[10_000]].concat());
        assert!(batch.stats.iter().all(|stat| stat.region_count() == 10_000 && stat.rcus == 7));
        cache.restore(batch);
        assert!(cache.stats.iter().all(|stat| stat.regions.is_empty() && stat.omitted == 10_000));
        cache.offer(5, NodeStat { is_partial: true, regions: vec![RegionStat::default(); 3], ..stat(11) });
        assert_eq!(cache.stats.last().map(|stat| stat.regions.len()), Some(3), "what has changed is kept");
    }

    #[test]
    fn what_could_not_be_written_comes_back_in_front_and_is_bounded() {
        let mut cache = EpochCache::default();
        cache.offer(5, stat(1));
        let batch = cache.drain().unwrap();
        cache.offer(5, stat(2));
        cache.restore(batch);
        assert_eq!(times(cache.drain()), [1, 2]);
        for time in 0..50 {
            cache.offer(5, stat(time));
        }
        assert_eq!(times(cache.drain()), (30..50).collect::<Vec<_>>(), "the oldest go first");
    }

    #[test]
    fn a_batch_of_an_older_process_does_not_come_back() {
        let mut cache = EpochCache::default();
        cache.offer(5, stat(1));
        let batch = cache.drain().unwrap();
        cache.offer(6, stat(2));
        cache.restore(batch);
        assert_eq!(times(cache.drain()), [2]);
    }
}
