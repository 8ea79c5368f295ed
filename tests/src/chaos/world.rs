//! The world of faults of leaders and of etcd: the servers in their namespaces; the datanodes, the witnesses and the
//! client that writes, in this process.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use metasrv_core::timing::leadership;
use metasrv_proto::admin::CreateRegionsRequest;

use super::ledger::Ledger;
use super::nodes::{Nodes, SharedLedger, look};
use super::servers::{Quota, Servers, reach};
use super::witness::Witnesses;
use super::writer::Writer;
use crate::cluster::Leadership;
use crate::replica::Replica;
use crate::wait::now;

/// TTL of a leader's lease, as it is by default.
pub const ELECTION_TTL: Duration = Duration::from_secs(5);

/// Heartbeat interval, as it is by default.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// Calls that create regions at the same time.
const CREATING: usize = 8;

/// How large it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scale {
    /// Datanodes.
    pub nodes: u64,
    /// Regions of each.
    pub regions: u32,
}

/// See the module. Everything in it ends with it, the servers last.
pub struct World {
    /// The datanodes.
    pub nodes: Nodes,
    /// What they and the witnesses saw.
    pub ledger: SharedLedger,
    /// Creates regions meanwhile.
    pub writer: Option<Writer>,
    _witnesses: Witnesses,
    /// Replicas, etcd and the network.
    pub servers: Servers,
    /// How large it is.
    pub scale: Scale,
}

impl World {
    /// Builds it, and returns when every region is leased.
    ///
    /// # Errors
    /// What the system refused, or what did not come in time.
    pub async fn start(scale: Scale, quota: Quota) -> Result<World, String> {
        let servers = Servers::start(quota).await?;
        let addrs = servers.addrs();
        let nodes = usize::try_from(scale.nodes).unwrap_or(usize::MAX);
        let ledger: SharedLedger = Arc::new(Mutex::new(Ledger::new(nodes, leadership(ELECTION_TTL))));
        let nodes = Nodes::start(scale.nodes, &addrs, Arc::clone(&ledger)).await?;
        let mut world = World {
            nodes,
            _witnesses: Witnesses::start(&addrs, &ledger),
            ledger,
            writer: None,
            servers,
            scale,
        };
        world.create_regions().await?;
        world.settle().await?;
        let admins = world.servers.replicas.iter().map(Replica::admin).collect();
        world.writer = Some(Writer::start(admins, scale.nodes));
        Ok(world)
    }

    async fn create_regions(&self) -> Result<(), String> {
        reach("every node is connected", async || {
            let leader = self.servers.leader().await?;
            match look(&self.ledger).accepted_since(leader.term, metasrv_core::time::BootTime::ZERO) {
                accepted if accepted == self.nodes.len() => Ok(()),
                accepted => Err(format!("{accepted} of {} are", self.nodes.len())),
            }
        })
        .await?;
        let admin = self.servers.replicas[self.servers.leader().await?.replica].admin();
        futures_util::stream::iter(1..=self.scale.nodes)
            .map(|node| {
                let mut admin = admin.clone();
                let request = CreateRegionsRequest {
                    count: self.scale.regions,
                    node_id: Some(node),
                    ..CreateRegionsRequest::default()
                };
                async move { admin.create_regions(request).await.map(|_| ()) }
            })
            .buffer_unordered(CREATING)
            .try_collect::<()>()
            .await
            .map_err(|status| format!("regions cannot be created: {status}"))
    }

    /// Waits until everything is whole: etcd, three replicas in the queue, every region leased under the present term.
    ///
    /// # Errors
    /// What did not come in time.
    pub async fn settle(&self) -> Result<Leadership, String> {
        self.servers.whole().await?;
        self.leased().await
    }

    /// Waits until every node was answered by the present leader, from now on, and may write to all of its regions.
    ///
    /// # Errors
    /// What did not come in time.
    pub async fn leased(&self) -> Result<Leadership, String> {
        let since = now();
        let regions = usize::try_from(self.scale.regions).unwrap_or(usize::MAX);
        reach("every node is leased by the present leader", async || {
            let leader = self.servers.leader().await?;
            let accepted = look(&self.ledger).accepted_since(leader.term, since);
            if accepted < self.nodes.len() {
                return Err(format!("{accepted} of {} nodes were answered", self.nodes.len()));
            }
            self.nodes.leased(regions).map(|()| leader)
        })
        .await
    }

    /// Whether every node was answered under this term or a higher one, and may write to all of its regions.
    pub fn is_leased(&self, term: u64) -> bool {
        let accepted = look(&self.ledger).accepted_since(term, metasrv_core::time::BootTime::ZERO);
        let regions = usize::try_from(self.scale.regions).unwrap_or(usize::MAX);
        accepted == self.nodes.len() && self.nodes.leased(regions).is_ok()
    }
}
