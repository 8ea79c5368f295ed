//! A datanode: the real SDK, regions on the shared storage, and a writer that writes whenever it may.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use datanode::{
    BootTime, Clock, Epoch, HandleControl, HandlerError, HeartbeatResponseHandler, HeartbeatTask,
    HeartbeatTaskOptions, OpenAs, OpenOptions, RegionAliveKeeper, RegionError, RegionId, RegionRole,
    RegionServer, RegionStat, ResponseContext,
};
use metasrv_client::{Dialer, MetaClient, MetaClientConfig};
use metasrv_proto::admin::RenewedSet;
use metasrv_proto::meta::{RegionLease, Role};
use rand::Rng as _;

use crate::host::HostClock;
use crate::net::NetworkOf;
use crate::storage::Storage;
use crate::trace::Trace;

/// Time between two writes to each region.
const WRITES: Duration = Duration::from_millis(20);

/// An answer of a leader that grants something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grant {
    /// The process that was granted it.
    pub process: u64,
    /// The leader's term.
    pub term: u64,
    /// When the request was sent, in nanoseconds of the process's clock.
    pub sent_at: u64,
}

/// What all processes of datanodes have in common.
#[derive(Clone)]
pub struct Common {
    /// The replicas.
    pub peers: Vec<String>,
    /// Time between two heartbeats.
    pub interval: Duration,
    /// Where regions live.
    pub storage: Storage,
    /// Where grants are noted.
    pub grants: Arc<Mutex<Vec<Grant>>>,
    /// Where its end is noted.
    pub trace: Trace,
}

/// A process of a datanode, as the simulation sees it.
pub struct Process {
    /// The node.
    pub node: u64,
    /// A number of its own.
    pub serial: u64,
    /// Where it runs.
    pub host: String,
    /// Its machine's clock.
    pub clock: Arc<HostClock>,
    keeper: OnceLock<Arc<RegionAliveKeeper>>,
}

impl Process {
    /// A process that is about to be started.
    pub fn new(node: u64, serial: u64, host: &str, clock: Arc<HostClock>) -> Arc<Process> {
        Arc::new(Process { node, serial, host: host.to_owned(), clock, keeper: OnceLock::new() })
    }

    /// Whether it may write to this region at this instant, and under which epoch.
    pub fn writes(&self, region: u64) -> Option<u64> {
        let handle = self.keeper.get()?.region(RegionId(region))?;
        (handle.role() == RegionRole::Leader).then(|| handle.epoch().0)
    }

    /// Its main function: heartbeats and writes until the SDK gives up.
    pub async fn run(self: Arc<Process>, network: NetworkOf, common: Common) {
        if let Err(why) = self.live(network, &common).await {
            common.trace.say(&self.host, &format!("the datanode ends: {why}"));
        }
    }

    async fn live(&self, network: NetworkOf, common: &Common) -> Result<(), String> {
        let mut config = MetaClientConfig::new(common.peers.clone(), Role::Datanode, self.node);
        config.dialer = Dialer::over(Arc::new(network));
        let client = MetaClient::try_new(config).map_err(|error| error.to_string())?;
        let regions = Arc::new(Regions {
            process: self.serial,
            storage: common.storage.clone(),
            open: Mutex::default(),
        });
        let server: Arc<dyn RegionServer> = Arc::clone(&regions) as Arc<dyn RegionServer>;
        let mut options = HeartbeatTaskOptions::new(client, format!("{}:4000", self.host), server);
        options.interval = common.interval;
        options.handlers = vec![Arc::new(Witness {
            process: self.serial,
            began: self.clock.now(),
            grants: Arc::clone(&common.grants),
        })];
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let task = HeartbeatTask::with_clock(options, clock).map_err(|error| error.to_string())?;
        let keeper = Arc::clone(task.keeper());
        // It is set once: a process has one main function.
        let _ = self.keeper.set(Arc::clone(&keeper));
        task.start();
        tokio::select! {
            biased;
            end = task.ended() => Err(format!("{end:?}")),
            () = regions.write(&keeper) => Ok(()),
        }
    }
}

/// Notes what leaders grant.
struct Witness {
    process: u64,
    began: BootTime,
    grants: Arc<Mutex<Vec<Grant>>>,
}

impl HeartbeatResponseHandler for Witness {
    fn name(&self) -> &'static str {
        "Witness"
    }

    fn handle(&self, context: &mut ResponseContext<'_>) -> Result<HandleControl, HandlerError> {
        let granted = context.response.region_lease.as_ref().filter(|lease| renews(lease));
        if let (Some(_), Some(sent_at)) = (granted, context.sent_at.filter(|at| *at >= self.began)) {
            let grant = Grant { process: self.process, term: context.term(), sent_at: sent_at.as_nanos() };
            self.grants.lock().unwrap_or_else(PoisonError::into_inner).push(grant);
        }
        Ok(HandleControl::Continue)
    }
}

/// Whether it renews any region: by a list, or of a set all but some.
fn renews(lease: &RegionLease) -> bool {
    let but = |set: &RenewedSet| u64::try_from(set.except_region_ids.len()).unwrap_or(u64::MAX);
    !lease.regions.is_empty() || lease.renewed_set.as_ref().is_some_and(|set| set.count > but(set))
}

/// The regions of one process, on the shared storage.
struct Regions {
    process: u64,
    storage: Storage,
    open: Mutex<BTreeSet<u64>>,
}

impl Regions {
    fn open(&self) -> BTreeSet<u64> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn write(&self, keeper: &RegionAliveKeeper) {
        loop {
            for region in self.open() {
                if let Ok(guard) = keeper.write_guard(RegionId(region)) {
                    self.storage.write(region, guard.epoch().0, self.process);
                }
            }
            tokio::time::sleep(WRITES).await;
        }
    }

    async fn takes(&self, most_ms: u64) {
        let millis = rand::rng().random_range(0..=most_ms);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
}

#[async_trait]
impl RegionServer for Regions {
    async fn open(&self, region: RegionId, options: OpenOptions) -> Result<(), RegionError> {
        self.takes(20).await;
        if options.kind == OpenAs::Leader {
            let claimed = self.storage.claim(region.0, options.epoch.0, self.process);
            claimed.map_err(|epoch| RegionError {
                message: format!("the storage has epoch {epoch}"),
                storage_epoch: Some(Epoch(epoch)),
            })?;
        }
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(region.0);
        Ok(())
    }

    async fn close(&self, region: RegionId) -> Result<(), RegionError> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&region.0);
        Ok(())
    }

    async fn set_role(&self, _: RegionId, _: Epoch, _: RegionRole) {}

    async fn flush(&self, _: RegionId) -> Result<(), RegionError> {
        self.takes(10).await;
        Ok(())
    }

    fn stats(&self) -> Vec<RegionStat> {
        let stat = |region| RegionStat { region: RegionId(region), ..RegionStat::default() };
        self.open().into_iter().map(stat).collect()
    }
}
