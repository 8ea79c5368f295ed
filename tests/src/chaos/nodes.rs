//! A fleet of datanodes on the real SDK: each has a `MetaClient` and a `HeartbeatTask` of its own, and regions that are
//! nothing but their epochs. A response handler, as an embedder would add one, tells the ledger of every accepted
//! heartbeat.
//!
//! A thousand nodes are a thousand machines elsewhere; here they share the processors with the servers that are measured.
//! So they run on threads of their own at a low priority: what they do at the same time delays themselves, not the others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use datanode::{
    Epoch, HandleControl, HandlerError, HeartbeatResponseHandler, HeartbeatTask, HeartbeatTaskOptions,
    OpenOptions, RegionError, RegionId, RegionRole, RegionServer, RegionStat, ResponseContext,
};
use metasrv_client::{MetaClient, MetaClientConfig};
use metasrv_proto::meta::Role;
use tokio::runtime::{Builder, Runtime};

use super::ledger::Ledger;
use crate::wait::now;

/// The nodes' share of a processor that others want as well is a tenth then.
const NICE: i32 = 10;

/// Time between the starts of two nodes.
const APART: Duration = Duration::from_millis(1);

/// A ledger that nodes and witnesses write into.
pub type SharedLedger = Arc<Mutex<Ledger>>;

/// The ledger, for as long as a look takes.
pub fn look(ledger: &SharedLedger) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The datanodes, with ids from 1. They stop when this is dropped.
pub struct Nodes {
    nodes: Vec<(Arc<Regions>, HeartbeatTask)>,
    ledger: SharedLedger,
    /// Taken when this is dropped.
    threads: Option<Runtime>,
}

impl Nodes {
    /// Starts so many datanodes against these replicas.
    ///
    /// # Errors
    /// The SDK does not take the addresses.
    pub async fn start(count: u64, peers: &[String], ledger: SharedLedger) -> Result<Nodes, String> {
        let threads = Builder::new_multi_thread().enable_all().on_thread_start(lower_priority).build();
        let threads = threads.map_err(|error| format!("no threads for the nodes: {error}"))?;
        let on_them = threads.handle().clone();
        let mut nodes = Nodes { nodes: Vec::new(), ledger, threads: Some(threads) };
        for (index, id) in (1..=count).enumerate() {
            let config = MetaClientConfig::new(peers, Role::Datanode, id);
            let client = MetaClient::try_new(config).map_err(|error| error.to_string())?;
            let ledger = Arc::clone(&nodes.ledger);
            let regions = Arc::new(Regions { open: Mutex::default(), ledger: Arc::clone(&ledger) });
            let addr = format!("127.0.0.1:{}", 10_000 + index % 50_000);
            let mut options = HeartbeatTaskOptions::new(client, addr, regions.clone());
            options.handlers = vec![Arc::new(Listener { index, ledger })];
            let task = HeartbeatTask::try_new(options).map_err(|error| error.to_string())?;
            {
                let _on_them = on_them.enter();
                task.start();
            }
            nodes.nodes.push((regions, task));
            tokio::time::sleep(APART).await;
        }
        Ok(nodes)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Whether every node has at least so many regions open, and may write to each region that it has open.
    ///
    /// # Errors
    /// How many may.
    pub fn leased(&self, regions: usize) -> Result<(), String> {
        let is_leased = |(hosted, task): &&(Arc<Regions>, HeartbeatTask)| {
            let open: Vec<RegionId> = hosted.open().keys().copied().collect();
            open.len() >= regions && open.iter().all(|region| task.keeper().write_guard(*region).is_ok())
        };
        let leased = self.nodes.iter().filter(is_leased).count();
        if leased == self.nodes.len() {
            return Ok(());
        }
        Err(format!("{leased} of {} nodes may write to all of their regions", self.nodes.len()))
    }
}

impl Nodes {
    /// Every right to write that any node has now: the node, the region and its epoch.
    pub fn writable(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.nodes.iter().flat_map(|(hosted, task)| {
            let open: Vec<RegionId> = hosted.open().keys().copied().collect();
            open.into_iter().filter_map(|region| {
                let guard = task.keeper().write_guard(region).ok()?;
                Some((task.node_id(), region.0, guard.epoch().0))
            })
        })
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

/// Of the thread that calls this, for as long as it lives.
fn lower_priority() {
    // Without it the figures are a little worse, and nothing else.
    let _ = rustix::process::setpriority_process(None, NICE);
}

/// The regions of one node.
struct Regions {
    open: Mutex<BTreeMap<RegionId, Epoch>>,
    ledger: SharedLedger,
}

impl Regions {
    fn open(&self) -> MutexGuard<'_, BTreeMap<RegionId, Epoch>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl RegionServer for Regions {
    async fn open(
        &self,
        region: RegionId,
        OpenOptions { epoch, .. }: OpenOptions,
    ) -> Result<(), RegionError> {
        let mut open = self.open();
        let held = open.entry(region).or_insert(epoch);
        *held = (*held).max(epoch);
        Ok(())
    }

    async fn close(&self, region: RegionId) -> Result<(), RegionError> {
        self.open().remove(&region);
        Ok(())
    }

    async fn set_role(&self, region: RegionId, _: Epoch, role: RegionRole) {
        // It begins as a follower and is told of changes only: this is the end of a right that it had.
        if role == RegionRole::Follower {
            look(&self.ledger).turned_read_only(region.0);
        }
    }

    async fn flush(&self, _: RegionId) -> Result<(), RegionError> {
        Ok(())
    }

    fn stats(&self) -> Vec<RegionStat> {
        let stat = |region: &RegionId| RegionStat {
            region: *region,
            wcus: 1,
            approximate_bytes: 4096,
            engine: "chaos".to_owned(),
            ..RegionStat::default()
        };
        self.open().keys().map(stat).collect()
    }
}

/// Hears of every accepted response.
struct Listener {
    index: usize,
    ledger: SharedLedger,
}

impl HeartbeatResponseHandler for Listener {
    fn name(&self) -> &'static str {
        "ChaosListener"
    }

    fn handle(&self, context: &mut ResponseContext<'_>) -> Result<HandleControl, HandlerError> {
        // A pushed instruction is no heartbeat: what answers one carries a lease.
        if context.response.region_lease.is_some()
            && let Some(header) = &context.response.header
        {
            look(&self.ledger).accept(self.index, header.term, now());
        }
        Ok(HandleControl::Continue)
    }
}
