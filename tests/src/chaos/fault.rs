//! The faults, by the names that `FAULT=` takes.
//!
//! | fault | what happens | healed |
//! | --- | --- | --- |
//! | `leader-kill` | the leader gets SIGKILL | started again once another one leads |
//! | `leader-term` | the leader gets SIGTERM | the same |
//! | `leader-transfer` | the leader is asked to hand over | nothing to heal |
//! | `leader-hang` | SIGSTOP | SIGCONT after the hold |
//! | `leader-blackhole` | its namespace drops every packet, both ways | after the hold |
//! | `leader-blackhole-in` | every packet that comes in | after the hold |
//! | `leader-blackhole-out` | every packet that goes out | after the hold |
//! | `leader-blocked` | the loop of its election stands still; the rest of the process goes on | after the hold |
//! | `etcd-leader-kill` | etcd's leader gets SIGKILL | started again after the hold |
//! | `etcd-member-blackhole` | an etcd member that does not lead is cut off | after the hold |
//! | `etcd-leader-blackhole` | etcd's leader is cut off | after the hold |
//! | `etcd-and-leader-kill` | etcd's leader and ours get SIGKILL together | both started again |
//! | `etcd-quorum-loss` | two of three etcd members get SIGSTOP | SIGCONT after 30 s |
//! | `etcd-nospace` | etcd is filled up to its quota, heartbeats go on, then our leader gets SIGKILL | compacted, defragmented, alarm off |

use std::time::Duration;

/// A hang, a black hole: longer than the TTL of a leader, so that the old leader wakes as one that is deposed.
const HOLD: Duration = Duration::from_secs(8);

/// Without quorum: longer than everything that anybody was granted.
const NO_QUORUM: Duration = Duration::from_secs(30);

/// What can be done to the system.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Fault {
    /// SIGKILL.
    LeaderKill,
    /// SIGTERM.
    LeaderTerm,
    /// Asked to hand over.
    LeaderTransfer,
    /// SIGSTOP, then SIGCONT.
    LeaderHang,
    /// Cut off.
    LeaderBlackhole,
    /// Nothing comes in.
    LeaderBlackholeIn,
    /// Nothing goes out.
    LeaderBlackholeOut,
    /// Its control loop stands still.
    LeaderBlocked,
    /// etcd's leader gets SIGKILL.
    EtcdLeaderKill,
    /// A member of etcd that does not lead is cut off.
    EtcdMemberBlackhole,
    /// etcd's leader is cut off.
    EtcdLeaderBlackhole,
    /// etcd's leader and ours get SIGKILL.
    EtcdAndLeaderKill,
    /// Two of three members of etcd stand still.
    EtcdQuorumLoss,
    /// etcd is full.
    EtcdNospace,
}

impl Fault {
    /// All of them, in the order in which they are tried.
    pub const ALL: [Fault; 14] = [
        Fault::LeaderKill,
        Fault::LeaderTerm,
        Fault::LeaderTransfer,
        Fault::LeaderHang,
        Fault::LeaderBlackhole,
        Fault::LeaderBlackholeIn,
        Fault::LeaderBlackholeOut,
        Fault::LeaderBlocked,
        Fault::EtcdLeaderKill,
        Fault::EtcdMemberBlackhole,
        Fault::EtcdLeaderBlackhole,
        Fault::EtcdAndLeaderKill,
        Fault::EtcdQuorumLoss,
        Fault::EtcdNospace,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Fault::LeaderKill => "leader-kill",
            Fault::LeaderTerm => "leader-term",
            Fault::LeaderTransfer => "leader-transfer",
            Fault::LeaderHang => "leader-hang",
            Fault::LeaderBlackhole => "leader-blackhole",
            Fault::LeaderBlackholeIn => "leader-blackhole-in",
            Fault::LeaderBlackholeOut => "leader-blackhole-out",
            Fault::LeaderBlocked => "leader-blocked",
            Fault::EtcdLeaderKill => "etcd-leader-kill",
            Fault::EtcdMemberBlackhole => "etcd-member-blackhole",
            Fault::EtcdLeaderBlackhole => "etcd-leader-blackhole",
            Fault::EtcdAndLeaderKill => "etcd-and-leader-kill",
            Fault::EtcdQuorumLoss => "etcd-quorum-loss",
            Fault::EtcdNospace => "etcd-nospace",
        }
    }

    /// The fault of this name, or all whose name begins with it. Every fault where nothing is named.
    ///
    /// # Errors
    /// There is none; the text lists those that there are.
    pub fn select(name: &str) -> Result<Vec<Fault>, String> {
        if let Some(fault) = Fault::ALL.into_iter().find(|fault| fault.name() == name) {
            return Ok(vec![fault]);
        }
        let selected: Vec<_> =
            Fault::ALL.into_iter().filter(|fault| fault.name().starts_with(name)).collect();
        if selected.is_empty() {
            let names: Vec<_> = Fault::ALL.iter().map(|fault| fault.name()).collect();
            return Err(format!(
                "no fault is called {name:?}, nor begins so; there are {}",
                names.join(", ")
            ));
        }
        Ok(selected)
    }

    /// How often it is tried where nobody says how often: twenty times, where a round is short or its target speaks of
    /// twenty rounds. All of it together takes just under half an hour.
    pub fn rounds(self) -> usize {
        match self {
            Fault::LeaderKill
            | Fault::LeaderTerm
            | Fault::LeaderTransfer
            | Fault::EtcdLeaderKill
            | Fault::EtcdMemberBlackhole => 20,
            Fault::LeaderBlackholeIn | Fault::LeaderBlackholeOut => 3,
            Fault::EtcdQuorumLoss => 2,
            Fault::EtcdNospace => 1,
            _ => 5,
        }
    }

    /// How long it lasts before it is healed, or watched, where nothing has to be healed.
    pub fn hold(self) -> Duration {
        match self {
            Fault::EtcdQuorumLoss => NO_QUORUM,
            // An election among etcd's members takes up to 3 s; what it leads to shows within the TTL of 5 s.
            _ => HOLD,
        }
    }

    /// Whether the old leader lives on when the next one begins. It was not asked before, so it may grant what it could
    /// grant until its own deadline. See `ledger.rs`.
    pub fn deposes_the_living(self) -> bool {
        matches!(
            self,
            Fault::LeaderHang
                | Fault::LeaderBlackhole
                | Fault::LeaderBlackholeIn
                | Fault::LeaderBlackholeOut
                | Fault::LeaderBlocked
        )
    }

    /// Whether another leader is expected after it.
    pub fn replaces_the_leader(self) -> bool {
        !matches!(self, Fault::EtcdLeaderKill | Fault::EtcdMemberBlackhole | Fault::EtcdLeaderBlackhole)
    }

    /// Whether it needs a world of its own: an etcd that is small enough to be filled.
    pub fn needs_a_small_etcd(self) -> bool {
        self == Fault::EtcdNospace
    }
}
