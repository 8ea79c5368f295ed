//! What one heartbeat renews, opens and closes: by the list of regions that it carries, or by the digest of all of them.

use std::collections::BTreeMap;
use std::time::Duration;

use metasrv_core::digest::Digest;
use metasrv_core::grant::Reported;
use metasrv_core::holdings::Holdings;
use metasrv_core::id::{Incarnation, NodeKey, RegionId};
use metasrv_core::procedure::instruction::{Held, Report};
use metasrv_core::time::BootTime;
use metasrv_proto::admin::RegionSet;
use metasrv_proto::meta::RegionStat;

use super::Leader;
use super::holding::held;
use super::node::Node;
use super::region::Region;
use super::registrar::Request;

/// What one heartbeat grants.
pub struct Granted {
    /// Renewed, under these epochs.
    pub renewed: Vec<Reported>,
    /// To be closed: no route names them.
    pub closeable: Vec<RegionId>,
    /// To be opened under these epochs.
    pub to_open: Vec<Reported>,
    /// Length of the lease.
    pub lease: Duration,
}

/// What one heartbeat grants that states the digest of all regions.
pub enum GrantedSet {
    /// Nothing now: the process may be granted nothing, or this leader may grant nothing any more.
    Nothing,
    /// The process has to say first what it holds.
    ListWanted,
    /// A list that does not fit to its own digest: it is taken for itself.
    Misstated,
    /// All that it holds to lead, but `except`.
    Renewed {
        /// How many.
        count: usize,
        /// These are not.
        except: Vec<RegionId>,
        /// Of the routes that it was compared with.
        revision: u64,
        /// To be closed: no route names them.
        closeable: Vec<RegionId>,
        /// To be opened under these epochs.
        to_open: Vec<Reported>,
        /// Length of the lease.
        lease: Duration,
    },
}

impl Leader {
    /// Compares what a process holds with the routes and renews what matches. `None` where the process may be
    /// granted nothing now, or this leader may grant nothing any more.
    pub fn grant(&self, node: &NodeKey, process: Incarnation, reported: Vec<Reported>) -> Option<Granted> {
        let mut entry = self.nodes.get_mut(node)?;
        let entry = &mut *entry;
        let now = self.may_grant(entry, process)?;
        let decision = entry.regions.grant_list(reported, &entry.kept_open, now);
        if !decision.renew.is_empty() {
            entry.holder.granted(now);
        }
        let to_open = self.follow_up(node, entry, decision.open, decision.ahead, now);
        Some(Granted {
            renewed: decision.renew,
            closeable: decision.close,
            to_open,
            lease: self.timing.region_lease,
        })
    }

    /// The same for a process that states the digest of all that it holds. `stats` are those of all its regions, or of those
    /// that have changed; each costs something, and beside them nothing does.
    pub fn grant_set(
        &self,
        node: &NodeKey,
        process: Incarnation,
        set: &RegionSet,
        stats: &[RegionStat],
        now: BootTime,
    ) -> GrantedSet {
        let Some(mut entry) = self.nodes.get_mut(node) else { return GrantedSet::Nothing };
        let entry = &mut *entry;
        let is_known = take_note(&mut entry.regions, process, set, stats);
        if is_known && !entry.watched.is_empty() && entry.holder.current() == Some(process) {
            let regions = &entry.regions;
            if note(&mut entry.watched, |region| regions.holds(region), now) {
                self.control.wake_procedures();
            }
        }
        let Some(now) = self.may_grant(entry, process) else { return GrantedSet::Nothing };
        let Some(decision) = entry.regions.grant_set(&entry.kept_open, now) else {
            return if set.complete { GrantedSet::Misstated } else { GrantedSet::ListWanted };
        };
        if decision.renewed > 0 {
            entry.holder.granted(now);
        }
        GrantedSet::Renewed {
            count: decision.renewed,
            except: decision.except,
            revision: decision.revision,
            closeable: decision.close,
            to_open: self.follow_up(node, entry, decision.open, decision.ahead, now),
            lease: self.timing.region_lease,
        }
    }

    /// Whether this process of a node may be granted anything, as far as it depends on the process.
    pub fn may_be_granted(&self, node: &NodeKey, process: Incarnation) -> bool {
        self.nodes.get(node).is_some_and(|entry| !entry.recording && entry.holder.may_be_granted(process))
    }

    /// The instant of a grant. Leadership is compared with the clock here, at that moment, and not before.
    fn may_grant(&self, entry: &Node, process: Incarnation) -> Option<BootTime> {
        let now = self.clock.now();
        (self.leads(now) && !entry.recording && entry.holder.may_be_granted(process)).then_some(now)
    }

    /// What is to be opened now; and what the node holds under higher epochs is raised.
    fn follow_up(
        &self,
        node: &NodeKey,
        entry: &mut Node,
        open: Vec<Reported>,
        ahead: Vec<Reported>,
        now: BootTime,
    ) -> Vec<Reported> {
        let patience = self.heartbeat_interval().saturating_mul(3);
        let to_open = entry.openings.next(open, patience, now);
        if !ahead.is_empty() && !entry.recording {
            self.ask_to_raise(node, entry, ahead);
        }
        to_open
    }

    /// Whether a node holds a lease for a region that this leader granted.
    pub fn is_writable(&self, node: &Node, region: RegionId, now: BootTime) -> bool {
        node.regions.granted_at(&region).is_some_and(|granted| now.since(granted) < self.timing.region_lease)
    }

    /// A node holds regions under higher epochs than the routes have: the store was set back.
    fn ask_to_raise(&self, node: &NodeKey, entry: &mut Node, ahead: Vec<Reported>) {
        tracing::warn!(
            term = %self.term, %node, regions = ahead.len(),
            "the node holds regions under higher epochs than their routes: the store was set back; raising the routes'"
        );
        if self.registrar.try_send(Request::RaiseAbove { node: *node, held: ahead }).is_ok() {
            entry.recording = true;
        }
    }
}

/// What a process says of its set. `false`: it is not known what it holds.
fn take_note(
    regions: &mut Holdings<Region>,
    process: Incarnation,
    set: &RegionSet,
    stats: &[RegionStat],
) -> bool {
    let stated = Digest { sum: set.digest, count: set.count };
    if set.complete {
        let all = stats.iter().map(|stat| (RegionId(stat.region_id), held(stat)));
        return regions.listed(process, all, stated);
    }
    let changed = stats.iter().map(|stat| (RegionId(stat.region_id), Some(held(stat))));
    let closed = set.closed_region_ids.iter().map(|region| (RegionId(*region), None));
    regions.changed(process, closed.chain(changed), stated)
}

/// Remembers how the regions are held that somebody wants to hear of. Whether anything of it is news.
pub(super) fn note(
    watched: &mut BTreeMap<RegionId, Option<Report>>,
    held: impl Fn(RegionId) -> Option<Held>,
    now: BootTime,
) -> bool {
    let mut news = false;
    for (region, known) in watched {
        let held = held(*region);
        news |= known.is_none_or(|known| known.held != held);
        *known = Some(Report { at: now, held });
    }
    news
}
