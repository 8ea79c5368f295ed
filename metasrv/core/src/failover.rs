//! When a region may be taken from a node, and ([`plan()`]) which regions of lost nodes go where now.
//!
//! When is a question of safety: no process may write any more to what is given to another one (design 03, rule 4). The
//! first row that applies decides; the last one waits for whichever of its two is later, so that nothing but proof of the
//! end makes a wait shorter.
//!
//! | what is known of the process that holds the region | it may be taken | rule |
//! | --- | --- | --- |
//! | no process of the node was ever recorded, so none was granted anything | at once | amendment "Incarnation" |
//! | a certificate of its death | at once | 4c |
//! | its word that it stopped, under this epoch | at once | 4a |
//! | an earlier fenced record that it was cut off, under this epoch | at once | 4d |
//! | nothing | once the last grant of this term that covered the region, and all that earlier terms granted, is over | 4b |

mod explain;
mod plan;

use std::time::Duration;

pub use plan::{Gone, Held, Plan, Situation, Stay, Takeover, Why, plan};

use crate::guard::{Rule, carried, holds};
use crate::id::{Epoch, Incarnation, RegionId};
use crate::time::BootTime;

/// A process that holds a region under an epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Tenure {
    /// The process.
    pub incarnation: Incarnation,
    /// The region.
    pub region: RegionId,
    /// The epoch.
    pub epoch: Epoch,
}

/// Proof that a process has ended, as the shell has verified it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Certificate {
    /// The process that ended.
    pub ended: Incarnation,
    /// How that is known.
    pub proof: Proof,
}

/// How the end of a process is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// Its supervisor reaped it.
    Reaped,
    /// A newer process holds the lock on its data directory, on the same machine since the same boot.
    LockTaken {
        /// The process that has the lock now.
        by: Incarnation,
    },
}

/// What is known about the right to write to one region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Evidence {
    /// When this term last granted the region to the process; `None`: never.
    pub last_grant: Option<BootTime>,
    /// How long a grant of this term may last: [`crate::timing::Timing::grant_wait`].
    pub grant_wait: Duration,
    /// When all that earlier terms granted is over: [`crate::settlement`].
    pub settled_at: BootTime,
    /// Proof of a process's end.
    pub certificate: Option<Certificate>,
    /// What a process confirmed to have stopped writing to, its writes under way ended.
    pub stopped: Option<Tenure>,
    /// What an earlier term recorded as cut off, in a fenced write. It is never granted again.
    pub fenced: Option<Tenure>,
}

/// Whether a region may be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Release {
    /// It may.
    Allowed {
        /// What allows it.
        by: Ground,
    },
    /// It may not before this instant, or without proof.
    NotBefore {
        /// The instant.
        at: BootTime,
        /// What is waited for.
        why: Wait,
    },
}

/// What allows a region to be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ground {
    /// No process of the node was ever granted anything.
    NeverGranted,
    /// The process has ended.
    Ended(Proof),
    /// The process confirmed that it stopped.
    Stopped,
    /// An earlier term had cut it off.
    Fenced,
    /// All that was granted has run out.
    RanOut,
}

/// What is waited for before a region may be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// The last grant of this term.
    OwnGrant,
    /// What earlier terms may have granted.
    EarlierTerms,
}

/// Rule 4: whether the region of `epoch` may be taken from `holder`, the recorded process of its node. See the table above.
pub fn release(
    holder: Option<Incarnation>,
    region: RegionId,
    epoch: Epoch,
    evidence: &Evidence,
    now: BootTime,
) -> Release {
    let Some(incarnation) = holder else { return Release::Allowed { by: Ground::NeverGranted } };
    let tenure = Tenure { incarnation, region, epoch };
    if let Some(proof) = proof_of_end(incarnation, evidence.certificate) {
        return Release::Allowed { by: Ground::Ended(proof) };
    }
    if evidence.stopped.is_some_and(|stopped| is_word_for(stopped, tenure)) {
        return Release::Allowed { by: Ground::Stopped };
    }
    if evidence.fenced == Some(tenure) {
        return Release::Allowed { by: Ground::Fenced };
    }
    let own = evidence.last_grant.map_or(BootTime::ZERO, |granted| granted + evidence.grant_wait);
    let own = carried(Rule::MoveWaitsForGrants, own, || BootTime::ZERO);
    let settled_at = carried(Rule::MoveWaitsForTerms, evidence.settled_at, || BootTime::ZERO);
    let at = own.max(settled_at);
    if now >= at {
        return Release::Allowed { by: Ground::RanOut };
    }
    let why = if own >= settled_at { Wait::OwnGrant } else { Wait::EarlierTerms };
    Release::NotBefore { at, why }
}

/// What the certificate proves of this process. One of another process proves nothing, nor does a lock that it has itself.
fn proof_of_end(incarnation: Incarnation, certificate: Option<Certificate>) -> Option<Proof> {
    let Certificate { ended, proof } = certificate?;
    let proves = match proof {
        Proof::Reaped => true,
        Proof::LockTaken { by } => by != incarnation,
    };
    (proves && holds(Rule::CertificateOfTheHolder, ended == incarnation)).then_some(proof)
}

/// Whether what a process confirmed to have stopped is what is asked about.
fn is_word_for(stopped: Tenure, asked: Tenure) -> bool {
    stopped.region == asked.region
        && holds(Rule::StoppedUnderThisEpoch, stopped.epoch == asked.epoch)
        && stopped.incarnation == asked.incarnation
}

#[cfg(test)]
#[path = "failover_tests.rs"]
mod tests;
