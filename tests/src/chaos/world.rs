//! The world of one run: three members of etcd and three replicas, each in a namespace of its own; the datanodes, the
//! witnesses and the client that writes, in this process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use metasrv_core::timing::leadership;
use metasrv_proto::admin::{CreateRegionsRequest, ListMembersRequest, Region};
use tempfile::TempDir;

use super::gateway::Gateway;
use super::ledger::Ledger;
use super::network::Network;
use super::nodes::{Nodes, SharedLedger, look};
use super::witness::Witnesses;
use super::writer::Writer;
use crate::cluster::Leadership;
use crate::etcd::Etcd;
use crate::place::Place;
use crate::replica::Replica;
use crate::wait::now;

/// Members of etcd, and replicas.
pub const MEMBERS: usize = 3;

/// TTL of a leader's lease, as it is by default.
pub const ELECTION_TTL: Duration = Duration::from_secs(5);

/// Heartbeat interval, as it is by default.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// Whatever takes longer than this does not come any more.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Calls that create regions at the same time.
const CREATING: usize = 8;

/// Time between two looks at a condition.
const POLL: Duration = Duration::from_millis(25);

/// An etcd that is filled within seconds, and has room for the world's own keys.
const SMALL_ETCD: u64 = 96 << 20;

/// How large it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scale {
    /// Datanodes.
    pub nodes: u64,
    /// Regions of each.
    pub regions: u32,
}

/// How etcd is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quota {
    /// As it is by default.
    Usual,
    /// Small enough to be filled.
    Small,
}

/// See the module. Everything in it ends with it, the network last.
pub struct World {
    /// The datanodes.
    pub nodes: Nodes,
    /// What they and the witnesses saw.
    pub ledger: SharedLedger,
    /// Creates regions meanwhile.
    pub writer: Option<Writer>,
    _witnesses: Witnesses,
    /// The replicas.
    pub replicas: Vec<Replica>,
    /// Where each of them runs.
    pub replica_places: Vec<Place>,
    /// The members of etcd.
    pub etcd: Etcd,
    /// Where each of them runs.
    pub etcd_places: Vec<Place>,
    /// What connects them.
    pub network: Network,
    /// How large it is.
    pub scale: Scale,
    directory: TempDir,
}

/// The node and the epoch of each region.
pub type Routes = BTreeMap<u64, (u64, u64)>;

impl World {
    /// Builds it, and returns when every region is leased.
    ///
    /// # Errors
    /// What the system refused, or what did not come in time.
    pub async fn start(scale: Scale, quota: Quota) -> Result<World, String> {
        let mut network = Network::new()?;
        let directory = tempfile::Builder::new()
            .prefix("metasrv-chaos-")
            .tempdir()
            .map_err(|error| format!("no directory for logs and data: {error}"))?;
        let mut places = |name: &str, first: u8| -> Result<Vec<Place>, String> {
            (0..3).map(|index| network.place(&format!("{name}{index}"), first + index)).collect()
        };
        let (etcd_places, replica_places) = (places("etcd", 21)?, places("metasrv", 11)?);
        let arguments = match quota {
            Quota::Usual => Vec::new(),
            Quota::Small => vec![format!("--quota-backend-bytes={SMALL_ETCD}")],
        };
        let etcd = Etcd::start_at(etcd_places.clone(), arguments, directory.path()).await;
        let replicas: Vec<Replica> = (0..)
            .zip(&replica_places)
            .map(|(index, place)| {
                let arguments = ["--etcd-endpoints".to_owned(), etcd.endpoints().join(",")];
                let arguments = arguments.into_iter().chain(["--fault-injection".to_owned()]).collect();
                let mut replica = Replica::new_at(place.clone(), &format!("metasrv-{index}"), arguments);
                replica.start(directory.path());
                replica
            })
            .collect();
        let addrs: Vec<String> = replicas.iter().map(Replica::addr).collect();
        let nodes = usize::try_from(scale.nodes).unwrap_or(usize::MAX);
        let ledger: SharedLedger = Arc::new(Mutex::new(Ledger::new(nodes, leadership(ELECTION_TTL))));
        let nodes = Nodes::start(scale.nodes, &addrs, Arc::clone(&ledger)).await?;
        let mut world = World {
            nodes,
            _witnesses: Witnesses::start(&addrs, &ledger),
            ledger,
            writer: None,
            replicas,
            replica_places,
            etcd,
            etcd_places,
            network,
            scale,
            directory,
        };
        world.create_regions().await?;
        world.settle().await?;
        let admins = world.replicas.iter().map(Replica::admin).collect();
        world.writer = Some(Writer::start(admins, scale.nodes));
        Ok(world)
    }

    async fn create_regions(&self) -> Result<(), String> {
        reach("every node is connected", async || {
            let leader = self.leader().await?;
            match look(&self.ledger).accepted_since(leader.term, metasrv_core::time::BootTime::ZERO) {
                accepted if accepted == self.nodes.len() => Ok(()),
                accepted => Err(format!("{accepted} of {} are", self.nodes.len())),
            }
        })
        .await?;
        let admin = self.replicas[self.leader().await?.replica].admin();
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

    /// Who leads: the replica that says so, under the highest term where several do.
    ///
    /// # Errors
    /// Nobody says so now.
    pub async fn leader(&self) -> Result<Leadership, String> {
        let asked = self.replicas.iter().enumerate().filter(|(_, replica)| replica.process.is_some());
        let answers = asked.map(async |(index, replica)| (index, replica.status().await));
        let answers = futures_util::future::join_all(answers).await;
        let leads = |(replica, status): &(usize, Result<_, _>)| match status {
            Ok(metasrv_proto::admin::GetStatusResponse { role, term, .. }) if role == "leader" => {
                Some(Leadership { replica: *replica, term: *term })
            }
            _ => None,
        };
        answers
            .iter()
            .filter_map(leads)
            .max_by_key(|leader| leader.term)
            .ok_or_else(|| "nobody says that it leads".to_owned())
    }

    /// Waits until everything is whole: etcd, three replicas in the queue, every region leased under the present term.
    ///
    /// # Errors
    /// What did not come in time.
    pub async fn settle(&self) -> Result<Leadership, String> {
        reach("every member of etcd takes writes", async || {
            for index in 0..self.etcd.members() {
                Gateway(&self.etcd.addr(index)).writes().await?;
            }
            Ok(())
        })
        .await?;
        reach("a leader, and every replica in its queue", async || {
            let leader = self.leader().await?;
            let mut admin = self.replicas[leader.replica].admin();
            let mut request = tonic::Request::new(ListMembersRequest::default());
            request.set_timeout(Duration::from_secs(2));
            match admin.list_members(request).await.map(|response| response.into_inner().members.len()) {
                Ok(members) if members == self.replicas.len() => Ok(()),
                Ok(members) => Err(format!("{members} replicas are in the queue")),
                Err(status) => Err(status.to_string()),
            }
        })
        .await?;
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
            let leader = self.leader().await?;
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

    /// Which member of etcd leads it.
    ///
    /// # Errors
    /// None of them says so.
    pub async fn etcd_leader(&self) -> Result<usize, String> {
        reach("a member of etcd leads", async || {
            for index in 0..self.etcd.members() {
                if Gateway(&self.etcd.addr(index)).leads().await? {
                    return Ok(index);
                }
            }
            Err("none says so".to_owned())
        })
        .await
    }

    /// All regions, as the leader lists them.
    ///
    /// # Errors
    /// It did not list them in time.
    pub async fn regions(&self) -> Result<Vec<Region>, String> {
        reach("the leader lists all regions", async || {
            let leader = self.leader().await?;
            let listing = async {
                let mut admin = self.replicas[leader.replica].admin();
                let mut chunks = admin.list_regions(no_filter()).await?.into_inner();
                let mut regions = Vec::new();
                while let Some(chunk) = chunks.message().await? {
                    regions.extend(chunk.regions);
                }
                Ok::<_, tonic::Status>(regions)
            };
            match tokio::time::timeout(Duration::from_secs(20), listing).await {
                Ok(listed) => listed.map_err(|status| status.to_string()),
                Err(_) => Err("it takes too long".to_owned()),
            }
        })
        .await
    }

    /// Where each region is.
    ///
    /// # Errors
    /// As [`World::regions`].
    pub async fn routes(&self) -> Result<Routes, String> {
        let regions = self.regions().await?;
        Ok(regions.iter().map(|region| (region.region_id, (region.node_id, region.epoch))).collect())
    }

    /// Starts a replica again.
    pub fn start_replica(&mut self, index: usize) {
        self.replicas[index].start(self.directory.path());
    }

    /// Keeps logs and data, and says where they are.
    pub fn keep_logs(&mut self) -> String {
        self.directory.disable_cleanup(true);
        self.directory.path().display().to_string()
    }
}

/// Every region of every node.
fn no_filter() -> metasrv_proto::admin::ListRegionsRequest {
    metasrv_proto::admin::ListRegionsRequest::default()
}

/// Looks at a condition until it holds, and returns what it yields.
///
/// # Errors
/// What was waited for, and why it did not hold at the end.
pub async fn reach<T>(
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, String> {
    let started = now();
    loop {
        let why = match tokio::time::timeout(PATIENCE, condition()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(why)) => why,
            Err(_) => "looking at it took too long".to_owned(),
        };
        if now().since(started) > PATIENCE {
            return Err(format!("waited {PATIENCE:?} for this: {what}; still: {why}"));
        }
        tokio::time::sleep(POLL).await;
    }
}
