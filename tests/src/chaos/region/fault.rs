//! The faults of regions, by the names that `FAULT=` takes.
//!
//! | fault | what happens | healed |
//! | --- | --- | --- |
//! | `region-worker-kill` | the worker of a supervised datanode gets SIGKILL | its supervisor starts another one |
//! | `region-node-kill` | an unsupervised datanode gets SIGKILL | started again once its regions are elsewhere |
//! | `region-node-blackhole` | a datanode's namespace drops every packet, both ways | after 30 s |
//! | `region-node-and-leader-kill` | an unsupervised datanode and the leader get SIGKILL together | both started again |
//! | `region-migrate` | one region is moved to another node | nothing to heal |
//! | `region-drain` | all regions of a node are moved to other nodes | uncordoned |
//! | `region-procedure-leader-kill` | the leader gets SIGKILL in the middle of a migration or a failover | started again |
//! | `region-half-blackhole` | half of the datanodes are cut off at once | after 30 s |

use std::time::Duration;

/// Longer than the lease of a region, the TTL of a leader, and both together.
const HOLD: Duration = Duration::from_secs(30);

/// What the name of every one of them begins with.
pub const PREFIX: &str = "region-";

/// What can be done to regions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RegionFault {
    /// SIGKILL of a supervised worker.
    WorkerKill,
    /// Moved on purpose.
    Migrate,
    /// A whole node emptied.
    Drain,
    /// SIGKILL of the leader while a procedure is under way.
    ProcedureLeaderKill,
    /// SIGKILL of an unsupervised datanode.
    NodeKill,
    /// A datanode is cut off.
    NodeBlackhole,
    /// SIGKILL of an unsupervised datanode and of the leader.
    NodeAndLeaderKill,
    /// Half of the datanodes are cut off.
    HalfBlackhole,
}

impl RegionFault {
    /// All of them, in the order in which they are tried: those that share a world stand together.
    pub const ALL: [RegionFault; 8] = [
        RegionFault::WorkerKill,
        RegionFault::Migrate,
        RegionFault::Drain,
        RegionFault::ProcedureLeaderKill,
        RegionFault::NodeKill,
        RegionFault::NodeBlackhole,
        RegionFault::NodeAndLeaderKill,
        RegionFault::HalfBlackhole,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            RegionFault::WorkerKill => "region-worker-kill",
            RegionFault::Migrate => "region-migrate",
            RegionFault::Drain => "region-drain",
            RegionFault::ProcedureLeaderKill => "region-procedure-leader-kill",
            RegionFault::NodeKill => "region-node-kill",
            RegionFault::NodeBlackhole => "region-node-blackhole",
            RegionFault::NodeAndLeaderKill => "region-node-and-leader-kill",
            RegionFault::HalfBlackhole => "region-half-blackhole",
        }
    }

    /// The fault of this name, or all whose name begins with it.
    ///
    /// # Errors
    /// There is none; the text lists those that there are.
    pub fn select(name: &str) -> Result<Vec<RegionFault>, String> {
        if let Some(fault) = RegionFault::ALL.into_iter().find(|fault| fault.name() == name) {
            return Ok(vec![fault]);
        }
        let begins = |fault: &RegionFault| fault.name().starts_with(name);
        let selected: Vec<_> = RegionFault::ALL.into_iter().filter(begins).collect();
        if selected.is_empty() {
            let names: Vec<_> = RegionFault::ALL.iter().map(|fault| fault.name()).collect();
            let names = names.join(", ");
            return Err(format!("no fault of regions is called {name:?}, nor begins so; there are {names}"));
        }
        Ok(selected)
    }

    /// How often it is tried where nobody says how often. All of it together takes about twenty minutes.
    pub fn rounds(self) -> usize {
        match self {
            RegionFault::Migrate => 100,
            RegionFault::ProcedureLeaderKill => 50,
            RegionFault::WorkerKill => 20,
            RegionFault::NodeKill => 10,
            RegionFault::NodeBlackhole | RegionFault::NodeAndLeaderKill => 5,
            RegionFault::Drain => 3,
            RegionFault::HalfBlackhole => 2,
        }
    }

    /// Whether the datanodes of its world run under a supervisor that certifies their end.
    pub fn is_supervised(self) -> bool {
        matches!(
            self,
            RegionFault::WorkerKill
                | RegionFault::Migrate
                | RegionFault::Drain
                | RegionFault::ProcedureLeaderKill
        )
    }

    /// How long a black hole is there.
    pub fn hold(self) -> Duration {
        HOLD
    }
}
