//! Regions: created where they may be, dropped, explained, moved.

use super::*;

#[tokio::test(start_paused = true)]
async fn where_no_node_can_take_a_region_each_ones_reason_is_said() {
    let world = World::new(2, 0).await;
    world.cordon(1, true).await.unwrap();
    // Node 2 has a stream and says nothing.
    world.pass(4, [1]).await;
    let refusal = world.create(wanted(1)).await.unwrap_err();
    let expected =
        "no datanode of cluster 0 can take a region: datanode-1: it is cordoned; datanode-2: it is suspect";
    assert_eq!(refusal.to_string(), expected);
    assert_eq!(world.history().await.len(), 1, "nothing was created");
}

#[tokio::test(start_paused = true)]
async fn regions_of_a_group_are_spread_over_nodes_before_loads_are_compared() {
    let world = World::new(3, 0).await;
    // Node 1 and 2 are full of others.
    for id in [1, 2] {
        world.create(Wanted { on: Some(NodeId(id)), ..wanted(30) }).await.unwrap();
    }
    let spread = async |group| {
        let created = world.create(Wanted { group, ..wanted(6) }).await.unwrap();
        (1..=3).map(|id| created.iter().filter(|on| **on == node(id)).count()).collect::<Vec<_>>()
    };
    assert_eq!(spread("").await, [0, 0, 6]);
    assert_eq!(spread("metrics").await, [2, 2, 2]);
    assert_eq!(spread("metrics").await, [2, 2, 2], "those that are there count");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_region_has_no_route_and_its_node_is_told_to_close_it() {
    let world = World::new(1, 2).await;
    let held = |region| metasrv_core::grant::Reported {
        region: RegionId(region),
        epoch: metasrv_core::id::Epoch(3),
    };
    let grant = || world.leader.grant(&node(1), process(1), vec![held(101), held(102)]).unwrap();
    assert_eq!(grant().closeable, []);
    assert_eq!(world.drop_region(101).await, Ok(3));
    assert_eq!(world.store.get(&keys().region(RegionId(101))).await.unwrap(), None);
    let granted = grant();
    assert_eq!((granted.renewed, granted.closeable), (vec![held(102)], vec![RegionId(101)]));
    assert!(matches!(world.drop_region(101).await, Err(ControlError::NotFound(_))));
    let told = world.history().await.pop().unwrap();
    let expected = ("region_dropped", 101, 1, 3, "unused");
    assert_eq!(
        (told.kind.as_str(), told.region_id, told.from_node_id, told.epoch, told.why.as_str()),
        expected
    );
}

#[tokio::test(start_paused = true)]
async fn a_route_that_was_changed_by_hand_is_not_dropped_unseen() {
    let world = World::new(1, 1).await;
    let route = RouteRecord { node_id: 1, epoch: 8, term: 1, ..RouteRecord::default() };
    put(&world.store, keys().region(RegionId(101)), encode(&route)).await;
    assert!(matches!(world.drop_region(101).await, Err(ControlError::Store(_))));
    assert_eq!(world.drop_region(101).await, Ok(8), "what was found counts from then on");
}

#[tokio::test(start_paused = true)]
async fn an_explanation_says_who_holds_a_region_what_it_waits_for_and_where_it_would_go() {
    let world = World::new(3, 1).await;
    assert!(world.verdict(101).await.contains("has not been told yet"));
    let reported =
        vec![metasrv_core::grant::Reported { region: RegionId(101), epoch: metasrv_core::id::Epoch(3) }];
    assert!(world.leader.grant(&node(1), process(1), reported).is_some());
    let verdict = world.verdict(101).await;
    assert!(verdict.starts_with("datanode-1 leads it under epoch 3"), "{verdict}");

    world.create(Wanted { on: Some(NodeId(2)), ..wanted(5) }).await.unwrap();
    world.cordon(3, true).await.unwrap();
    let request = ExplainRegionRequest { region_id: 101 };
    let explained = world.leader.control().ask(|reply| Command::ExplainRegion(request, reply)).await.unwrap();
    let opinions: Vec<(u64, &str)> =
        explained.placement.iter().map(|opinion| (opinion.node_id, opinion.outcome.as_str())).collect();
    assert_eq!(opinions, [(2, "best"), (1, "holds"), (3, "excluded")]);
    assert_eq!(explained.placement[2].why, "it is cordoned");
    assert_eq!((explained.node_id, explained.epoch, explained.node_health.as_str()), (1, 3, "alive"));

    // All fall silent: the brake holds, and says so.
    world.pass(6, []).await;
    let verdict = world.verdict(101).await;
    assert!(verdict.contains("failovers stand still: 3 of 3"), "{verdict}");
    let failover = world.failover().await;
    assert_eq!((failover.verdict.as_str(), failover.nodes, failover.silent), ("hold", 3, 3));
    assert!(failover.waiting.iter().any(|stuck| stuck.region_id == 101), "{failover:?}");
    let missing = ExplainRegionRequest { region_id: 9 };
    let missing = world.leader.control().ask(|reply| Command::ExplainRegion(missing, reply)).await;
    assert!(matches!(missing, Err(ControlError::NotFound(_))));
}

#[tokio::test(start_paused = true)]
async fn a_migration_is_refused_to_where_it_is_and_to_nodes_that_take_nothing() {
    let world = World::new(5, 1).await;
    world.cordon(2, true).await.unwrap();
    world.pass(3, [1, 2, 4, 5]).await;
    refused(world.migrate(101, Some(1)).await, "already");
    refused(world.migrate(101, Some(2)).await, "it is cordoned");
    refused(world.migrate(101, Some(3)).await, "it is suspect");
    let drain = DrainNodeRequest { node_id: 5, ..Default::default() };
    world.leader.control().ask(|reply| Command::DrainNode(drain, reply)).await.unwrap();
    refused(world.migrate(101, Some(5)).await, "it is being drained");
    assert!(matches!(world.migrate(101, Some(9)).await, Err(ControlError::NotFound(_))));
    assert!(matches!(world.migrate(9, None).await, Err(ControlError::NotFound(_))));
    world.cordon(4, true).await.unwrap();
    let nowhere = world.migrate(101, None).await;
    assert!(matches!(nowhere, Err(ControlError::Exhausted(_))), "{nowhere:?}");
    assert!(world.history().await.iter().all(|event| event.region_id != 101), "it was begun and undone");
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_of_rebalancing_names_regions_of_the_fullest_node() {
    let world = World::new(2, 0).await;
    world.create(Wanted { on: Some(NodeId(1)), group: "metrics", ..wanted(4) }).await.unwrap();
    world.create(Wanted { on: Some(NodeId(1)), ..wanted(4) }).await.unwrap();
    let request = RebalanceRequest { dry_run: true, ..Default::default() };
    let planned = world.leader.control().ask(|reply| Command::Rebalance(request, reply)).await.unwrap();
    let moves: Vec<(u64, u64)> = planned.moves.iter().map(|moved| (moved.from_node, moved.to_node)).collect();
    assert_eq!(moves, [(1, 2); 4], "until both have the same");
    let distinct: std::collections::BTreeSet<u64> =
        planned.moves.iter().map(|moved| moved.region_id).collect();
    assert_eq!(distinct.len(), 4);
}
