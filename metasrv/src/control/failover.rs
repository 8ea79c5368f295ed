//! Regions of lost nodes go to others: one fenced transaction for up to 126 of them, with the history of it.
//!
//! [`metasrv_core::failover`] decides which may go where now. What is here keeps its promise: a region is withheld from its node,
//! and was not granted anew since the plan looked at it, before the transaction is sent; and what is in flight is nobody
//! else's until its outcome is certain.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use metasrv_core::brake::Verdict;
use metasrv_core::detector::Health;
use metasrv_core::failover::{Gone, Held, Plan, Situation, Takeover, Why, plan};
use metasrv_core::grant::Reported;
use metasrv_core::id::{ClusterId, Epoch, NodeId, NodeKey, RegionId};
use metasrv_core::placement::{Candidate, Group};
use metasrv_core::time::BootTime;

use super::{Control, duty, event, procedures};
use crate::leader::{Leader, RelocateError, RouteChange, last_grant};
use crate::mailbox::HeartbeatMailbox;
use crate::store::MAX_CHANGES;

/// Regions of one transaction; one change is the history's.
const BATCH: usize = MAX_CHANGES - 1;

/// A plan in which nothing could be done is made again after so long, if nothing changes before.
const AGAIN: Duration = Duration::from_millis(500);

/// Regions that wait, remembered for whoever asks why.
const MOST_WAITING: usize = 100;

/// Failovers under way, and what the last plan could not do.
#[derive(Default)]
pub struct Failover {
    in_flight: BTreeSet<RegionId>,
    /// On their way to each node.
    incoming: BTreeMap<NodeKey, usize>,
    plan_at: BootTime,
    /// What the last plan began with: another beginning is a reason to plan at once.
    begun_with: Option<(BTreeSet<NodeKey>, bool)>,
    /// Why regions of lost nodes wait; not all of them where there are many.
    pub(super) waiting: Vec<(RegionId, String)>,
}

impl Failover {
    /// Regions that are being failed over.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether this one is.
    pub fn is_in_flight(&self, region: RegionId) -> bool {
        self.in_flight.contains(&region)
    }

    /// Regions on their way to this node.
    pub fn incoming(&self, node: &NodeKey) -> usize {
        self.incoming.get(node).copied().unwrap_or_default()
    }

    fn forget(&mut self, change: &RouteChange) {
        self.in_flight.remove(&change.region);
        if let Some(count) = self.incoming.get_mut(&change.to) {
            *count = count.saturating_sub(1);
        }
        self.incoming.retain(|_, count| *count > 0);
    }
}

/// A batch has ended.
#[derive(Debug)]
pub struct Done {
    batch: Vec<RouteChange>,
    outcome: Result<i64, RelocateError>,
}

/// A node that is gone, copied out of what the leader knows of it.
struct Lost {
    key: NodeKey,
    node: NodeId,
    health: Health,
    holder: Option<metasrv_core::id::Incarnation>,
    certificate: Option<metasrv_core::failover::Certificate>,
    /// In the order of ids.
    regions: Vec<Copied>,
}

/// One of its regions.
struct Copied {
    region: RegionId,
    epoch: Epoch,
    group: Option<Arc<str>>,
    last_grant: Option<BootTime>,
}

/// Plans and begins what may be begun now.
pub(super) fn turn(control: &mut Control, now: BootTime) {
    let gone = &control.census.gone;
    if gone.is_empty() {
        control.failover.waiting.clear();
        control.failover.begun_with = None;
        return;
    }
    let verdict = control.brake.verdict(control.failover.in_flight(), now);
    let begins_with = (gone.clone(), matches!(verdict, Verdict::Hold { .. }));
    let changed = control.failover.begun_with.as_ref() != Some(&begins_with);
    if !changed && now < control.failover.plan_at {
        return;
    }
    let clusters: BTreeSet<ClusterId> = gone.iter().map(|node| node.cluster).collect();
    control.failover.begun_with = Some(begins_with);
    control.failover.waiting.clear();
    control.failover.plan_at = now + AGAIN;
    if control.orders.maintenance() {
        return;
    }
    for cluster in clusters {
        in_cluster(control, cluster, &verdict, now);
    }
}

fn in_cluster(control: &mut Control, cluster: ClusterId, verdict: &Verdict, now: BootTime) {
    let lost: Vec<Lost> = control
        .census
        .gone
        .iter()
        .filter(|key| key.cluster == cluster)
        .filter_map(|key| copy(control, key, now))
        .collect();
    let held: Vec<Vec<Held<'_>>> =
        lost.iter().map(|lost| lost.regions.iter().map(Copied::held).collect()).collect();
    let gone: Vec<Gone<'_>> = lost
        .iter()
        .zip(&held)
        .map(|(lost, regions)| Gone {
            node: lost.node,
            health: lost.health,
            holder: lost.holder,
            certificate: lost.certificate,
            regions,
        })
        .collect();
    let candidates = candidates(control, cluster, now);
    let labels: BTreeSet<&str> =
        lost.iter().flat_map(|lost| &lost.regions).filter_map(|region| region.group.as_deref()).collect();
    let groups = groups(control, cluster, &labels);
    let restarting = control.orders.restarting(cluster, now);
    let situation = Situation {
        gone: &gone,
        grant_wait: control.leader.timing().grant_wait(),
        settled_at: control.leader.settled_at(),
        verdict,
        restarting: &restarting,
        candidates: &candidates,
        groups: &groups,
    };
    let Plan { takeovers, stays } = plan(&situation, now);
    for stay in &stays {
        if let Why::MayBeWritten { until, .. } = &stay.why {
            control.failover.plan_at = control.failover.plan_at.min(*until);
        }
        if control.failover.waiting.len() < MOST_WAITING {
            control.failover.waiting.push((stay.region, stay.why.describe(now).to_string()));
        }
    }
    let begun: Vec<(RouteChange, String)> =
        takeovers.iter().filter_map(|takeover| withhold(&control.leader, cluster, &lost, takeover)).collect();
    for batch in begun.chunks(BATCH) {
        begin(control, batch);
    }
}

impl Copied {
    fn held(&self) -> Held<'_> {
        Held {
            region: self.region,
            epoch: self.epoch,
            group: self.group.as_deref(),
            last_grant: self.last_grant,
            stopped: None,
            fenced: None,
        }
    }
}

/// What the plan has to know of a node, without the regions that something else is moving.
fn copy(control: &Control, key: &NodeKey, now: BootTime) -> Option<Lost> {
    let listening = control.leader.listening();
    let entry = control.leader.nodes().get(key)?;
    let health = control.leader.health(&entry, &listening, now);
    // It may have come back since it was counted.
    if !entry.is_dead() && !matches!(health, Health::Lost { .. }) {
        return None;
    }
    let is_free = |region: &RegionId| {
        !control.failover.is_in_flight(*region) && !control.procedures.claims_route(*region)
    };
    let regions = entry.regions.iter().filter(|(id, _)| is_free(id)).map(|(id, region)| Copied {
        region: *id,
        epoch: region.epoch,
        group: region.group().cloned(),
        last_grant: last_grant(&entry, *id),
    });
    Some(Lost {
        key: *key,
        node: key.id,
        health,
        holder: entry.holder.current(),
        certificate: entry.certificate,
        regions: regions.collect(),
    })
}

/// The nodes of a cluster with what operators want of them and what is on its way to and from them.
pub(super) fn candidates(control: &Control, cluster: ClusterId, now: BootTime) -> Vec<Candidate> {
    let mut candidates = control.leader.candidates(cluster, now);
    for candidate in &mut candidates {
        let known = duty::of(control, &NodeKey::datanode(cluster, candidate.node), now);
        (candidate.incoming, candidate.outgoing) = (known.incoming, known.outgoing);
        candidate.duty = known.duty;
        candidate.is_restarting = known.restarting_until.is_some();
    }
    candidates
}

/// Where the regions of these groups are.
pub(super) fn groups(
    control: &Control,
    cluster: ClusterId,
    labels: &BTreeSet<&str>,
) -> BTreeMap<String, Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    if labels.is_empty() {
        return groups;
    }
    for entry in control.leader.nodes().iter().filter(|entry| entry.key().cluster == cluster) {
        for label in entry.regions.values().filter_map(|region| region.group().map(|group| &**group)) {
            if labels.contains(label) {
                let held = groups.entry(label.to_owned()).or_default().entry(entry.key().id).or_default();
                *held = held.saturating_add(1);
            }
        }
    }
    groups
}

/// Keeps the region from its node. `None` where it was granted since the plan looked at it, or is not there any more.
fn withhold(
    leader: &Leader,
    cluster: ClusterId,
    lost: &[Lost],
    takeover: &Takeover,
) -> Option<(RouteChange, String)> {
    let lost = lost.iter().find(|lost| lost.node == takeover.from)?;
    let at = lost.regions.binary_search_by_key(&takeover.region, |copied| copied.region).ok()?;
    let planned = lost.regions.get(at)?;
    let mut entry = leader.nodes().get_mut(&lost.key)?;
    entry.regions.get(&takeover.region).filter(|region| region.epoch == planned.epoch)?;
    if last_grant(&entry, takeover.region) != planned.last_grant || entry.holder.current() != lost.holder {
        return None;
    }
    entry.regions.withhold(takeover.region);
    let change = RouteChange {
        region: takeover.region,
        from: lost.key,
        at: planned.epoch,
        to: NodeKey::datanode(cluster, takeover.to),
        epoch: takeover.epoch,
    };
    Some((change, takeover.by.to_string()))
}

fn begin(control: &mut Control, batch: &[(RouteChange, String)]) {
    for (change, _) in batch {
        control.failover.in_flight.insert(change.region);
        let incoming = control.failover.incoming.entry(change.to).or_default();
        *incoming = incoming.saturating_add(1);
    }
    let events = batch.iter().map(|(change, why)| event::region_failed_over(change, why)).collect();
    let batch: Vec<RouteChange> = batch.iter().map(|(change, _)| *change).collect();
    let (leader, mailbox) = (Arc::clone(&control.leader), Arc::clone(&control.mailbox));
    control.work.spawn(async move {
        let outcome = leader.change_routes(&batch, Vec::new(), events).await;
        if outcome.is_ok() {
            announce(&leader, &mailbox, &batch);
        }
        super::Done::Failover(Done { batch, outcome })
    });
}

/// Tells the nodes what they have got; whatever is lost here is repeated with a heartbeat.
fn announce(leader: &Leader, mailbox: &HeartbeatMailbox, batch: &[RouteChange]) {
    let mut by_node: BTreeMap<NodeKey, Vec<Reported>> = BTreeMap::new();
    for change in batch {
        let opened = Reported { region: change.region, epoch: change.epoch };
        by_node.entry(change.to).or_default().push(opened);
    }
    for (node, regions) in by_node {
        mailbox.open_regions(leader, &node, &regions);
    }
}

/// A batch has ended.
pub(super) fn done(control: &mut Control, done: Done) {
    let Done { batch, outcome } = done;
    for change in &batch {
        control.failover.forget(change);
    }
    match outcome {
        Ok(_) => {
            control.leader.count_failovers(batch.len());
            procedures::routes_changed(control, &batch);
        }
        Err(error) => {
            tracing::warn!(term = %control.leader.term(), %error, regions = batch.len(), "a failover was not done; it is planned anew");
            for change in &batch {
                control.leader.withhold(&change.from, change.region, false);
            }
        }
    }
    // The next ones, or the same again; a node that has lost its last region is not gone any more.
    control.leader.control().wake();
    control.failover.begun_with = None;
}
