//! Rounds of what goes wrong at the worst moment: the leader ends in the middle of a procedure; half of the datanodes are
//! cut off at once.

use std::time::Duration;

use metasrv_proto::admin::MigrateRegionRequest;
use rand::Rng as _;

use super::fault::RegionFault;
use super::planned::{REASON, any_move};
use super::round::{Measured, QUIET, moved, read_back};
use super::world::{RegionWorld, timed};
use crate::chaos::network::Direction;
use crate::wait::now;

/// Time between two puts to each region that is affected.
const PACE: Duration = Duration::from_millis(20);

/// The leader ends within this time after the procedure was asked for, in milliseconds. A migration takes less.
const MOMENT_MS: u64 = 80;

/// Of so many rounds one kills the leader in the middle of a failover, the others in that of a migration.
const FAILOVER_EVERY: usize = 3;

/// Regions that are moved in one round: their steps differ when the leader ends.
const MOVES: usize = 4;

/// Time between two questions whether failovers go on.
const LOOK: Duration = Duration::from_millis(250);

/// Begins a procedure, kills the leader at a random moment of it, and waits until everything is whole again.
pub async fn kill_the_leader(world: &mut RegionWorld, round: usize) -> Result<Measured, String> {
    let leader = world.settle().await?;
    let before = world.servers.routes().await?;
    let (node, on_node) = RegionWorld::busiest(&before);
    let is_failover = round.is_multiple_of(FAILOVER_EVERY);
    let moves: Vec<(u64, u64)> = (0..MOVES).filter_map(|_| any_move(world, &before)).collect();
    let affected: Vec<u64> = match is_failover {
        true => on_node.keys().copied().collect(),
        false => moves.iter().map(|(region, _)| *region).collect(),
    };
    world.writers.focus(&affected, PACE);
    tokio::time::sleep(QUIET).await;
    world.writers.begin_round(&affected);
    let moment = Duration::from_millis(rand::rng().random_range(0..=MOMENT_MS));
    let began = now();
    if is_failover {
        world.datanode(node)?.kill_worker()?;
    } else {
        for (region, target) in moves {
            let mut operations = world.servers.replicas[leader.replica].operations();
            let reason = REASON.to_owned();
            let request = MigrateRegionRequest { region_id: region, to_node: Some(target), reason };
            // The leader may be gone before it answers: whether the procedure began is found out below.
            tokio::spawn(async move { operations.migrate_region(timed(request)).await.is_ok() });
        }
    }
    tokio::time::sleep(moment).await;
    world.servers.replicas[leader.replica].kill();
    let mut measured = Measured::new(RegionFault::ProcedureLeaderKill);
    if world.no_procedure().await.is_err() {
        let left = world.procedures().await?;
        measured.unfinished = left.len();
        measured.findings.extend(left.iter().map(|procedure| format!("unfinished: {procedure:?}")));
    }
    let epochs = on_node.into_iter().filter(|_| is_failover);
    world.writers.written(&epochs.collect()).await?;
    world.writers.written(&affected.iter().map(|region| (*region, 0)).collect()).await?;
    measured.took = now().since(began);
    measured.gaps = world.writers.gaps(&affected);
    world.servers.start_replica(leader.replica);
    world.writers.relax();
    if measured.unfinished == 0 {
        world.settle().await?;
    }
    measured.findings.extend(world.findings().await?);
    let after = world.servers.routes().await?;
    measured.moved = moved(&before, &after, |region| affected.contains(&region));
    measured.lost = read_back(world, &world.writers.regions()).await?;
    Ok(measured)
}

/// Cuts off half of the datanodes: nothing may be failed over, and nothing may be moved when they are back.
pub async fn cut_off_half(world: &mut RegionWorld) -> Result<Measured, String> {
    world.settle().await?;
    let before = world.servers.routes().await?;
    let half: Vec<_> =
        world.datanodes.iter().take(world.datanodes.len() / 2).map(|node| node.place.clone()).collect();
    let cut: Vec<u64> = world.datanodes.iter().take(half.len()).map(|node| node.id).collect();
    let affected: Vec<u64> =
        before.iter().filter(|(_, (node, _))| cut.contains(node)).map(|(region, _)| *region).collect();
    world.writers.begin_round(&affected);
    let began = now();
    for place in &half {
        world.servers.network.black_hole(place, Direction::Both)?;
    }
    let hold = RegionFault::HalfBlackhole.hold();
    let mut said = None;
    while now().since(began) < hold {
        tokio::time::sleep(LOOK).await;
        if let Ok(failover) = world.failover().await
            && failover.verdict == "hold"
            && !failover.why.is_empty()
        {
            said.get_or_insert(failover.why);
        }
    }
    for place in &half {
        world.servers.network.heal(place)?;
    }
    let healed = now();
    world.writers.written(&affected.iter().map(|region| (*region, 0)).collect()).await?;
    let took = now().since(healed);
    let gaps = world.writers.gaps(&affected);
    world.settle().await?;
    let after = world.servers.routes().await?;
    let lost = read_back(world, &world.writers.regions()).await?;
    let moved = moved(&before, &after, |_| false);
    Ok(Measured { gaps, took, moved, lost, said, ..Measured::new(RegionFault::HalfBlackhole) })
}
