//! What all other records are compared with: the highest term, the last region id, and the nodes that are known. It is read
//! first, because a record may stand before what it has to fit to.

use std::collections::HashSet;

use metasrv_core::id::NodeKey;
use metasrv_proto::admin::CounterRecord;

use super::Findings;
use crate::keys::Keys;
use crate::record;
use crate::store::{Page, Record};

/// See the module. A counter that is missing or cannot be read is found once; nothing is compared with it then.
pub struct Ground {
    /// The highest term that was led or reserved.
    pub term: Option<u64>,
    /// The last region id that was given.
    pub region: Option<u64>,
    /// Nodes that have a record or a lease.
    pub nodes: HashSet<NodeKey>,
}

impl Ground {
    /// Of these records.
    pub fn of(keys: &Keys, page: &Page, findings: &mut Findings) -> Ground {
        let mut nodes = HashSet::new();
        let (mut terms, mut regions) = (false, false);
        let (mut term, mut region) = (None, None);
        let (term_current, region_sequence) = (keys.term_current(), keys.region_sequence());
        for stored in &page.records {
            if stored.key == term_current {
                term = Some(stored);
            } else if stored.key == region_sequence {
                region = Some(stored);
            } else if let Some(node) = keys.parse_node(&stored.key).or(keys.parse_lease(&stored.key)) {
                nodes.insert(node);
            } else {
                terms |= stored.key.starts_with(&keys.term_records());
                regions |= stored.key.starts_with(&keys.regions());
            }
        }
        if term.is_none() && terms {
            findings.add(&term_current, "it is missing, and there are records of terms");
        }
        if region.is_none() && regions {
            findings
                .add(&region_sequence, "it is missing, and there are regions: an id could be given twice");
        }
        Ground { term: counter(term), region: counter(region), nodes }
    }
}

fn counter(stored: Option<&Record>) -> Option<u64> {
    record::decode::<CounterRecord>(stored?).ok().map(|counter| counter.value)
}
