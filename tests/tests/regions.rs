//! Regions that move: from a datanode that ended, back to one that was started again, and because an operator says so.
//!
//! Method throughout: the real binaries on one shared directory, a writer for each region that goes where the replicas say
//! it is, and at the end both witnesses: no two processes wrote to a region at the same time, and everything that was
//! acknowledged is there. Nothing here asserts how long something takes; what needs no waiting is tried with leases that
//! nobody would wait for.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use metasrv_proto::admin::key_value_client::KeyValueClient;
use metasrv_proto::admin::set_failover_request::Order;
use metasrv_proto::admin::{
    CheckStoreRequest, CordonNodeRequest, DrainNodeRequest, Event, GetFailoverRequest, GetRequest,
    ListEventsRequest, ListProceduresRequest, MigrateRegionRequest, PutRequest, Region, SetFailoverRequest,
};
use metasrv_tests::chaos::region::book::Book;
use metasrv_tests::chaos::region::intervals::Intervals;
use metasrv_tests::chaos::region::storage::{inspect, missing};
use metasrv_tests::chaos::region::writer::Writers;
use metasrv_tests::cluster::{Builder, Cluster};
use metasrv_tests::replica::channel;
use metasrv_tests::wait::{eventually, throughout};
use rustix::process::Signal;
use tonic::Code;

const LONG: Duration = Duration::from_secs(30);

/// Time between two puts to a region.
const PACE: Duration = Duration::from_millis(10);

/// A cluster whose regions are written to all the time.
struct Written {
    cluster: Cluster,
    writers: Writers,
}

impl Written {
    /// So many datanodes, from 1 on, with two regions each, which are written to when this returns.
    async fn start(builder: Builder, datanodes: u64) -> Written {
        let cluster = builder.datanodes(usize::try_from(datanodes).unwrap()).start().await;
        cluster.connected(&Vec::from_iter(1..=datanodes)).await;
        let mut regions = Vec::new();
        for node in 1..=datanodes {
            regions.extend(cluster.create_regions(2, Some(node)).await.iter().map(|region| region.region_id));
        }
        let addrs = cluster.datanodes.iter().map(|node| (node.id, node.addr())).collect();
        let book = Book::open(&cluster.addrs()).unwrap();
        let writers = Writers::start(regions.clone(), &addrs, book);
        writers.focus(&regions, PACE);
        let written = Written { cluster, writers };
        written.writers.written(&regions.into_iter().map(|region| (region, 0)).collect()).await.unwrap();
        written
    }

    async fn regions(&self) -> Vec<Region> {
        let leader = self.cluster.leader().await;
        self.cluster.regions(leader.replica).await.unwrap()
    }

    /// The epochs of the regions of a node.
    async fn on(&self, node: u64) -> BTreeMap<u64, u64> {
        let regions = self.regions().await;
        let on_node = regions.iter().filter(|region| region.node_id == node);
        on_node.map(|region| (region.region_id, region.epoch)).collect()
    }

    /// Where each region is, and under which epoch.
    async fn routes(&self) -> BTreeMap<u64, (u64, u64)> {
        let regions = self.regions().await;
        regions.iter().map(|region| (region.region_id, (region.node_id, region.epoch))).collect()
    }

    /// The history of a region, the oldest event first.
    async fn history(&self, region_id: u64) -> Vec<Event> {
        let request = ListEventsRequest { region_id, ..ListEventsRequest::default() };
        self.cluster.operations().await.list_events(request).await.unwrap().into_inner().events
    }

    /// Waits until no procedure is under way.
    async fn no_procedure(&self) {
        eventually(LONG, "no procedure is under way", async || {
            let mut leader = self.cluster.operations().await;
            let listed = leader.list_procedures(ListProceduresRequest::default()).await;
            let procedures = listed.map_err(|status| status.to_string())?.into_inner().procedures;
            if procedures.is_empty() { Ok(()) } else { Err(format!("{procedures:?}")) }
        })
        .await;
    }

    async fn migrate(&self, region_id: u64, to_node: u64) -> Result<u64, tonic::Status> {
        let reason = "for a test".to_owned();
        let request = MigrateRegionRequest { region_id, to_node: Some(to_node), reason };
        let begun = self.cluster.operations().await.migrate_region(request).await?;
        Ok(begun.into_inner().procedure_id)
    }

    async fn cordon(&self, node_id: u64, cordoned: bool) {
        let request = CordonNodeRequest { node_id, cluster_id: 0, cordoned, reason: "for a test".to_owned() };
        self.cluster.operations().await.cordon_node(request).await.unwrap();
    }

    async fn set_failover(&self, order: Order) {
        let request = SetFailoverRequest { order: Some(order), reason: "a test of patience".to_owned() };
        self.cluster.operations().await.set_failover(request).await.unwrap();
    }

    /// The store is sound, everything that was acknowledged is read back, and both witnesses agree.
    async fn finish(self) {
        let checked = self.cluster.operations().await.check_store(CheckStoreRequest {}).await.unwrap();
        assert_eq!(checked.into_inner().findings, []);
        let lost = self.writers.check(&self.writers.regions()).await.unwrap();
        assert!(lost.is_empty(), "{lost:?}");
        let told = self.writers.stop().await;
        assert_eq!(intervals(&self.cluster).overlapping(), Vec::<String>::new());
        let shared = self.cluster.directory().join("regions");
        // Ends every process: nobody writes while the files are read.
        let mut cluster = self.cluster;
        cluster.datanodes.clear();
        assert_eq!(missing(&inspect(&shared).unwrap(), &told).unwrap(), Vec::<String>::new());
    }
}

/// What the datanodes noted of their writes.
fn intervals(cluster: &Cluster) -> Intervals {
    let mut intervals = Intervals::default();
    let file = |id: u64| cluster.directory().join(format!("datanode-{id}.intervals"));
    let files: Vec<_> = cluster.datanodes.iter().map(|node| file(node.id)).collect();
    intervals.read(&files).unwrap();
    assert!(intervals.writes() > 0);
    intervals
}

fn kinds(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.kind.as_str()).collect()
}

fn short_leases() -> Builder {
    Cluster::builder().timing("2s", "2s", "200ms")
}

/// Leases that no test would wait for.
fn long_leases() -> Builder {
    Cluster::builder().timing("2s", "120s", "200ms")
}

/// Goal: the regions of a datanode that is gone are written to elsewhere once its lease is over, all others stay where they
/// are, and the history says so. Method: kill -9 of one of five, without a supervisor.
#[tokio::test(flavor = "multi_thread")]
async fn regions_of_a_killed_datanode_move_when_its_lease_is_over() {
    let mut written = Written::start(short_leases(), 5).await;
    let before = written.routes().await;
    let lost = written.on(1).await;
    written.cluster.datanode(1).process.take().unwrap().kill();
    written.writers.written(&lost).await.unwrap();
    for (region, (node, epoch)) in written.routes().await {
        let (node_before, epoch_before) = before[&region];
        if lost.contains_key(&region) {
            assert!(node != 1 && epoch > epoch_before, "region {region} is on {node}, epoch {epoch}");
            let history = written.history(region).await;
            let moved = history.iter().find(|event| event.kind == "region_failed_over");
            let moved = moved.unwrap_or_else(|| panic!("{history:?}"));
            assert_eq!((moved.from_node_id, moved.node_id, moved.epoch), (1, node, epoch));
            assert!(!moved.why.is_empty());
        } else {
            assert_eq!((node, epoch), (node_before, epoch_before), "region {region} had no reason to move");
        }
    }
    written.finish().await;
}

/// Goal: a worker whose end is certified is not waited for. Method: kill -9 of a supervised worker under leases that nobody
/// would wait for; the certificate stands in the history before what followed from it.
#[tokio::test(flavor = "multi_thread")]
async fn regions_of_a_reaped_worker_need_not_wait_for_its_lease() {
    let mut written = Written::start(long_leases().supervised(), 5).await;
    let lost = written.on(1).await;
    written.cluster.datanode(1).process().kill_child().unwrap();
    written.writers.written(&lost).await.unwrap();
    let request = ListEventsRequest { node_id: 1, ..ListEventsRequest::default() };
    let of_node = written.cluster.operations().await.list_events(request).await.unwrap().into_inner().events;
    let ended = of_node.iter().find(|event| event.kind == "process_ended");
    let ended = ended.unwrap_or_else(|| panic!("{of_node:?}")).id;
    for region in lost.keys() {
        let history = written.history(*region).await;
        let after = history.iter().find(|event| event.id >= ended && event.kind.starts_with("region_"));
        let after = after.unwrap_or_else(|| panic!("{history:?}"));
        assert!(["region_failed_over", "region_epoch_raised"].contains(&after.kind.as_str()), "{history:?}");
    }
    written.finish().await;
}

/// Goal: a datanode that is started again on its own directory has its regions back at once, under raised epochs: the lock
/// proves that its predecessor has ended. Method: kill -9 and a start under leases that nobody would wait for.
#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_datanode_has_its_regions_back_at_once() {
    let mut written = Written::start(long_leases(), 3).await;
    let before = written.routes().await;
    let its = written.on(1).await;
    written.cluster.datanode(1).process.take().unwrap().kill();
    written.cluster.start_datanode(1);
    written.writers.written(&its).await.unwrap();
    for (region, (node, epoch)) in written.routes().await {
        let (node_before, epoch_before) = before[&region];
        assert_eq!(node, node_before, "region {region} had no reason to move");
        assert_eq!(epoch > epoch_before, its.contains_key(&region), "region {region}");
        let history = written.history(region).await;
        assert!(!kinds(&history).contains(&"region_failed_over"), "{history:?}");
    }
    written.finish().await;
}

/// Goal: an operator moves a live region; what cannot be moved is refused with a reason. Method: one migration under
/// constant writes, then the same once more.
#[tokio::test(flavor = "multi_thread")]
async fn a_live_region_moves_to_the_node_that_was_named() {
    let written = Written::start(short_leases(), 3).await;
    let its = written.on(1).await;
    let (region, epoch) = its.first_key_value().map(|(region, epoch)| (*region, *epoch)).unwrap();
    written.migrate(region, 2).await.unwrap();
    written.writers.written(&[(region, epoch)].into()).await.unwrap();
    written.no_procedure().await;
    let (node, after) = written.routes().await[&region];
    assert!(node == 2 && after > epoch, "it is on {node}, epoch {after}");
    assert_eq!(written.writers.last(region).unwrap().node, 2);
    let history = written.history(region).await;
    let steps: Vec<_> = kinds(&history)
        .into_iter()
        .filter(|kind| kind.starts_with("migration") || *kind == "region_migrated")
        .collect();
    assert_eq!(steps, ["migration_begun", "region_migrated", "migration_done"]);

    assert_eq!(written.migrate(region, 2).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(written.migrate(424_242, 2).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(written.on(1).await.len(), 1, "the other one stayed");
    written.finish().await;
}

/// Goal: a node that is drained ends without regions and gets none, until it is uncordoned. Method: a dry run, the drain,
/// new regions, an uncordon.
#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_is_empty_and_stays_so() {
    let written = Written::start(short_leases(), 3).await;
    let before = written.routes().await;
    let its = written.on(1).await;
    let order =
        |dry_run| DrainNodeRequest { node_id: 1, cluster_id: 0, reason: "for a test".to_owned(), dry_run };
    let plan = written.cluster.operations().await.drain_node(order(true)).await.unwrap().into_inner();
    assert_eq!((plan.procedure_id, plan.moves.len(), plan.stuck.len()), (0, 2, 0), "{plan:?}");
    assert_eq!(written.routes().await, before, "a dry run moves nothing");

    let drain = written.cluster.operations().await.drain_node(order(false)).await.unwrap().into_inner();
    assert_ne!(drain.procedure_id, 0);
    written.writers.written(&its).await.unwrap();
    written.no_procedure().await;
    assert_eq!(written.on(1).await, BTreeMap::new());
    for (region, (node, epoch)) in written.routes().await {
        if !its.contains_key(&region) {
            assert_eq!((node, epoch), before[&region], "region {region} had no reason to move");
        }
    }
    let created = written.cluster.create_regions(2, None).await;
    assert!(created.iter().all(|region| region.node_id != 1), "{created:?}");
    written.cordon(1, false).await;
    assert_eq!(written.cluster.create_regions(1, None).await[0].node_id, 1, "it has the fewest");
    written.finish().await;
}

/// Goal: a cordoned node gets no region and keeps those that it has. Method: regions created before and after.
#[tokio::test(flavor = "multi_thread")]
async fn a_cordoned_node_gets_no_more_regions_and_keeps_its_own() {
    let written = Written::start(short_leases(), 2).await;
    let before = written.on(1).await;
    written.cordon(1, true).await;
    written.cordon(1, true).await;
    let created = written.cluster.create_regions(4, None).await;
    assert!(created.iter().all(|region| region.node_id == 2), "{created:?}");
    assert_eq!(written.migrate(created[0].region_id, 1).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(written.on(1).await, before);
    written.writers.written(&before.keys().map(|region| (*region, 0)).collect()).await.unwrap();
    written.cordon(1, false).await;
    assert_eq!(written.cluster.create_regions(1, None).await[0].node_id, 1, "it has the fewest");
    written.finish().await;
}

/// Goal: what all of these tests conclude from would show it if two nodes wrote to a region at the same time. Method: a datanode
/// that is stopped until its regions are written to elsewhere, and wakes while no replica can tell it so. As it is, it
/// refuses a put; a faulty one takes it, the notes say so, and nobody has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_datanode_that_writes_without_a_right_is_found() {
    for faulty in [false, true] {
        let builder = if faulty { short_leases().faulty_datanodes() } else { short_leases() };
        let mut written = Written::start(builder, 4).await;
        let lost = written.on(1).await;
        written.cluster.datanode(1).process().signal(Signal::STOP);
        written.writers.written(&lost).await.unwrap();
        let region_id = *lost.keys().next().unwrap();
        let (new_owner, _) = written.routes().await[&region_id];
        written.cluster.replicas[0].kill();
        written.cluster.datanode(1).process().signal(Signal::CONT);
        let addr = written.cluster.datanode(1).addr();
        let put = PutRequest { region_id, key: b"late".to_vec(), value: b"1".to_vec() };
        let answer = KeyValueClient::new(channel(&addr)).put(put).await;
        assert_eq!(
            answer.as_ref().map_err(tonic::Status::code).err(),
            (!faulty).then_some(Code::FailedPrecondition)
        );
        written.writers.stop().await;
        let overlapping = intervals(&written.cluster).overlapping();
        assert_eq!(!overlapping.is_empty(), faulty, "{overlapping:?}");
        // What it took is nowhere.
        let addr = written.cluster.datanode(new_owner).addr();
        let get = GetRequest { region_id, key: b"late".to_vec() };
        let found = KeyValueClient::new(channel(&addr)).get(get).await.unwrap().into_inner();
        assert_eq!(found.value, None);
    }
}

/// Goal: while failovers are paused nothing is taken from a datanode that is gone, and the leader says why; when the pause
/// ends, it is. Method: kill -9 of one of four during a pause.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_failed_over_during_a_pause() {
    let mut written = Written::start(short_leases(), 4).await;
    let before = written.routes().await;
    let lost = written.on(1).await;
    written.set_failover(Order::PauseMs(600_000)).await;
    written.cluster.datanode(1).process.take().unwrap().kill();
    throughout(Duration::from_secs(6), "every region stays where it is", async || {
        if written.routes().await == before { Ok(()) } else { Err("one moved") }
    })
    .await;
    let mut leader = written.cluster.operations().await;
    let said = leader.get_failover(GetFailoverRequest::default()).await.unwrap().into_inner();
    assert_eq!(said.verdict, "hold");
    assert!(said.why.contains("pause") && said.paused_until_ms > 0, "{said:?}");
    written.set_failover(Order::ResumeMs(0)).await;
    written.writers.written(&lost).await.unwrap();
    assert_eq!(written.on(1).await, BTreeMap::new());
    written.finish().await;
}

/// Goal: a migration whose leader dies is finished or undone by the next one. Method: the leader is killed a little later in
/// each round; in the end no procedure is left, the store is sound, and every region is written to.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_survives_its_leader() {
    let mut written = Written::start(Cluster::builder().replicas(3).timing("2s", "2s", "200ms"), 3).await;
    for delay in [0, 10, 25] {
        let moves: Vec<(u64, u64)> =
            written.routes().await.iter().map(|(region, (node, _))| (*region, node % 3 + 1)).collect();
        let leader = written.cluster.leader().await;
        for (region_id, to_node) in moves {
            let mut operations = written.cluster.replicas[leader.replica].operations();
            let reason = "for a test".to_owned();
            let request = MigrateRegionRequest { region_id, to_node: Some(to_node), reason };
            // The leader may be gone before it answers.
            tokio::spawn(async move { operations.migrate_region(request).await.is_ok() });
        }
        tokio::time::sleep(Duration::from_millis(delay)).await;
        written.cluster.replicas[leader.replica].kill();
        written.cluster.leader_after(leader.term).await;
        written.no_procedure().await;
        let all = written.writers.regions().into_iter().map(|region| (region, 0)).collect();
        written.writers.written(&all).await.unwrap();
        written.cluster.start_replica(leader.replica);
        written.cluster.replicas[leader.replica].answers().await;
    }
    written.finish().await;
}
