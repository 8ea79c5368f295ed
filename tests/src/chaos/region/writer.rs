//! The writers: one for each region, which puts a number again and again at the node that it believes to lead, as a
//! client of a sharded system would, and keeps what it was told.
//!
//! A put that was refused was not written, and is tried again soon. One that ended in any other way is tried again at
//! whichever node leads then; see `keys.rs` for what may be found of it. A change of the route ends what is under way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metasrv_proto::admin::key_value_client::KeyValueClient;
use metasrv_proto::admin::{PutRequest, ScanRequest};
use rand::Rng as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use super::book::{Book, Reader};
use super::keys::Keys;
use super::storage::Told;
use super::track::{Acknowledged, Track};
use crate::chaos::servers::reach;
use crate::wait::now;

/// Time between two puts to a region that nobody looks at, in the middle: up to a quarter less or more, so that the puts of all
/// writers do not come in one moment.
const PACE: Duration = Duration::from_millis(500);

/// Before a put that was refused is tried again.
const REFUSED: Duration = Duration::from_millis(5);

/// Before a put is tried again whose outcome is unknown: most of the time nobody is there.
const DOUBTFUL: Duration = Duration::from_millis(20);

/// Deadline of one put, and of one page of a scan.
const CALL: Duration = Duration::from_secs(1);

/// Connecting to a node.
const CONNECT: Duration = Duration::from_millis(500);

/// A connection that is silent for so long is made anew.
const SILENT: Duration = Duration::from_secs(1);

/// What a writer is told to do.
#[derive(Clone, Copy, Debug)]
struct Order {
    /// Time between two puts.
    pace: Duration,
    /// So many times it reads back everything that it put.
    checks: u64,
}

/// What is known of one writer.
#[derive(Default, Debug)]
struct Report {
    track: Track,
    checked: u64,
    lost: Vec<String>,
}

type SharedReport = Arc<Mutex<Report>>;

fn look(report: &SharedReport) -> MutexGuard<'_, Report> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The writers. They stop when this is dropped.
pub struct Writers {
    writers: BTreeMap<u64, (watch::Sender<Order>, SharedReport)>,
    tasks: JoinSet<()>,
    /// Ends with them.
    _book: Book,
}

impl Writers {
    /// Begins to write to these regions, at nodes with these addresses by their ids.
    pub fn start(
        regions: impl IntoIterator<Item = u64>,
        nodes: &BTreeMap<u64, String>,
        book: Book,
    ) -> Writers {
        let nodes: BTreeMap<u64, Channel> =
            nodes.iter().filter_map(|(node, addr)| Some((*node, connection(addr)?))).collect();
        let nodes = Arc::new(nodes);
        let mut writers = Writers { writers: BTreeMap::new(), tasks: JoinSet::new(), _book: book };
        for region in regions {
            let report = SharedReport::default();
            let (order, told) = watch::channel(Order { pace: PACE, checks: 0 });
            let writer = Writer {
                region,
                nodes: Arc::clone(&nodes),
                routes: writers._book.reader(),
                order: told,
                report: Arc::clone(&report),
                keys: Keys::default(),
            };
            writers.tasks.spawn(writer.run());
            writers.writers.insert(region, (order, report));
        }
        writers
    }

    /// The regions that are written to.
    pub fn regions(&self) -> Vec<u64> {
        self.writers.keys().copied().collect()
    }

    /// From now on so much time between two puts to these regions.
    pub fn focus(&self, regions: &[u64], pace: Duration) {
        for region in regions {
            if let Some((order, _)) = self.writers.get(region) {
                order.send_modify(|order| order.pace = pace);
            }
        }
    }

    /// Nobody looks at any region.
    pub fn relax(&self) {
        self.focus(&self.regions(), PACE);
    }

    /// A fault is about to happen to these regions: gaps of before are forgotten.
    pub fn begin_round(&self, regions: &[u64]) {
        for region in regions {
            if let Some((_, report)) = self.writers.get(region) {
                look(report).track.begin_round();
            }
        }
    }

    /// The longest gap of each of these regions since the round began.
    pub fn gaps(&self, regions: &[u64]) -> Vec<Duration> {
        let now = now();
        let gap = |region: &u64| self.writers.get(region).map(|(_, report)| look(report).track.gap(now));
        regions.iter().filter_map(gap).collect()
    }

    /// The last acknowledged put to a region.
    pub fn last(&self, region: u64) -> Option<Acknowledged> {
        look(&self.writers.get(&region)?.1).track.last()
    }

    /// Waits until a put to each of these regions is acknowledged that was not before this call, under an epoch above
    /// this one of its own.
    ///
    /// # Errors
    /// What did not come in time.
    pub async fn written(&self, above: &BTreeMap<u64, u64>) -> Result<(), String> {
        let since = now();
        reach("every region is written to", async || {
            let is_late = |(region, epoch): &(&u64, &u64)| {
                self.last(**region).is_none_or(|last| last.epoch <= **epoch || last.at < since)
            };
            let late: Vec<u64> = above.iter().filter(is_late).map(|(region, _)| *region).collect();
            match late.first() {
                None => Ok(()),
                Some(region) => Err(format!(
                    "{} of {} are not, among them {region}, last {:?}",
                    late.len(),
                    above.len(),
                    self.last(*region)
                )),
            }
        })
        .await
    }

    /// Lets the writers of these regions read back everything that was acknowledged, from the node that leads. Returns
    /// what is lost.
    ///
    /// # Errors
    /// It was not read in time.
    pub async fn check(&self, regions: &[u64]) -> Result<Vec<String>, String> {
        let of = |region: &u64| self.writers.get(region).map(|writer| (*region, writer));
        let mut awaited: Vec<(u64, u64, &SharedReport)> = Vec::new();
        for (region, (order, report)) in regions.iter().filter_map(of) {
            order.send_modify(|order| order.checks += 1);
            awaited.push((region, order.borrow().checks, report));
        }
        reach("every region is read back", async || {
            awaited.retain(|(_, number, report)| look(report).checked < *number);
            match awaited.first() {
                None => Ok(()),
                Some((region, ..)) => Err(format!("{} are not, among them {region}", awaited.len())),
            }
        })
        .await?;
        let reports = regions.iter().filter_map(|region| Some((region, &self.writers.get(region)?.1)));
        Ok(reports
            .flat_map(|(region, report)| {
                let lost = std::mem::take(&mut look(report).lost);
                lost.into_iter().map(move |lost| format!("region {region}: {lost}"))
            })
            .collect())
    }

    /// Ends them, and returns what they were told.
    pub async fn stop(mut self) -> BTreeMap<u64, Told> {
        self.tasks.shutdown().await;
        let told = |(region, (_, report)): (&u64, &(watch::Sender<Order>, SharedReport))| {
            let track = &look(report).track;
            (*region, Told { acknowledged: track.acknowledged(), attempts: track.attempts() })
        };
        self.writers.iter().map(told).collect()
    }
}

fn connection(addr: &str) -> Option<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).ok()?;
    Some(
        endpoint
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(SILENT)
            .keep_alive_timeout(SILENT)
            .connect_lazy(),
    )
}

/// The pace of a region that nobody looks at is spread; what is measured goes by its own.
fn spread(pace: Duration) -> Duration {
    if pace == PACE { PACE.mul_f64(rand::rng().random_range(0.75..1.25)) } else { pace }
}

/// How an attempt ended.
enum Attempt {
    Acknowledged(Acknowledged),
    /// Nothing was written.
    Refused,
    /// Nobody knows.
    Doubtful,
}

struct Writer {
    region: u64,
    nodes: Arc<BTreeMap<u64, Channel>>,
    routes: Reader,
    order: watch::Receiver<Order>,
    report: SharedReport,
    keys: Keys,
}

impl Writer {
    async fn run(mut self) {
        loop {
            let started = tokio::time::Instant::now();
            let route = self.routes.route(self.region);
            match self.attempt(route).await {
                Attempt::Acknowledged(put) => {
                    self.keys.acknowledge();
                    look(&self.report).track.acknowledge(put);
                    self.check(put.node).await;
                    self.wait_until_due(started).await;
                }
                Attempt::Refused => self.wait_for_route(route, REFUSED).await,
                Attempt::Doubtful => {
                    self.keys.doubt();
                    self.wait_for_route(route, DOUBTFUL).await;
                }
            }
        }
    }

    async fn attempt(&mut self, route: Option<(u64, u64)>) -> Attempt {
        let Some((node, channel)) = route.and_then(|(node, _)| Some((node, self.nodes.get(&node)?))) else {
            return Attempt::Refused;
        };
        let pending = self.keys.due();
        let (key, value) = (pending.key.into_bytes(), pending.number.to_string().into_bytes());
        let request = PutRequest { region_id: self.region, key, value };
        let mut client = KeyValueClient::new(channel.clone());
        look(&self.report).track.sent();
        let answer = tokio::select! {
            biased;
            answer = tokio::time::timeout(CALL, client.put(request)) => answer,
            () = self.routes.changed(self.region, route) => return Attempt::Doubtful,
        };
        match answer {
            Ok(Ok(response)) => {
                Attempt::Acknowledged(Acknowledged { at: now(), node, epoch: response.into_inner().epoch })
            }
            Ok(Err(status)) if status.code() == Code::FailedPrecondition => Attempt::Refused,
            _ => Attempt::Doubtful,
        }
    }

    async fn wait_for_route(&mut self, known: Option<(u64, u64)>, at_most: Duration) {
        // It is tried again either way.
        let _ = tokio::time::timeout(at_most, self.routes.changed(self.region, known)).await;
    }

    async fn wait_until_due(&mut self, started: tokio::time::Instant) {
        let mut due = started + spread(self.order.borrow_and_update().pace);
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(due) => return,
                changed = self.order.changed() => {
                    let Order { pace, checks } = *self.order.borrow_and_update();
                    if changed.is_err() || checks > look(&self.report).checked {
                        return;
                    }
                    // All of them hear of it in one moment; from then on each keeps its own.
                    due = tokio::time::Instant::now() + pace.mul_f64(rand::rng().random_range(0.0..1.0));
                }
            }
        }
    }

    /// Reads everything back where it was asked for, from the node that acknowledged just now. Where that fails, the
    /// next acknowledged put tries again.
    async fn check(&mut self, node: u64) {
        let wanted = self.order.borrow().checks;
        if look(&self.report).checked >= wanted {
            return;
        }
        let Some(found) = self.scan(node).await else { return };
        let lost = self.keys.lost(&found);
        let mut report = look(&self.report);
        report.lost.extend(lost);
        report.checked = wanted;
    }

    async fn scan(&self, node: u64) -> Option<BTreeMap<Vec<u8>, Vec<u8>>> {
        let mut client = KeyValueClient::new(self.nodes.get(&node)?.clone());
        let mut found = BTreeMap::new();
        let mut start = Vec::new();
        loop {
            let request = ScanRequest { region_id: self.region, start: start.clone(), limit: 0 };
            let page = tokio::time::timeout(CALL, client.scan(request)).await.ok()?.ok()?.into_inner();
            let last = page.pairs.last().map(|pair| pair.key.clone());
            found.extend(page.pairs.into_iter().map(|pair| (pair.key, pair.value)));
            match last {
                Some(last) if page.more => start = [last, vec![0]].concat(),
                _ => return Some(found),
            }
        }
    }
}
