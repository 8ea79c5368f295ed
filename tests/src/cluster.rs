//! etcd, replicas and datanodes together.

use std::path::{Path, PathBuf};
use std::time::Duration;

use metasrv_proto::admin::admin_client::AdminClient;
use metasrv_proto::admin::operations_client::OperationsClient;
use metasrv_proto::admin::{CreateRegionsRequest, ListNodesRequest, ListRegionsRequest, Node, Region};
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::binaries::binary;
use crate::etcd::Etcd;
use crate::fleet::Fleet;
use crate::place::Place;
use crate::ports::free_port;
use crate::process::Process;
use crate::replica::Replica;
use crate::wait::{eventually, throughout};

/// A first election, a takeover after the default TTL, and room for a loaded machine.
pub const ELECTED: Duration = Duration::from_secs(20);

/// What to start.
pub struct Builder {
    etcd_members: usize,
    etcd_arguments: Vec<String>,
    replicas: usize,
    datanodes: usize,
    prefix: String,
    arguments: Vec<String>,
    datanode_arguments: Vec<String>,
}

impl Builder {
    /// Members of etcd: 0 where the cluster uses another's, or the embedded store.
    pub fn etcd(mut self, members: usize) -> Builder {
        self.etcd_members = members;
        self
    }

    /// Further flags of its etcd.
    pub fn etcd_arguments(mut self, arguments: &[&str]) -> Builder {
        self.etcd_arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Replicas of metasrv.
    pub fn replicas(mut self, replicas: usize) -> Builder {
        self.replicas = replicas;
        self
    }

    /// Datanode processes, with ids from 1.
    pub fn datanodes(mut self, datanodes: usize) -> Builder {
        self.datanodes = datanodes;
        self
    }

    /// Where it keeps its keys.
    pub fn prefix(mut self, prefix: &str) -> Builder {
        self.prefix = prefix.to_owned();
        self
    }

    /// The TTL of the leader's lease, the length of region leases, and the heartbeat interval.
    pub fn timing(self, election_ttl: &str, region_lease: &str, interval: &str) -> Builder {
        self.argument("--etcd-lease-ttl", election_ttl)
            .argument("--region-lease", region_lease)
            .argument("--heartbeat-interval", interval)
    }

    /// Any other flag of `metasrv serve`.
    pub fn argument(mut self, flag: &str, value: &str) -> Builder {
        self.arguments.extend([flag.to_owned(), value.to_owned()]);
        self
    }

    /// Replicas that suffer the faults they are asked to suffer.
    pub fn fault_injection(mut self) -> Builder {
        self.arguments.push("--fault-injection".to_owned());
        self
    }

    /// Datanodes under a supervisor, which certifies the end of a worker and starts the next one.
    pub fn supervised(mut self) -> Builder {
        self.datanode_arguments.push("--supervised".to_owned());
        self
    }

    /// Datanodes that write on when the right to has ended.
    pub fn faulty_datanodes(mut self) -> Builder {
        self.datanode_arguments.push("--write-without-right".to_owned());
        self
    }

    /// Starts it all and waits until a leader serves.
    pub async fn start(self) -> Cluster {
        let directory = tempfile::Builder::new().prefix("metasrv-test-").tempdir().expect("a directory");
        let etcd = match self.etcd_members {
            0 => None,
            members => {
                let places = vec![Place::here(); members];
                Some(Etcd::start_at(places, self.etcd_arguments.clone(), directory.path()).await)
            }
        };
        let endpoints = etcd.as_ref().map(Etcd::endpoints).unwrap_or_default();
        self.start_on(endpoints, etcd, directory).await
    }

    /// The same on the etcd of another cluster.
    pub async fn start_beside(self, other: &Cluster) -> Cluster {
        let directory = tempfile::Builder::new().prefix("metasrv-test-").tempdir().expect("a directory");
        let endpoints = other.etcd.as_ref().map(Etcd::endpoints).unwrap_or_default();
        self.start_on(endpoints, None, directory).await
    }

    async fn start_on(self, endpoints: Vec<String>, etcd: Option<Etcd>, directory: TempDir) -> Cluster {
        let path = directory.path().to_owned();
        let replicas = (0..self.replicas)
            .map(|index| {
                let mut arguments = match endpoints.is_empty() {
                    true => vec!["--embedded".to_owned(), path.join("embedded").display().to_string()],
                    false => vec!["--etcd-endpoints".to_owned(), endpoints.join(",")],
                };
                arguments.extend(["--prefix".to_owned(), self.prefix.clone()]);
                arguments.extend(self.arguments.iter().cloned());
                Replica::new(&format!("metasrv-{index}"), arguments)
            })
            .collect();
        let mut cluster = Cluster {
            replicas,
            datanodes: Vec::new(),
            etcd,
            directory: Some(directory),
            path,
            datanode_arguments: self.datanode_arguments,
        };
        for index in 0..cluster.replicas.len() {
            cluster.start_replica(index);
        }
        for replica in &cluster.replicas {
            replica.answers().await;
        }
        for id in 1..=self.datanodes {
            cluster.start_datanode(u64::try_from(id).unwrap_or(u64::MAX));
        }
        cluster.leader().await;
        cluster
    }
}

/// A datanode process. Its port and its data stay the same when it is started again.
pub struct Datanode {
    /// Its id.
    pub id: u64,
    /// Where its key-value service is.
    pub port: u16,
    /// Its process, while it runs.
    pub process: Option<Process>,
}

impl Datanode {
    /// Its gRPC address.
    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its running process. Panics where there is none.
    pub fn process(&self) -> &Process {
        self.process.as_ref().unwrap_or_else(|| panic!("datanode {} does not run", self.id))
    }
}

/// A whole system on this machine.
pub struct Cluster {
    /// The replicas of metasrv.
    pub replicas: Vec<Replica>,
    /// The datanode processes.
    pub datanodes: Vec<Datanode>,
    /// Its etcd, where it has one of its own. Ends after what uses it.
    pub etcd: Option<Etcd>,
    directory: Option<TempDir>,
    path: PathBuf,
    datanode_arguments: Vec<String>,
}

/// Who leads, as the replicas see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leadership {
    /// Which replica.
    pub replica: usize,
    /// Its term.
    pub term: u64,
}

impl Cluster {
    /// What to start; by default one etcd member and one replica.
    pub fn builder() -> Builder {
        Builder {
            etcd_members: 1,
            etcd_arguments: Vec::new(),
            replicas: 1,
            datanodes: 0,
            prefix: "/metasrv".to_owned(),
            arguments: Vec::new(),
            datanode_arguments: Vec::new(),
        }
    }

    /// Where its logs and its data are.
    pub fn directory(&self) -> &Path {
        &self.path
    }

    /// The addresses of all replicas.
    pub fn addrs(&self) -> Vec<String> {
        self.replicas.iter().map(Replica::addr).collect()
    }

    /// Starts a replica, again or for the first time.
    pub fn start_replica(&mut self, index: usize) {
        self.replicas[index].start(&self.path);
    }

    /// Starts the datanode with this id, again or for the first time.
    pub fn start_datanode(&mut self, id: u64) {
        let at = self.datanodes.iter().position(|datanode| datanode.id == id).unwrap_or_else(|| {
            self.datanodes.push(Datanode { id, port: free_port(), process: None });
            self.datanodes.len() - 1
        });
        let name = format!("datanode-{id}");
        let data = self.path.join(&name);
        let arguments = [
            "run".to_owned(),
            "--node-id".to_owned(),
            id.to_string(),
            "--metasrv".to_owned(),
            self.addrs().join(","),
            "--grpc-addr".to_owned(),
            self.datanodes[at].addr(),
            "--data".to_owned(),
            data.display().to_string(),
            "--shared".to_owned(),
            self.path.join("regions").display().to_string(),
            "--write-intervals".to_owned(),
            self.path.join(format!("{name}.intervals")).display().to_string(),
        ];
        let arguments = arguments.iter().chain(&self.datanode_arguments);
        self.datanodes[at].process = Some(Process::start(&name, &binary("datanode"), arguments, &self.path));
    }

    /// The datanode with this id.
    pub fn datanode(&mut self, id: u64) -> &mut Datanode {
        self.datanodes
            .iter_mut()
            .find(|datanode| datanode.id == id)
            .unwrap_or_else(|| panic!("datanode {id} was never started"))
    }

    /// Waits for a leader: the running replica that says it leads, under the highest term where several say so.
    pub async fn leader(&self) -> Leadership {
        self.leader_after(0).await
    }

    /// Waits for a leader of a term higher than this.
    pub async fn leader_after(&self, term: u64) -> Leadership {
        let what = format!("a replica leads under a term higher than {term}");
        eventually(ELECTED, &what, async || {
            let mut found: Option<Leadership> = None;
            let mut seen = Vec::new();
            for (index, replica) in self.replicas.iter().enumerate() {
                if replica.process.is_none() {
                    continue;
                }
                match replica.status().await {
                    Ok(status) if status.role == "leader" && status.term > term => {
                        let leadership = Leadership { replica: index, term: status.term };
                        found = Some(found.map_or(leadership, |best| {
                            if best.term > leadership.term { best } else { leadership }
                        }));
                    }
                    Ok(status) => {
                        seen.push(format!("{}: {} term {}", replica.name, status.role, status.term))
                    }
                    Err(error) => seen.push(format!("{}: {}", replica.name, error.message())),
                }
            }
            found.ok_or_else(|| seen.join("; "))
        })
        .await
    }

    /// The admin service of the present leader.
    pub async fn admin(&self) -> AdminClient<Channel> {
        self.replicas[self.leader().await.replica].admin()
    }

    /// The operators' service of the present leader.
    pub async fn operations(&self) -> OperationsClient<Channel> {
        self.replicas[self.leader().await.replica].operations()
    }

    /// Creates regions, on this node or wherever there is room.
    pub async fn create_regions(&self, count: u32, node_id: Option<u64>) -> Vec<Region> {
        let reason = "for a test".to_owned();
        let request =
            CreateRegionsRequest { count, node_id, cluster_id: 0, reason, ..CreateRegionsRequest::default() };
        match self.admin().await.create_regions(request).await {
            Ok(response) => response.into_inner().regions,
            Err(status) => panic!("{count} regions on {node_id:?} cannot be created: {status}"),
        }
    }

    /// All regions, as this replica lists them.
    pub async fn regions(&self, replica: usize) -> Result<Vec<Region>, tonic::Status> {
        let request = ListRegionsRequest::default();
        let mut chunks = self.replicas[replica].admin().list_regions(request).await?.into_inner();
        let mut regions = Vec::new();
        while let Some(chunk) = chunks.message().await? {
            regions.extend(chunk.regions);
        }
        Ok(regions)
    }

    /// All nodes, as this replica lists them.
    pub async fn nodes(&self, replica: usize) -> Result<Vec<Node>, tonic::Status> {
        let mut chunks =
            self.replicas[replica].admin().list_nodes(ListNodesRequest::default()).await?.into_inner();
        let mut nodes = Vec::new();
        while let Some(chunk) = chunks.message().await? {
            nodes.extend(chunk.nodes);
        }
        Ok(nodes)
    }

    /// Waits until the leader says that so many regions exist and each of them is writable.
    pub async fn all_writable(&self, count: usize, limit: Duration) {
        let what = format!("{count} regions are writable");
        eventually(limit, &what, async || {
            let leader = self.leader().await;
            let regions = self.regions(leader.replica).await.map_err(|status| status.to_string())?;
            let writable = regions.iter().filter(|region| region.writable).count();
            if regions.len() == count && writable == count {
                return Ok(());
            }
            Err(format!("{writable} of {} are", regions.len()))
        })
        .await;
    }

    /// Looks for a while, and panics as soon as this leader does not lead its term any more, or a node of the fleet is
    /// not leased so many regions by it.
    pub async fn undisturbed(&self, leader: Leadership, fleet: &Fleet, regions: usize, period: Duration) {
        throughout(period, "leader and leases stay", async || {
            let status = self.replicas[leader.replica].status().await.map_err(|status| status.to_string())?;
            let leased = fleet.leased(regions, leader.term);
            if leased == fleet.len() && status.role == "leader" && status.term == leader.term {
                return Ok(());
            }
            Err(format!("{leased} nodes are leased; {status:?}"))
        })
        .await;
    }

    /// Waits until the leader lists exactly these datanodes as connected.
    pub async fn connected(&self, ids: &[u64]) {
        let what = format!("datanodes {ids:?} are connected");
        eventually(ELECTED, &what, async || {
            let leader = self.leader().await;
            let nodes = self.nodes(leader.replica).await.map_err(|status| status.to_string())?;
            let mut connected: Vec<u64> = nodes
                .iter()
                .filter(|node| node.connected && node.role == "datanode")
                .map(|node| node.node_id)
                .collect();
            connected.sort_unstable();
            if connected == ids { Ok(()) } else { Err(format!("{connected:?} are")) }
        })
        .await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(directory) = self.directory.take()
        {
            eprintln!("logs and data of this test are kept in {}", directory.keep().display());
        }
    }
}
