//! The names under which everything is stored: one prefix, one version, docs/keys.md as the table.
//!
//! Numbers are padded to twenty digits, so that the order of keys is the order of numbers.

use metasrv_core::election::LeaseId;
use metasrv_core::id::{ClusterId, NodeId, NodeKey, RegionId, Role, Term};
use metasrv_core::procedure::ProcedureId;

/// The names of one cluster's keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Keys {
    root: String,
}

impl Keys {
    /// Under this prefix, which begins with `/` and does not end with one.
    pub fn new(prefix: &str) -> Keys {
        Keys { root: format!("{prefix}/v1") }
    }

    /// Prefix of everything.
    pub fn all(&self) -> String {
        format!("{}/", self.root)
    }

    /// Whether a candidate's key could have this name: a lease's id in hexadecimal, or the fence of embedded mode.
    pub fn is_candidate(&self, key: &str) -> bool {
        let name = key.strip_prefix(&self.election()).and_then(|name| name.strip_prefix('/'));
        name.is_some_and(|name| {
            name == "embedded" || (!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
        })
    }

    /// The random identity of this installation.
    pub fn installation(&self) -> String {
        format!("{}/installation", self.root)
    }

    /// Name of the election; etcd appends `/` and the lease's id in hexadecimal.
    pub fn election(&self) -> String {
        format!("{}/election", self.root)
    }

    /// The key that etcd makes for the candidate under this lease.
    pub fn candidate(&self, lease: LeaseId) -> String {
        format!("{}/{:x}", self.election(), lease.0)
    }

    /// The fence of embedded mode.
    pub fn embedded_fence(&self) -> String {
        format!("{}/election/embedded", self.root)
    }

    /// The highest term there was.
    pub fn term_current(&self) -> String {
        format!("{}/term/current", self.root)
    }

    /// Prefix of all that is known of terms.
    pub fn terms(&self) -> String {
        format!("{}/term/", self.root)
    }

    /// Prefix of the records of all terms.
    pub fn term_records(&self) -> String {
        format!("{}/term/record/", self.root)
    }

    /// The record of a term.
    pub fn term_record(&self, term: Term) -> String {
        format!("{}{:020}", self.term_records(), term.0)
    }

    /// Says that a term was reserved, and not led.
    pub fn term_spare(&self, term: Term) -> String {
        format!("{}{:020}", self.term_spares(), term.0)
    }

    fn term_spares(&self) -> String {
        format!("{}/term/spare/", self.root)
    }

    /// Prefix of the records of all nodes.
    pub fn nodes(&self) -> String {
        format!("{}/node/", self.root)
    }

    /// Which process of a node may be granted leases.
    pub fn node(&self, node: &NodeKey) -> String {
        format!("{}{}", self.nodes(), node_path(node))
    }

    /// Prefix of the leases of all nodes.
    pub fn leases(&self) -> String {
        format!("{}/lease/", self.root)
    }

    /// When a node was last heard of.
    pub fn lease(&self, node: &NodeKey) -> String {
        format!("{}{}", self.leases(), node_path(node))
    }

    /// The range that a mirror watches: from the first key up to, and without, the second. It holds the candidates' keys,
    /// node records, leases, routes and sequences, and neither stats, which are large, nor the records of terms.
    pub fn mirrored(&self) -> (String, String) {
        (format!("{}/", self.election()), self.all_stats())
    }

    /// The range that the board of routes watches, in the same sense. It holds the installation, leases and records of
    /// nodes for their addresses, and routes.
    pub fn routed(&self) -> (String, String) {
        (self.installation(), format!("{}/region0", self.root))
    }

    /// Prefix of the stats of all datanodes.
    pub fn all_stats(&self) -> String {
        format!("{}/stats/", self.root)
    }

    /// The last drained batch of a datanode's stats.
    pub fn stats(&self, node: &NodeKey) -> String {
        format!("{}{:020}/{:020}", self.all_stats(), node.cluster.0, node.id.0)
    }

    /// Prefix of all routes.
    pub fn regions(&self) -> String {
        format!("{}/region/", self.root)
    }

    /// The route of a region.
    pub fn region(&self, region: RegionId) -> String {
        format!("{}{:020}", self.regions(), region.0)
    }

    /// The last region id that was given.
    pub fn region_sequence(&self) -> String {
        format!("{}/sequence/region", self.root)
    }

    /// Prefix of all that operators want.
    pub fn orders(&self) -> String {
        format!("{}/order/", self.root)
    }

    /// Prefix of what operators want of nodes.
    pub fn node_orders(&self) -> String {
        format!("{}/order/node/", self.root)
    }

    /// What an operator wants of a datanode.
    pub fn node_order(&self, node: &NodeKey) -> String {
        format!("{}{:020}/{:020}", self.node_orders(), node.cluster.0, node.id.0)
    }

    /// What an operator wants of all failovers.
    pub fn failover_order(&self) -> String {
        format!("{}/order/failover", self.root)
    }

    /// Prefix of the procedures at work.
    pub fn procedures(&self) -> String {
        format!("{}/procedure/", self.root)
    }

    /// A procedure at work.
    pub fn procedure(&self, id: ProcedureId) -> String {
        format!("{}{:020}", self.procedures(), id.0)
    }

    /// Prefix of all that was decided. Outside of the mirrored range: a leader begins without it.
    pub fn timeline(&self) -> String {
        format!("{}/timeline/", self.root)
    }

    /// What was decided in one transaction, by its number.
    pub fn timeline_entry(&self, id: u64) -> String {
        format!("{}{id:020}", self.timeline())
    }

    /// The datanode of a key that [`Keys::node_order`] made.
    pub fn parse_node_order(&self, key: &str) -> Option<NodeKey> {
        let (cluster, id) = key.strip_prefix(&self.node_orders())?.split_once('/')?;
        Some(NodeKey::datanode(ClusterId(number(cluster)?), NodeId(number(id)?)))
    }

    /// The procedure of a key that [`Keys::procedure`] made.
    pub fn parse_procedure(&self, key: &str) -> Option<ProcedureId> {
        Some(ProcedureId(number(key.strip_prefix(&self.procedures())?)?))
    }

    /// The number of a key that [`Keys::timeline_entry`] made.
    pub fn parse_timeline_entry(&self, key: &str) -> Option<u64> {
        number(key.strip_prefix(&self.timeline())?)
    }

    /// The term of a key that [`Keys::term_record`] made.
    pub fn parse_term_record(&self, key: &str) -> Option<Term> {
        Some(Term(number(key.strip_prefix(&self.term_records())?)?))
    }

    /// The term of a key that [`Keys::term_spare`] made.
    pub fn parse_term_spare(&self, key: &str) -> Option<Term> {
        Some(Term(number(key.strip_prefix(&self.term_spares())?)?))
    }

    /// The node of a key that [`Keys::node`] made.
    pub fn parse_node(&self, key: &str) -> Option<NodeKey> {
        parse_node_path(key.strip_prefix(&self.nodes())?)
    }

    /// The node of a key that [`Keys::lease`] made.
    pub fn parse_lease(&self, key: &str) -> Option<NodeKey> {
        parse_node_path(key.strip_prefix(&self.leases())?)
    }

    /// The datanode of a key that [`Keys::stats`] made.
    pub fn parse_stats(&self, key: &str) -> Option<NodeKey> {
        let (cluster, id) = key.strip_prefix(&self.all_stats())?.split_once('/')?;
        Some(NodeKey::datanode(ClusterId(number(cluster)?), NodeId(number(id)?)))
    }

    /// The region of a key that [`Keys::region`] made.
    pub fn parse_region(&self, key: &str) -> Option<RegionId> {
        Some(RegionId(number(key.strip_prefix(&self.regions())?)?))
    }
}

fn node_path(node: &NodeKey) -> String {
    format!("{}/{:020}/{:020}", node.role, node.cluster.0, node.id.0)
}

fn parse_node_path(path: &str) -> Option<NodeKey> {
    let mut parts = path.split('/');
    let (role, cluster, id) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    Some(NodeKey {
        role: Role::from_name(role)?,
        cluster: ClusterId(number(cluster)?),
        id: NodeId(number(id)?),
    })
}

/// Twenty digits, and nothing but digits.
fn number(text: &str) -> Option<u64> {
    if text.len() == 20 && text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_are_read_back_as_they_were_made(role in 0_usize..3, cluster in any::<u64>(), id in any::<u64>()) {
            let keys = Keys::new("/metasrv");
            let role = [Role::Datanode, Role::Frontend, Role::Flownode][role];
            let node = NodeKey { role, cluster: ClusterId(cluster), id: NodeId(id) };
            prop_assert_eq!(keys.parse_node(&keys.node(&node)), Some(node));
            prop_assert_eq!(keys.parse_lease(&keys.lease(&node)), Some(node));
            prop_assert_eq!(keys.parse_stats(&keys.stats(&node)), Some(NodeKey::datanode(node.cluster, node.id)));
            prop_assert_eq!(keys.parse_region(&keys.region(RegionId(id))), Some(RegionId(id)));
            let datanode = NodeKey::datanode(node.cluster, node.id);
            prop_assert_eq!(keys.parse_node_order(&keys.node_order(&datanode)), Some(datanode));
            prop_assert_eq!(keys.parse_procedure(&keys.procedure(ProcedureId(id))), Some(ProcedureId(id)));
            prop_assert_eq!(keys.parse_timeline_entry(&keys.timeline_entry(id)), Some(id));
            prop_assert_eq!(keys.parse_term_record(&keys.term_record(Term(id))), Some(Term(id)));
            prop_assert_eq!(keys.parse_term_spare(&keys.term_spare(Term(id))), Some(Term(id)));
        }

        #[test]
        fn no_key_of_somebody_elses_panics(key in ".{0,80}") {
            let keys = Keys::new("/m");
            for key in [key.clone(), format!("/m/v1/node/{key}"), format!("/m/v1/region/{key}"), format!("/m/v1/stats/{key}")] {
                let _ = (keys.parse_node(&key), keys.parse_lease(&key), keys.parse_stats(&key), keys.parse_region(&key));
            }
        }
    }

    #[test]
    fn a_mirror_watches_what_a_leader_begins_with_and_no_stats() {
        let keys = Keys::new("/m");
        let (from, to) = keys.mirrored();
        let node = NodeKey::datanode(ClusterId(1), NodeId(u64::MAX));
        let inside = |key: String| from <= key && key < to;
        let begun_with =
            [keys.node(&node), keys.lease(&node), keys.region(RegionId(u64::MAX)), keys.region_sequence()];
        let orders = [keys.node_order(&node), keys.failover_order(), keys.procedure(ProcedureId(u64::MAX))];
        assert!(begun_with.into_iter().chain(orders).chain([keys.embedded_fence()]).all(inside));
        let outside =
            [keys.stats(&node), keys.term_current(), keys.timeline_entry(1), keys.term_record(Term(1))];
        assert!(!outside.into_iter().any(inside));
        assert!(!inside(Keys::new("/m2").node(&node)) && !inside(Keys::new("/a").node(&node)));
    }

    #[test]
    fn the_board_of_routes_watches_routes_and_the_addresses_of_nodes() {
        let keys = Keys::new("/m");
        let (from, to) = keys.routed();
        let node = NodeKey::datanode(ClusterId(1), NodeId(u64::MAX));
        let inside = |key: String| from <= key && key < to;
        let seen =
            [keys.installation(), keys.node(&node), keys.lease(&node), keys.region(RegionId(u64::MAX))];
        assert!(seen.into_iter().all(inside));
        let outside = [keys.stats(&node), keys.region_sequence(), keys.embedded_fence(), keys.term_current()];
        assert!(!outside.into_iter().any(inside));
    }

    #[test]
    fn no_prefix_is_the_beginning_of_another_clusters_keys() {
        let key = Keys::new("/metasrv-2").region(RegionId(1));
        assert!(!key.starts_with(&Keys::new("/metasrv").regions()));
    }
}
