//! A cluster of processes, and datanodes on the real SDK in this one: real heartbeats over a stream each, and answers to
//! instructions. Their regions are nothing but their epochs, and a keeper each says which it may write to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metasrv_client::{MetaClient, MetaClientConfig};
use metasrv_core::timing::Timing;
use metasrv_proto::meta::Role;

use super::Size;
use crate::chaos::ledger::Ledger;
use crate::chaos::nodes::{Nodes, SharedLedger, look};
use crate::chaos::servers::Routes;
use crate::cluster::Cluster;
use crate::wait::eventually;

/// Whatever takes longer than this does not come any more.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Deadline of one call.
const CALL: Duration = Duration::from_secs(60);

/// See the module.
pub struct World {
    /// How large it is.
    pub size: Size,
    /// The datanodes. They end first.
    pub nodes: Nodes,
    /// What they hear.
    pub ledger: SharedLedger,
    /// For an operator's calls.
    pub client: MetaClient,
    /// etcd and the replicas.
    pub cluster: Cluster,
}

impl World {
    /// Starts it; every datanode is connected, and there is no region.
    pub async fn start(size: Size) -> World {
        let cluster = Cluster::builder().etcd(1).replicas(3).start().await;
        let leader = cluster.leader().await;
        let count = usize::try_from(size.nodes).unwrap_or(usize::MAX);
        let leadership = Timing::default().leadership();
        let ledger = Arc::new(Mutex::new(Ledger::new(count, leadership)));
        let nodes = Nodes::start(size.nodes, &cluster.addrs(), Arc::clone(&ledger)).await;
        let nodes = nodes.unwrap_or_else(|error| panic!("the datanodes do not start: {error}"));
        let config = MetaClientConfig::new(cluster.addrs(), Role::Frontend, 0);
        let client = MetaClient::try_new(config).unwrap_or_else(|error| panic!("no client: {error}"));
        let world = World { size, nodes, ledger, client, cluster };
        eventually(PATIENCE, "every datanode is connected", async || {
            match look(&world.ledger).accepted_since(leader.term, metasrv_core::time::BootTime::ZERO) {
                accepted if accepted == count => Ok(()),
                accepted => Err(format!("{accepted} of {count} are")),
            }
        })
        .await;
        world
    }

    /// How many regions there are when all were created.
    pub fn regions(&self) -> usize {
        usize::try_from(self.size.regions).unwrap_or(usize::MAX)
    }

    /// An operator's calls, with a deadline for the largest of them.
    pub fn admin(&self) -> metasrv_client::AdminClient {
        self.client.admin().with_deadline(CALL)
    }

    /// The same for decisions.
    pub fn operations(&self) -> metasrv_client::OperationsClient {
        self.client.operations().with_deadline(CALL)
    }

    /// Every region as the leader lists it. Panics where one is listed twice.
    pub async fn routes(&self) -> Routes {
        let listed = self.admin().list_regions(None).await;
        let listed = listed.unwrap_or_else(|error| panic!("the regions cannot be listed: {error}")).regions;
        let mut routes = BTreeMap::new();
        for region in listed {
            let before = routes.insert(region.region_id, (region.node_id, region.epoch));
            assert!(before.is_none(), "region {} is listed twice", region.region_id);
        }
        routes
    }

    /// Starts a replica again, and waits until it stands in the queue.
    pub async fn restart(&mut self, replica: usize) {
        self.cluster.start_replica(replica);
        self.cluster.replicas[replica].answers().await;
        let replicas = self.cluster.replicas.len();
        eventually(PATIENCE, "every replica campaigns", async || match self.admin().list_members().await {
            Ok(members) if members.len() == replicas => Ok(()),
            Ok(members) => Err(format!("{} do", members.len())),
            Err(error) => Err(error.to_string()),
        })
        .await;
    }
}
