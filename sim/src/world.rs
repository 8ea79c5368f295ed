//! The cluster: its machines, what runs on them, and time, a tick after another.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metasrv::faults::Faults;
use metasrv_core::time::Clock as _;
use metasrv_proto::admin::CandidateRecord;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::watch;

use crate::datanode::{Common, Grant, Process};
use crate::etcd::{Commit, MEMBERS, ModelEtcd};
use crate::fault::{Action, Fault, Plan};
use crate::host::{Host, HostClock};
use crate::invariant::decoded;
use crate::net::Net;
use crate::operator::{Desk, Operator};
use crate::plant::Plant;
use crate::replica::{self, ETCD_PORT, PORT, PREFIX};
use crate::settings::{Settings, draw_rate};
use crate::storage::Storage;
use crate::trace::Trace;

/// A tick, in nanoseconds. What is sent within one arrives in a later one, so that processes may run one after another.
pub const TICK: u64 = 2_000_000;

const SECOND: u64 = 1_000_000_000;

/// A process that has ended by itself is started again after so long.
const RESTART: Duration = Duration::from_millis(700);

/// The rate of a clock that is slower than anybody accounts for, in parts per million.
const SLOW: u64 = 600_000;

enum Runs {
    Etcd,
    Replica,
    Node(u64),
    Operator,
}

struct Machine {
    host: Host,
    runs: Runs,
    /// Faults and the order to end, of a replica's present process.
    faults: Faults,
    shutdown: Option<watch::Sender<bool>>,
    dark: bool,
}

/// See the module.
pub struct World {
    /// True time since the beginning, in nanoseconds.
    pub now: u64,
    /// What the seed has drawn.
    pub settings: Settings,
    /// What happened.
    pub trace: Trace,
    /// etcd.
    pub etcd: ModelEtcd,
    /// The storage of all regions.
    pub storage: Storage,
    /// What the operator says.
    pub desk: Arc<Desk>,
    /// The processes of datanodes that there are, running or stopped.
    pub processes: Vec<Arc<Process>>,
    /// Until when something was wrong with a host, by its name.
    pub disturbed: BTreeMap<String, u64>,
    net: Net,
    random: StdRng,
    etcd_clock: HostClock,
    machines: Vec<Machine>,
    schedule: BTreeMap<(u64, u64), Action>,
    scheduled: u64,
    /// Faults under way, with their ends.
    active: Vec<(Fault, u64)>,
    grants: Arc<Mutex<Vec<Grant>>>,
    serial: u64,
}

impl World {
    /// A cluster of this seed; nothing runs yet.
    pub fn new(seed: u64, trace: Trace, plant: Option<Plant>) -> World {
        let mut random = StdRng::seed_from_u64(seed);
        let settings = Settings::draw(&mut random, plant);
        let net = Net::new(random.random(), settings.weather, trace.clone());
        let etcd = ModelEtcd::new(random.random());
        etcd.plant(plant);
        let etcd_clock = HostClock::new(0, draw_rate(&mut random), Duration::ZERO);
        let mut world = World {
            now: 0,
            settings,
            trace,
            etcd,
            storage: Storage::default(),
            desk: Arc::new(Desk::default()),
            processes: Vec::new(),
            disturbed: BTreeMap::new(),
            net,
            random,
            etcd_clock,
            machines: Vec::new(),
            schedule: BTreeMap::new(),
            scheduled: 0,
            active: Vec::new(),
            grants: Arc::default(),
            serial: 0,
        };
        world.build();
        world
    }

    fn build(&mut self) {
        self.add("etcd", Runs::Etcd);
        for replica in 0..self.settings.replicas {
            self.add(&format!("m{replica}"), Runs::Replica);
        }
        for node in 1..=self.settings.nodes {
            self.add(&format!("d{node}"), Runs::Node(node));
            self.add(&format!("d{node}b"), Runs::Node(node));
        }
        self.add("op", Runs::Operator);
        let names: Vec<String> = self.machines.iter().map(|machine| machine.host.name().to_owned()).collect();
        for name in names.into_iter().filter(|name| !name.ends_with('b')) {
            self.act(&Action::Start(name));
        }
    }

    fn add(&mut self, name: &str, runs: Runs) {
        let drawn = draw_rate(&mut self.random);
        let rate = match (self.settings.plant, &runs) {
            (Some(Plant::SlowNodes), Runs::Node(_)) | (Some(Plant::SlowReplicas), Runs::Replica) => SLOW,
            _ => drawn,
        };
        // Machines were started at different times.
        let origin = Duration::from_millis(self.random.random_range(1_000..1_000_000));
        let id = u64::try_from(self.machines.len()).unwrap_or(0) + 1;
        let host = Host::new(name, HostClock::new(id, rate, origin));
        let faults = Faults::default();
        self.machines.push(Machine { host, runs, faults, shutdown: None, dark: false });
    }

    /// The names of the replicas.
    pub fn replicas(&self) -> Vec<String> {
        (0..self.settings.replicas).map(|replica| format!("m{replica}")).collect()
    }

    /// The names of the datanodes' machines.
    pub fn nodes(&self) -> Vec<String> {
        (1..=self.settings.nodes).map(|node| format!("d{node}")).collect()
    }

    fn peers(&self) -> Vec<String> {
        self.replicas().iter().map(|replica| format!("{replica}:{PORT}")).collect()
    }

    /// The replica whose key is the first in the queue, and its term, which is 0 before it has begun one.
    pub fn leader(&self) -> Option<(String, u64)> {
        let value = self.etcd.oldest(&format!("{PREFIX}/v1/election/"))?;
        let record: CandidateRecord = decoded(Some(&value))?;
        Some((record.name, record.term))
    }

    /// One tick of everything.
    pub fn tick(&mut self) {
        let (now, end) = (self.now, self.now + TICK);
        self.trace.advance(now);
        self.etcd.advance(self.etcd_clock.at(now));
        self.net.advance(now);
        while let Some(entry) = self.schedule.first_entry().filter(|entry| entry.key().0 <= now) {
            let action = entry.remove();
            self.act(&action);
        }
        self.active.retain(|(_, until)| *until > now);
        for index in 0..self.machines.len() {
            if self.settings.plant == Some(Plant::SuspendUncounted) {
                self.machines[index].host.lose(TICK);
            }
            if self.machines[index].host.run(now, end) {
                let name = self.machines[index].host.name().to_owned();
                self.gone(&name);
                if !name.ends_with('b') {
                    self.after(RESTART, Action::Start(name));
                }
            }
        }
        self.now = end;
    }

    /// What was committed in etcd, and what was granted, since this was asked last.
    pub fn news(&self) -> (Vec<Commit>, Vec<Grant>) {
        let grants = std::mem::take(&mut *self.grants.lock().unwrap_or_else(PoisonError::into_inner));
        (self.etcd.commits(), grants)
    }

    /// Begins a fault.
    pub fn suffer(&mut self, plan: Plan) {
        let what = format!("fault {} for {:?} {:?}", plan.fault.name(), plan.lasts, plan.about);
        self.trace.say("sim", &what);
        let until = self.now + nanos(plan.lasts);
        self.active.push((plan.fault, until));
        for host in &plan.about {
            let known = self.disturbed.entry(host.clone()).or_default();
            *known = until.max(*known);
        }
        for (at, action) in plan.steps {
            self.after(at, action);
        }
    }

    /// The faults under way.
    pub fn active(&self) -> Vec<Fault> {
        self.active.iter().map(|(fault, _)| *fault).collect()
    }

    /// Ends all faults: every process runs, everything is reached.
    pub fn heal(&mut self) {
        self.trace.say("sim", "everything heals");
        self.schedule.clear();
        self.net.heal();
        self.etcd.heal();
        self.desk.calm.store(true, std::sync::atomic::Ordering::Relaxed);
        let names: Vec<String> = self.machines.iter().map(|machine| machine.host.name().to_owned()).collect();
        for name in names {
            if name.ends_with('b') {
                self.act(&Action::Kill(name));
                continue;
            }
            self.act(&Action::Lighten(name.clone()));
            self.act(&Action::GoOn(name.clone()));
            self.act(&Action::Start(name));
        }
    }

    fn after(&mut self, pause: Duration, action: Action) {
        self.scheduled += 1;
        self.schedule.insert((self.now + nanos(pause), self.scheduled), action);
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.machines.iter().position(|machine| machine.host.name() == name)
    }

    fn gone(&mut self, name: &str) {
        self.processes.retain(|process| process.host != name);
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Start(host) => self.start(host),
            Action::Kill(host) => {
                if let Some(at) = self.index(host) {
                    self.machines[at].host.kill();
                    self.gone(host);
                }
            }
            Action::ShutDown(host) => {
                if let Some(shutdown) = self.index(host).and_then(|at| self.machines[at].shutdown.as_ref()) {
                    shutdown.send_replace(true);
                }
            }
            Action::Stop(host) => {
                if let Some(at) = self.index(host) {
                    self.machines[at].host.stop();
                }
            }
            Action::GoOn(host) => {
                if let Some(at) = self.index(host) {
                    self.machines[at].host.go_on();
                }
            }
            Action::Darken(host) => {
                if let Some(at) = self.index(host) {
                    self.net.darken(host);
                    self.machines[at].dark = true;
                    self.machines[at].host.kill();
                    self.gone(host);
                }
            }
            Action::Lighten(host) => {
                if let Some(at) = self.index(host).filter(|at| self.machines[*at].dark) {
                    self.machines[at].dark = false;
                    self.net.lighten(host);
                    self.start(host);
                }
            }
            Action::Cut(from, to) => self.net.cut(from, to),
            Action::Mend(from, to) => self.net.mend(from, to),
            Action::Reset(a, b) => self.net.reset(a, b),
            Action::Slow(from, to, by) => self.net.slow(from, to, nanos(*by)),
            Action::BlockLoop(host, lasts) => {
                if let Some(at) = self.index(host) {
                    self.machines[at].faults.block_loop(*lasts);
                }
            }
            Action::HoldHeartbeats(host, lasts) => {
                if let Some(at) = self.index(host) {
                    let now = self.machines[at].host.clock().now();
                    self.machines[at].faults.hold_heartbeats(*lasts, now);
                }
            }
            Action::ChangeEtcdLeader(takes) => self.etcd.change_leader(*takes),
            Action::Isolate(member, alone) => self.etcd.isolate(*member, *alone),
            Action::LoseAnswers(per_mille) => self.etcd.lose_answers(*per_mille),
            Action::SlowWrites(millis) => self.etcd.slow_writes(*millis),
            Action::Full(full) => self.etcd.out_of_space(*full),
            Action::Compact => self.etcd.compact(),
        }
    }

    fn start(&mut self, name: &str) {
        let Some(at) = self.index(name) else { return };
        if self.machines[at].host.is_up() || self.machines[at].dark {
            return;
        }
        let (now, trace, network) = (self.now, self.trace.clone(), self.net.of(name));
        let clock = self.machines[at].host.clock();
        let started = match self.machines[at].runs {
            Runs::Etcd => {
                let (etcd, net) = (self.etcd.clone(), self.net.clone());
                self.machines[at].host.start(now, serve_etcd(etcd, net))
            }
            Runs::Replica => {
                let (shutdown, told) = watch::channel(false);
                let faults = Faults::default();
                self.machines[at].shutdown = Some(shutdown);
                self.machines[at].faults = faults.clone();
                let config = replica::config(name, self.settings.timing);
                let main = replica::run(network, clock, config, faults, told, trace);
                self.machines[at].host.start(now, main)
            }
            Runs::Node(node) => {
                self.serial += 1;
                let process = Process::new(node, self.serial, name, clock);
                self.processes.push(Arc::clone(&process));
                let common = Common {
                    peers: self.peers(),
                    interval: self.settings.timing.heartbeat_interval,
                    storage: self.storage.clone(),
                    grants: Arc::clone(&self.grants),
                    trace,
                };
                self.machines[at].host.start(now, process.run(network, common))
            }
            Runs::Operator => {
                let operator = Operator {
                    peers: self.peers(),
                    nodes: self.settings.nodes,
                    regions: self.settings.regions,
                    idle_ms: self.settings.idle_ms,
                    desk: Arc::clone(&self.desk),
                    trace,
                };
                self.machines[at].host.start(now, operator.run(network))
            }
        };
        let said = started.map_or_else(|error| format!("not started: {error}"), |()| "started".to_owned());
        self.trace.say(name, &said);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Whole seconds as the world counts time.
pub fn seconds(duration: Duration) -> u64 {
    nanos(duration) / SECOND
}

/// etcd's members, in one process: they are one state.
async fn serve_etcd(etcd: ModelEtcd, net: Net) {
    let mut members = tokio::task::JoinSet::new();
    for member in 0..MEMBERS {
        let incoming = net.of(&format!("e{member}")).listen(ETCD_PORT);
        members.spawn(etcd.member(member).serve_with_incoming(incoming));
    }
    while members.join_next().await.is_some() {}
}
