//! Why no node is left to take a region: each candidate, with the gravest rule that excludes it.

use std::fmt::Write;

use metasrv_core::id::{ClusterId, NodeId, NodeKey};
use metasrv_core::placement::Candidate;

/// Candidates that are named. An operator who reads more than these reads a list of nodes.
const MOST_NAMED: usize = 8;

/// The candidates with what excludes each of them, as a sentence; `except` is the node that the region is to leave.
pub fn nobody(candidates: &[Candidate], cluster: ClusterId, except: Option<NodeId>) -> String {
    let others: Vec<&Candidate> =
        candidates.iter().filter(|candidate| except != Some(candidate.node)).collect();
    let other = if except.is_some() { "other " } else { "" };
    if others.is_empty() {
        return format!("there is no {other}datanode in cluster {cluster}");
    }
    let mut why = format!("no {other}datanode of cluster {cluster} can take a region");
    for (place, candidate) in others.iter().take(MOST_NAMED).enumerate() {
        let separator = if place == 0 { ':' } else { ';' };
        let node = NodeKey::datanode(cluster, candidate.node);
        // Writing to a string does not fail.
        let _ = match candidate.exclusion(except) {
            Some(by) => write!(why, "{separator} {node}: {by}"),
            None => write!(why, "{separator} {node}: nothing is against it now"),
        };
    }
    if let Some(more) = others.len().checked_sub(MOST_NAMED).filter(|more| *more > 0) {
        let _ = write!(why, "; and {more} more");
    }
    why
}

#[cfg(test)]
mod tests {
    use super::*;
    use metasrv_core::placement::{Duty, Reach};

    #[test]
    fn each_node_is_named_with_what_is_against_it() {
        let mut candidates: Vec<Candidate> = (1..=3).map(|id| Candidate::new(NodeId(id), 0)).collect();
        candidates[0].duty = Duty::Cordoned;
        candidates[1].reach = Reach::Lost;
        let why = nobody(&candidates, ClusterId(0), Some(NodeId(3)));
        assert_eq!(
            why,
            "no other datanode of cluster 0 can take a region: datanode-1: it is cordoned; datanode-2: it is lost"
        );
        assert_eq!(nobody(&[], ClusterId(7), None), "there is no datanode in cluster 7");
    }

    #[test]
    fn a_long_list_is_cut_and_says_so() {
        let candidates: Vec<Candidate> =
            (1..=20).map(|id| Candidate { duty: Duty::Cordoned, ..Candidate::new(NodeId(id), 0) }).collect();
        let why = nobody(&candidates, ClusterId(0), None);
        assert!(why.ends_with("datanode-8: it is cordoned; and 12 more"), "{why}");
    }
}
