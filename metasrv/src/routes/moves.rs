//! Which regions are being moved, and where to: what is stored of migrations, as the board of routes needs it.

use std::collections::BTreeMap;

use super::addresses::NodeNumber;

/// See the module. A region has one procedure at a time.
#[derive(Clone, Default)]
pub struct Moves {
    by_procedure: BTreeMap<u64, u64>,
    targets: BTreeMap<u64, NodeNumber>,
}

impl Moves {
    /// A procedure moves a region to a datanode. Returns the region, where that is news.
    pub fn begin(&mut self, procedure: u64, region: u64, to: NodeNumber) -> Option<u64> {
        self.by_procedure.insert(procedure, region);
        (self.targets.insert(region, to) != Some(to)).then_some(region)
    }

    /// A procedure is over. Returns its region, where that is news.
    pub fn end(&mut self, procedure: u64) -> Option<u64> {
        let region = self.by_procedure.remove(&procedure)?;
        self.targets.remove(&region).map(|_| region)
    }

    /// Where a region is being moved to.
    pub fn target(&self, region: u64) -> Option<NodeNumber> {
        self.targets.get(&region).copied()
    }

    /// The regions that are not moved alike here and there.
    pub fn difference(&self, other: &Moves) -> Vec<u64> {
        let regions = self.targets.keys().chain(other.targets.keys());
        let mut regions: Vec<u64> =
            regions.filter(|region| self.target(**region) != other.target(**region)).copied().collect();
        regions.sort_unstable();
        regions.dedup();
        regions
    }
}
