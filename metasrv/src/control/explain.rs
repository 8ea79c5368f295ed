//! Where a region is, what holds it there or what it waits for, and where it would go if its node were lost.
//!
//! | what is known, the first that applies | the verdict tells |
//! | --- | --- |
//! | a procedure is at work on it | which one, from where to where, and in which state |
//! | it is being failed over | from which node |
//! | its node is lost, or was reaped | what failover waits for: [`metasrv_core::failover::Why`] |
//! | its node holds a lease for it | since when |
//! | its node holds none | whether it was told to open it, and what is announced of the node |
//!
//! Nothing is decided here: the same functions are asked that decide.

use std::collections::BTreeMap;

use metasrv_core::detector::Health;
use metasrv_core::failover::{Gone, Held, Situation, plan};
use metasrv_core::id::{NodeId, NodeKey, RegionId};
use metasrv_core::placement::{self, Candidate, Explanation, Group, Outcome};
use metasrv_core::time::BootTime;
use metasrv_proto::admin::{ExplainRegionRequest, ExplainRegionResponse, PlacementOpinion, ProcedureView};

use super::{Control, ControlError, failover};
use crate::leader::{Node, Region, last_grant};

/// Explains a region. The events that name it are in the store: whoever asks adds them.
pub(super) fn region(
    control: &Control,
    request: &ExplainRegionRequest,
    now: BootTime,
) -> Result<ExplainRegionResponse, ControlError> {
    let region = RegionId(request.region_id);
    let not_found = || ControlError::NotFound(format!("there is no region {region}"));
    let (node, epoch) = control.leader.route_of(region).ok_or_else(not_found)?;
    let (group, health) = {
        let entry = control.leader.nodes().get(&node).ok_or_else(not_found)?;
        let group = entry.regions.get(&region).and_then(|known| known.group().cloned());
        (group, control.leader.health(&entry, &control.leader.listening(), now))
    };
    let procedure = control.procedures.busy(region);
    let label = group.as_deref().unwrap_or_default();
    let candidates = failover::candidates(control, node.cluster, now);
    let groups = failover::groups(control, node.cluster, &group.as_deref().into_iter().collect());
    Ok(ExplainRegionResponse {
        region_id: region.0,
        cluster_id: node.cluster.0,
        node_id: node.id.0,
        epoch: epoch.0,
        group: label.to_owned(),
        node_health: health_name(&health).to_owned(),
        verdict: verdict(control, region, &node, &candidates, &groups, now),
        procedure_id: procedure.map_or(0, |id| id.0),
        placement: opinions(&candidates, groups.get(label), &node),
        events: Vec::new(),
    })
}

/// The name of how a node is.
pub fn health_name(health: &Health) -> &'static str {
    match health {
        Health::Alive => "alive",
        Health::Suspect { .. } => "suspect",
        Health::Lost { .. } => "lost",
    }
}

/// One sentence: what holds it where it is, or what it waits for.
fn verdict(
    control: &Control,
    region: RegionId,
    node: &NodeKey,
    candidates: &[Candidate],
    groups: &BTreeMap<String, Group>,
    now: BootTime,
) -> String {
    if let Some(id) = control.procedures.busy(region) {
        let at_work = control.procedures.list().into_iter().find(|view| view.id == id.0);
        return at_work.map_or_else(|| format!("procedure {id} is at work on it"), |view| moving(&view));
    }
    if control.failover.is_in_flight(region) {
        return format!("it is being given to another node, because {node} is lost");
    }
    if let Some(waits) = waits(control, region, node, candidates, groups, now) {
        return waits;
    }
    let Some(entry) = control.leader.nodes().get(node) else { return format!("{node} is not known") };
    let Some(known) = entry.regions.get(&region) else { return format!("{node} does not have it any more") };
    let mut verdict = held(control, &entry, known, region, node, now);
    if let Some(until) = control.orders.restarts_until(node, now) {
        let left = until.since(now).as_secs_f64();
        verdict.push_str(&format!(
            "; the node's restart is announced, its regions wait for it {left:.1} s more"
        ));
    }
    verdict
}

/// What a procedure does with it.
fn moving(view: &ProcedureView) -> String {
    let ProcedureView { id, kind, from_node, to_node, state, .. } = view;
    format!("procedure {id} ({kind}, {state}) is moving it from node {from_node} to node {to_node}")
}

/// What failover waits for, or is about to do. `None`: the node is neither lost nor reaped.
fn waits(
    control: &Control,
    region: RegionId,
    node: &NodeKey,
    candidates: &[Candidate],
    groups: &BTreeMap<String, Group>,
    now: BootTime,
) -> Option<String> {
    if !control.census.gone.contains(node) {
        return None;
    }
    if control.orders.maintenance() {
        let reason = control.orders.failovers(now).reason;
        return Some(format!(
            "{node} is lost, and maintenance is on, so that nothing moves by itself: {reason}"
        ));
    }
    let entry = control.leader.nodes().get(node)?;
    let known = entry.regions.get(&region)?;
    let evidence = control.leader.evidence(&entry, region);
    let held = [Held {
        region,
        epoch: known.epoch,
        group: known.group().map(|group| &**group),
        last_grant: last_grant(&entry, region),
        stopped: evidence.stopped,
        fenced: evidence.fenced,
    }];
    let gone = [Gone {
        node: node.id,
        health: control.leader.health(&entry, &control.leader.listening(), now),
        holder: entry.holder.current(),
        certificate: entry.certificate,
        regions: &held,
    }];
    let verdict = control.brake.verdict(control.failover.in_flight(), now);
    let restarting = control.orders.restarting(node.cluster, now);
    let situation = Situation {
        gone: &gone,
        grant_wait: control.leader.timing().grant_wait(),
        settled_at: control.leader.settled_at(),
        verdict: &verdict,
        restarting: &restarting,
        candidates,
        groups,
    };
    let plan = plan(&situation, now);
    if let Some(takeover) = plan.takeovers.first() {
        return Some(format!("it is about to be given to node {}: {}", takeover.to, takeover.by));
    }
    plan.stays.first().map(|stay| format!("it waits: {}", stay.why.describe(now)))
}

/// How a node that is there holds it.
fn held(
    control: &Control,
    entry: &Node,
    known: &Region,
    region: RegionId,
    node: &NodeKey,
    now: BootTime,
) -> String {
    let epoch = known.epoch;
    if entry.regions.is_withheld(&region) {
        return format!(
            "{node} leads it under epoch {epoch}, and is granted nothing more: it is about to leave"
        );
    }
    match entry.regions.granted_at(&region) {
        Some(at) if control.leader.is_writable(entry, region, now) => {
            let ago = now.since(at).as_secs_f64();
            format!("{node} leads it under epoch {epoch}, with a lease that was renewed {ago:.1} s ago")
        }
        Some(at) => {
            let ago = now.since(at).as_secs_f64();
            format!(
                "{node} had a lease for it {ago:.1} s ago and has not asked for the next one: it waits for its node"
            )
        }
        None if entry.openings.were_told() => {
            format!("{node} was told to open it under epoch {epoch}, and has not reported it yet")
        }
        None => format!("it waits for {node}, which has not been told yet to open it"),
    }
}

/// One region of the group leaves a node.
pub(super) fn leave(group: &mut Group, node: NodeId) {
    if let Some(held) = group.get_mut(&node) {
        *held = held.saturating_sub(1);
    }
}

/// What placement would say of each node, were the region to leave the one that has it. The best first.
fn opinions(candidates: &[Candidate], group: Option<&Group>, holder: &NodeKey) -> Vec<PlacementOpinion> {
    let mut group = group.cloned().unwrap_or_default();
    leave(&mut group, holder.id);
    let explained = placement::explain(candidates, &group, Some(holder.id));
    let second = explained.get(1).map(|second| second.outcome);
    let opinion = |Explanation { node, outcome }: &Explanation| {
        let (name, why) = match outcome {
            Outcome::Chosen { .. } => match second {
                Some(Outcome::Behind { by, .. }) => ("best", format!("ahead of the next one by: {by}")),
                _ => ("best", "it is the only node that can take it".to_owned()),
            },
            Outcome::Behind { by, .. } => ("beaten", by.to_string()),
            Outcome::Excluded { .. } if *node == holder.id => ("holds", "the region is there".to_owned()),
            Outcome::Excluded { by } => ("excluded", by.to_string()),
        };
        let regions = candidates.iter().find(|candidate| candidate.node == *node);
        PlacementOpinion {
            node_id: node.0,
            outcome: name.to_owned(),
            why,
            regions: regions.map_or(0, |found| u64::try_from(found.regions).unwrap_or(u64::MAX)),
        }
    };
    explained.iter().map(opinion).collect()
}
