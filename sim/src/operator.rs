//! The operator: creates the regions, then does what operators do, through the real client, and writes down what came of it.
//! It also watches the routes, as a frontend does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metasrv_client::{Dialer, MetaClient, MetaClientConfig, RouteCache, RouteChange};
use metasrv_proto::admin::{
    AnnounceRestartRequest, CancelProcedureRequest, CordonNodeRequest, CreateRegionsRequest,
    DrainNodeRequest, DropRegionRequest, MigrateRegionRequest, RebalanceRequest,
};
use metasrv_proto::meta::Role;
use rand::Rng as _;
use tokio::task::JoinSet;

use crate::net::NetworkOf;
use crate::trace::Trace;

/// Calls end after so long.
const LIMIT: Duration = Duration::from_secs(8);

/// What an operator does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Operation {
    /// A region more.
    Create,
    /// A region less.
    Drop,
    /// A region elsewhere.
    Migrate,
    /// A node emptied.
    Drain,
    /// A node that gets no more regions, or gets them again.
    Cordon,
    /// Another leader.
    Transfer,
    /// Loads evened out.
    Rebalance,
    /// A node that will be restarted.
    Announce,
}

impl Operation {
    /// All of them.
    pub const ALL: [Operation; 8] = [
        Operation::Create,
        Operation::Drop,
        Operation::Migrate,
        Operation::Drain,
        Operation::Cordon,
        Operation::Transfer,
        Operation::Rebalance,
        Operation::Announce,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Create => "create",
            Operation::Drop => "drop",
            Operation::Migrate => "migrate",
            Operation::Drain => "drain",
            Operation::Cordon => "cordon",
            Operation::Transfer => "transfer",
            Operation::Rebalance => "rebalance",
            Operation::Announce => "announce",
        }
    }
}

/// An operation, and what is known of its outcome.
#[derive(Clone, Debug)]
pub struct Done {
    /// What was asked for.
    pub operation: Operation,
    /// A number of its own, which the reason of a new region carries.
    pub number: u64,
    /// The region that it is about.
    pub region: u64,
    /// Whether it was acknowledged; otherwise nobody knows.
    pub acknowledged: bool,
}

/// What the operator and the simulation tell each other.
#[derive(Default)]
pub struct Desk {
    /// Nothing new is begun, and what was ordered is taken back.
    pub calm: AtomicBool,
    /// What was ordered is taken back.
    pub settled: AtomicBool,
    /// The first regions are there.
    pub ready: AtomicBool,
    /// What is there in the end, asked through the client: none where it could not be asked yet.
    pub check: Mutex<Option<Check>>,
    /// Operations that have begun and are not answered.
    pub open: Mutex<Vec<Operation>>,
    history: Mutex<Vec<Done>>,
    broken: Mutex<Vec<String>>,
    routes: Mutex<Option<RouteCache>>,
}

/// What the real client is told of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// What does not fit together in the store.
    pub findings: Vec<String>,
    /// Procedures under way.
    pub procedures: usize,
    /// Regions that are not writable.
    pub not_writable: Vec<u64>,
}

fn locked<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    /// All operations that were answered so far.
    pub fn history(&self) -> Vec<Done> {
        locked(&self.history).clone()
    }

    /// What must not have happened, since this was asked last.
    pub fn take_broken(&self) -> Vec<String> {
        std::mem::take(&mut locked(&self.broken))
    }

    /// The routes as a watcher has them: node and epoch by region.
    pub fn routes(&self) -> BTreeMap<u64, (u64, u64)> {
        let all = locked(&self.routes).as_ref().map(RouteCache::all).unwrap_or_default();
        all.into_iter().map(|route| (route.region_id, (route.node_id, route.epoch))).collect()
    }
}

/// See the module.
pub struct Operator {
    /// The replicas.
    pub peers: Vec<String>,
    /// Datanodes have the ids from 1 to this one.
    pub nodes: u64,
    /// Regions at the beginning.
    pub regions: u32,
    /// The longest pause between two operations, in milliseconds.
    pub idle_ms: u64,
    /// Shared with the simulation.
    pub desk: Arc<Desk>,
    /// Where it says what it does.
    pub trace: Trace,
}

impl Operator {
    /// Its main function.
    pub async fn run(self, network: NetworkOf) {
        let mut config = MetaClientConfig::new(self.peers.clone(), Role::Frontend, 0);
        config.dialer = Dialer::over(Arc::new(network));
        let client = match MetaClient::try_new(config) {
            Ok(client) => client,
            Err(error) => return self.trace.say("op", &format!("no client: {error}")),
        };
        let routes = client.route_cache(0);
        *locked(&self.desk.routes) = Some(routes.clone());
        let watching = tokio::task::spawn_local(watch(routes, Arc::clone(&self.desk)));
        let mut tasks = JoinSet::new();
        let (operator, mut number) = (Arc::new(self), 0_u64);
        operator.prepare(&client).await;
        operator.desk.ready.store(true, Ordering::Relaxed);
        while !operator.desk.calm.load(Ordering::Relaxed) {
            let idle = rand::rng().random_range(0..=operator.idle_ms);
            tokio::time::sleep(Duration::from_millis(idle)).await;
            number += 1;
            tasks.spawn_local(Arc::clone(&operator).operate(client.clone(), number));
            // A handful at a time: whoever waits for an answer is in the way of nobody.
            while tasks.len() >= 5 {
                tasks.join_next().await;
            }
        }
        while tasks.join_next().await.is_some() {}
        operator.settle(&client).await;
        watching.abort();
    }

    /// The datanodes are there, and the first regions.
    async fn prepare(&self, client: &MetaClient) {
        loop {
            let nodes = client.admin().list_nodes().await.map_or(0, |list| list.nodes.len());
            if nodes as u64 >= self.nodes {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let request = CreateRegionsRequest {
            count: self.regions,
            reason: "op-0".to_owned(),
            ..CreateRegionsRequest::default()
        };
        while let Err(error) = client.admin().create_regions(request.clone()).await {
            self.trace.say("op", &format!("no regions yet: {error}"));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn operate(self: Arc<Operator>, client: MetaClient, number: u64) {
        let (drawn, region, node) = {
            let mut random = rand::rng();
            let known: Vec<u64> = self.desk.routes().into_keys().collect();
            let region = known.get(random.random_range(0..known.len().max(1))).copied().unwrap_or(1);
            (random.random_range(0..100), region, random.random_range(1..=self.nodes))
        };
        let operation = match drawn {
            0..10 => Operation::Create,
            10..14 => Operation::Drop,
            14..54 => Operation::Migrate,
            54..64 => Operation::Drain,
            64..80 => Operation::Cordon,
            80..88 => Operation::Transfer,
            88..94 => Operation::Rebalance,
            _ => Operation::Announce,
        };
        self.trace.say("op", &format!("#{number} {} region {region} node {node}", operation.name()));
        locked(&self.desk.open).push(operation);
        let outcome = perform(&client, operation, number, region, node).await;
        let said = outcome.as_ref().map_or_else(ToString::to_string, |()| "done".to_owned());
        self.trace.say("op", &format!("#{number} {}: {said}", operation.name()));
        let mut open = locked(&self.desk.open);
        if let Some(at) = open.iter().position(|begun| *begun == operation) {
            open.swap_remove(at);
        }
        drop(open);
        locked(&self.desk.history).push(Done { operation, number, region, acknowledged: outcome.is_ok() });
    }

    /// Takes back what would keep the cluster from being as it should, and then asks again and again how it is.
    async fn settle(&self, client: &MetaClient) {
        let operations = client.operations().with_deadline(LIMIT);
        // Where every node is being emptied, or gets nothing, no drain ever ends.
        loop {
            let under_way = operations.procedures().await.map(|list| list.procedures);
            let mut left = under_way.is_err();
            for drain in under_way.unwrap_or_default().iter().filter(|view| view.kind == "drain") {
                left = true;
                let cancel = CancelProcedureRequest { id: drain.id, reason: "calm".to_owned() };
                if let Err(error) = operations.cancel_procedure(cancel).await {
                    self.trace.say("op", &format!("drain {} goes on: {error}", drain.id));
                }
            }
            if !left {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        for node in 1..=self.nodes {
            let uncordon = CordonNodeRequest { node_id: node, ..CordonNodeRequest::default() };
            while operations.cordon_node(uncordon.clone()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            let withdraw = AnnounceRestartRequest { node_id: node, ..AnnounceRestartRequest::default() };
            while operations.announce_restart(withdraw.clone()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        self.desk.settled.store(true, Ordering::Relaxed);
        loop {
            let seen = check(client).await;
            *locked(&self.desk.check) = seen;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

async fn check(client: &MetaClient) -> Option<Check> {
    let operations = client.operations().with_deadline(LIMIT);
    let findings = operations.check_store().await.ok()?.findings;
    let procedures = operations.procedures().await.ok()?.procedures.len();
    let regions = client.admin().list_regions(None).await.ok()?.regions;
    let not_writable = regions.iter().filter(|region| !region.writable).map(|region| region.region_id);
    Some(Check {
        findings: findings.iter().map(|finding| format!("{}: {}", finding.key, finding.what)).collect(),
        procedures,
        not_writable: not_writable.collect(),
    })
}

/// A watcher never sees a region go back.
async fn watch(routes: RouteCache, desk: Arc<Desk>) {
    let mut changes = routes.watch();
    let mut epochs: BTreeMap<u64, u64> = BTreeMap::new();
    while let Some(change) = changes.next().await {
        let seen: Vec<(u64, u64)> = match change {
            RouteChange::Changed(route) => vec![(route.region_id, route.epoch)],
            RouteChange::Dropped { .. } => Vec::new(),
            RouteChange::Replaced => {
                routes.all().into_iter().map(|route| (route.region_id, route.epoch)).collect()
            }
        };
        for (region, epoch) in seen {
            let before = epochs.insert(region, epoch).unwrap_or(0);
            if epoch < before {
                locked(&desk.broken)
                    .push(format!("region {region} is watched under epoch {epoch} after {before}"));
            }
        }
    }
}

async fn perform(
    client: &MetaClient,
    operation: Operation,
    number: u64,
    region: u64,
    node: u64,
) -> Result<(), metasrv_client::ClientError> {
    let (admin, operations) = (client.admin().with_deadline(LIMIT), client.operations().with_deadline(LIMIT));
    let reason = format!("op-{number}");
    match operation {
        Operation::Create => {
            let request = CreateRegionsRequest { count: 1, reason, ..CreateRegionsRequest::default() };
            admin.create_regions(request).await.map(drop)
        }
        Operation::Drop => {
            operations.drop_region(DropRegionRequest { region_id: region, reason }).await.map(drop)
        }
        Operation::Migrate => {
            let to_node = Some(node).filter(|_| !number.is_multiple_of(3));
            operations
                .migrate_region(MigrateRegionRequest { region_id: region, to_node, reason })
                .await
                .map(drop)
        }
        Operation::Drain => {
            let request = DrainNodeRequest { node_id: node, reason, ..DrainNodeRequest::default() };
            operations.drain_node(request).await.map(drop)
        }
        Operation::Cordon => {
            // Drained nodes are cordoned, and most of all this takes that back.
            let cordoned = number.is_multiple_of(4);
            let request =
                CordonNodeRequest { node_id: node, cordoned, reason, ..CordonNodeRequest::default() };
            operations.cordon_node(request).await
        }
        Operation::Transfer => admin.transfer_leadership("", &reason).await.map(drop),
        Operation::Rebalance => {
            operations.rebalance(RebalanceRequest { reason, ..RebalanceRequest::default() }).await.map(drop)
        }
        Operation::Announce => {
            let request = AnnounceRestartRequest {
                node_id: node,
                for_ms: 5_000,
                reason,
                ..AnnounceRestartRequest::default()
            };
            operations.announce_restart(request).await.map(drop)
        }
    }
}
