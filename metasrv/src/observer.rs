//! Who leads, as any replica can see it: the queue of candidates in etcd, oldest first.
//!
//! A watch says that something changed, and a periodic read finds out what a silent watch did not say. What is seen
//! here is a hint for nodes and people; no right to do anything comes from it.
//!
//! A leader says in its election key which term it leads. One that began while the store was out of space could not; it
//! leads the term that it had reserved, if that is no spare any more.

use std::sync::Arc;
use std::time::Duration;

use metasrv_core::election::LeaseId;
use metasrv_core::id::Term;
use metasrv_core::time::{BootTime, Clock};
use metasrv_proto::admin::CandidateRecord;
use tokio::sync::watch;

use crate::etcd::election::EtcdElection;
use crate::handler::KnownLeader;
use crate::keys::Keys;
use crate::record;
use crate::store::{Record, Store};
use crate::terms;

/// Time between two reads of the queue when nothing is said to have changed.
const READ_INTERVAL: Duration = Duration::from_millis(500);

/// A read that is older than this says nothing about the store's health any more.
const FRESH: Duration = Duration::from_secs(3);

/// A place in the queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The election key.
    pub key: String,
    /// The revision at which it was created.
    pub create_revision: i64,
    /// How many stand before it.
    pub place: usize,
}

/// The queue of candidates at one moment.
#[derive(Clone, Default, Debug)]
pub struct View {
    /// The leader, once it has raised its term.
    pub leader: Option<KnownLeader>,
    /// The lease under its key.
    pub leader_lease: Option<LeaseId>,
    /// The address under which this replica is reached.
    pub own_addr: Option<String>,
    /// Where this replica stands in the queue: its youngest key.
    pub own: Option<Place>,
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

    /// Where the replica is that leads next, if the present leader ends: the one behind it in the queue.
    pub fn standby(&self) -> Option<&str> {
        let leader = &self.leader.as_ref()?.addr;
        self.members.iter().map(|member| &member.addr).find(|addr| *addr != leader).map(String::as_str)
    }

    /// The leader, if its term is later than this one.
    pub fn leader_after(&self, term: Term) -> Option<&KnownLeader> {
        self.leader.as_ref().filter(|leader| leader.term > term)
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
        View { leader, leader_lease, members, read_at: Some(read_at), failure: None, ..self }
    }
}

/// A view that never changes: the one replica of embedded mode, which leads.
pub fn alone(member: CandidateRecord, now: BootTime) -> View {
    View::of_replica(&member.addr).seen(vec![member], None, now)
}

/// Keeps the view current until the process ends.
pub async fn observe(
    election: Arc<EtcdElection>,
    store: Arc<dyn Store>,
    keys: Keys,
    clock: Arc<dyn Clock>,
    view: watch::Sender<View>,
) {
    let election_name = keys.election();
    let mut changes = None;
    let mut unpublished = None;
    loop {
        let asked_at = clock.now();
        match election.candidates(&election_name).await {
            Ok(page) => {
                let (mut queue, mut members) = readable(&page.records);
                if let (Some(key), Some(member)) = (queue.first(), members.first_mut()) {
                    find_term(store.as_ref(), &keys, key, member, &mut unpublished).await;
                }
                let first = queue.first().and_then(|first| lease_of(&first.key));
                view.send_modify(|view| {
                    let before = view.leader.take();
                    let own = members.iter().rposition(|member| Some(&member.addr) == view.own_addr.as_ref());
                    *view = std::mem::take(view).seen(members, first, asked_at);
                    view.own = own.map(|place| {
                        let Record { key, create_revision, .. } = queue.swap_remove(place);
                        Place { key, create_revision, place }
                    });
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

/// The keys in the queue whose records can be read, and those records.
fn readable(queue: &[Record]) -> (Vec<Record>, Vec<CandidateRecord>) {
    let decoded = queue.iter().filter_map(|stored| match record::decode::<CandidateRecord>(stored) {
        Ok(member) => Some((stored.clone(), member)),
        Err(error) => {
            tracing::warn!(%error, "a candidate's record cannot be read");
            None
        }
    });
    decoded.unzip()
}

/// Adds the term to the first of the queue where it leads one that it could not publish. `unpublished` is the revision
/// of a key of which that was found out before.
async fn find_term(
    store: &dyn Store,
    keys: &Keys,
    key: &Record,
    member: &mut CandidateRecord,
    unpublished: &mut Option<(String, i64)>,
) {
    if member.term > 0 || member.reserved_term == 0 {
        return;
    }
    let now = (key.key.clone(), key.mod_revision);
    if unpublished.as_ref() != Some(&now) {
        match terms::is_led_by_reservation(store, keys, Term(member.reserved_term)).await {
            Ok(true) => *unpublished = Some(now),
            Ok(false) => return,
            Err(error) => return tracing::debug!(%error, "whether a reserved term is led cannot be told"),
        }
    }
    member.term = member.reserved_term;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the replica that is named is the one that the queue lets lead next. Method: queues of several lengths, also with
    /// an older place of the leader's own.
    #[test]
    fn the_next_to_lead_is_the_first_other_replica_in_the_queue() {
        let member = |addr: &str, term| CandidateRecord { addr: addr.to_owned(), term, ..Default::default() };
        let seen = |members| View::default().seen(members, None, BootTime::ZERO);
        assert_eq!(View::default().standby(), None);
        assert_eq!(seen(vec![member("a", 3)]).standby(), None, "it is alone");
        assert_eq!(seen(vec![member("a", 3), member("b", 0), member("c", 0)]).standby(), Some("b"));
        assert_eq!(seen(vec![member("a", 3), member("a", 0), member("c", 0)]).standby(), Some("c"));
        assert_eq!(seen(vec![member("a", 0), member("b", 0)]).standby(), None, "nobody leads");
    }
}
