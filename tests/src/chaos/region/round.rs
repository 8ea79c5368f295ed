//! One round: the world is whole, a fault happens to regions, it is healed, the world is whole again; and what that cost.
//!
//! | faults | where |
//! | --- | --- |
//! | a datanode ends or is cut off, alone or with the leader | here |
//! | a migration, a drain | `planned.rs` |
//! | the leader ends while a procedure is under way; half of the datanodes are cut off | `unplanned.rs` |

use std::collections::BTreeMap;
use std::time::Duration;

use metasrv_core::time::BootTime;

use super::fault::RegionFault;
use super::world::RegionWorld;
use super::{planned, unplanned};
use crate::chaos::network::Direction;
use crate::chaos::servers::Routes;
use crate::wait::now;

/// Time between two puts to a region that is about to lose its node: fine beside 500 ms, and fifty writers at this pace are
/// no load that would be measured instead.
const PACE: Duration = Duration::from_millis(20);

/// The writers are at their pace before anything happens.
pub const QUIET: Duration = Duration::from_millis(700);

/// What a round cost.
#[derive(Clone, PartialEq, Debug)]
pub struct Measured {
    /// What happened.
    pub fault: RegionFault,
    /// For each region that was affected, the longest time between two acknowledged puts.
    pub gaps: Vec<Duration>,
    /// From the beginning until it was over: the regions written to elsewhere, or the procedure ended.
    pub took: Duration,
    /// Procedures that neither finished nor were undone.
    pub unfinished: usize,
    /// What a check of the store found.
    pub findings: Vec<String>,
    /// Regions on another node than before, without a reason.
    pub moved: usize,
    /// Acknowledged puts that are not there.
    pub lost: Vec<String>,
    /// What the leader said of it: why failovers do not go on, how long a drain takes. Absent: it did not say.
    pub said: Option<String>,
}

impl Measured {
    /// Of a round that began now, in which nothing was affected yet.
    pub fn new(fault: RegionFault) -> Measured {
        Measured {
            fault,
            gaps: Vec::new(),
            took: Duration::ZERO,
            unfinished: 0,
            findings: Vec::new(),
            moved: 0,
            lost: Vec::new(),
            said: None,
        }
    }

    /// The longest gap of any region.
    pub fn worst(&self) -> Duration {
        self.gaps.iter().copied().max().unwrap_or_default()
    }
}

/// Rounds by their fault.
pub type Rounds = BTreeMap<RegionFault, Vec<Measured>>;

/// Runs a round; the world is whole before and after.
///
/// # Errors
/// What did not come in time: the world did not recover, or a tool failed.
pub async fn run(world: &mut RegionWorld, fault: RegionFault, round: usize) -> Result<Measured, String> {
    match fault {
        RegionFault::WorkerKill
        | RegionFault::NodeKill
        | RegionFault::NodeBlackhole
        | RegionFault::NodeAndLeaderKill => lose_a_node(world, fault).await,
        RegionFault::Migrate => planned::migrate(world).await,
        RegionFault::Drain => planned::drain(world).await,
        RegionFault::ProcedureLeaderKill => unplanned::kill_the_leader(world, round).await,
        RegionFault::HalfBlackhole => unplanned::cut_off_half(world).await,
    }
}

/// The regions that are on another node now, of those that should not be.
pub fn moved(before: &Routes, after: &Routes, may_move: impl Fn(u64) -> bool) -> usize {
    let has_moved = |(region, (node, _)): &(&u64, &(u64, u64))| {
        !may_move(**region) && after.get(*region).is_none_or(|(now_on, _)| now_on != node)
    };
    before.iter().filter(has_moved).count()
}

/// Reads back what was put to these regions, and what the datanodes noted.
///
/// # Errors
/// It cannot be read.
pub async fn read_back(world: &mut RegionWorld, regions: &[u64]) -> Result<Vec<String>, String> {
    let lost = world.writers.check(regions).await?;
    world.read_intervals()?;
    Ok(lost)
}

/// A datanode ends, or is cut off: its regions have to be written to elsewhere.
async fn lose_a_node(world: &mut RegionWorld, fault: RegionFault) -> Result<Measured, String> {
    let leader = world.settle().await?;
    let before = world.servers.routes().await?;
    let (victim, epochs) = RegionWorld::busiest(&before);
    let regions: Vec<u64> = epochs.keys().copied().collect();
    world.writers.focus(&regions, PACE);
    tokio::time::sleep(QUIET).await;
    world.writers.begin_round(&regions);
    let began = now();
    match fault {
        RegionFault::WorkerKill => world.datanode(victim)?.kill_worker()?,
        RegionFault::NodeBlackhole => {
            let place = world.datanode(victim)?.place.clone();
            world.servers.network.black_hole(&place, Direction::Both)?;
        }
        _ => world.datanode(victim)?.kill(),
    }
    if fault == RegionFault::NodeAndLeaderKill {
        world.servers.replicas[leader.replica].kill();
    }
    world.writers.written(&epochs).await?;
    let took = now().since(began);
    heal(world, fault, victim, began).await?;
    if fault == RegionFault::NodeAndLeaderKill {
        world.servers.start_replica(leader.replica);
    }
    let gaps = world.writers.gaps(&regions);
    world.writers.relax();
    world.settle().await?;
    let after = world.servers.routes().await?;
    let lost = read_back(world, &world.writers.regions()).await?;
    let moved = moved(&before, &after, |region| epochs.contains_key(&region));
    Ok(Measured { gaps, took, moved, lost, ..Measured::new(fault) })
}

async fn heal(
    world: &mut RegionWorld,
    fault: RegionFault,
    victim: u64,
    began: BootTime,
) -> Result<(), String> {
    match fault {
        // Its supervisor does it.
        RegionFault::WorkerKill => Ok(()),
        RegionFault::NodeBlackhole => {
            let left = fault.hold().saturating_sub(now().since(began));
            tokio::time::sleep(left).await;
            let place = world.datanode(victim)?.place.clone();
            world.servers.network.heal(&place)
        }
        _ => {
            world.start_datanodes();
            Ok(())
        }
    }
}
