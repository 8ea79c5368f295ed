//! Each record alone: its key names what it is, it can be read, and it fits to the ground.
//!
//! | key | what must hold besides a term that is not above the current one |
//! | --- | --- |
//! | `election/…`, `node/…`, `lease/…`, `stats/…`, `order/failover` | nothing |
//! | `term/record/T` | it is of term T |
//! | `region/R` | the id was given; the epoch is 1 or higher; its node is known |
//! | `order/node/…` | its node is known |
//! | `procedure/P` | it makes sense, and is of P; P's term was led |
//! | `timeline/E` | E's term was led |

use std::collections::HashMap;

use metasrv_core::id::{ClusterId, NodeId, NodeKey};
use metasrv_core::procedure::ProcedureId;
use metasrv_proto::admin::{
    CandidateRecord, CounterRecord, EventsRecord, FailoverOrderRecord, InstallationRecord, NodeLeaseRecord,
    NodeOrderRecord, NodeRecord, ProcedureRecord, RouteRecord, SpareRecord, StatsRecord, TermRecord,
};
use prost::Message;

use super::Findings;
use super::ground::Ground;
use crate::control::procedures::record::Stored;
use crate::keys::Keys;
use crate::record;
use crate::store::Record;

/// A route, as far as procedures have to fit to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// Who leads the region.
    pub node: NodeKey,
    /// Under which epoch.
    pub epoch: u64,
}

/// What was seen so far, of what has to fit to each other.
pub struct Checked<'a> {
    keys: &'a Keys,
    ground: &'a Ground,
    findings: &'a mut Findings,
    /// The routes by region.
    pub routes: HashMap<u64, Route>,
    /// The procedures that make sense, by key.
    pub procedures: Vec<(String, Stored)>,
}

impl<'a> Checked<'a> {
    /// Nothing yet.
    pub fn new(keys: &'a Keys, ground: &'a Ground, findings: &'a mut Findings) -> Checked<'a> {
        Checked { keys, ground, findings, routes: HashMap::new(), procedures: Vec::new() }
    }

    /// Checks one record.
    pub fn record(&mut self, stored: &Record) {
        let (keys, key) = (self.keys, stored.key.as_str());
        if keys.is_candidate(key) {
            if let Some(candidate) = self.read::<CandidateRecord>(stored) {
                self.term(key, candidate.term.max(candidate.reserved_term));
            }
        } else if key == keys.term_current() || key == keys.region_sequence() {
            self.read::<CounterRecord>(stored);
        } else if key == keys.installation() {
            self.read::<InstallationRecord>(stored);
        } else if let Some(term) = keys.parse_term_record(key) {
            self.term_record(stored, term.0);
        } else if let Some(term) = keys.parse_term_spare(key) {
            self.read::<SpareRecord>(stored);
            self.term(key, term.0);
        } else if keys.parse_node(key).is_some() {
            let term = self.read::<NodeRecord>(stored).map(|node| node.term);
            self.term(key, term.unwrap_or_default());
        } else if keys.parse_lease(key).is_some() {
            let term = self.read::<NodeLeaseRecord>(stored).map(|lease| lease.term);
            self.term(key, term.unwrap_or_default());
        } else if keys.parse_stats(key).is_some() {
            let term = self.read::<StatsRecord>(stored).map(|stats| stats.term);
            self.term(key, term.unwrap_or_default());
        } else if let Some(region) = keys.parse_region(key) {
            self.route(stored, region.0);
        } else if let Some(node) = keys.parse_node_order(key) {
            let term = self.read::<NodeOrderRecord>(stored).map(|order| order.term);
            self.term(key, term.unwrap_or_default());
            self.node(key, &node, "it is an order for");
        } else if key == keys.failover_order() {
            let term = self.read::<FailoverOrderRecord>(stored).map(|order| order.term);
            self.term(key, term.unwrap_or_default());
        } else if let Some(id) = keys.parse_procedure(key) {
            self.procedure(stored, id);
        } else if let Some(id) = keys.parse_timeline_entry(key) {
            let term = self.read::<EventsRecord>(stored).map(|events| events.term);
            self.term(key, term.unwrap_or_default().max(term_of(id)));
        } else {
            self.findings.add(key, "this key follows no scheme that this version knows");
        }
    }

    fn read<M: Message + Default>(&mut self, stored: &Record) -> Option<M> {
        record::decode(stored).map_err(|error| self.findings.add(&stored.key, error.why)).ok()
    }

    fn term(&mut self, key: &str, term: u64) {
        if let Some(current) = self.ground.term.filter(|current| term > *current) {
            self.findings.add(key, format!("it is of term {term}, and the highest term was {current}"));
        }
    }

    fn node(&mut self, key: &str, node: &NodeKey, what: &str) {
        if !self.ground.nodes.contains(node) {
            self.findings.add(key, format!("{what} {node}, which has neither a record nor a lease"));
        }
    }

    fn term_record(&mut self, stored: &Record, term: u64) {
        let Some(record) = self.read::<TermRecord>(stored) else { return };
        if record.term != term {
            self.findings.add(&stored.key, format!("it is the record of term {}", record.term));
        }
        self.term(&stored.key, term);
    }

    fn route(&mut self, stored: &Record, region: u64) {
        let Some(route) = self.read::<RouteRecord>(stored) else { return };
        let node = NodeKey::datanode(ClusterId(route.cluster_id), NodeId(route.node_id));
        self.term(&stored.key, route.term);
        if region == 0 {
            self.findings.add(&stored.key, "no region has the id 0");
        }
        if let Some(last) = self.ground.region.filter(|last| region > *last) {
            self.findings.add(
                &stored.key,
                format!("the last id that was given is {last}: this one could be given again"),
            );
        }
        if route.epoch == 0 {
            self.findings.add(&stored.key, "its epoch is 0: no region is led under that");
        }
        self.node(&stored.key, &node, "it is led by");
        self.routes.insert(region, Route { node, epoch: route.epoch });
    }

    fn procedure(&mut self, stored: &Record, id: ProcedureId) {
        let Some(record) = self.read::<ProcedureRecord>(stored) else { return };
        self.term(&stored.key, record.term.max(term_of(id.0)));
        if record.id != id.0 {
            self.findings.add(&stored.key, format!("it is the record of procedure {}", record.id));
        }
        match Stored::from_record(&record) {
            Ok(procedure) => self.procedures.push((stored.key.clone(), procedure)),
            Err(error) => self.findings.add(&stored.key, error.to_string()),
        }
    }
}

/// The term that gave this number (`Leader::new_id`).
fn term_of(id: u64) -> u64 {
    id >> u32::BITS
}
