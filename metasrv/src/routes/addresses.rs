//! Where datanodes are reached, whether their processes have ended, and datanodes as numbers: a route keeps four bytes.
//!
//! Two records have the address of a datanode: that of its process, which is written before its first grant, and its
//! lease, which is written behind and also where the node has moved without a restart, or is a public peer without a
//! process of its own. The one that was written last is right.

use std::collections::HashMap;
use std::sync::Arc;

use metasrv_core::id::NodeKey;

/// The number of a datanode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeNumber(u32);

struct Known {
    node: NodeKey,
    /// Empty: not known yet.
    addr: Arc<str>,
    /// The revision of the record that said so.
    at: i64,
    /// The process that may be granted leases has ended.
    ended: bool,
}

/// See the module. Datanodes are never forgotten, and neither are their records.
#[derive(Default)]
pub struct Addresses {
    known: Vec<Known>,
    numbers: HashMap<NodeKey, u32>,
}

impl Addresses {
    /// The number of a datanode.
    pub fn number(&mut self, node: NodeKey) -> NodeNumber {
        let next = u32::try_from(self.known.len()).unwrap_or(u32::MAX);
        let number = *self.numbers.entry(node).or_insert(next);
        if number == next {
            self.known.push(Known { node, addr: Arc::from(""), at: 0, ended: false });
        }
        NodeNumber(number)
    }

    /// A record of this revision says where a datanode is reached. Returns its number, where that is news.
    pub fn hear(&mut self, node: NodeKey, addr: &str, at: i64) -> Option<NodeNumber> {
        let number = self.number(node);
        let known = self.known.get_mut(index(number))?;
        if at < known.at || addr.is_empty() {
            return None;
        }
        known.at = at;
        if *known.addr == *addr {
            return None;
        }
        known.addr = Arc::from(addr);
        Some(number)
    }

    /// Whether a datanode's process has ended. Returns its number, where that is news.
    pub fn hear_end(&mut self, node: NodeKey, ended: bool) -> Option<NodeNumber> {
        let number = self.number(node);
        let known = self.known.get_mut(index(number))?;
        (std::mem::replace(&mut known.ended, ended) != ended).then_some(number)
    }

    /// Whether its process has ended.
    pub fn has_ended(&self, number: NodeNumber) -> bool {
        self.known.get(index(number)).is_some_and(|known| known.ended)
    }

    /// The datanode with this number.
    pub fn node(&self, number: NodeNumber) -> Option<NodeKey> {
        self.known.get(index(number)).map(|known| known.node)
    }

    /// Its address; empty where it is not known.
    pub fn addr(&self, number: NodeNumber) -> &str {
        self.known.get(index(number)).map_or("", |known| &known.addr)
    }
}

fn index(number: NodeNumber) -> usize {
    usize::try_from(number.0).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use metasrv_core::id::{ClusterId, NodeId};

    #[test]
    fn the_record_that_was_written_last_has_the_address() {
        let mut addresses = Addresses::default();
        let node = NodeKey::datanode(ClusterId(0), NodeId(7));
        let number = addresses.number(node);
        assert_eq!(addresses.addr(number), "");
        assert_eq!(addresses.hear(node, "a:1", 5), Some(number));
        assert_eq!(addresses.hear(node, "a:1", 6), None, "no news");
        assert_eq!(addresses.hear(node, "b:1", 4), None, "an older record, listed after the newer one");
        assert_eq!(addresses.hear(node, "b:1", 7), Some(number));
        assert_eq!((addresses.addr(number), addresses.node(number)), ("b:1", Some(node)));
    }
}
