//! The lease of all regions at once: one deadline, so that a heartbeat renews ten thousand regions as it renews ten.
//!
//! metasrv answers a request that states the digest of all regions with "all renewed, but these". What that is worth:
//!
//! - It counts from the send time of that request, which was remembered here with the version and the digest of the set. An
//!   answer that names another set was never asked for, and is refused.
//! - A region takes it only if it is held unchanged since a version that is not above the answer's: see [`SetLease::covers`].
//! - A region that the answer leaves out *stands apart*: it keeps what it was granted before, and takes nothing more from here,
//!   until an answer does not leave it out.
//! - The deadline and the version only ever move forward, and together. An answer that would move one of them back (it is
//!   late, or a later leader grants shorter leases) is taken for each region by itself instead.
//! - On one stream an answer of a lower revision of the routes than one that was taken renews nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metasrv_core::digest::Digest;
use metasrv_core::id::RegionId;
use metasrv_core::time::BootTime;
use metasrv_core::timing;
use metasrv_proto::admin::RenewedSet;

use crate::countdown::Granted;
use crate::open_regions::OpenRegions;

/// Requests whose answers may still come: reports of changes go out each 20 ms at most, so these are more than a second's.
const MOST_SENT: usize = 64;

/// Read by each region's countdown, whenever it is asked what it may do.
#[derive(Default, Debug)]
pub(crate) struct SetLease {
    until: AtomicU64,
    version: AtomicU64,
}

impl SetLease {
    /// Until when all that is covered may be written to; [`BootTime::ZERO`] where nothing was ever granted.
    pub(crate) fn until(&self) -> BootTime {
        BootTime::from_nanos(self.until.load(Ordering::Acquire))
    }

    /// Whether a region is covered that is held unchanged since this version.
    pub(crate) fn covers(&self, since_version: u64) -> bool {
        since_version <= self.version.load(Ordering::Acquire)
    }

    fn covers_no_more_than(&self, version: u64) -> bool {
        self.version.load(Ordering::Acquire) <= version
    }

    fn advance(&self, version: u64, until: BootTime) {
        // A reader between the two finds the later version with the earlier deadline: what it covers is granted already.
        self.version.store(version, Ordering::Release);
        self.until.store(until.as_nanos(), Ordering::Release);
    }
}

/// A set as a request stated it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sent {
    pub(crate) duration_ms: u64,
    pub(crate) version: u64,
    pub(crate) digest: Digest,
}

/// Takes answers. One at a time: whoever has this has the lock of it.
#[derive(Default)]
pub(crate) struct SetGrants {
    /// The latest requests.
    sent: VecDeque<Sent>,
    /// The term and the revision of the latest answer.
    latest: (u64, u64),
    /// Regions that the last answer left out.
    apart: BTreeSet<RegionId>,
    /// Regions that no answer has covered yet since they are held as they are, with the version since when.
    uncovered: BTreeMap<RegionId, u64>,
}

/// An answer.
pub(crate) struct Answer<'a> {
    pub(crate) term: u64,
    /// As the answer has it from its request.
    pub(crate) duration_ms: u64,
    /// The instant that this stands for.
    pub(crate) sent_at: BootTime,
    pub(crate) length: Duration,
    pub(crate) renewed: &'a RenewedSet,
}

impl SetGrants {
    /// A stream begins: its answers have revisions of their own. Those of the one before are not heard any more.
    pub(crate) fn new_stream(&mut self) {
        self.latest.1 = 0;
    }

    /// A request goes out.
    pub(crate) fn send(&mut self, sent: Sent) {
        if self.sent.len() >= MOST_SENT {
            self.sent.pop_front();
        }
        self.sent.push_back(sent);
    }

    /// A region is held in this way since this version.
    pub(crate) fn changed(&mut self, region: RegionId, version: u64) {
        self.uncovered.insert(region, version);
    }

    /// It is not open any more.
    pub(crate) fn closed(&mut self, region: RegionId) {
        self.uncovered.remove(&region);
        self.apart.remove(&region);
    }

    /// Takes an answer; puts regions into `revived` that may have become writable, or have a deadline of their own now.
    ///
    /// # Errors
    /// It names a set that no request stated.
    pub(crate) fn take(
        &mut self,
        answer: &Answer<'_>,
        lease: &SetLease,
        open: &OpenRegions,
        now: BootTime,
        revived: &mut BTreeSet<RegionId>,
    ) -> Result<(), String> {
        let Answer { term, duration_ms, sent_at, length, renewed } = *answer;
        let RenewedSet { version, revision, .. } = *renewed;
        let digest = Digest { sum: renewed.digest, count: renewed.count };
        let named = Sent { duration_ms, version, digest };
        if !self.sent.iter().rev().any(|sent| *sent == named) {
            return Err(format!(
                "renews the regions of version {version} at {duration_ms} ms, which no late request stated"
            ));
        }
        if (term, revision) < self.latest {
            tracing::debug!(term, revision, "an answer is older than one that was taken: it renews nothing");
            return Ok(());
        }
        self.latest = (term, revision);
        let except: BTreeSet<RegionId> = renewed.except_region_ids.iter().copied().map(RegionId).collect();
        let until = sent_at + timing::usable_lease(length);
        if until < lease.until() || !lease.covers_no_more_than(version) {
            one_by_one(open, &except, version, until, revived);
            return Ok(());
        }
        let was_valid = lease.until() > now;
        for (region, handle) in except.iter().filter_map(|region| Some((region, open.get(*region)?))) {
            handle.stand_apart();
            revived.insert(*region);
        }
        lease.advance(version, until);
        for region in self.apart.difference(&except) {
            if let Some(handle) = open.get(*region) {
                handle.rejoin();
            }
            revived.insert(*region);
        }
        self.apart = except;
        self.uncovered.retain(|region, since| {
            let covered = *since <= version;
            if covered {
                revived.insert(*region);
            }
            !covered
        });
        if !was_valid && until > now {
            revived.extend(open.iter().map(|(region, _)| *region));
        }
        Ok(())
    }
}

/// Each region by itself, as if it had been listed.
fn one_by_one(
    open: &OpenRegions,
    except: &BTreeSet<RegionId>,
    version: u64,
    until: BootTime,
    revived: &mut BTreeSet<RegionId>,
) {
    for (region, handle) in open.iter().filter(|(region, _)| !except.contains(region)) {
        if handle.grant_by_set(version, until) == Granted::Revived {
            revived.insert(*region);
        }
    }
}

#[cfg(test)]
#[path = "set_lease_tests.rs"]
mod tests;
