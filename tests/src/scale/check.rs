//! What has to hold after each change: every region has one route and one writer, whoever is asked.

use std::collections::BTreeMap;

use metasrv_proto::admin::WatchRoutesRequest;
use metasrv_proto::admin::routes_client::RoutesClient;

use super::world::{PATIENCE, World};
use crate::chaos::servers::Routes;
use crate::replica::{Replica, channel};
use crate::wait::{eventually, within};

/// Panics unless each region is led by the one node that every replica names, which may write to it now, and by no other.
pub async fn sound(world: &World, when: &str) {
    let routes = world.routes().await;
    let expected: Vec<u64> = (1..=u64::from(world.size.regions)).collect();
    assert!(routes.keys().copied().eq(expected), "{when}, {} regions are listed, or others", routes.len());
    let what = format!("{when}, each region may be written to by the node that its route names");
    eventually(PATIENCE, &what, async || {
        let mut writers: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for (node, region, epoch) in world.nodes.writable() {
            if let Some(other) = writers.insert(region, (node, epoch)) {
                panic!("{when}, nodes {node} and {} may both write to region {region}", other.0);
            }
        }
        if writers == routes { Ok(()) } else { Err(differences(&writers, &routes)) }
    })
    .await;
    for replica in world.cluster.replicas.iter().filter(|replica| replica.process.is_some()) {
        let what = format!("{when}, {} tells frontends the same", replica.name);
        eventually(PATIENCE, &what, async || {
            let watched = watched(replica).await?;
            if watched == routes { Ok(()) } else { Err(differences(&watched, &routes)) }
        })
        .await;
    }
}

/// Panics where something is found in the store that does not fit.
pub async fn store(world: &World) {
    let checked = world.operations().check_store().await;
    let checked = checked.unwrap_or_else(|error| panic!("the store cannot be checked: {error}"));
    assert!(checked.findings.is_empty(), "{:?}", checked.findings);
    println!("{} records are stored, and fit together", checked.records);
}

/// What a frontend is told that begins to watch.
async fn watched(replica: &Replica) -> Result<Routes, String> {
    let mut client = RoutesClient::new(channel(&replica.addr()));
    let text = |status: tonic::Status| status.to_string();
    let reading = async {
        let mut updates = client.watch(WatchRoutesRequest::default()).await.map_err(text)?.into_inner();
        let mut routes = Routes::new();
        while let Some(update) = updates.message().await.map_err(text)? {
            let changed = update.changed.iter();
            routes.extend(changed.map(|route| (route.region_id, (route.node_id, route.epoch))));
            for region in &update.dropped_region_ids {
                routes.remove(region);
            }
            if update.complete {
                return Ok(routes);
            }
        }
        Err("the stream ended".to_owned())
    };
    within(PATIENCE, "a snapshot of the routes", reading).await
}

fn differences(found: &Routes, wanted: &Routes) -> String {
    let mut differing = wanted.iter().filter(|(region, route)| found.get(region) != Some(route));
    let first = differing.next().map(|(region, route)| (region, route, found.get(region)));
    format!("{} of {} are there; {} differ, as {first:?}", found.len(), wanted.len(), 1 + differing.count())
}
