//! What is wanted of nodes: cordoned, restarted, drained, forgotten.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_cordon_is_written_once_told_once_and_in_force_under_the_next_leader() {
    let mut world = World::new(3, 0).await;
    world.cordon(2, true).await.unwrap();
    world.cordon(2, true).await.unwrap();
    assert_eq!(world.kinds().await, ["node_cordoned"], "idempotent");
    assert!(matches!(world.cordon(9, true).await, Err(ControlError::NotFound(_))));
    world.change_leader().await;
    world.hear(1..=3).await;
    let created = world.create(wanted(20)).await.unwrap();
    assert!(!created.contains(&node(2)) && created.contains(&node(1)), "{created:?}");
    let named = world.create(Wanted { on: Some(NodeId(2)), ..wanted(1) }).await;
    assert!(matches!(named, Err(CreateError::Unfit { .. })), "{named:?}");
    world.cordon(2, false).await.unwrap();
    assert!(world.create(wanted(20)).await.unwrap().contains(&node(2)));
    let kinds = world.kinds().await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "node_uncordoned").count(), 1);
    assert_eq!(kinds.iter().filter(|kind| *kind == "region_created").count(), 40);
}

#[tokio::test(start_paused = true)]
async fn a_node_is_forgotten_only_once_it_is_cordoned_empty_and_stopped() {
    let mut world = World::new(1, 1).await;
    let stream = world.connect(1);
    refused(world.decommission(1).await, "is not cordoned");
    world.cordon(1, true).await.unwrap();
    refused(world.decommission(1).await, "still has 1 regions");
    assert_eq!(world.drop_region(101).await, Ok(3));
    refused(world.decommission(1).await, "is connected");
    world.pushers.unregister(&node(1), stream);
    world.decommission(1).await.unwrap();
    assert!(matches!(world.decommission(1).await, Err(ControlError::NotFound(_))), "forgotten twice");
    world.leader.drain(Duration::from_secs(1)).await;
    for key in [keys().node(&node(1)), keys().node_order(&node(1)), keys().lease(&node(1))] {
        assert_eq!(world.store.get(&key).await.unwrap(), None, "{key}");
    }
    assert_eq!(world.kinds().await, ["node_cordoned", "region_dropped", "node_decommissioned"]);
    world.change_leader().await;
    assert!(world.leader.nodes().is_empty());
    // It comes back as a new node.
    world.hear([1]).await;
    assert!(world.leader.nodes().contains_key(&node(1)));
}

#[tokio::test(start_paused = true)]
async fn orders_that_change_one_record_at_the_same_time_are_carried_out_one_after_another() {
    let world = World::new(2, 0).await;
    let orders = [true, false, true, false, true].map(|cordoned| world.cordon(1, cordoned));
    for outcome in futures_util::future::join_all(orders).await {
        outcome.unwrap();
    }
    let expected = ["node_cordoned", "node_uncordoned", "node_cordoned", "node_uncordoned", "node_cordoned"];
    assert_eq!(world.kinds().await, expected);
    assert!(world.store.get(&keys().node_order(&node(1))).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn an_announced_restart_keeps_the_regions_and_its_record_goes_at_its_time() {
    let world = World::new(2, 1).await;
    let announce = async |for_ms| {
        let request = AnnounceRestartRequest { node_id: 1, for_ms, ..Default::default() };
        world.leader.control().ask(|reply| Command::AnnounceRestart(request, reply)).await.unwrap().until_ms
    };
    assert_eq!(announce(0).await, 0, "nothing to take back");
    assert!(announce(60_000).await > 0);
    world.pass(30, [2]).await;
    let verdict = world.verdict(101).await;
    assert!(verdict.contains("restarts as planned"), "{verdict}");
    assert_eq!(world.leader.route_of(RegionId(101)).unwrap().0, node(1));
    world.pass(35, [2]).await;
    assert_eq!(world.leader.route_of(RegionId(101)).unwrap().0, node(2), "it waits for ever");
    assert_eq!(world.store.get(&keys().node_order(&node(1))).await.unwrap(), None);
    assert_eq!(world.kinds().await, ["restart_announced", "region_failed_over"]);
}

/// Goal: a node that is about to restart gets no region, neither a new one nor one that moves, and who asks is told why. Method: an
/// announcement, asked about in each way, under the next leader too, and again when its time is over.
#[tokio::test(start_paused = true)]
async fn a_node_that_is_about_to_restart_gets_no_regions_until_it_is_back() {
    let mut world = World::new(3, 1).await;
    let request = AnnounceRestartRequest { node_id: 2, for_ms: 60_000, ..Default::default() };
    world.leader.control().ask(|reply| Command::AnnounceRestart(request, reply)).await.unwrap();
    for _ in 0..2 {
        let created = world.create(wanted(10)).await.unwrap();
        assert!(!created.contains(&node(2)), "{created:?}");
        let named = world.create(Wanted { on: Some(NodeId(2)), ..wanted(1) }).await;
        assert!(
            matches!(
                named,
                Err(CreateError::Unfit { why: metasrv_core::placement::Exclusion::Restarting, .. })
            ),
            "{named:?}"
        );
        refused(world.migrate(101, Some(2)).await, "its restart is announced");
        let request = ExplainRegionRequest { region_id: 101 };
        let explained =
            world.leader.control().ask(|reply| Command::ExplainRegion(request, reply)).await.unwrap();
        let opinion = explained.placement.iter().find(|opinion| opinion.node_id == 2).unwrap();
        assert_eq!(
            (opinion.outcome.as_str(), opinion.why.as_str()),
            ("excluded", "its restart is announced")
        );
        world.change_leader().await;
        world.hear(1..=3).await;
    }
    world.pass(61, 1..=3).await;
    let created = world.create(wanted(10)).await.unwrap();
    assert!(created.contains(&node(2)), "{created:?}");
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_of_a_drain_names_every_move_and_begins_nothing() {
    let world = World::new(3, 4).await;
    let drain = async |dry_run| {
        let request = DrainNodeRequest { node_id: 1, dry_run, ..Default::default() };
        world.leader.control().ask(|reply| Command::DrainNode(request, reply)).await
    };
    let planned = drain(true).await.unwrap();
    let to: Vec<u64> = planned.moves.iter().map(|planned| planned.to_node).collect();
    assert_eq!(to, [2, 3, 2, 3], "counted as they are placed");
    assert_eq!((planned.procedure_id, planned.stuck.len()), (0, 0));
    for id in [2, 3] {
        world.cordon(id, true).await.unwrap();
    }
    refused(drain(false).await, "datanode-2: it is cordoned; datanode-3: it is cordoned");
    assert_eq!(drain(true).await.unwrap().stuck.len(), 4, "a dry run says it of each region");
    assert_eq!(world.kinds().await, ["node_cordoned", "node_cordoned"]);
    world.cordon(3, false).await.unwrap();
    assert_ne!(drain(false).await.unwrap().procedure_id, 0);
    let kinds = world.kinds().await;
    assert!(kinds.windows(2).any(|pair| pair == ["drain_begun", "node_cordoned"]), "{kinds:?}");
    let again = CordonNodeRequest { node_id: 1, cordoned: false, ..Default::default() };
    let again = world.leader.control().ask(|reply| Command::CordonNode(again, reply)).await;
    refused(again, "is being drained");
    refused(world.decommission(1).await, "still has 4 regions");
}
