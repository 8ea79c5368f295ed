//! Which node each region is under: 16 bytes a region, nodes as numbers.

use std::collections::HashMap;

use metasrv_core::id::{NodeKey, RegionId};
use metasrv_core::region_map::RegionMap;

/// See the module. Nodes are never forgotten, and neither are their records.
#[derive(Clone, Default, Debug)]
pub struct Homes {
    regions: RegionMap<u32>,
    nodes: Vec<NodeKey>,
    numbers: HashMap<NodeKey, u32>,
}

impl Homes {
    /// From now on a region is under this node.
    pub fn insert(&mut self, region: RegionId, node: NodeKey) {
        let next = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let number = *self.numbers.entry(node).or_insert(next);
        if number == next {
            self.nodes.push(node);
        }
        self.regions.insert(region, number);
    }

    /// It is under none any more; says which one it was.
    pub fn remove(&mut self, region: RegionId) -> Option<NodeKey> {
        self.regions.remove(&region).and_then(|number| self.node(number))
    }

    /// How many regions are under a node.
    pub fn len(&self) -> usize {
        self.regions.len()
    }

    fn node(&self, number: u32) -> Option<NodeKey> {
        self.nodes.get(usize::try_from(number).ok()?).copied()
    }

    fn iter(&self) -> impl Iterator<Item = (RegionId, Option<NodeKey>)> {
        self.regions.iter().map(|(region, number)| (*region, self.node(*number)))
    }
}

/// How nodes are numbered makes no difference.
impl PartialEq for Homes {
    fn eq(&self, other: &Homes) -> bool {
        self.iter().eq(other.iter())
    }
}
