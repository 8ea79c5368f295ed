//! One node as the leader sees it.

use std::collections::{BTreeMap, BTreeSet};

use metasrv_core::detector::Heartbeats;
use metasrv_core::failover::Certificate;
use metasrv_core::holdings::Holdings;
use metasrv_core::id::{Incarnation, RegionId, Term};
use metasrv_core::incarnation::Holder;
use metasrv_core::opening::Openings;
use metasrv_core::placement::USUAL_WEIGHT;
use metasrv_core::procedure::instruction::Report;
use metasrv_core::stats::EpochCache;
use metasrv_core::time::BootTime;
use metasrv_proto::admin::{DirectoryLock, NodeLeaseRecord};

use super::region::Region;

/// One node: where it is, which process it is, which regions the routes give it.
#[derive(Default)]
pub struct Node {
    /// host:port of its service.
    pub addr: String,
    /// The process last heard of.
    pub process: Option<Incarnation>,
    /// What it says of itself.
    pub version: String,
    /// What it says of itself.
    pub hostname: String,
    /// Label of its zone; empty: not said.
    pub zone: String,
    /// Label of its machine; empty: not said.
    pub host: String,
    /// Its capacity in proportion to the other nodes', as it says; 0: not said.
    pub weight: u32,
    /// Wall clock, for people.
    pub last_activity_ms: u64,
    /// Its heartbeats in this term. Absent: it is no datanode, or it was only just heard of.
    pub heartbeats: Option<Heartbeats>,
    /// Proof that a process of it has ended.
    pub certificate: Option<Certificate>,
    /// What its recorded process holds in the kernel, while it lives.
    pub directory_lock: Option<DirectoryLock>,
    /// It was heard of in this term.
    pub heard: bool,
    /// When its lease is to be handed to the write-behind again.
    pub lease_due_at: BootTime,
    /// The term under which its lease was last handed to the write-behind, or by which an earlier leader left it.
    pub offered_term: Term,
    /// Which of its processes may be granted leases.
    pub holder: Holder,
    /// Mod revision of its [`metasrv_proto::admin::NodeRecord`]; 0: none.
    pub record_revision: i64,
    /// The registrar is at work on it: nothing is granted meanwhile.
    pub recording: bool,
    /// The process that was last told to wait, so that it is logged once.
    pub waits_for: Option<Incarnation>,
    /// The regions that the routes give it, which of them are withheld, what its process holds, and what was granted.
    pub regions: Holdings<Region>,
    /// Regions that it has open though no route gives them to it: a procedure needs them.
    pub kept_open: BTreeSet<RegionId>,
    /// Regions that a procedure wants to hear of, with the last report.
    pub watched: BTreeMap<RegionId, Option<Report>>,
    /// What it was told to open.
    pub openings: Openings,
    /// Stats on their way to the store.
    pub stats: EpochCache,
}

impl Node {
    /// What is persisted of it.
    pub fn lease_record(&self, term: Term) -> NodeLeaseRecord {
        NodeLeaseRecord {
            addr: self.addr.clone(),
            last_activity_ms: self.last_activity_ms,
            node_epoch: self.process.map_or(0, |process| process.epoch),
            term: term.0,
            version: self.version.clone(),
            hostname: self.hostname.clone(),
            zone: self.zone.clone(),
            host: self.host.clone(),
            weight: self.weight,
        }
    }

    /// It is proved that its recorded process has ended.
    pub fn is_dead(&self) -> bool {
        self.certificate.is_some_and(|certificate| Some(certificate.ended) == self.holder.current())
    }

    /// Its capacity as placement counts it.
    pub fn capacity(&self) -> u32 {
        match self.weight {
            0 => USUAL_WEIGHT,
            weight => weight.saturating_mul(USUAL_WEIGHT),
        }
    }
}
