//! Rounds of what is planned: a migration of one region, and a drain of a whole node, both under constant writes.

use std::time::Duration;

use metasrv_proto::admin::{CordonNodeRequest, DrainNodeRequest, MigrateRegionRequest};
use rand::Rng as _;

use super::fault::RegionFault;
use super::round::{Measured, QUIET, moved, read_back};
use super::world::{RegionWorld, timed};
use crate::chaos::servers::reach;
use crate::wait::now;

/// Time between two puts to the one region that is moved.
const ONE: Duration = Duration::from_millis(2);

/// Time between two puts to each region of a node that is drained: fifty writers at this pace are a load of their own.
const MANY: Duration = Duration::from_millis(10);

/// A gap that is open when the procedure ended ends with the next put.
const AFTER: Duration = Duration::from_millis(100);

/// The reason that the history keeps.
pub const REASON: &str = "chaos";

/// Moves one region, and measures the gap between its puts.
pub async fn migrate(world: &mut RegionWorld) -> Result<Measured, String> {
    world.no_procedure().await?;
    let before = world.servers.routes().await?;
    let (region, target) = any_move(world, &before).ok_or("there is no region to move")?;
    let (_, epoch) = before.get(&region).copied().unwrap_or_default();
    world.writers.focus(&[region], ONE);
    world.writers.written(&[(region, 0)].into()).await?;
    tokio::time::sleep(AFTER).await;
    world.writers.begin_round(&[region]);
    let began = now();
    let request =
        MigrateRegionRequest { region_id: region, to_node: Some(target), reason: REASON.to_owned() };
    let begun = world.operations().await?.migrate_region(timed(request)).await;
    begun.map_err(|status| format!("region {region} is not moved to node {target}: {status}"))?;
    world.writers.written(&[(region, epoch)].into()).await?;
    let took = now().since(began);
    world.no_procedure().await?;
    tokio::time::sleep(AFTER).await;
    let gaps = world.writers.gaps(&[region]);
    world.writers.relax();
    let after = world.servers.routes().await?;
    if after.get(&region).is_none_or(|(node, _)| *node != target) {
        return Err(format!("region {region} was moved to {:?}, not to node {target}", after.get(&region)));
    }
    let lost = read_back(world, &[region]).await?;
    let moved = moved(&before, &after, |other| other == region);
    Ok(Measured { gaps, took, moved, lost, ..Measured::new(RegionFault::Migrate) })
}

/// Some region, and a node that it is not on.
pub fn any_move(world: &RegionWorld, routes: &crate::chaos::servers::Routes) -> Option<(u64, u64)> {
    let mut random = rand::rng();
    let regions: Vec<_> = routes.iter().collect();
    let (region, (node, _)) = regions.get(random.random_range(0..regions.len().max(1)))?;
    let others: Vec<u64> = world.datanodes.iter().map(|other| other.id).filter(|id| id != node).collect();
    let target = others.get(random.random_range(0..others.len().max(1)))?;
    Some((**region, *target))
}

/// Empties the node with the most regions, and measures the gaps between the puts of each of them.
pub async fn drain(world: &mut RegionWorld) -> Result<Measured, String> {
    world.settle().await?;
    let before = world.servers.routes().await?;
    let (node, epochs) = RegionWorld::busiest(&before);
    let regions: Vec<u64> = epochs.keys().copied().collect();
    let order =
        |dry_run| DrainNodeRequest { node_id: node, cluster_id: 0, reason: REASON.to_owned(), dry_run };
    let failed = |status: tonic::Status| format!("node {node} is not drained: {status}");
    let plan = world.operations().await?.drain_node(timed(order(true))).await.map_err(failed)?.into_inner();
    if plan.moves.len() != regions.len() {
        let (moves, stuck) = (plan.moves.len(), plan.stuck);
        return Err(format!("a plan of {moves} moves for {} regions; stuck: {stuck:?}", regions.len()));
    }
    world.writers.focus(&regions, MANY);
    tokio::time::sleep(QUIET).await;
    world.writers.begin_round(&regions);
    let began = now();
    let drain = world.operations().await?.drain_node(timed(order(false))).await.map_err(failed)?.into_inner();
    let said = follow(world, drain.procedure_id).await?;
    let took = now().since(began);
    tokio::time::sleep(AFTER).await;
    let gaps = world.writers.gaps(&regions);
    world.writers.relax();
    world.writers.written(&epochs).await?;
    let uncordon =
        CordonNodeRequest { node_id: node, cluster_id: 0, cordoned: false, reason: REASON.to_owned() };
    let uncordoned = world.operations().await?.cordon_node(timed(uncordon)).await;
    uncordoned.map_err(|status| format!("node {node} is not uncordoned: {status}"))?;
    world.settle().await?;
    let after = world.servers.routes().await?;
    let left = after.values().filter(|(on, _)| *on == node).count();
    if left > 0 {
        return Err(format!("{left} regions are still on node {node}, which is drained"));
    }
    let lost = read_back(world, &world.writers.regions()).await?;
    let moved = moved(&before, &after, |region| epochs.contains_key(&region));
    Ok(Measured { gaps, took, moved, lost, said, ..Measured::new(RegionFault::Drain) })
}

/// Looks at a drain until it is over; returns the first time that it said how long it takes.
async fn follow(world: &RegionWorld, id: u64) -> Result<Option<String>, String> {
    let mut said = None;
    let began = now();
    reach("the drain ends", async || {
        let procedures = world.procedures().await?;
        let Some(drain) = procedures.iter().find(|procedure| procedure.id == id) else { return Ok(()) };
        if let (None, Some(eta)) = (&said, drain.eta_ms) {
            let after = now().since(began).as_millis();
            said = Some(format!("{eta} ms to go for {} regions, after {after} ms", drain.left));
        }
        Err(format!("{} regions left, {} on their way: {:?}", drain.left, drain.in_flight, drain.stuck))
    })
    .await?;
    Ok(said)
}
