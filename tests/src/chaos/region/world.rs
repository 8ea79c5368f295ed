//! The world of faults of regions: the servers, six datanodes as processes, each in a namespace of its own, on one shared
//! directory, and a writer for each region in this process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use metasrv_proto::admin::operations_client::OperationsClient;
use metasrv_proto::admin::{
    CheckStoreRequest, CreateRegionsRequest, GetFailoverRequest, GetFailoverResponse, ListNodesRequest,
    ListProceduresRequest, Node, ProcedureView,
};
use tempfile::TempDir;
use tonic::transport::Channel;

use super::book::Book;
use super::datanode::Datanode;
use super::intervals::Intervals;
use super::storage::{inspect, missing};
use super::writer::Writers;
use crate::chaos::route_watch::RouteWatch;
use crate::chaos::servers::{Quota, Routes, Servers, reach};
use crate::chaos::world::Scale;
use crate::cluster::Leadership;

/// Deadline of one call of an operator.
const CALL: Duration = Duration::from_secs(5);

/// The host part of the first datanode's address.
const FIRST_HOST: u8 = 31;

/// Frontends that watch routes beside the writers' own.
const FRONTENDS: usize = 2;

/// Where the replicas keep their keys, as it is by default.
const PREFIX: &str = "/metasrv";

/// A file system in memory. Six machines would have six disks; here, one disk for all puts would be etcd's as well.
const MEMORY: &str = "/dev/shm";

/// See the module. Everything in it ends with it, the servers last.
pub struct RegionWorld {
    /// One for each region.
    pub writers: Writers,
    /// What the datanodes noted.
    pub intervals: Intervals,
    /// Frontends that see every change of a route, and when it was committed.
    pub routes: RouteWatch,
    /// With ids from 1.
    pub datanodes: Vec<Datanode>,
    /// Replicas, etcd and the network.
    pub servers: Servers,
    shared: TempDir,
}

impl RegionWorld {
    /// Builds it, and returns when every region is written to.
    ///
    /// # Errors
    /// What the system refused, or what did not come in time.
    pub async fn start(scale: Scale, supervised: bool) -> Result<RegionWorld, String> {
        let mut servers = Servers::start(Quota::Usual).await?;
        let shared = shared_directory()?;
        let mut datanodes = Vec::new();
        for id in 1..=scale.nodes {
            let host = u8::try_from(id).ok().and_then(|id| FIRST_HOST.checked_add(id));
            let place = servers.network.place(&format!("node{id}"), host.ok_or("too many datanodes")?)?;
            let directory = servers.directory.path();
            let mut node = Datanode::new(id, place, supervised, &servers.addrs(), directory, shared.path());
            node.start(directory);
            datanodes.push(node);
        }
        let regions = create_regions(&servers, scale).await?;
        let addrs = datanodes.iter().map(|node| (node.id, node.addr())).collect();
        let book = Book::open(&servers.addrs())?;
        let writers = Writers::start(regions, &addrs, book);
        let routes = RouteWatch::start(FRONTENDS, &servers.addrs(), &servers.etcd.endpoints(), PREFIX);
        let intervals = Intervals::default();
        let world = RegionWorld { writers, intervals, routes, datanodes, servers, shared };
        world.settle().await?;
        Ok(world)
    }

    /// Waits until everything is whole: etcd, the queue of replicas, every datanode, no procedure, failovers go on, and
    /// every region is written to.
    ///
    /// # Errors
    /// What did not come in time.
    pub async fn settle(&self) -> Result<Leadership, String> {
        let leader = self.servers.whole().await?;
        reach("every datanode is alive", async || {
            let nodes = nodes(&self.servers).await?;
            let is_well = |node: &&Node| node.connected && node.health == "alive" && node.duty == "open";
            let well = nodes.iter().filter(is_well).count();
            let all = self.datanodes.len();
            if well == all { Ok(()) } else { Err(format!("{well} of {all} are connected, alive and open")) }
        })
        .await?;
        self.no_procedure().await?;
        reach("failovers go on", async || match self.failover().await? {
            failover if failover.verdict == "proceed" => Ok(()),
            failover => Err(format!("{}: {}", failover.verdict, failover.why)),
        })
        .await?;
        let all = self.writers.regions().into_iter().map(|region| (region, 0)).collect();
        self.writers.written(&all).await?;
        Ok(leader)
    }

    /// Waits until no procedure is under way.
    ///
    /// # Errors
    /// Those that are, at the end.
    pub async fn no_procedure(&self) -> Result<(), String> {
        reach("no procedure is under way", async || match self.procedures().await?.as_slice() {
            [] => Ok(()),
            some => Err(format!("{} are, among them {:?}", some.len(), some.first())),
        })
        .await
    }

    /// Procedures under way, as the leader lists them.
    ///
    /// # Errors
    /// Nobody leads now, or the leader does not answer.
    pub async fn procedures(&self) -> Result<Vec<ProcedureView>, String> {
        let mut leader = self.operations().await?;
        let answer = leader.list_procedures(timed(ListProceduresRequest::default())).await;
        answer.map(|answer| answer.into_inner().procedures).map_err(|status| status.to_string())
    }

    /// Whether failovers go on, as the leader says.
    ///
    /// # Errors
    /// Nobody leads now, or the leader does not answer.
    pub async fn failover(&self) -> Result<GetFailoverResponse, String> {
        let mut leader = self.operations().await?;
        let answer = leader.get_failover(timed(GetFailoverRequest::default())).await;
        answer.map(tonic::Response::into_inner).map_err(|status| status.to_string())
    }

    /// What a check of the store finds.
    ///
    /// # Errors
    /// No leader checked it in time.
    pub async fn findings(&self) -> Result<Vec<String>, String> {
        reach("the store is checked", async || {
            let mut leader = self.operations().await?;
            let answer = leader.check_store(timed(CheckStoreRequest {})).await;
            let found = answer.map_err(|status| status.to_string())?.into_inner().findings;
            Ok(found.into_iter().map(|finding| format!("{}: {}", finding.key, finding.what)).collect())
        })
        .await
    }

    /// The operators' service of the leader.
    ///
    /// # Errors
    /// Nobody leads now.
    pub async fn operations(&self) -> Result<OperationsClient<Channel>, String> {
        Ok(self.servers.replicas[self.servers.leader().await?.replica].operations())
    }

    /// The node with the most regions, and these with their epochs.
    pub fn busiest(routes: &Routes) -> (u64, BTreeMap<u64, u64>) {
        let mut of_nodes: BTreeMap<u64, BTreeMap<u64, u64>> = BTreeMap::new();
        for (region, (node, epoch)) in routes {
            of_nodes.entry(*node).or_default().insert(*region, *epoch);
        }
        of_nodes.into_iter().max_by_key(|(_, regions)| regions.len()).unwrap_or_default()
    }

    /// The datanode with this id.
    ///
    /// # Errors
    /// There is none.
    pub fn datanode(&mut self, id: u64) -> Result<&mut Datanode, String> {
        let found = self.datanodes.iter_mut().find(|node| node.id == id);
        found.ok_or_else(|| format!("there is no datanode {id}"))
    }

    /// Starts every datanode that was killed.
    pub fn start_datanodes(&mut self) {
        let directory = self.servers.directory.path();
        self.datanodes.iter_mut().filter(|node| !node.is_started()).for_each(|node| node.start(directory));
    }

    /// Reads what the datanodes noted since the last time.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read_intervals(&mut self) -> Result<(), String> {
        let files: Vec<PathBuf> = self.datanodes.iter().map(|node| node.intervals().to_owned()).collect();
        self.intervals.read(&files)
    }

    /// Ends the writers, and asks both witnesses: every overlap of two writers, and what is missing in the storage.
    ///
    /// # Errors
    /// They cannot be asked.
    pub async fn judge(self) -> Result<(Vec<String>, Vec<String>), String> {
        let RegionWorld { writers, mut intervals, datanodes, shared, servers, .. } = self;
        let told = writers.stop().await;
        let files: Vec<PathBuf> = datanodes.iter().map(|node| node.intervals().to_owned()).collect();
        intervals.read(&files)?;
        // Nobody may write while the files are read: a put that is under way is in no count yet.
        drop(datanodes);
        let lost = missing(&inspect(shared.path())?, &told)?;
        drop(servers);
        Ok((intervals.overlapping(), lost))
    }
}

fn shared_directory() -> Result<TempDir, String> {
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("metasrv-chaos-");
    let made = match std::path::Path::new(MEMORY).is_dir() {
        true => builder.tempdir_in(MEMORY),
        false => builder.tempdir(),
    };
    made.map_err(|error| format!("no directory for the regions: {error}"))
}

/// All datanodes, as the leader lists them.
async fn nodes(servers: &Servers) -> Result<Vec<Node>, String> {
    let mut admin = servers.replicas[servers.leader().await?.replica].admin();
    let listing = async {
        let mut chunks = admin.list_nodes(timed(ListNodesRequest::default())).await?.into_inner();
        let mut nodes = Vec::new();
        while let Some(chunk) = chunks.message().await? {
            nodes.extend(chunk.nodes.into_iter().filter(|node| node.role == "datanode"));
        }
        Ok::<_, tonic::Status>(nodes)
    };
    match tokio::time::timeout(CALL, listing).await {
        Ok(listed) => listed.map_err(|status| status.to_string()),
        Err(_) => Err("to list them takes too long".to_owned()),
    }
}

async fn create_regions(servers: &Servers, scale: Scale) -> Result<Vec<u64>, String> {
    reach("every datanode is connected", async || {
        let connected = nodes(servers).await?.iter().filter(|node| node.connected).count();
        if u64::try_from(connected) == Ok(scale.nodes) { Ok(()) } else { Err(format!("{connected} are")) }
    })
    .await?;
    let mut admin = servers.replicas[servers.leader().await?.replica].admin();
    let mut created = Vec::new();
    for node in 1..=scale.nodes {
        let request = CreateRegionsRequest {
            count: scale.regions,
            node_id: Some(node),
            ..CreateRegionsRequest::default()
        };
        let answer = admin.create_regions(timed(request)).await;
        let regions = answer.map_err(|status| format!("regions cannot be created: {status}"))?.into_inner();
        created.extend(regions.regions.iter().map(|region| region.region_id));
    }
    Ok(created)
}

/// A request with the deadline of an operator's call.
pub fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL);
    request
}
