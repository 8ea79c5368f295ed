//! What replicas hold in memory, by the kernel's count of their anonymous pages: heap and stacks, and no program text.
//!
//! A sample is what it is at one instant, with the messages that are under way; the median of many is what stays.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cluster::{Cluster, Leadership};
use crate::wait::now;

/// Time between two samples.
const BETWEEN: Duration = Duration::from_millis(100);

/// Bytes of each running replica, by its place in the cluster.
pub struct Memory(BTreeMap<usize, u64>);

impl Memory {
    /// The median over so long, of each replica.
    pub async fn of_replicas(cluster: &Cluster, period: Duration) -> Memory {
        let mut samples: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        let began = now();
        while now().since(began) < period {
            for (index, replica) in cluster.replicas.iter().enumerate() {
                if let Some(process) = &replica.process {
                    samples.entry(index).or_default().push(process.anonymous_bytes());
                }
            }
            tokio::time::sleep(BETWEEN).await;
        }
        Memory(samples.into_iter().map(|(index, samples)| (index, median(samples))).collect())
    }

    /// What a replica has more in `later`.
    pub fn replica(&self, index: usize, later: &Memory) -> f64 {
        let of = |memory: &Memory| memory.0.get(&index).copied().unwrap_or_default();
        // Below zero where it came to have less: nothing is hidden.
        let (before, after) = (of(self), of(later));
        bytes(after.saturating_sub(before)) - bytes(before.saturating_sub(after))
    }

    /// What the leader has more in `later`, than it had.
    pub fn leader(&self, leader: Leadership, later: &Memory) -> f64 {
        self.replica(leader.replica, later)
    }

    /// The most that a replica has more in `later` which does not lead.
    pub fn largest_follower(&self, leader: Leadership, later: &Memory) -> f64 {
        let followers = later.0.keys().filter(|index| **index != leader.replica);
        followers.map(|index| self.replica(*index, later)).fold(f64::MIN, f64::max)
    }
}

fn median(mut samples: Vec<u64>) -> u64 {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}

/// Exact up to 4 GiB.
fn bytes(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
