//! What operators change by `metactl`, against a replica that says what each test needs: which request each command makes,
//! what it prints, and how it ends.

#![allow(clippy::unwrap_used, clippy::panic)]

mod metactl_leader;

use std::time::Duration;

use metactl_leader::{Asked, Does, Leader, event};
use metasrv_proto::admin::*;
use metasrv_tests::metactl::{assert_time, fields, sorted};
use metasrv_tests::wait::eventually;
use rustix::process::Signal;
use tonic::Code;

const LONG: Duration = Duration::from_secs(30);

fn stuck(region_id: u64, why: &str) -> StuckRegion {
    StuckRegion { region_id, why: why.to_owned() }
}

/// Goal: each command makes the request that it says, with its reason, and prints what it was told.
/// Method: a leader that answers; the request as it came, and the fields of the JSON.
#[tokio::test(flavor = "multi_thread")]
async fn each_change_makes_its_request_and_prints_what_holds() {
    let leader = Leader::start(|asked| match asked.call {
        "migrate_region" => Does::answer(MigrateRegionResponse { procedure_id: 9, from_node: 1, to_node: 2 }),
        "drop_region" => Does::answer(DropRegionResponse { epoch: 4 }),
        "announce_restart" => Does::answer(AnnounceRestartResponse { until_ms: 1_700_000_000_000 }),
        "set_failover" | "set_maintenance" => {
            Does::answer(GetFailoverResponse { verdict: "hold".to_owned(), ..Default::default() })
        }
        "rebalance" => {
            let moved = PlannedMove { region_id: 7, from_node: 3, to_node: 1 };
            Does::answer(RebalanceResponse { moves: vec![moved] })
        }
        _ => Does::Nothing,
    })
    .await;
    for (line, call, request, names) in [
        (
            "region migrate 7 --to 2",
            "migrate_region",
            "region_id: 7, to_node: Some(2)",
            "region_id procedure_id from_node_id to_node_id",
        ),
        ("region drop 7 --yes", "drop_region", "region_id: 7", "region_id epoch dropped"),
        (
            "node cordon 3 --cluster 2",
            "cordon_node",
            "node_id: 3, cluster_id: 2, cordoned: true",
            "node_id cluster_id cordoned",
        ),
        (
            "node uncordon 3",
            "cordon_node",
            "node_id: 3, cluster_id: 0, cordoned: false",
            "node_id cluster_id cordoned",
        ),
        ("node decommission 3 --yes", "decommission_node", "node_id: 3", "node_id cluster_id decommissioned"),
        (
            "node restarting 3 --for 60s",
            "announce_restart",
            "for_ms: 60000",
            "node_id cluster_id restarting_until",
        ),
        (
            "node restarting 3 --cancel",
            "announce_restart",
            "for_ms: 0",
            "node_id cluster_id restarting_until",
        ),
        ("procedure cancel 9", "cancel_procedure", "id: 9", "procedure_id cancelling"),
        (
            "node drain 3",
            "drain_node",
            "node_id: 3, cluster_id: 0",
            "node_id cluster_id procedure_id eta_ms moves stuck",
        ),
    ] {
        let ran = leader.run(&format!("{line} --reason because -o json")).await;
        assert_eq!(fields(&ran.json()), sorted(names), "{line}");
        let asked = leader.last_asked();
        assert_eq!(asked.call, call, "{line}");
        for part in [request, "reason: \"because\""] {
            assert!(asked.request.contains(part), "{line}: {part:?} is not in {}", asked.request);
        }
    }
    let failover =
        sorted("verdict why nodes silent paused_until resumed_until maintenance reason term waiting");
    for (line, request) in [
        ("failover pause --for 30m", "PauseMs(1800000)"),
        ("failover resume", "ResumeMs(0)"),
        ("failover resume --for 1h", "ResumeMs(3600000)"),
        ("maintenance on", "on: true"),
        ("maintenance off", "on: false"),
    ] {
        let ran = leader.run(&format!("{line} --reason because -o json")).await;
        assert_eq!(fields(&ran.json()), failover, "{line}");
        let asked = leader.last_asked();
        assert!(asked.request.contains(request) && asked.request.contains("because"), "{line}: {asked:?}");
    }
    let moves = leader.run("rebalance --dry-run -o json").await;
    assert_eq!(fields(&moves.rows()[0]), sorted("region_id from_node_id to_node_id"));
    assert!(leader.last_asked().request.contains("dry_run: true"));
    assert!(moves.said.contains("would move; nothing was begun"), "{moves:?}");
    let announced = leader.run("node restarting 3 --for 60s -o json").await.json();
    assert_time(&announced["restarting_until"]);
}

/// Goal: what destroys is not done unless somebody says so. Method: no terminal; the leader is asked nothing.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_nothing_is_destroyed_unless_told() {
    let leader = Leader::start(|_| Does::Nothing).await;
    leader.run("region drop 7").await.fails(2, &["region 7", "--yes"]);
    leader.run("node decommission 3").await.fails(2, &["datanode 3", "--yes"]);
    assert_eq!(leader.operations.asked(), []);
}

/// Goal: how the leader refuses is the exit code, and what it says is said. Method: one change, all refusals.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_their_exit_codes() {
    let leader = Leader::start(|_| Does::Nothing).await;
    for (code, message, exit) in [
        (Code::NotFound, "no region 7", 4),
        (Code::FailedPrecondition, "node 2 is cordoned", 5),
        (Code::ResourceExhausted, "no node may take it", 5),
        (Code::InvalidArgument, "reason: longer than 1024 bytes", 2),
        (Code::Unavailable, "too many commands wait", 1),
    ] {
        leader.operations.plan(move |_| Does::Says(code, message.to_owned()));
        leader.run("region migrate 7").await.fails(exit, &[message]);
    }
    leader.operations.plan(|_| Does::Says(Code::Aborted, "leadership ended".to_owned()));
    let lost = leader.run("region migrate 7").await;
    lost.fails(1, &["may or may not have been done", "metactl region show 7", "look before you repeat it"]);
    leader.operations.plan(|_| Does::Hangs);
    leader.run("region drop 7 --yes --timeout 1s").await.fails(1, &["may or may not have been done"]);
    leader.run("procedure list --timeout 1s").await.fails(6, &["--timeout"]);
    leader.operations.plan(|_| Does::Nothing);
    leader.run("procedure show 9").await.fails(4, &["no procedure 9", "metactl events"]);
}

/// A drain of node 3 that has ended after so many looks, by an event of this kind.
fn drain(looks: usize, end: &'static str) -> impl FnMut(&Asked) -> Does + Send + 'static {
    let mut looked = 0;
    move |asked| match asked.call {
        "drain_node" => Does::answer(DrainNodeResponse {
            procedure_id: 9,
            moves: vec![PlannedMove { region_id: 7, from_node: 3, to_node: 1 }],
            stuck: vec![stuck(8, "no node may take it")],
            eta_ms: Some(4_000),
        }),
        "list_procedures" => {
            looked += 1;
            let view = ProcedureView {
                id: 9,
                kind: "drain".to_owned(),
                from_node: 3,
                done: 12,
                left: 38,
                in_flight: 2,
                eta_ms: Some(21_000),
                stuck: vec![stuck(8, "no node may take it")],
                ..Default::default()
            };
            let procedures = if looked <= looks { vec![view] } else { Vec::new() };
            Does::answer(ListProceduresResponse { procedures, term: 1 })
        }
        _ => {
            let ended = Event { why: "the disks have not come".to_owned(), ..event(3, end, 9) };
            Does::answer(ListEventsResponse { events: vec![event(1, "drain_begun", 9), ended] })
        }
    }
}

/// Goal: a drain that is waited for says how far it is, ends when the drain has ended, and says so if it was cancelled.
/// Method: drains that end after two looks.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_waited_for_to_its_end_whatever_it_is() {
    let leader = Leader::start(drain(2, "drain_done")).await;
    let done = leader.run("node drain 3 --wait").await;
    assert_eq!(done.code, 0, "{done:?}");
    for part in
        ["PROCEDURE          9", "REGIONS THAT MOVE  1", "REGIONS THAT STAY  1", "about 5s", "no node may"]
    {
        assert!(done.data.contains(part), "{part:?} is missing: {done:?}");
    }
    let progress =
        "waiting: 12 of 50 regions have left, 2 are on their way, about 25s to go; 1 wait, region 8";
    assert_eq!(done.said.matches(progress).count(), 1, "said once: {done:?}");

    let left = leader.run("node drain 3").await;
    assert!(left.said.contains("metactl procedure show 9 --watch"), "whoever does not wait can: {left:?}");
    leader.operations.plan(drain(0, "drain_cancelled"));
    let cancelled = leader.run("node drain 3 --wait -o json").await;
    assert_eq!((cancelled.code, cancelled.document()["procedure_id"].as_u64()), (1, Some(9)));
    assert!(cancelled.said.contains("ended undone: the disks have not come"), "{cancelled:?}");

    leader.operations.plan(drain(usize::MAX, "drain_done"));
    let late = leader.run("node drain 3 --wait --timeout 1s").await;
    assert_eq!(late.code, 6, "{late:?}");
    for part in ["goes on: 12 of 50", "metactl procedure show 9 --watch", "metactl procedure cancel 9"] {
        assert!(late.said.contains(part), "{part:?} is not said: {late:?}");
    }
}

/// Goal: Ctrl-C ends the waiting and says that the drain goes on, and how to follow and to cancel it.
/// Method: a drain that does not end; SIGINT once it is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_says_that_the_drain_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let leader = Leader::start(drain(usize::MAX, "drain_done")).await;
    let mut waiting = leader.begin(&["node", "drain", "3", "--wait"], directory.path());
    eventually(LONG, "it waits", async || {
        let log = waiting.log();
        if log.contains("waiting: 12 of 50") { Ok(()) } else { Err(log) }
    })
    .await;
    waiting.signal(Signal::INT);
    let status = waiting.ended(LONG).await;
    let log = waiting.log();
    assert_eq!(status.code(), Some(1), "{log}");
    for part in [
        "interrupted: the drain (procedure 9) goes on without this command",
        "metactl procedure show 9 --watch",
        "metactl procedure cancel 9",
    ] {
        assert!(log.contains(part), "{part:?} is not said: {log}");
    }
}

/// Goal: a migration that is waited for ends with it, and one that was undone is a failure that says why.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_was_undone_is_a_failure() {
    let plan = |end: &'static str| {
        move |asked: &Asked| match asked.call {
            "migrate_region" => {
                Does::answer(MigrateRegionResponse { procedure_id: 9, from_node: 1, to_node: 2 })
            }
            "list_events" => {
                assert!(asked.request.contains("region_id: 7"), "{asked:?}");
                let ended = Event { why: "node 2 was lost".to_owned(), ..event(3, end, 9) };
                Does::answer(ListEventsResponse { events: vec![ended] })
            }
            _ => Does::Nothing,
        }
    };
    let leader = Leader::start(plan("migration_done")).await;
    let done = leader.run("region migrate 7 --wait -o json").await;
    assert_eq!(done.json()["to_node_id"], 2);
    leader.operations.plan(plan("migration_undone"));
    let undone = leader.run("region migrate 7 --wait").await;
    assert_eq!(undone.code, 1, "{undone:?}");
    assert!(undone.said.contains("region 7 (procedure 9) has ended undone: node 2 was lost"), "{undone:?}");
}
