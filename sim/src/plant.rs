//! Mistakes that are planted to see whether the simulation finds them: a simulation that never fails proves nothing.
//!
//! They are outside of the code under test, each in place of a rule that it keeps or an assumption that it makes.

use clap::ValueEnum;

/// A mistake.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Plant {
    /// Datanodes' clocks are slower than ρ allows: their rights last longer than their grantors account for.
    SlowNodes,
    /// Replicas' clocks are: leadership lasts longer than the TTL.
    SlowReplicas,
    /// Clocks do not count the time in which a process stands still, as CLOCK_MONOTONIC in a suspended machine.
    SuspendUncounted,
    /// The store does not compare the fence, as if leaders wrote without one.
    Unfenced,
    /// The store does not compare the revisions of what is changed.
    RevisionIgnored,
    /// The store ends leases long before their TTL, as if leadership lasted longer than it.
    LeaseEndsEarly,
}

impl Plant {
    /// All of them.
    pub const ALL: [Plant; 6] = [
        Plant::SlowNodes,
        Plant::SlowReplicas,
        Plant::SuspendUncounted,
        Plant::Unfenced,
        Plant::RevisionIgnored,
        Plant::LeaseEndsEarly,
    ];

    /// Its name, as `--plant` takes it.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}
