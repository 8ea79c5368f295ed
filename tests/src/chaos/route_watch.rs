//! When was each change of a route seen, and by whom? Frontends on the real client watch through everything that happens,
//! and a watch of our own on etcd says when each change was committed.
//!
//! | watcher | follows | for |
//! | --- | --- | --- |
//! | a frontend | any replica, as frontends do | what a change costs, and that none is missed |
//! | a faithful one | its one replica, whatever happens to that | what each replica tells |
//!
//! A change counts as seen when its epoch or a higher one of the region is: after a snapshot what came between is not told.
//! The watch on etcd hears of a commit a moment after it, so that a latency may come out a little too short; a caller
//! that knows better says so with [`RouteWatch::committed`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metasrv::etcd::watch::EtcdSource;
use metasrv::keys::Keys;
use metasrv::mirror::follow::Source as _;
use metasrv::mirror::state::Event;
use metasrv::record;
use metasrv_client::{MetaClient, MetaClientConfig, Route, RouteCache, RouteChange, RouteChanges};
use metasrv_core::time::BootTime;
use metasrv_proto::admin::RouteRecord;
use metasrv_proto::meta::Role;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::wait::{now, within};

/// A region and its epoch.
pub type Change = (u64, u64);

/// What the watchers are compared by.
#[derive(Clone, PartialEq, Debug)]
pub struct RouteFigures {
    /// Changes that were committed.
    pub commits: usize,
    /// From commit to sight, over all changes and all frontends: of a hundred, one took longer.
    pub p99: Duration,
    /// The longest of them.
    pub longest: Duration,
    /// Changes that a frontend has not seen.
    pub unseen: Vec<(usize, Change)>,
    /// Times that any watcher was led back to a lower epoch.
    pub went_back: u64,
    /// Snapshots that frontends took, beyond each one's first.
    pub snapshots: u64,
}

/// The watchers. They stop when this is dropped.
pub struct RouteWatch {
    ledger: Arc<Mutex<Ledger>>,
    frontends: Vec<RouteCache>,
    replicas: Vec<RouteCache>,
    hears: watch::Receiver<bool>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Ledger {
    commits: BTreeMap<Change, BootTime>,
    /// Of each watcher, frontends first.
    seen: Vec<BTreeMap<Change, BootTime>>,
    went_back: u64,
}

type Shared = Arc<Mutex<Ledger>>;

fn look(ledger: &Shared) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RouteWatch {
    /// So many frontends, and one faithful watcher for each of these replicas; commits are heard of from this etcd.
    pub fn start(frontends: usize, replicas: &[String], etcd: &[String], prefix: &str) -> RouteWatch {
        let ledger = Shared::default();
        let mut tasks = JoinSet::new();
        let mut follower = |peers: &[String]| {
            let cache = cache(peers);
            let watcher = {
                let mut ledger = look(&ledger);
                ledger.seen.push(BTreeMap::new());
                ledger.seen.len() - 1
            };
            tasks.spawn(follow(watcher, cache.watch(), cache.clone(), Shared::clone(&ledger)));
            cache
        };
        let frontends = (0..frontends).map(|_| follower(replicas)).collect();
        let replicas = replicas.iter().map(|replica| follower(std::slice::from_ref(replica))).collect();
        let (heard, hears) = watch::channel(false);
        tasks.spawn(hear_commits(etcd.to_vec(), Keys::new(prefix), Shared::clone(&ledger), heard));
        RouteWatch { ledger, frontends, replicas, hears, _tasks: tasks }
    }

    /// Waits until commits are heard of: earlier ones are not counted.
    pub async fn hears_commits(&self) {
        let mut hears = self.hears.clone();
        within(Duration::from_secs(30), "the watch on etcd", hears.wait_for(|hears| *hears)).await.ok();
    }

    /// A change was committed at this instant, or earlier.
    pub fn committed(&self, change: Change, at: BootTime) {
        commit(&mut look(&self.ledger), change, at);
    }

    /// What the frontends know.
    pub fn frontends(&self) -> &[RouteCache] {
        &self.frontends
    }

    /// What the faithful watcher of a replica knows.
    pub fn replica(&self, replica: usize) -> &RouteCache {
        &self.replicas[replica]
    }

    /// When the faithful watcher of a replica saw a change.
    pub fn seen_of_replica(&self, replica: usize, change: Change) -> Option<BootTime> {
        look(&self.ledger).seen(self.frontends.len() + replica, change)
    }

    /// Forgets what was committed so far: a round begins.
    pub fn begin_round(&self) {
        look(&self.ledger).commits.clear();
    }

    /// What was seen since the round began. Whoever calls it has waited until the last change should have been seen.
    pub fn figures(&self) -> RouteFigures {
        let ledger = look(&self.ledger);
        let (mut latencies, mut unseen) = (Vec::new(), Vec::new());
        for (change, committed) in &ledger.commits {
            for frontend in 0..self.frontends.len() {
                match ledger.seen(frontend, *change) {
                    Some(seen) => latencies.push(seen.since(*committed)),
                    None => unseen.push((frontend, *change)),
                }
            }
        }
        latencies.sort_unstable();
        let at = (latencies.len() * 99).div_ceil(100).saturating_sub(1);
        let snapshots = self.frontends.iter().map(|cache| cache.counts().snapshots.saturating_sub(1)).sum();
        RouteFigures {
            commits: ledger.commits.len(),
            p99: latencies.get(at).copied().unwrap_or_default(),
            longest: latencies.last().copied().unwrap_or_default(),
            unseen,
            went_back: ledger.went_back,
            snapshots,
        }
    }
}

impl Ledger {
    /// When a watcher saw this epoch of the region, or a higher one.
    fn seen(&self, watcher: usize, (region, epoch): Change) -> Option<BootTime> {
        self.seen.get(watcher)?.range((region, epoch)..=(region, u64::MAX)).map(|(_, at)| *at).min()
    }

    fn see(&mut self, watcher: usize, route: &Route, at: BootTime) {
        let Some(seen) = self.seen.get_mut(watcher) else { return };
        let region = route.region_id;
        let highest = seen.range((region, 0)..=(region, u64::MAX)).next_back().map(|((_, epoch), _)| *epoch);
        if highest.is_some_and(|highest| route.epoch < highest) {
            self.went_back += 1;
        }
        seen.entry((region, route.epoch)).or_insert(at);
    }
}

fn commit(ledger: &mut Ledger, change: Change, at: BootTime) {
    let known = ledger.commits.entry(change).or_insert(at);
    *known = (*known).min(at);
}

fn cache(peers: &[String]) -> RouteCache {
    let config = MetaClientConfig::new(peers, Role::Frontend, 0);
    let client = MetaClient::try_new(config).unwrap_or_else(|error| panic!("{peers:?}: {error}"));
    client.route_cache(0)
}

async fn follow(watcher: usize, mut changes: RouteChanges, cache: RouteCache, ledger: Shared) {
    let see_all = || {
        let (routes, at) = (cache.all(), now());
        let mut ledger = look(&ledger);
        routes.iter().for_each(|route| ledger.see(watcher, route, at));
    };
    // What came before anybody listened.
    see_all();
    while let Some(change) = changes.next().await {
        let at = now();
        match change {
            RouteChange::Changed(route) => look(&ledger).see(watcher, &route, at),
            RouteChange::Replaced => see_all(),
            RouteChange::Dropped { .. } => {}
        }
    }
}

/// Hears of commits for ever. What is there when it begins, or begins again, is not counted.
async fn hear_commits(endpoints: Vec<String>, keys: Keys, ledger: Shared, heard: watch::Sender<bool>) {
    let (from, end) = (keys.regions(), keys.routed().1);
    let source = match EtcdSource::over(&endpoints, (from, end)) {
        Ok(source) => source,
        Err(error) => panic!("{endpoints:?}: {error}"),
    };
    loop {
        let began = async {
            let page = source.list().await.ok()?;
            source.watch(page.revision).await.ok()
        };
        let Some(mut events) = began.await else {
            source.move_on();
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        heard.send_replace(true);
        while let Ok(batch) = events.next().await {
            let at = now();
            for event in batch.events {
                let Event::Put(stored) = event else { continue };
                let route = record::decode::<RouteRecord>(&stored);
                if let (Some(region), Ok(route)) = (keys.parse_region(&stored.key), route) {
                    commit(&mut look(&ledger), (region.0, route.epoch), at);
                }
            }
        }
    }
}
