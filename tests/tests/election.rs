//! Who leads: elections through a real etcd, and what becomes of a leader that was stopped, cut off or told to go.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use metasrv_proto::admin::{ListMembersRequest, TransferLeadershipRequest};
use metasrv_proto::code;
use metasrv_tests::cluster::Cluster;
use metasrv_tests::fleet::Fleet;
use metasrv_tests::node::{FakeNode, Identity};
use metasrv_tests::wait::{eventually, now, throughout};
use rustix::process::Signal;

/// Enough for any election here: the longest TTL is 5 s.
const LONG: Duration = Duration::from_secs(30);

/// Where each region is and under which epoch, as the present leader lists it.
async fn places(cluster: &Cluster) -> Vec<(u64, u64, u64)> {
    let leader = cluster.leader().await;
    let regions = cluster.regions(leader.replica).await.unwrap();
    regions.iter().map(|region| (region.region_id, region.node_id, region.epoch)).collect()
}

/// Goal: one of three replicas leads, the others follow it and say so.
/// Method: the status of each, and the queue of members as each of them lists it.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_leads_and_the_others_know_it() {
    let cluster = Cluster::builder().replicas(3).start().await;
    let leader = cluster.leader().await;
    for (index, replica) in cluster.replicas.iter().enumerate() {
        let what = format!("{} sees the leader and two followers", replica.name);
        eventually(LONG, &what, async || {
            let status = replica.status().await.map_err(|status| status.to_string())?;
            let expected = if index == leader.replica { "leader" } else { "follower" };
            let mut members =
                replica.admin().list_members(ListMembersRequest {}).await.unwrap().into_inner().members;
            members.sort_by(|a, b| a.name.cmp(&b.name));
            let leaders: Vec<_> = members.iter().filter(|member| member.role == "leader").collect();
            let holds = status.role == expected
                && status.term == leader.term
                && status.leader_addr == cluster.replicas[leader.replica].addr()
                && members.len() == 3
                && leaders.len() == 1
                && leaders[0].addr == status.leader_addr
                && leaders[0].term == leader.term;
            if holds { Ok(()) } else { Err(format!("{status:?} {members:?}")) }
        })
        .await;
    }
    assert_eq!(leader.term, 1, "the first term of an installation");
}

/// Goal: a leader that dies is replaced, under a higher term, also when the candidate next in the queue died before.
/// Method: of three replicas, one follower is killed, then the leader.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_replaced_and_a_dead_candidate_does_not_block_the_queue() {
    let mut cluster = Cluster::builder().replicas(3).timing("2s", "2s", "200ms").start().await;
    let first = cluster.leader().await;
    let follower = (first.replica + 1) % 3;
    cluster.replicas[follower].kill();
    cluster.replicas[first.replica].kill();
    let second = cluster.leader_after(first.term).await;
    assert_eq!(second.replica, (first.replica + 2) % 3);
    // The killed ones come back as followers of the leader there is.
    cluster.start_replica(follower);
    cluster.start_replica(first.replica);
    let second_addr = cluster.replicas[second.replica].addr();
    for index in [follower, first.replica] {
        eventually(LONG, "a restarted replica follows", async || {
            let status = cluster.replicas[index].status().await.map_err(|status| status.to_string())?;
            if status.role == "follower" && status.leader_addr == second_addr {
                Ok(())
            } else {
                Err(format!("{status:?}"))
            }
        })
        .await;
    }
    assert_eq!(cluster.leader().await, second, "nobody takes leadership from a healthy leader");
}

/// Goal: a leader that was stopped for longer than its lease and goes on never acts under its old term again.
/// Method: SIGSTOP for 10 s, then SIGCONT; its status, its open streams and its log are watched.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_leader_never_acts_under_its_old_term_again() {
    let cluster = Cluster::builder().replicas(3).start().await;
    let first = cluster.leader().await;
    let old = &cluster.replicas[first.replica];
    let mut node = FakeNode::new(Identity::datanode(1));
    node.connect(&old.addr()).await.unwrap();
    let region = cluster.create_regions(1, Some(1)).await[0].region_id;
    eventually(LONG, "the region is granted", async || {
        let granted = node.beat().await.map_err(|status| status.to_string())?.granted();
        if granted == [region] { Ok(()) } else { Err(format!("{granted:?}")) }
    })
    .await;

    old.process().signal(Signal::STOP);
    let stopped_at = now();
    let second = cluster_leader_without(&cluster, first.replica, first.term).await;
    assert!(second > first.term);
    // This request waits in the socket until the old leader goes on.
    let (request, _) = node.next_request();
    node.stream().unwrap().send(request).await.unwrap();
    throughout::<String>(
        Duration::from_secs(10).saturating_sub(now().since(stopped_at)),
        "it is stopped",
        async || Ok(()),
    )
    .await;
    old.process().signal(Signal::CONT);

    // Whatever it says on the old stream, it grants nothing, and then the stream ends.
    loop {
        match node.pushed().await {
            Ok(Some(response)) => {
                assert!(response.region_lease.is_none(), "granted under a term that was over: {response:?}");
                let code = metasrv_tests::node::error_code(&response);
                assert!(code == 0 || code == code::NOT_LEADER, "{response:?}");
            }
            Ok(None) => break,
            Err(status) => {
                assert_ne!(status.code(), tonic::Code::DeadlineExceeded, "the old stream was left open");
                break;
            }
        }
    }
    throughout(Duration::from_secs(3), "the old leader does not lead under its old term", async || match old
        .status()
        .await
    {
        Ok(status) if status.role == "leader" && status.term <= first.term => Err(format!("{status:?}")),
        _ => Ok(()),
    })
    .await;
    eventually(LONG, "the log shows the refused, fenced write", async || {
        let log = old.process().log();
        if log.contains("fenced write refused") { Ok(()) } else { Err("it does not") }
    })
    .await;
    let mut again = FakeNode::new(Identity::datanode(2));
    assert_eq!(again.connect(&old.addr()).await.unwrap().error_code(), code::NOT_LEADER);
}

/// The term of a leader other than this replica, which may be stopped and is not asked.
async fn cluster_leader_without(cluster: &Cluster, stopped: usize, term: u64) -> u64 {
    eventually(LONG, "another replica leads", async || {
        for (_, replica) in cluster.replicas.iter().enumerate().filter(|(index, _)| *index != stopped) {
            let status = replica.status().await.map_err(|status| status.to_string())?;
            if status.role == "leader" && status.term > term {
                return Ok(status.term);
            }
        }
        Err("none does".to_owned())
    })
    .await
}

/// Goal: with etcd gone the leader steps down in time and regions turn read-only; when it is back there is one
/// election, every node is leased again, and no region has moved.
/// Method: etcd is killed for longer than the TTL, and started again with its data.
#[tokio::test(flavor = "multi_thread")]
async fn etcd_killed_and_back_costs_one_election_and_moves_no_region() {
    let mut cluster = Cluster::builder().replicas(2).timing("3s", "2s", "200ms").start().await;
    let fleet = Fleet::start(1..=4, &cluster.addrs(), Duration::from_millis(200));
    cluster.connected(&[1, 2, 3, 4]).await;
    cluster.create_regions(12, None).await;
    let first = cluster.leader().await;
    fleet.wait_leased(3, first.term).await;
    let before = places(&cluster).await;

    cluster.etcd.as_mut().unwrap().kill_member(0);
    let gone_at = now();
    eventually(Duration::from_secs(5), "the leader steps down without etcd", async || {
        let status = cluster.replicas[first.replica].status().await.map_err(|status| status.to_string())?;
        if status.role == "leader" { Err("it leads") } else { Ok(()) }.map_err(str::to_owned)
    })
    .await;
    assert!(now().since(gone_at) < Duration::from_millis(3_500), "it led on after its lease");
    eventually(Duration::from_secs(5), "no region is writable", async || match fleet.leased(3, 0) {
        0 => Ok(()),
        leased => Err(format!("those of {leased} nodes are")),
    })
    .await;
    for replica in &cluster.replicas {
        let live = replica.http("/livez").await.unwrap();
        assert!(live.starts_with("HTTP/1.1 200"), "an outage of etcd must not restart replicas: {live}");
    }

    cluster.etcd.as_mut().unwrap().start_member(0);
    cluster.etcd.as_ref().unwrap().ready().await;
    let second = cluster.leader_after(first.term).await;
    fleet.wait_leased(3, second.term).await;
    assert_eq!(places(&cluster).await, before, "a region moved");
    throughout(Duration::from_secs(2), "there was one election", async || {
        let term = cluster.leader().await.term;
        if term == second.term { Ok(()) } else { Err(format!("term {term} after {}", second.term)) }
    })
    .await;
    assert_eq!(second.term, first.term + 1, "one election, one term");
}

/// Goal: the loss of one etcd member of three, be it etcd's leader, is nothing to nodes: no change of leader, no
/// lease lost. Method: each member in turn is killed and started again under a streaming fleet.
#[tokio::test(flavor = "multi_thread")]
async fn the_loss_of_one_etcd_member_of_three_changes_nothing() {
    let mut cluster = Cluster::builder().etcd(3).replicas(2).start().await;
    let fleet = Fleet::start(1..=3, &cluster.addrs(), Duration::from_millis(500));
    cluster.connected(&[1, 2, 3]).await;
    cluster.create_regions(6, None).await;
    let leader = cluster.leader().await;
    fleet.wait_leased(2, leader.term).await;
    fleet.reset();
    for member in 0..3 {
        cluster.etcd.as_mut().unwrap().kill_member(member);
        cluster.undisturbed(leader, &fleet, 2, Duration::from_secs(5)).await;
        cluster.etcd.as_mut().unwrap().start_member(member);
        cluster.etcd.as_ref().unwrap().ready().await;
    }
    assert_eq!(fleet.missed_leases(), 0);
}

/// Goal: after a quick re-election of the same replica no node is without a pusher.
/// Method: etcd is paused until the only replica has stepped down; then instructions must arrive by push.
#[tokio::test(flavor = "multi_thread")]
async fn a_quick_reelection_of_the_same_replica_leaves_no_node_without_pusher() {
    let cluster = Cluster::builder().timing("2s", "2s", "200ms").start().await;
    let first = cluster.leader().await;
    let mut node = FakeNode::new(Identity::datanode(1));
    let addr = cluster.replicas[0].addr();
    node.connect(&addr).await.unwrap();
    cluster.etcd.as_ref().unwrap().pause_member(0);
    eventually(LONG, "the replica steps down", async || {
        let status = cluster.replicas[0].status().await.map_err(|status| status.to_string())?;
        if status.role == "leader" { Err("it leads".to_owned()) } else { Ok(()) }
    })
    .await;
    cluster.etcd.as_ref().unwrap().resume_member(0);
    let second = cluster.leader_after(first.term).await;
    assert_eq!(second.replica, 0);
    // The old stream was closed with a reason, so the node connects again; once is enough.
    while node.pushed().await.is_ok_and(|pushed| pushed.is_some()) {}
    node.connect(&addr).await.unwrap();
    for _ in 0..3 {
        let region = cluster.create_regions(1, Some(1)).await[0].region_id;
        while !node.regions.contains_key(&region) {
            node.pushed().await.unwrap().expect("the stream ended instead of an instruction");
        }
    }
    cluster.connected(&[1]).await;
}

/// Goal: leadership is handed over on request, and back, each time under a higher term and without losing a lease.
/// Method: transfers there and back between two replicas, under a streaming fleet.
#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_transferred_there_and_back() {
    let cluster = Cluster::builder().replicas(2).start().await;
    let fleet = Fleet::start(1..=3, &cluster.addrs(), Duration::from_millis(500));
    cluster.connected(&[1, 2, 3]).await;
    cluster.create_regions(6, None).await;
    let mut leader = cluster.leader().await;
    fleet.wait_leased(2, leader.term).await;
    fleet.reset();
    for _ in 0..2 {
        let request = TransferLeadershipRequest {
            reason: "for a test".to_owned(),
            ..TransferLeadershipRequest::default()
        };
        eventually(LONG, "leadership is transferred", async || {
            let mut admin = cluster.replicas[leader.replica].admin();
            let ended =
                admin.transfer_leadership(request.clone()).await.map_err(|status| status.to_string())?;
            if ended.get_ref().term == leader.term { Ok(()) } else { Err(format!("{ended:?}")) }
        })
        .await;
        let next = cluster.leader_after(leader.term).await;
        assert_eq!(next.replica, 1 - leader.replica);
        fleet.wait_leased(2, next.term).await;
        leader = next;
    }
    assert_eq!(fleet.missed_leases(), 0);
}
