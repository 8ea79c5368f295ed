//! What `metactl` shows of history and of the store, once or again and again, against a replica that says what each test
//! needs.

#![allow(clippy::unwrap_used, clippy::panic)]

mod metactl_leader;

use std::time::Duration;

use metactl_leader::{Does, Leader, event};
use metasrv_proto::admin::*;
use metasrv_tests::metactl::{bare, fields, sorted};
use metasrv_tests::wait::eventually;
use rustix::process::Signal;
use serde_json::Value;
use tonic::Code;

const LONG: Duration = Duration::from_secs(30);

/// Goal: following shows each event once, the new ones as they come. Method: an answer that grows from look to look, with an event
/// that comes to be seen after one with a higher id.
#[tokio::test(flavor = "multi_thread")]
async fn events_are_followed_and_each_is_shown_once() {
    let mut looked = 0;
    let leader = Leader::start(move |_| {
        looked += 1;
        let ids: &[u64] = match looked {
            1 => &[50, 51],
            2 => &[50, 51, 53],
            _ => &[50, 51, 52, 53],
        };
        let events = ids.iter().map(|id| event(*id, "region_created", 0)).collect();
        Does::answer(ListEventsResponse { events })
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let words = ["events", "--follow", "--region", "7", "--limit", "1", "-o", "jsonl"];
    let mut following = leader.begin(&words, directory.path());
    let ids = |log: &str| -> Vec<u64> {
        let rows = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        rows.filter_map(|row| row["id"].as_u64()).collect()
    };
    eventually(LONG, "the late one is shown", async || {
        let log = following.log();
        if log.contains("\"id\":52") && leader.operations.asked().len() > 5 { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(ids(&following.log()), [51, 53, 52], "one that was there, and the new ones");
    assert!(leader.last_asked().request.contains("region_id: 7"), "{:?}", leader.last_asked());
    following.signal(Signal::INT);
    following.ended(LONG).await;
    leader.run("events --follow -o json").await.fails(2, &["jsonl"]);
}

/// Goal: who held a region at a time. Method: the events of its life.
#[tokio::test(flavor = "multi_thread")]
async fn history_tells_who_held_a_region() {
    let leader = Leader::start(|_| {
        let held = |id, kind, from_node_id, node_id| Event {
            region_id: 7,
            from_node_id,
            node_id,
            epoch: id,
            ..event(id, kind, 0)
        };
        let events = vec![held(1, "region_created", 0, 1), held(1_000, "region_failed_over", 1, 2)];
        Does::answer(ListEventsResponse { events })
    })
    .await;
    let rows = leader.run("history region 7 -o json").await.rows();
    let names = "region_id node_id epoch from until began_with term procedure_id why";
    assert_eq!((rows.len(), fields(&rows[0])), (2, sorted(names)));
    assert!(rows[1]["until"].is_null(), "{rows:?}");
    let at = |time: &str| format!("history region 7 -o json --at 2023-11-14T22:13:{time}Z");
    assert_eq!(leader.run(&at("20.500")).await.json()["node_id"], 1);
    assert_eq!(leader.run(&at("21.000")).await.json()["node_id"], 2);
    leader.run(&at("19.000")).await.fails(4, &["nobody held region 7", "created at 2023-11-14T22:13:20Z"]);
}

/// Goal: a finding is exit code 10, and is data. Method: a leader that finds something, and one that does not.
#[tokio::test(flavor = "multi_thread")]
async fn fsck_is_unhealthy_when_it_finds_something() {
    let leader =
        Leader::start(|_| Does::answer(CheckStoreResponse { revision: 7, records: 3, findings: vec![] }))
            .await;
    let well = leader.run("fsck -o json").await.json();
    assert_eq!((&well["records"], &well["findings"]), (&3.into(), &Value::Array(Vec::new())));
    leader.operations.plan(|_| {
        let finding = Finding { key: "/metasrv/v1/x".to_owned(), what: "an unknown key".to_owned() };
        Does::answer(CheckStoreResponse { revision: 7, records: 3, findings: vec![finding] })
    });
    let found = leader.run("fsck").await;
    assert_eq!(found.code, 10, "{found:?}");
    assert!(found.data.contains("/metasrv/v1/x  an unknown key"), "{found:?}");
    assert!(found.said.contains("1 findings in 3 records"), "{found:?}");
}

/// Goal: `--watch` shows a screen when it has changed and not before, lives through what may pass, and ends with what cannot.
/// Method: a list that stays the same for two looks; then no answer, another list, and an error that no look would mend.
#[tokio::test(flavor = "multi_thread")]
async fn a_watched_list_is_shown_again_when_it_changes() {
    let list = |id| {
        let view = ProcedureView { id, kind: "drain".to_owned(), ..Default::default() };
        Does::answer(ListProceduresResponse { procedures: vec![view], term: 1 })
    };
    let mut looked = 0;
    let leader = Leader::start(move |_| {
        looked += 1;
        if looked <= 2 { list(8) } else { Does::Says(Code::Unavailable, "a bad moment".to_owned()) }
    })
    .await;
    let directory = tempfile::tempdir().unwrap();
    let words = ["procedure", "list", "--watch", "-o", "jsonl", "--timeout", "1s"];
    let mut watching = leader.begin(&words, directory.path());
    let shows = async |what: &str| {
        eventually(LONG, what, async || {
            let log = watching.log();
            if log.contains(what) { Ok(()) } else { Err(log) }
        })
        .await;
    };
    shows("a bad moment").await;
    leader.operations.plan(move |_| list(9));
    shows("\"procedure_id\":9").await;
    leader.operations.plan(|_| Does::Says(Code::InvalidArgument, "cannot be meant".to_owned()));
    let status = watching.ended(LONG).await;
    let log = watching.log();
    assert_eq!(status.code(), Some(2), "{log}");
    for id in [8, 9] {
        assert_eq!(log.matches(&format!("\"procedure_id\":{id},")).count(), 1, "{log}");
    }
}

/// Goal: a shell is set up where there is no metasrv. Method: no address that could be one.
#[tokio::test(flavor = "multi_thread")]
async fn completions_need_nobody() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = bare(&format!("completions {shell} --metasrv nonsense")).await;
        assert_eq!(script.code, 0, "{script:?}");
        assert!(script.data.contains("decommission"), "{shell}: {script:?}");
    }
    bare("completions cmd").await.fails(2, &["cmd"]);
}
