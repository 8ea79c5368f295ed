//! What a heartbeat says of the regions: all of them, or the digest of all and those of which there is something to say.
//!
//! A heartbeat that lists no more than it has to lists a region where
//!
//! - metasrv does not know yet how it is held: it was opened, closed, stopped, or its epoch was raised;
//! - its figures differ from the last ones that were listed by more than a threshold, as far as a heartbeat has room;
//! - its turn has come: within the full report interval each region is listed once, a few with each heartbeat.
//!
//! The sums over all regions are in each heartbeat, so that nothing of them is lost.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use metasrv_core::digest::Digest;
use metasrv_core::id::RegionId;
use metasrv_core::procedure::instruction::HeldAs;
use metasrv_proto::admin::RegionSet;
use metasrv_proto::meta;

use crate::countdown::CountdownTaskHandle;
use crate::open_regions::OpenRegions;
use crate::region_server::{RegionRole, RegionStat};

/// Regions that one heartbeat lists because their figures have changed; the others follow with the next ones.
const MOST_CHANGED: usize = 50;

/// A figure has changed if it differs by more than an eighth of what was listed last, and by more than this.
const LEAST_UNITS: i64 = 16;
/// The same for bytes.
const LEAST_BYTES: i64 = 1 << 20;

/// Which figures were listed, and whose turn it is.
pub(crate) struct RegionReport {
    /// Each region is listed at least once in so long.
    full_interval: Duration,
    listed: HashMap<RegionId, Figures>,
    /// The last region whose turn it was.
    turn: Option<RegionId>,
    /// Regions that are owed their turn, times the full interval's milliseconds.
    owed: u128,
    /// When regions were given their turn last, in milliseconds since the keeper's begin.
    turned_at_ms: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Figures {
    rcus: i64,
    wcus: i64,
    bytes: i64,
}

impl Figures {
    fn of(stat: &RegionStat) -> Figures {
        Figures { rcus: stat.rcus, wcus: stat.wcus, bytes: stat.approximate_bytes }
    }

    fn plus(self, other: Figures) -> Figures {
        Figures {
            rcus: self.rcus.saturating_add(other.rcus.max(0)),
            wcus: self.wcus.saturating_add(other.wcus.max(0)),
            bytes: self.bytes.saturating_add(other.bytes.max(0)),
        }
    }

    fn differ(self, listed: Figures) -> bool {
        let differ = |now: i64, then: i64, least: i64| {
            let difference = now.saturating_sub(then).saturating_abs();
            difference > least && difference > then / 8
        };
        differ(self.rcus, listed.rcus, LEAST_UNITS)
            || differ(self.wcus, listed.wcus, LEAST_UNITS)
            || differ(self.bytes, listed.bytes, LEAST_BYTES)
    }
}

/// What is said of the regions.
pub(crate) type Said = (Vec<meta::RegionStat>, RegionSet);

impl RegionReport {
    /// Lists each region at least once in so long.
    pub(crate) fn new(full_interval: Duration) -> RegionReport {
        RegionReport { full_interval, listed: HashMap::new(), turn: None, owed: 0, turned_at_ms: 0 }
    }

    /// Says all of it.
    pub(crate) fn complete(&mut self, open: &mut OpenRegions, stats: Vec<RegionStat>, now_ms: u64) -> Said {
        open.take_unsaid();
        (self.owed, self.turned_at_ms) = (0, now_ms);
        let stats: HashMap<RegionId, RegionStat> =
            stats.into_iter().map(|stat| (stat.region, stat)).collect();
        let unknown = RegionStat::default();
        let (mut sums, mut listed) = (Figures::default(), Vec::with_capacity(open.len()));
        self.listed.clear();
        for (region, handle) in open.iter() {
            let stat = stats.get(region).unwrap_or(&unknown);
            sums = sums.plus(Figures::of(stat));
            self.listed.insert(*region, Figures::of(stat));
            listed.push(described(*region, handle, stat));
        }
        (listed, set(open, sums, true, Vec::new()))
    }

    /// Says what there is to say.
    pub(crate) fn changes(&mut self, open: &mut OpenRegions, stats: Vec<RegionStat>, now_ms: u64) -> Said {
        let unsaid = open.take_unsaid();
        let closed: Vec<RegionId> =
            unsaid.iter().copied().filter(|region| open.get(*region).is_none()).collect();
        for region in &closed {
            self.listed.remove(region);
        }
        let mut to_list: BTreeSet<RegionId> = unsaid;
        self.take_turns(open, now_ms, &mut to_list);
        let mut room = MOST_CHANGED;
        let mut sums = Figures::default();
        let mut known: HashMap<RegionId, RegionStat> = HashMap::new();
        for stat in stats {
            if open.get(stat.region).is_none() {
                continue;
            }
            let figures = Figures::of(&stat);
            sums = sums.plus(figures);
            let is_due = to_list.contains(&stat.region);
            let listed = self.listed.get(&stat.region).copied().unwrap_or_default();
            if is_due || (room > 0 && figures.differ(listed)) {
                room = room.saturating_sub(usize::from(!is_due));
                to_list.insert(stat.region);
                self.listed.insert(stat.region, figures);
                known.insert(stat.region, stat);
            }
        }
        let unknown = RegionStat::default();
        let describe = |region: &RegionId| {
            let handle = open.get(*region)?;
            Some(described(*region, handle, known.get(region).unwrap_or(&unknown)))
        };
        (to_list.iter().filter_map(describe).collect(), set(open, sums, false, closed))
    }

    /// Those whose turn it is.
    fn take_turns(&mut self, open: &OpenRegions, now_ms: u64, to_list: &mut BTreeSet<RegionId>) {
        let elapsed = u128::from(now_ms.saturating_sub(self.turned_at_ms));
        self.turned_at_ms = now_ms;
        let full = self.full_interval.as_millis().max(1);
        let regions = u128::try_from(open.len()).unwrap_or(u128::MAX);
        self.owed = self.owed.saturating_add(regions.saturating_mul(elapsed));
        let due = usize::try_from(self.owed / full).unwrap_or(usize::MAX).min(open.len());
        self.owed %= full;
        let before = to_list.len();
        let mut given = 0_usize;
        for region in open.after(self.turn).take(due) {
            to_list.insert(*region);
            (self.turn, given) = (Some(*region), given.saturating_add(1));
        }
        if given < due {
            for region in open.after(None).take(due.saturating_sub(given)) {
                to_list.insert(*region);
                self.turn = Some(*region);
            }
        }
        tracing::trace!(due, listed = to_list.len().saturating_sub(before), "regions have their turn");
    }
}

fn set(open: &OpenRegions, sums: Figures, complete: bool, closed: Vec<RegionId>) -> RegionSet {
    let Digest { sum, count } = open.digest();
    RegionSet {
        digest: sum,
        count,
        version: open.version(),
        complete,
        closed_region_ids: closed.into_iter().map(|region| region.0).collect(),
        rcus: sums.rcus,
        wcus: sums.wcus,
        approximate_bytes: sums.bytes,
    }
}

fn described(region: RegionId, handle: &CountdownTaskHandle, stat: &RegionStat) -> meta::RegionStat {
    let role = match handle.role() {
        RegionRole::Leader => meta::RegionRole::Leader,
        RegionRole::Follower => meta::RegionRole::Follower,
        RegionRole::Downgrading => meta::RegionRole::DowngradingLeader,
    };
    let held = handle.held();
    meta::RegionStat {
        region_id: region.0,
        rcus: stat.rcus,
        wcus: stat.wcus,
        approximate_bytes: stat.approximate_bytes,
        engine: stat.engine.clone(),
        role: role.into(),
        epoch: held.epoch.0,
        candidate: held.role == HeldAs::Candidate,
        ..meta::RegionStat::default()
    }
}
