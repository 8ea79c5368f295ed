//! `make bench`: figures of the whole system on this machine, with a real etcd and three replicas.
//!
//! Prints `figure <name> <value> <unit>` lines, a line of explanation before each group, and writes all figures to
//! `figures/bench.json` in the target directory. Nodes are played by this process, so that client and server share
//! the machine's cores; absolute figures say as much about the machine as about us.

// A benchmark reports what it could not do by panicking.
#![allow(clippy::panic)]

use std::time::Duration;

use clap::Parser;
use futures_util::{StreamExt as _, TryStreamExt as _};
use metasrv_proto::admin::CreateRegionsRequest;
use metasrv_tests::cluster::Cluster;
use metasrv_tests::figures::Figures;
use metasrv_tests::fleet::Fleet;
use metasrv_tests::wait::{eventually, now, throughout};

/// Heartbeat interval of all runs, as it is by default.
const INTERVAL: Duration = Duration::from_secs(1);

/// Calls that create regions at the same time.
const CREATING: usize = 8;

/// A takeover after a crash waits for the election TTL of 5 s; more than this is a failure.
const TAKEOVER: Duration = Duration::from_secs(60);

#[derive(Parser)]
#[command(about = "Measures the whole system on this machine")]
struct Options {
    /// A few nodes for a few seconds: whether it works, not how well.
    #[arg(long)]
    quick: bool,
}

/// How large and how long.
struct Scale {
    streams: u64,
    regions_per_stream: u32,
    hold: Duration,
    nodes: u64,
    regions_per_node: u32,
    rounds: usize,
}

const FULL: Scale = Scale {
    streams: 1_000,
    regions_per_stream: 100,
    hold: Duration::from_secs(20),
    nodes: 50,
    regions_per_node: 20,
    rounds: 3,
};

const QUICK: Scale = Scale {
    streams: 40,
    regions_per_stream: 10,
    hold: Duration::from_secs(3),
    nodes: 5,
    regions_per_node: 4,
    rounds: 1,
};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let scale = if Options::parse().quick { QUICK } else { FULL };
    let mut figures = Figures::default();
    hold_streams(&scale, &mut figures).await;
    lose_leaders(&scale, &mut figures).await;
    let path = figures.write("bench")?;
    eprintln!("written to {}", path.display());
    Ok(())
}

/// A cluster of three replicas under a fleet whose regions are all leased.
async fn fleet_of(nodes: u64, regions: u32) -> (Cluster, Fleet) {
    let cluster = Cluster::builder().etcd(1).replicas(3).start().await;
    let fleet = Fleet::start(1..=nodes, &cluster.addrs(), INTERVAL);
    let all = usize::try_from(nodes).unwrap_or(usize::MAX);
    let leader = cluster.leader().await;
    eventually(TAKEOVER, "every node is connected", async || match fleet.accepted(leader.term) {
        accepted if accepted == all => Ok(()),
        accepted => Err(format!("{accepted} of {all} are")),
    })
    .await;
    let admin = cluster.replicas[leader.replica].admin();
    let created: Result<Vec<_>, tonic::Status> = futures_util::stream::iter(1..=nodes)
        .map(|node| {
            let mut admin = admin.clone();
            let request = CreateRegionsRequest { count: regions, node_id: Some(node), ..Default::default() };
            async move { admin.create_regions(request).await }
        })
        .buffer_unordered(CREATING)
        .try_collect()
        .await;
    if let Err(status) = created {
        panic!("regions cannot be created: {status}");
    }
    fleet.wait_leased(as_usize(regions), leader.term).await;
    (cluster, fleet)
}

/// Many streams, held by one leader for a while without a missed lease.
async fn hold_streams(scale: &Scale, figures: &mut Figures) {
    println!(
        "{} streams with {} regions each, a heartbeat every {INTERVAL:?}, held by one leader for {:?}:",
        scale.streams, scale.regions_per_stream, scale.hold
    );
    let (cluster, fleet) = fleet_of(scale.streams, scale.regions_per_stream).await;
    let leader = cluster.leader().await;
    let process = cluster.replicas[leader.replica].process();
    fleet.reset();
    let before: Vec<_> = fleet.records().iter().map(|record| record.streams).collect();
    let (cpu, heartbeats, started) = (process.cpu_time(), fleet.heartbeats(), now());
    throughout::<String>(scale.hold, "the streams are held", async || Ok(())).await;
    let took = now().since(started);
    let heartbeats = fleet.heartbeats() - heartbeats;
    let cpu = process.cpu_time() - cpu;
    let regions = as_usize(scale.regions_per_stream);
    let at_end = now();
    let held = fleet
        .records()
        .iter()
        .zip(before)
        .filter(|(record, streams)| {
            record.streams == *streams
                && record.term == leader.term
                && record.leases.len() == regions
                && record.leases.values().all(|until| at_end < *until)
        })
        .count();
    figures.add("held_streams", count(held), "streams");
    figures.add("missed_leases", count(fleet.missed_leases()), "leases");
    figures.add("heartbeats_per_second", count(heartbeats) / took.as_secs_f64(), "1/s");
    figures.add("longest_heartbeat_gap_ms", millis(fleet.longest_gap()), "ms");
    figures.add("leader_cpu_per_heartbeat_us", cpu.as_secs_f64() * 1e6 / count(heartbeats.max(1)), "us");
    figures.add("leader_memory_mib", (count(process.memory_bytes()) / f64::from(1 << 20)).round(), "MiB");
}

/// The leader dies, and the leader is told to end: how long nodes are without one.
async fn lose_leaders(scale: &Scale, figures: &mut Figures) {
    println!(
        "{} nodes with {} regions each, three replicas; the worst of {} rounds:",
        scale.nodes, scale.regions_per_node, scale.rounds
    );
    let (mut cluster, fleet) = fleet_of(scale.nodes, scale.regions_per_node).await;
    let (mut elected, mut takeover, mut gap) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for round in 1..=scale.rounds {
        let leader = cluster.leader().await;
        let killed_at = now();
        cluster.replicas[leader.replica].kill();
        let next = cluster.leader_after(leader.term).await;
        let this_elected = now().since(killed_at);
        fleet.wait_leased(as_usize(scale.regions_per_node), next.term).await;
        let this_takeover = now().since(killed_at);
        println!(
            "round {round}: kill -9: leader after {this_elected:.2?}, every node leased after {this_takeover:.2?}"
        );
        elected = elected.max(this_elected);
        takeover = takeover.max(this_takeover);
        cluster.start_replica(leader.replica);
        cluster.replicas[leader.replica].answers().await;
    }
    for round in 1..=scale.rounds {
        let leader = cluster.leader().await;
        queued(&cluster).await;
        // The nodes have just connected, all in one moment: their beats have to be spread before a gap says anything.
        throughout::<String>(INTERVAL * 3, "the nodes beat", async || Ok(())).await;
        fleet.reset();
        cluster.replicas[leader.replica].terminate(Duration::from_secs(20)).await;
        let next = cluster.leader_after(leader.term).await;
        fleet.wait_leased(as_usize(scale.regions_per_node), next.term).await;
        let this_gap = fleet.longest_gap();
        println!(
            "round {round}: SIGTERM: longest gap between accepted heartbeats of any node {this_gap:.2?}"
        );
        gap = gap.max(this_gap);
        cluster.start_replica(leader.replica);
        cluster.replicas[leader.replica].answers().await;
    }
    figures.add("leader_kill_new_leader_ms", millis(elected), "ms");
    figures.add("leader_kill_takeover_ms", millis(takeover), "ms");
    figures.add("leader_term_gap_ms", millis(gap), "ms");
}

/// Waits until all three replicas are in the queue: a hand-over needs somebody to hand over to.
async fn queued(cluster: &Cluster) {
    let leader = cluster.leader().await;
    eventually(TAKEOVER, "every replica campaigns", async || {
        let mut admin = cluster.replicas[leader.replica].admin();
        let members = admin.list_members(metasrv_proto::admin::ListMembersRequest {}).await;
        match members.map(|response| response.into_inner().members.len()) {
            Ok(members) if members == cluster.replicas.len() => Ok(()),
            Ok(members) => Err(format!("{members} do")),
            Err(status) => Err(status.to_string()),
        }
    })
    .await;
}

fn as_usize(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e3).round()
}

/// A count as a figure; exact up to 2^53.
fn count(value: impl TryInto<u64>) -> f64 {
    let value: u64 = value.try_into().unwrap_or(u64::MAX);
    f64::from(u32::try_from(value).unwrap_or(u32::MAX))
}
