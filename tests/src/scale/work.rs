//! What is done with so many regions, and how long it takes.

use std::collections::BTreeSet;
use std::time::Duration;

use metasrv_core::time::BootTime;
use metasrv_proto::admin::{CreateRegionsRequest, DrainNodeRequest, ListEventsRequest};

use super::world::{PATIENCE, World};
use crate::chaos::nodes::look;
use crate::chaos::servers::Routes;
use crate::figures::Figures;
use crate::metactl;
use crate::wait::{eventually, now};

/// Time between two looks at a drain.
const LOOK: Duration = Duration::from_millis(250);

/// Regions are created by ordinary calls, one after another, until each has its lease.
pub async fn create(world: &World, figures: &mut Figures) {
    let began = now();
    let mut left = world.size.regions;
    while left > 0 {
        let count = left.min(world.size.batch);
        let request = CreateRegionsRequest {
            count,
            reason: "for make scale".to_owned(),
            ..CreateRegionsRequest::default()
        };
        match world.admin().create_regions(request).await {
            Ok(created) => assert_eq!(created.len(), usize::try_from(count).unwrap_or(0)),
            Err(error) => panic!("regions cannot be created: {error}"),
        }
        left -= count;
    }
    figures.add("create_seconds", seconds(began), "s");
    leased(world).await;
    figures.add("create_and_lease_seconds", seconds(began), "s");
}

/// All are listed, by the client and by `metactl`.
pub async fn list(world: &World, figures: &mut Figures) {
    let began = now();
    let routes = world.routes().await;
    figures.add("list_seconds", seconds(began), "s");
    assert_eq!(routes.len(), world.regions());
    let began = now();
    let run = metactl::on(&world.cluster, "region list -o jsonl").await;
    figures.add("metactl_list_seconds", seconds(began), "s");
    assert_eq!((run.code, run.data.lines().count()), (0, world.regions()), "{}", run.said);
}

/// One node is drained. No other region moves.
pub async fn drain(world: &World, figures: &mut Figures) {
    let before = world.routes().await;
    let node = busiest(&before);
    let left: BTreeSet<u64> =
        before.iter().filter(|(_, route)| route.0 == node).map(|(region, _)| *region).collect();
    let began = now();
    let request = DrainNodeRequest {
        node_id: node,
        reason: "for make scale".to_owned(),
        ..DrainNodeRequest::default()
    };
    let drain = world.operations().drain_node(request).await;
    let drain = drain.unwrap_or_else(|error| panic!("the drain cannot begin: {error}")).procedure_id;
    let looks = progress(world, drain, left.len()).await;
    let took = now().since(began);
    assert!(looks > 0, "the drain was never seen at work");
    figures.add("drained_regions", count(left.len()), "regions");
    figures.add("drain_seconds", took.as_secs_f64(), "s");
    let after = world.routes().await;
    for (region, (to, epoch)) in &after {
        let (from, old) = before[region];
        if left.contains(region) {
            assert!(*to != node && *epoch == old + 1, "region {region}: from {from}/{old} to {to}/{epoch}");
        } else {
            assert_eq!((*to, *epoch), (from, old), "region {region} moved needlessly");
        }
    }
}

/// Prints how far the drain is until it has ended. Says how often it was seen at work.
async fn progress(world: &World, drain: u64, regions: usize) -> usize {
    let (mut looks, mut told) = (0, 0);
    let began = now();
    loop {
        let listed = world.operations().procedures().await;
        let listed = listed.unwrap_or_else(|error| panic!("procedures cannot be listed: {error}")).procedures;
        let Some(seen) = listed.into_iter().find(|procedure| procedure.id == drain) else { return looks };
        looks += 1;
        let tenths = seen.done * 10 / u64::try_from(regions.max(1)).unwrap_or(u64::MAX);
        if tenths > told {
            told = tenths;
            let rest = seen.eta_ms.map_or_else(String::new, |ms| format!(", {:.1} s to go", ms as f64 / 1e3));
            println!("drain: {} done, {} left, {} on their way{rest}", seen.done, seen.left, seen.in_flight);
        }
        let waited = now().since(began);
        assert!(waited < PATIENCE * 2, "after {waited:?} the drain has not ended: {seen:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// The leader is killed as a power failure would do it. Returns which replica that was.
pub async fn kill(world: &mut World, figures: &mut Figures) -> usize {
    let before = world.routes().await;
    let leader = world.cluster.leader().await;
    look(&world.ledger).begin_round(false);
    let began = now();
    world.cluster.replicas[leader.replica].kill();
    taken_over(world, leader.term, began, "kill", figures).await;
    assert_eq!(world.routes().await, before, "no region moves because the leader dies");
    leader.replica
}

/// Leadership goes to another replica.
pub async fn transfer(world: &World, figures: &mut Figures) {
    let before = world.routes().await;
    let leader = world.cluster.leader().await;
    look(&world.ledger).begin_round(false);
    let began = now();
    let ended = world.admin().transfer_leadership("", "for make scale").await;
    assert_eq!(ended.ok(), Some(leader.term), "leadership is transferred");
    taken_over(world, leader.term, began, "transfer", figures).await;
    assert_eq!(world.routes().await, before, "no region moves because leadership does");
}

/// Waits until every node was granted leases by a later term, and for nothing that ran out meanwhile.
async fn taken_over(world: &World, term: u64, began: BootTime, name: &str, figures: &mut Figures) {
    let nodes = world.nodes.len();
    let what = format!("every node has leases of a later term than {term}");
    eventually(PATIENCE, &what, async || match look(&world.ledger).accepted_since(term + 1, began) {
        accepted if accepted == nodes => Ok(()),
        accepted => Err(format!("{accepted} of {nodes} have")),
    })
    .await;
    let (first, read_only) = {
        let ledger = look(&world.ledger);
        (ledger.term_after(term).map_or(began, |(_, seen)| seen.first), ledger.read_only())
    };
    figures.add(&format!("{name}_first_lease_ms"), millis(first.since(began)), "ms");
    figures.add(&format!("{name}_all_leased_ms"), millis(now().since(began)), "ms");
    figures.add(&format!("{name}_read_only_regions"), count(read_only), "regions");
    leased(world).await;
}

/// What was decided is listed, the latest of it.
pub async fn history(world: &World, figures: &mut Figures) {
    let began = now();
    let events = world.operations().events(ListEventsRequest::default()).await;
    figures.add("events_ms", millis(now().since(began)), "ms");
    match events {
        Ok(events) => assert_eq!(events.len(), 1_000.min(world.regions()), "the latest events"),
        Err(error) => panic!("the events cannot be listed: {error}"),
    }
}

/// Waits until every region may be written to.
async fn leased(world: &World) {
    let regions = world.regions();
    eventually(PATIENCE, "every region may be written to", async || match world.nodes.writable().count() {
        writable if writable == regions => Ok(()),
        writable => Err(format!("{writable} of {regions} may")),
    })
    .await;
}

/// The node with the most regions.
fn busiest(routes: &Routes) -> u64 {
    let mut held: std::collections::BTreeMap<u64, usize> = std::collections::BTreeMap::new();
    for (node, _) in routes.values() {
        *held.entry(*node).or_default() += 1;
    }
    held.into_iter().max_by_key(|(_, regions)| *regions).map_or(0, |(node, _)| node)
}

fn seconds(began: BootTime) -> f64 {
    now().since(began).as_secs_f64()
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e3).round()
}

fn count(value: usize) -> f64 {
    f64::from(u32::try_from(value).unwrap_or(u32::MAX))
}
