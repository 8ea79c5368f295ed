//! The heartbeat of a datanode: a stream to the leader, a request at the interval, and another stream whenever that one
//! ends, for whatever reason.
//!
//! ```text
//!             ┌────────── session.rs ──────────┐
//! interval ──▶│                                │──▶ HeartbeatSender ──▶ leader
//! replies  ──▶│  the loop: the first of these  │
//! changes  ──▶│                                │◀── quit signal ◀── receiving half ◀── leader
//!             └────────────────────────────────┘                         │
//!                     a new stream after quit             handlers: RegionAliveKeeper, CloseRegions,
//!                                                                   Instruction, HeartbeatConfig
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metasrv_client::{MetaClient, Violation, parse_address, wall_clock_ms};
use metasrv_core::id::Incarnation;
use metasrv_core::time::Clock;
use metasrv_proto::admin::DirectoryLock;
use metasrv_proto::meta::{NodeInfo, Role};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use crate::alive_keeper::RegionAliveKeeper;
use crate::clock::SystemClock;
use crate::instruction::InstructionExecutor;
use crate::mailbox::{HeartbeatMailbox, OutgoingMessage};
use crate::orders::{CloseRegionsHandler, InstructionHandler, OrderReceiver, orders};
use crate::region_server::{RegionEventReceiver, RegionEventSender, RegionServer};
use crate::response::{HandlerGroupExecutor, HeartbeatResponseHandler};
use crate::session::{HeartbeatConfigHandler, Session};
use crate::turns::Turns;

/// What a [`HeartbeatTask`] is made of.
pub struct HeartbeatTaskOptions {
    /// Finds the leader. Its role has to be [`Role::Datanode`], its `member_id` is the node's id.
    pub client: MetaClient,
    /// `host:port` of this node's own service.
    pub addr: String,
    /// Time between two heartbeats, until metasrv dictates another one.
    pub interval: Duration,
    /// Each region's figures are reported at least once in so long. A heartbeat reports those that have changed by much, and
    /// the sums of all; to a leader that knows nothing of digests it reports all of them.
    pub full_report_interval: Duration,
    /// The regions.
    pub region_server: Arc<dyn RegionServer>,
    /// Openings and closings, from [`region_events`](crate::region_events).
    pub events: (RegionEventSender, RegionEventReceiver),
    /// Woken after each response was handled: leases may have been renewed.
    pub leases_notifier: Option<Arc<Notify>>,
    /// Version and host, for people.
    pub info: NodeInfo,
    /// Handlers of the embedder's, which run after ours.
    pub handlers: Vec<Arc<dyn HeartbeatResponseHandler>>,
    /// Who this process is, where a supervisor that certifies its end has said so; else it is chosen here.
    pub incarnation: Option<Incarnation>,
    /// The lock that this process holds for as long as it lives: it lets a later process of this node prove that this one
    /// has ended. `None`: it holds none, or cannot be sure of it.
    pub directory_lock: Option<DirectoryLock>,
}

impl HeartbeatTaskOptions {
    /// With a heartbeat every second and nothing that is optional.
    pub fn new(
        client: MetaClient,
        addr: impl Into<String>,
        region_server: Arc<dyn RegionServer>,
    ) -> HeartbeatTaskOptions {
        HeartbeatTaskOptions {
            client,
            addr: addr.into(),
            interval: Duration::from_secs(1),
            full_report_interval: Duration::from_secs(600),
            region_server,
            events: crate::region_events(),
            leases_notifier: None,
            info: NodeInfo::default(),
            handlers: Vec::new(),
            incarnation: None,
            directory_lock: None,
        }
    }
}

/// Options that cannot work.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}", .violations.iter().map(Violation::to_string).collect::<Vec<_>>().join("; "))]
pub struct InvalidOptions {
    /// Every violation that was found.
    pub violations: Vec<Violation>,
}

/// Why a task has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TaskEnd {
    /// It was stopped.
    Stopped,
    /// A newer process of this node took over; this one is granted nothing any more and should end.
    Superseded(String),
    /// Something of it ended that must not. Nothing is renewed any more.
    Failed(String),
}

/// Keeps this node registered and its regions leased. Ends when it is stopped or dropped.
pub struct HeartbeatTask {
    shared: Arc<Shared>,
    /// Taken by the first start.
    parts: Mutex<Option<Parts>>,
    stop: watch::Sender<bool>,
    end: watch::Sender<Option<TaskEnd>>,
}

/// What the task's parts share.
pub(crate) struct Shared {
    pub(crate) client: MetaClient,
    pub(crate) addr: String,
    pub(crate) info: NodeInfo,
    pub(crate) keeper: Arc<RegionAliveKeeper>,
    /// Creation of this process, in milliseconds since 1970.
    pub(crate) node_epoch: AtomicU64,
    pub(crate) nonce: u64,
    pub(crate) directory_lock: Option<DirectoryLock>,
    pub(crate) leases_notifier: Option<Arc<Notify>>,
    pub(crate) executor: HandlerGroupExecutor,
    pub(crate) streams: AtomicU64,
}

/// What the loop owns.
struct Parts {
    interval: watch::Receiver<Duration>,
    replies: mpsc::Receiver<OutgoingMessage>,
    events: RegionEventReceiver,
    orders: OrderReceiver,
    instructions: InstructionExecutor,
}

impl HeartbeatTask {
    /// Checks the options. The node's epoch is this instant; nothing is sent before [`HeartbeatTask::start`].
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn try_new(options: HeartbeatTaskOptions) -> Result<HeartbeatTask, InvalidOptions> {
        HeartbeatTask::with_clock(options, Arc::new(SystemClock))
    }

    /// As [`HeartbeatTask::try_new`], with another clock than the machine's: for simulations. The clock must never go back,
    /// and must count time in which the process does not run.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn with_clock(
        options: HeartbeatTaskOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<HeartbeatTask, InvalidOptions> {
        check(&options)?;
        let HeartbeatTaskOptions {
            client,
            addr,
            interval,
            full_report_interval,
            region_server,
            events,
            leases_notifier,
            info,
            handlers,
            incarnation,
            directory_lock,
        } = options;
        let incarnation = incarnation.unwrap_or_else(new_incarnation);
        let keeper =
            Arc::new(RegionAliveKeeper::new(Arc::clone(&region_server), clock, full_report_interval));
        let (event_sender, events) = events;
        let (mailbox, replies) = HeartbeatMailbox::new();
        let (order_sender, orders) = orders();
        let (interval_sender, interval) = watch::channel(interval);
        let mut chain: Vec<Arc<dyn HeartbeatResponseHandler>> = vec![
            Arc::clone(&keeper) as Arc<dyn HeartbeatResponseHandler>,
            Arc::new(CloseRegionsHandler { orders: order_sender.clone() }),
            Arc::new(InstructionHandler { orders: order_sender }),
            Arc::new(HeartbeatConfigHandler { interval: interval_sender }),
        ];
        chain.extend(handlers);
        let instructions = InstructionExecutor {
            server: region_server,
            keeper: Arc::clone(&keeper),
            _events: event_sender,
            mailbox,
            client: client.clone(),
            nonce: incarnation.nonce,
            turns: Turns::default(),
        };
        let shared = Arc::new(Shared {
            client,
            addr,
            info,
            keeper,
            node_epoch: AtomicU64::new(incarnation.epoch),
            nonce: incarnation.nonce,
            directory_lock,
            leases_notifier,
            executor: HandlerGroupExecutor::new(chain),
            streams: AtomicU64::new(0),
        });
        let parts = Parts { interval, replies, events, orders, instructions };
        let (stop, end) = (watch::channel(false).0, watch::channel(None).0);
        Ok(HeartbeatTask { shared, parts: Mutex::new(Some(parts)), stop, end })
    }

    /// Starts, within a tokio runtime. Starting twice changes nothing but the log.
    pub fn start(&self) {
        let Some(parts) = self.parts.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            tracing::warn!(node_id = self.node_id(), "the heartbeat task was started before");
            return;
        };
        let mut stopped = self.stop.subscribe();
        let (shared, end) = (Arc::clone(&self.shared), self.end.clone());
        tracing::info!(
            node_id = self.node_id(),
            node_epoch = self.node_epoch(),
            addr = shared.addr,
            "heartbeats begin"
        );
        tokio::spawn(async move {
            let ended = tokio::select! {
                biased;
                // The handle is gone where nobody can stop it any more.
                _ = stopped.wait_for(|stop| *stop) => TaskEnd::Stopped,
                ended = run(&shared, parts) => ended,
            };
            match &ended {
                TaskEnd::Stopped => tracing::info!("heartbeats end"),
                TaskEnd::Superseded(why) => {
                    tracing::error!(why, "this process is superseded by a newer one of its node")
                }
                TaskEnd::Failed(why) => tracing::error!(why, "the heartbeat task failed; leases run out"),
            }
            end.send_replace(Some(ended));
        });
    }

    /// Ends it. Leases that were granted run out by themselves.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Resolves when it has ended.
    pub async fn ended(&self) -> TaskEnd {
        let mut end = self.end.subscribe();
        let ended = end.wait_for(Option::is_some).await;
        // The sender is ours, so that waiting cannot fail.
        ended.ok().and_then(|ended| ended.clone()).unwrap_or(TaskEnd::Stopped)
    }

    /// The node's id.
    pub fn node_id(&self) -> u64 {
        self.shared.client.member_id()
    }

    /// The node's epoch: the time of this task's creation, in milliseconds since 1970. It never changes, with one
    /// exception: where the wall clock has stepped back since the node's last process, and this one never had a
    /// stream, it takes one more than what is known of the last one.
    pub fn node_epoch(&self) -> u64 {
        self.shared.node_epoch.load(Ordering::Acquire)
    }

    /// Who is asked for the right to write.
    pub fn keeper(&self) -> &Arc<RegionAliveKeeper> {
        &self.shared.keeper
    }

    /// Responses handled so far.
    pub fn responses(&self) -> u64 {
        self.shared.executor.handled()
    }

    /// Streams opened so far.
    pub fn streams(&self) -> u64 {
        self.shared.streams.load(Ordering::Relaxed)
    }
}

impl Drop for HeartbeatTask {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The name of a process that begins now.
pub fn new_incarnation() -> Incarnation {
    Incarnation { epoch: wall_clock_ms(), nonce: rand::random::<u64>().max(1) }
}

fn check(options: &HeartbeatTaskOptions) -> Result<(), InvalidOptions> {
    let mut violations = Vec::new();
    if options.client.config().role != Role::Datanode {
        let rule = "the client of a datanode has the role DATANODE".to_owned();
        violations.push(Violation { field: "client.role", rule });
    }
    if let Err(why) = parse_address(&options.addr) {
        violations.push(Violation { field: "addr", rule: format!("{:?} {why}", options.addr) });
    }
    if options.interval.is_zero() {
        violations.push(Violation { field: "interval", rule: "must be more than zero".to_owned() });
    }
    if options.full_report_interval.is_zero() {
        let rule = "must be more than zero".to_owned();
        violations.push(Violation { field: "full_report_interval", rule });
    }
    if violations.is_empty() { Ok(()) } else { Err(InvalidOptions { violations }) }
}

/// Runs all parts until one ends; ends the others then.
async fn run(shared: &Arc<Shared>, parts: Parts) -> TaskEnd {
    let Parts { interval, replies, events, orders, instructions } = parts;
    let mut beside = JoinSet::new();
    beside.spawn(Arc::clone(&shared.keeper).run(events));
    beside.spawn(Arc::clone(&shared.keeper).tell_roles());
    beside.spawn(instructions.run(orders));
    let mut session = Session::new(Arc::clone(shared), interval, replies);
    tokio::select! {
        biased;
        ended = session.run() => TaskEnd::Superseded(ended),
        Some(ended) = beside.join_next() => match ended {
            Ok(()) => TaskEnd::Failed("a part of it ended".to_owned()),
            Err(error) => TaskEnd::Failed(format!("a part of it failed: {error}")),
        },
    }
}
