//! Who leads, as any replica can see it: the queue of candidates in etcd, oldest first.
//!
//! A watch says that something changed, and a periodic read finds out what a silent watch did not say. What is seen
//! here is a hint for nodes and people; no right to do anything comes from it.

use std::sync::Arc;
use std::time::Duration;

use metasrv_core::election::LeaseId;
use metasrv_core::id::Term;
use metasrv_core::time::{BootTime, Clock};
use metasrv_proto::admin::CandidateRecord;
use tokio::sync::watch;

use crate::etcd::election::EtcdElection;
use crate::handler::KnownLeader;
use crate::record;

/// Time between two reads of the queue when nothing is said to have changed.
const READ_INTERVAL: Duration = Duration::from_millis(500);

/// A read that is older than this says nothing about the store's health any more.
const FRESH: Duration = Duration::from_secs(3);

/// The queue of candidates at one moment.
#[derive(Clone, Default, Debug)]
pub struct View {
    /// The leader, once it has raised its term.
    pub leader: Option<KnownLeader>,
    /// The lease under its key.
    pub leader_lease: Option<LeaseId>,
    /// The address under which this replica is reached.
    pub own_addr: Option<String>,
    /// Every candidate that could be read, the oldest first.
    pub members: Vec<CandidateRecord>,
    /// When the queue was last read.
    pub read_at: Option<BootTime>,
    /// Why the last read failed, if it did.
    pub failure: Option<String>,
}

impl View {
    /// Whether the store answered lately.
    ///
    /// # Errors
    /// Why not.
    pub fn is_fresh(&self, now: BootTime) -> Result<(), String> {
        match self.read_at {
            Some(read_at) if now.since(read_at) < FRESH => Ok(()),
            _ => Err(self.failure.clone().unwrap_or_else(|| "not read yet".to_owned())),
        }
    }

    /// Before anything was seen.
    pub fn of_replica(addr: &str) -> View {
        View { own_addr: Some(addr.to_owned()), ..View::default() }
    }

    /// `first` is the lease under the key of the first of the members.
    fn seen(self, members: Vec<CandidateRecord>, first: Option<LeaseId>, read_at: BootTime) -> View {
        let leader = members.first().filter(|first| first.term > 0).map(|first| KnownLeader {
            addr: first.addr.clone(),
            name: first.name.clone(),
            term: Term(first.term),
        });
        let leader_lease = first.filter(|_| leader.is_some());
        View { leader, leader_lease, members, read_at: Some(read_at), failure: None, own_addr: self.own_addr }
    }
}

/// A view that never changes: the one replica of embedded mode, which leads.
pub fn alone(member: CandidateRecord, now: BootTime) -> View {
    View::of_replica(&member.addr).seen(vec![member], None, now)
}

/// Keeps the view current until the process ends.
pub async fn observe(
    election: Arc<EtcdElection>,
    election_name: String,
    clock: Arc<dyn Clock>,
    view: watch::Sender<View>,
) {
    let mut changes = None;
    loop {
        let asked_at = clock.now();
        match election.candidates(&election_name).await {
            Ok(page) => {
                let mut first = None;
                let mut members = Vec::with_capacity(page.records.len());
                for stored in &page.records {
                    match record::decode::<CandidateRecord>(stored) {
                        Ok(member) => {
                            if members.is_empty() {
                                first = lease_of(&stored.key);
                            }
                            members.push(member);
                        }
                        Err(error) => tracing::warn!(%error, "a candidate's record cannot be read"),
                    }
                }
                view.send_modify(|view| {
                    let before = view.leader.take();
                    *view = std::mem::take(view).seen(members, first, asked_at);
                    if view.leader != before {
                        report(view.leader.as_ref());
                    }
                });
            }
            Err(error) => view.send_modify(|before| before.failure = Some(error.to_string())),
        }
        if changes.is_none() {
            changes = election.watch_candidates(&election_name).await.ok();
        }
        let changed = async {
            match &mut changes {
                Some(changes) => changes.recv().await.is_some(),
                None => std::future::pending().await,
            }
        };
        if let Ok(false) = tokio::time::timeout(READ_INTERVAL, changed).await {
            changes = None;
        }
    }
}

/// The lease that an election key hangs on: the last part of its name, in hexadecimal.
fn lease_of(key: &str) -> Option<LeaseId> {
    let (_, lease) = key.rsplit_once('/')?;
    i64::from_str_radix(lease, 16).ok().filter(|lease| *lease > 0).map(LeaseId)
}

fn report(leader: Option<&KnownLeader>) {
    match leader {
        Some(leader) => {
            tracing::info!(term = %leader.term, leader = leader.name, addr = leader.addr, "leader seen")
        }
        None => tracing::info!("no leader seen"),
    }
}
