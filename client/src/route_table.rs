//! What a route cache knows, and how each message of a replica changes it. No I/O and no clock here.
//!
//! | a message | what becomes of it |
//! | --- | --- |
//! | a part of a snapshot | put aside; readers go on with what was known before, until it is complete |
//! | the last part | takes the place of everything, at once |
//! | changes | taken in their order; what is dropped counts after what is changed |
//! | changes of a lower revision, or with a lower epoch | refused, all of them: the stream is left, and another begun from the beginning |
//! | a snapshot of a lower revision than what is known | refused, unless the replica was told what we know: it has proof then that the store was set back. Who refused one tells the next replica |

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use metasrv_proto::admin::{self, WatchRoutesResponse};

/// A snapshot that differs in more routes than this is told as a whole.
const TOLD_ONE_BY_ONE: usize = 1_024;

/// Labels and addresses that are kept without looking which are still in use.
const TEXTS: usize = 1_024;

/// Who leads a region.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// The region.
    pub region_id: u64,
    /// The datanode that leads it.
    pub node_id: u64,
    /// Where that is reached, `host:port`. Empty: not known yet.
    pub node_addr: Arc<str>,
    /// The epoch under which it leads.
    pub epoch: u64,
    /// The label of the group that the region belongs to. Empty: none.
    pub group: Arc<str>,
    /// The store's revision of the change that made it so.
    pub revision: u64,
    /// How it stands, as far as is stored.
    pub state: RouteState,
    /// Datanodes that have it open, or are opening it, without the right to write: the one that it is being moved to.
    pub followers: Vec<RouteFollower>,
}

/// How a region stands, as far as is stored. Only its datanode knows whether it may write.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum RouteState {
    /// A replica of an older version, or of a newer one, says something else.
    #[default]
    Unknown,
    /// Its datanode leads it.
    Serving,
    /// It is being moved. For some milliseconds of that nobody may write.
    Moving,
    /// Its datanode's process has certainly ended: it is about to be led by another one.
    LeaderEnded,
}

/// A datanode that has a region open without the right to write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RouteFollower {
    /// The datanode.
    pub node_id: u64,
    /// Where that is reached, `host:port`. Empty: not known yet.
    pub node_addr: Arc<str>,
}

/// Something has changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RouteChange {
    /// A region is led like this from now on.
    Changed(Route),
    /// A region is gone.
    Dropped {
        /// Which.
        region_id: u64,
    },
    /// More than can be told one by one: look at all of it again.
    Replaced,
}

/// Why a message was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("revision {theirs} after {ours}")]
    LowerRevision { ours: u64, theirs: u64 },
    #[error("a snapshot of revision {theirs} after {ours}, of a replica that was not told of the latter")]
    LowerSnapshot { ours: u64, theirs: u64 },
    #[error("region {region_id}: epoch {theirs} after {ours}")]
    LowerEpoch { region_id: u64, ours: u64, theirs: u64 },
    #[error("changes in the middle of a snapshot")]
    HalfASnapshot,
}

/// See the module.
#[derive(Default)]
pub(crate) struct RouteTable {
    routes: HashMap<u64, Route>,
    revision: u64,
    /// A snapshot that is not complete yet.
    staged: Option<HashMap<u64, Route>>,
    /// The replica knows our revision: it may tell us of a lower one.
    informed: bool,
    texts: HashSet<Arc<str>>,
    /// So many texts were in use when it was looked.
    in_use: usize,
    set_backs: u64,
    snapshots: u64,
}

impl RouteTable {
    pub(crate) fn get(&self, region_id: u64) -> Option<&Route> {
        self.routes.get(&region_id)
    }

    pub(crate) fn routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.values()
    }

    pub(crate) fn len(&self) -> usize {
        self.routes.len()
    }

    /// All changes up to here are known. 0: nothing is.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// How often a snapshot had a lower revision, or a lower epoch, than what was known.
    pub(crate) fn set_backs(&self) -> u64 {
        self.set_backs
    }

    /// Snapshots that were taken.
    pub(crate) fn snapshots(&self) -> u64 {
        self.snapshots
    }

    /// A new stream was asked for what comes after this revision; what an earlier one left half done is void.
    pub(crate) fn begin(&mut self, after: u64) {
        self.staged = None;
        self.informed = after >= self.revision;
    }

    /// Takes a message; returns what readers are told of it.
    pub(crate) fn take(&mut self, message: WatchRoutesResponse) -> Result<Vec<RouteChange>, Refusal> {
        let WatchRoutesResponse { revision, snapshot, complete, changed, dropped_region_ids, .. } = message;
        if !snapshot {
            return self.change(revision, changed, dropped_region_ids);
        }
        let mut staged = self.staged.take().unwrap_or_default();
        for route in changed {
            let route = self.route(route);
            staged.insert(route.region_id, route);
        }
        for region_id in dropped_region_ids {
            staged.remove(&region_id);
        }
        if complete {
            return self.replace(revision, staged);
        }
        self.staged = Some(staged);
        Ok(Vec::new())
    }

    fn change(
        &mut self,
        revision: u64,
        changed: Vec<admin::Route>,
        dropped: Vec<u64>,
    ) -> Result<Vec<RouteChange>, Refusal> {
        if self.staged.is_some() {
            return Err(Refusal::HalfASnapshot);
        }
        if revision < self.revision {
            return Err(Refusal::LowerRevision { ours: self.revision, theirs: revision });
        }
        // All of them or none: half a message is no state that the store ever had.
        let mut epochs = HashMap::new();
        for admin::Route { region_id, epoch, .. } in &changed {
            let known = epochs.get(region_id).copied();
            let ours = known.or_else(|| self.get(*region_id).map(|route| route.epoch)).unwrap_or(0);
            if *epoch < ours {
                return Err(Refusal::LowerEpoch { region_id: *region_id, ours, theirs: *epoch });
            }
            epochs.insert(*region_id, *epoch);
        }
        let mut told = Vec::with_capacity(changed.len().saturating_add(dropped.len()));
        for route in changed {
            let route = self.route(route);
            self.routes.insert(route.region_id, route.clone());
            told.push(RouteChange::Changed(route));
        }
        for region_id in dropped {
            if self.routes.remove(&region_id).is_some() {
                told.push(RouteChange::Dropped { region_id });
            }
        }
        self.revision = revision;
        self.informed = true;
        Ok(told)
    }

    fn replace(&mut self, revision: u64, staged: HashMap<u64, Route>) -> Result<Vec<RouteChange>, Refusal> {
        if revision < self.revision && !self.informed {
            return Err(Refusal::LowerSnapshot { ours: self.revision, theirs: revision });
        }
        let went_back =
            |route: &Route| self.get(route.region_id).is_some_and(|before| route.epoch < before.epoch);
        if revision < self.revision || staged.values().any(went_back) {
            self.set_backs = self.set_backs.saturating_add(1);
        }
        let changed = staged.values().filter(|route| self.get(route.region_id) != Some(route));
        let mut told: Vec<RouteChange> = changed.cloned().map(RouteChange::Changed).collect();
        let dropped = self.routes.keys().filter(|region_id| !staged.contains_key(region_id));
        told.extend(dropped.map(|region_id| RouteChange::Dropped { region_id: *region_id }));
        if told.len() > TOLD_ONE_BY_ONE {
            told = vec![RouteChange::Replaced];
        }
        self.routes = staged;
        self.revision = revision;
        self.informed = true;
        self.snapshots = self.snapshots.saturating_add(1);
        Ok(told)
    }

    fn route(&mut self, route: admin::Route) -> Route {
        let state = match route.state() {
            admin::RouteState::Unspecified => RouteState::Unknown,
            admin::RouteState::Serving => RouteState::Serving,
            admin::RouteState::Moving => RouteState::Moving,
            admin::RouteState::LeaderEnded => RouteState::LeaderEnded,
        };
        let followers = route.followers.iter().map(|follower| {
            let node_addr = self.text(&follower.node_addr);
            RouteFollower { node_id: follower.node_id, node_addr }
        });
        let followers = followers.collect();
        Route {
            region_id: route.region_id,
            node_id: route.node_id,
            node_addr: self.text(&route.node_addr),
            epoch: route.epoch,
            group: self.text(&route.group),
            revision: route.revision,
            state,
            followers,
        }
    }

    /// One copy of each address and each label.
    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        if self.texts.len() > TEXTS.max(self.in_use.saturating_mul(2)) {
            self.texts.retain(|text| Arc::strong_count(text) > 1);
            self.in_use = self.texts.len();
        }
        let text: Arc<str> = Arc::from(text);
        self.texts.insert(Arc::clone(&text));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(region_id: u64, node_id: u64, epoch: u64) -> admin::Route {
        let node_addr = format!("n{node_id}:1");
        admin::Route { region_id, node_id, node_addr, epoch, ..admin::Route::default() }
    }

    fn changes(revision: u64, changed: Vec<admin::Route>, dropped: &[u64]) -> WatchRoutesResponse {
        let dropped_region_ids = dropped.to_vec();
        WatchRoutesResponse { revision, complete: true, changed, dropped_region_ids, ..Default::default() }
    }

    fn snapshot(revision: u64, changed: Vec<admin::Route>) -> WatchRoutesResponse {
        WatchRoutesResponse { snapshot: true, complete: revision > 0, ..changes(revision, changed, &[]) }
    }

    fn known(table: &RouteTable) -> Vec<(u64, u64, u64)> {
        let mut known: Vec<_> =
            table.routes().map(|route| (route.region_id, route.node_id, route.epoch)).collect();
        known.sort_unstable();
        known
    }

    #[test]
    fn a_snapshot_counts_when_it_is_complete_and_not_before() {
        let mut table = RouteTable::default();
        table.begin(0);
        table.take(snapshot(5, vec![route(1, 1, 1), route(2, 1, 1)])).unwrap();
        table.begin(5);
        table.take(snapshot(0, vec![route(1, 2, 2)])).unwrap();
        assert_eq!((known(&table), table.revision()), (vec![(1, 1, 1), (2, 1, 1)], 5));
        let told = table.take(snapshot(9, vec![route(3, 2, 1)])).unwrap();
        assert_eq!((known(&table), table.revision()), (vec![(1, 2, 2), (3, 2, 1)], 9));
        assert_eq!(told.len(), 3, "two changed, one dropped: {told:?}");
        assert!(told.contains(&RouteChange::Dropped { region_id: 2 }));
    }

    #[test]
    fn a_snapshot_that_was_left_half_done_is_void() {
        let mut table = RouteTable::default();
        table.begin(0);
        table.take(snapshot(0, vec![route(1, 1, 1)])).unwrap();
        table.begin(0);
        table.take(snapshot(5, vec![route(2, 1, 1)])).unwrap();
        assert_eq!(known(&table), [(2, 1, 1)]);
    }

    #[test]
    fn changes_are_taken_in_order_and_drops_count_last() {
        let mut table = RouteTable::default();
        table.begin(0);
        table.take(snapshot(5, vec![route(1, 1, 1)])).unwrap();
        let told =
            table.take(changes(8, vec![route(1, 2, 2), route(1, 3, 3), route(2, 1, 1)], &[2, 9])).unwrap();
        assert_eq!((known(&table), table.revision(), told.len()), (vec![(1, 3, 3)], 8, 4));
        assert_eq!(table.take(changes(8, vec![], &[])), Ok(vec![]), "a sign of life");
    }

    #[test]
    fn nothing_goes_back_and_a_message_is_taken_whole_or_not_at_all() {
        let mut table = RouteTable::default();
        table.begin(0);
        table.take(snapshot(5, vec![route(1, 1, 3), route(2, 1, 1)])).unwrap();
        let lower = table.take(changes(6, vec![route(2, 2, 2), route(1, 2, 2)], &[]));
        assert_eq!(lower, Err(Refusal::LowerEpoch { region_id: 1, ours: 3, theirs: 2 }));
        let within = table.take(changes(6, vec![route(2, 2, 9), route(2, 2, 2)], &[]));
        assert!(matches!(within, Err(Refusal::LowerEpoch { region_id: 2, .. })));
        let early = table.take(changes(4, vec![], &[]));
        assert_eq!(early, Err(Refusal::LowerRevision { ours: 5, theirs: 4 }));
        assert_eq!((known(&table), table.revision()), (vec![(1, 1, 3), (2, 1, 1)], 5));
        table.take(snapshot(0, vec![])).unwrap();
        assert_eq!(table.take(changes(7, vec![], &[])), Err(Refusal::HalfASnapshot));
    }

    #[test]
    fn a_lower_snapshot_is_believed_of_a_replica_that_knows_what_we_know_and_of_no_other() {
        let mut table = RouteTable::default();
        table.begin(0);
        table.take(snapshot(5, vec![route(1, 1, 3)])).unwrap();
        table.begin(0);
        let uninformed = table.take(snapshot(4, vec![route(1, 1, 2)]));
        assert_eq!(uninformed, Err(Refusal::LowerSnapshot { ours: 5, theirs: 4 }), "it may only lag behind");
        table.begin(5);
        table.take(snapshot(4, vec![route(1, 1, 2)])).unwrap();
        assert_eq!((known(&table), table.revision(), table.set_backs()), (vec![(1, 1, 2)], 4, 1));
    }

    #[test]
    fn large_differences_are_told_as_a_whole() {
        let mut table = RouteTable::default();
        table.begin(0);
        let routes = (1..=2_000).map(|region_id| route(region_id, 1, 1)).collect();
        assert_eq!(table.take(snapshot(5, routes)), Ok(vec![RouteChange::Replaced]));
    }

    #[test]
    fn texts_that_nobody_uses_go() {
        let mut table = RouteTable::default();
        table.begin(0);
        table.take(snapshot(1, vec![route(1, 1, 1)])).unwrap();
        for epoch in 2..10_000 {
            table.take(changes(epoch, vec![route(1, epoch, epoch)], &[])).unwrap();
        }
        assert!(table.texts.len() <= 2 * TEXTS, "{}", table.texts.len());
    }
}
