//! An etcd that is out of space: what was there goes on, who is missing is replaced, and nothing new is promised.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use metasrv::etcd::store::EtcdStore;
use metasrv::store::{Record, Store as _};
use metasrv_proto::admin::{CandidateRecord, CreateRegionsRequest, Region};
use metasrv_tests::cluster::{Cluster, Leadership};
use metasrv_tests::fleet::Fleet;
use metasrv_tests::node::{FakeNode, Identity};
use metasrv_tests::space::{self, QUOTA};
use metasrv_tests::wait::eventually;
use prost::Message as _;
use tonic::Code;

const LONG: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(500);

fn place(region: &Region) -> (u64, u64, u64) {
    (region.region_id, region.node_id, region.epoch)
}

async fn places(cluster: &Cluster, replica: usize) -> Vec<(u64, u64, u64)> {
    cluster.regions(replica).await.unwrap().iter().map(place).collect()
}

/// Waits until so many standbys have a term reserved.
async fn reserved(store: &EtcdStore, standbys: usize) {
    eventually(LONG, "every standby has a term reserved", async || {
        let spares = store.list("/metasrv/v1/term/spare/").await.map_err(|error| error.to_string())?;
        let left: Vec<String> = spares.records.into_iter().map(|spare| spare.key).collect();
        if left.len() >= standbys { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

/// Waits until every running replica names this leader to nodes.
async fn named_by_all(cluster: &Cluster, leader: Leadership) {
    let addr = cluster.replicas[leader.replica].addr();
    for replica in cluster.replicas.iter().filter(|replica| replica.process.is_some()) {
        eventually(LONG, &format!("{} names the leader and its term", replica.name), async || {
            let answer = replica.ask_leader().await.map_err(|status| status.to_string())?;
            let term = answer.header.as_ref().map_or(0, |header| header.term);
            match answer.leader {
                Some(named) if named.addr == addr && term == leader.term => Ok(()),
                other => Err(format!("{other:?} of term {term}")),
            }
        })
        .await;
    }
}

/// The first in the queue, as it is stored.
async fn first_in_queue(store: &EtcdStore) -> CandidateRecord {
    let queue = store.list("/metasrv/v1/election/").await.unwrap().records;
    let first: Record = queue.into_iter().min_by_key(|key| key.create_revision).unwrap();
    CandidateRecord::decode(&first.value[1..]).unwrap()
}

/// Goal: out of space, leases and heartbeats go on, regions are not created and the operator is told what to do, and a
/// leader that dies, or is told to end, is replaced, under rising terms, without a region moving or a lease lost. With
/// space again all is as before. Method: three replicas on an etcd of 4 MiB that is filled; kill -9, then SIGTERM.
#[tokio::test(flavor = "multi_thread")]
async fn out_of_space_leases_go_on_and_a_new_leader_takes_over() {
    let mut cluster = Cluster::builder().replicas(3).etcd_arguments(&QUOTA).start().await;
    let fleet = Fleet::start(1..=4, &cluster.addrs(), INTERVAL);
    cluster.connected(&[1, 2, 3, 4]).await;
    cluster.create_regions(8, None).await;
    let first = cluster.leader().await;
    fleet.wait_leased(2, first.term).await;
    let before = places(&cluster, first.replica).await;
    let store = space::store(cluster.etcd.as_ref().unwrap());
    reserved(&store, 2).await;
    fleet.reset();

    space::fill(cluster.etcd.as_ref().unwrap()).await;
    let request = CreateRegionsRequest { count: 1, ..CreateRegionsRequest::default() };
    let refused = cluster.replicas[first.replica]
        .admin()
        .create_regions(request)
        .await
        .expect_err("written without space");
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("out of space: compact, defragment, then disarm"), "{refused}");
    assert_eq!(cluster.replicas[first.replica].metric("metasrv_store_out_of_space").await, Ok(1.0));
    // A process that was never recorded is granted nothing, and holds nobody up.
    let mut stranger = FakeNode::new(Identity::datanode(9));
    let answer = stranger.connect(&cluster.replicas[first.replica].addr()).await.unwrap();
    assert_eq!(answer.granted(), [0_u64; 0]);
    // Longer than a lease, and than the write-behind takes to write a lease of each node.
    cluster.undisturbed(first, &fleet, 2, Duration::from_secs(7)).await;
    let waiting = cluster.replicas[first.replica].metric("metasrv_write_behind_keys").await.unwrap();
    assert!((1.0..=10.0).contains(&waiting), "{waiting} keys of 5 nodes wait to be written");
    assert_eq!(store.list("/metasrv/v1/node/").await.unwrap().records.len(), 4);

    let mut leader = first;
    for told in [false, true] {
        if told {
            assert!(cluster.replicas[leader.replica].terminate(LONG).await.success());
        } else {
            cluster.replicas[leader.replica].kill();
        }
        let next = cluster.leader_after(leader.term).await;
        fleet.wait_leased(2, next.term).await;
        named_by_all(&cluster, next).await;
        assert_eq!(places(&cluster, next.replica).await, before, "a region moved");
        let log = cluster.replicas[next.replica].process().log();
        assert!(log.contains("leading a term that was reserved before"), "{log}");
        assert_eq!(first_in_queue(&store).await.term, 0, "it was put somehow, and this shows nothing");
        leader = next;
    }
    assert_eq!(fleet.missed_leases(), 0);
    for index in 0..3 {
        if cluster.replicas[index].process.is_none() {
            cluster.start_replica(index);
        }
    }
    named_by_all(&cluster, leader).await;

    space::make_room(cluster.etcd.as_ref().unwrap()).await;
    eventually(LONG, "the term is published in the election key", async || {
        match first_in_queue(&store).await.term {
            term if term == leader.term => Ok(()),
            other => Err(other),
        }
    })
    .await;
    eventually(LONG, "there is space again", async || {
        match cluster.replicas[leader.replica].metric("metasrv_store_out_of_space").await? {
            0.0 => Ok(()),
            gauge => Err(gauge.to_string()),
        }
    })
    .await;
    assert_eq!(cluster.leader().await, leader, "room costs no election");
    cluster.create_regions(1, Some(1)).await;
    reserved(&store, 2).await;
    cluster.replicas[leader.replica].kill();
    let last = cluster.leader_after(leader.term).await;
    named_by_all(&cluster, last).await;
    assert_eq!(cluster.regions(last.replica).await.unwrap().len(), 9);
}

/// Goal: a single replica that loses its lease while there is no space leads again as soon as there is some; and says
/// until then what is wrong. Method: the only replica is killed and started again; nobody had a term reserved.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_standby_there_is_a_leader_again_when_there_is_space() {
    let mut cluster = Cluster::builder().timing("2s", "2s", "200ms").etcd_arguments(&QUOTA).start().await;
    let first = cluster.leader().await;
    space::fill(cluster.etcd.as_ref().unwrap()).await;
    cluster.replicas[0].kill();
    cluster.start_replica(0);
    eventually(LONG, "it says why it does not lead", async || {
        let log = cluster.replicas[0].process().log();
        if log.contains("the store is out of space: compact, defragment, then disarm its alarm") {
            Ok(())
        } else {
            Err("it does not")
        }
    })
    .await;
    space::make_room(cluster.etcd.as_ref().unwrap()).await;
    assert_eq!(cluster.leader_after(first.term).await.term, first.term + 1);
}
