//! A client that changes metadata while everything breaks: it creates a region now and then, and keeps what it was told.
//!
//! What was acknowledged must be there at the end, on the same node, under the same epoch or a higher one. What ended
//! in any other way (an error, a deadline) is unknown: it may be there once, or not at all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metasrv_proto::admin::admin_client::AdminClient;
use metasrv_proto::admin::{CreateRegionsRequest, Region};
use tokio::task::JoinSet;
use tonic::transport::Channel;

/// Time between two regions.
const PACE: Duration = Duration::from_millis(500);

/// Deadline of one call.
const CALL: Duration = Duration::from_secs(4);

/// What became of one call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The region exists, on this node, under this epoch.
    Acknowledged {
        /// Its id.
        region: u64,
        /// The node it was placed on.
        node: u64,
        /// Its epoch then.
        epoch: u64,
    },
    /// It may exist.
    Unknown,
}

/// Every call by the reason that it gave, which is its own.
pub type History = BTreeMap<String, Outcome>;

/// The client. It stops when this is dropped.
pub struct Writer {
    history: Arc<Mutex<History>>,
    tasks: JoinSet<()>,
}

impl Writer {
    /// Begins to create regions on these nodes in turn, at whichever replica leads.
    pub fn start(replicas: Vec<AdminClient<Channel>>, nodes: u64) -> Writer {
        let history = Arc::new(Mutex::new(History::new()));
        let mut tasks = JoinSet::new();
        tasks.spawn(write(replicas, nodes, Arc::clone(&history)));
        Writer { history, tasks }
    }

    /// Ends it and returns what it was told. A call that is under way stays unknown.
    pub async fn stop(mut self) -> History {
        self.tasks.shutdown().await;
        self.history.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn write(mut replicas: Vec<AdminClient<Channel>>, nodes: u64, history: Arc<Mutex<History>>) {
    let keep = |reason: &str, outcome: Outcome| {
        history.lock().unwrap_or_else(PoisonError::into_inner).insert(reason.to_owned(), outcome);
    };
    for number in 1u64.. {
        let reason = format!("chaos write {number}");
        // Kept before the call: from now on it may happen.
        keep(&reason, Outcome::Unknown);
        for replica in 0..replicas.len() {
            let create = CreateRegionsRequest {
                count: 1,
                node_id: Some(number % nodes.max(1) + 1),
                reason: reason.clone(),
                ..CreateRegionsRequest::default()
            };
            let mut request = tonic::Request::new(create);
            request.set_timeout(CALL);
            let call = tokio::time::timeout(CALL, replicas[replica].create_regions(request)).await;
            match call {
                Ok(Ok(created)) => {
                    if let Some(region) = created.into_inner().regions.first() {
                        keep(&reason, acknowledged(region));
                    }
                    // Whoever led will lead a while.
                    replicas.swap(0, replica);
                    break;
                }
                // This one does not lead, so that nothing was done: another one is asked the same.
                Ok(Err(status)) if status.code() == tonic::Code::FailedPrecondition => {}
                _ => break,
            }
        }
        tokio::time::sleep(PACE).await;
    }
}

fn acknowledged(region: &Region) -> Outcome {
    Outcome::Acknowledged { region: region.region_id, node: region.node_id, epoch: region.epoch }
}

/// What is wrong with the regions that are there at the end, by what the client was told. Empty: nothing.
pub fn lost_writes(history: &History, regions: &[Region]) -> Vec<String> {
    let mut listed: BTreeMap<&str, Vec<&Region>> = BTreeMap::new();
    for region in regions {
        listed.entry(region.reason.as_str()).or_default().push(region);
    }
    let mut lost = Vec::new();
    for (reason, outcome) in history {
        let found = listed.get(reason.as_str()).map(Vec::as_slice).unwrap_or_default();
        match (outcome, found) {
            (Outcome::Acknowledged { region, node, epoch }, [one])
                if one.region_id == *region && one.node_id == *node && one.epoch >= *epoch => {}
            (Outcome::Acknowledged { .. }, _) => {
                lost.push(format!("{reason}: acknowledged as {outcome:?}, there is {found:?}"));
            }
            (Outcome::Unknown, [] | [_]) => {}
            (Outcome::Unknown, many) => {
                lost.push(format!("{reason}: unknown, and there {} times", many.len()))
            }
        }
    }
    lost
}
