//! What `make scale` is made of: many regions on many datanodes, and what they cost the replicas.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | how large, and the order of things |
//! | `world.rs` | etcd, three replicas as processes, and the datanodes: the real SDK, all in this process |
//! | `work.rs` | regions are created and listed, a node is drained, the leader is killed, leadership is transferred |
//! | `check.rs` | what has to hold after each of these |
//! | `memory.rs` | what a region takes in the memory of a replica |
//!
//! etcd has one member here: with two processors for everything, three would measure each other. What is looked at is the
//! memory of replicas and the time of their work; what a fault costs is `make chaos`, with three members.

mod check;
mod memory;
mod work;
mod world;

use std::time::Duration;

use crate::figures::Figures;
use memory::Memory;
use world::World;

/// How large, and how patiently it is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// Datanodes.
    pub nodes: u64,
    /// Regions in all.
    pub regions: u32,
    /// Regions of one call that creates them.
    pub batch: u32,
    /// How long memory is looked at, each time.
    pub look: Duration,
}

/// What is promised: 100,000 regions on 100 datanodes.
pub const FULL: Size = Size { nodes: 100, regions: 100_000, batch: 10_000, look: Duration::from_secs(12) };

/// The streams of nodes that are gone are closed by then.
const CLOSED: Duration = Duration::from_secs(1);

/// Whether it works.
pub const QUICK: Size = Size { nodes: 20, regions: 5_000, batch: 2_500, look: Duration::from_secs(1) };

/// All of it, with its figures. Panics with what does not hold.
pub async fn run(size: Size, figures: &mut Figures) {
    println!(
        "{} regions on {} datanodes of this process, three replicas, etcd of one member:",
        size.regions, size.nodes
    );
    figures.add("scale_nodes", f64::from(u32::try_from(size.nodes).unwrap_or(u32::MAX)), "nodes");
    figures.add("scale_regions", f64::from(size.regions), "regions");
    let mut world = World::start(size).await;
    let leader = world.cluster.leader().await;

    let empty = Memory::of_replicas(&world.cluster, size.look).await;
    work::create(&world, figures).await;
    check::sound(&world, "after they were created").await;
    let full = Memory::of_replicas(&world.cluster, size.look).await;
    let regions = f64::from(size.regions);
    figures.add("leader_bytes_per_region", empty.leader(leader, &full) / regions, "bytes");
    figures.add("follower_bytes_per_region", empty.largest_follower(leader, &full) / regions, "bytes");

    work::list(&world, figures).await;
    work::drain(&world, figures).await;
    check::sound(&world, "after the drain").await;

    let killed = work::kill(&mut world, figures).await;
    check::sound(&world, "after the leader was killed").await;
    let next = world.cluster.leader().await;
    let taken_over = Memory::of_replicas(&world.cluster, size.look).await;
    figures.add("next_leader_bytes_per_region", empty.leader(next, &taken_over) / regions, "bytes");
    world.restart(killed).await;

    work::transfer(&world, figures).await;
    check::sound(&world, "after leadership was transferred").await;
    let listed_anew = Memory::of_replicas(&world.cluster, size.look).await;
    // It was empty as any replica is that has just begun.
    figures.add("restarted_bytes_per_region", empty.replica(killed, &listed_anew) / regions, "bytes");
    work::history(&world, figures).await;
    check::store(&world).await;

    // What is left without their streams and heartbeats is what the leader knows.
    let World { nodes, cluster, .. } = world;
    let last = cluster.leader().await;
    drop(nodes);
    tokio::time::sleep(CLOSED).await;
    let known = Memory::of_replicas(&cluster, size.look / 4).await;
    figures.add("leader_without_streams_bytes_per_region", empty.leader(last, &known) / regions, "bytes");
}
