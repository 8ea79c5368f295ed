//! The loop of a playground: start, look, answer, end.
//!
//! Everything happens on the main thread, in turns of a tenth of a second. Whatever takes longer is a task of its own
//! (`watch.rs`, `control.rs`, the creation of regions) or has a deadline of seconds.

use std::path::PathBuf;
use std::time::Duration;

use metasrv_core::time::{BootTime, Clock as _};
use tokio::sync::{mpsc, watch as watching};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::child::{Change, Child, Kind};
use super::chronicle::{Chronicle, seconds};
use super::cluster::{Cluster, Size};
use super::control::{self, Answer, Asked, Request};
use super::hints::Hints;
use super::output::Output;
use super::programs::{GET_ETCD, Programs, Wanted};
use super::registry::{Data, Home, Registry};
use super::screen::Snapshot;
use super::signals::{Heard, Signals};
use super::start::{Goal, Step};
use super::view;
use super::watch::{self, Observation};
use crate::clock::SystemClock;

/// Between two looks at the processes.
const TURN: Duration = Duration::from_millis(100);
/// A start that takes longer will not succeed. A busy machine needs some ten seconds.
const START_PATIENCE: Duration = Duration::from_secs(90);
/// Requests of second terminals that wait for their turn. Each waits for its answer, so more are not needed.
const REQUESTS: usize = 4;
/// Events on the screen, where there is room.
const EVENTS: usize = 12;

/// What to run.
pub struct Options {
    /// How many of each.
    pub size: Size,
    /// Regions.
    pub regions: u32,
    /// Where replicas keep their state.
    pub store: Wanted,
    /// How long to run once the cluster stands. None: until told to end.
    pub limit: Option<Duration>,
    /// What becomes of logs and data.
    pub data: Data,
    /// Where playgrounds are. None: where everybody looks.
    pub dir: Option<PathBuf>,
}

/// Why a playground ends, if nothing failed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Its time is over.
    Over,
    /// A signal.
    Told(&'static str),
    /// The other end of its output is closed.
    NobodyReads,
}

/// Runs a playground to its end.
///
/// # Errors
/// A sentence that says what failed, or which regions were not writable.
pub async fn run(options: Options) -> Result<(), String> {
    // Before anything is started: from here on, no signal ends this process by itself.
    let mut signals = Signals::new()?;
    let programs = Programs::find(&options.store)?;
    let size = match programs.etcd {
        Some(_) => options.size,
        None => Size { replicas: 1, ..options.size },
    };
    let mut home = Registry::at(options.dir.as_deref())?.enter(options.data).await?;
    let result = play(&options, &programs, size, &mut home, &mut signals).await;
    let data = home.data.clone();
    let left = home.leave().await;
    if options.data == Data::Kept {
        println!("Logs and data are kept in {}", data.display());
    }
    result.and(left)
}

async fn play(
    options: &Options,
    programs: &Programs,
    size: Size,
    home: &mut Home,
    signals: &mut Signals,
) -> Result<(), String> {
    let cluster = Cluster::plan(programs, size, &home.data)?;
    let admin = watch::client(cluster.metasrv_addrs())?;
    let (seen_sender, seen) = watching::channel(Observation::default());
    let (asked_sender, asked) = mpsc::channel(REQUESTS);
    let mut tasks = JoinSet::new();
    tasks.spawn(watch::watch(admin.clone(), cluster.of(Kind::Etcd).map(Child::addr).next(), seen_sender));
    if let Some(listener) = home.listener.take() {
        tasks.spawn(control::serve(listener, asked_sender));
    }
    let datanodes = usize::from(size.datanodes);
    let mut playground = Playground {
        cluster,
        chronicle: Chronicle::new(u64::from(options.regions), datanodes),
        goal: Goal { datanodes, regions: options.regions, admin },
        step: Step::Etcd,
        seen: Observation::default(),
        output: Output::new(),
        hints: Hints::new(options.dir.as_deref()),
        limit: options.limit,
        began: SystemClock.now(),
    };
    if programs.etcd.is_none() && options.store != Wanted::Embedded {
        playground.output.say(&format!(
            "There is no etcd in PATH: going on with one replica on a store of its own. {GET_ETCD}."
        ));
    }
    let ended = playground.live(seen, asked, signals).await;
    playground.end(signals).await;
    // Until everything is gone, whoever looks for playgrounds finds this one alive and leaves its directory alone.
    tasks.shutdown().await;
    playground.conclude(ended).await
}

struct Playground {
    cluster: Cluster,
    chronicle: Chronicle,
    goal: Goal,
    step: Step,
    /// The last look.
    seen: Observation,
    output: Output,
    hints: Hints,
    limit: Option<Duration>,
    began: BootTime,
}

impl Playground {
    async fn live(
        &mut self,
        mut seen: watching::Receiver<Observation>,
        mut asked: mpsc::Receiver<Asked>,
        signals: &mut Signals,
    ) -> Result<End, String> {
        self.output.measure().await;
        self.cluster.start(Kind::Etcd)?;
        let mut turns = tokio::time::interval(TURN);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                heard = signals.next() => match heard {
                    Heard::End(name) => return Ok(End::Told(name)),
                    Heard::Resize => self.output.measure().await,
                },
                Some(Asked { request, answer }) = asked.recv() => {
                    let done = self.act(request).await.unwrap_or_else(Answer::Refused);
                    // Whoever asked may be gone.
                    let _ = answer.send(done);
                }
                _ = turns.tick() => {}
            }
            // Not in the branch above: looking is due after an action, too.
            let latest = seen.borrow_and_update().clone();
            if let Some(end) = self.turn(latest).await? {
                return Ok(end);
            }
        }
    }

    /// One turn: what became of the processes, what is seen of the cluster, what is due.
    async fn turn(&mut self, latest: Observation) -> Result<Option<End>, String> {
        let at = self.elapsed();
        for (name, change) in self.cluster.look() {
            let ended = matches!(change, Change::Ended { .. });
            let text = view::tell(&name, &change);
            self.chronicle.note(at, text.clone());
            if ended && !self.step.is_running() {
                return Err(format!("the start failed: {text}"));
            }
        }
        let is_new = latest.rounds > self.seen.rounds;
        self.seen = latest;
        if let Some(text) = self.step.advance(at, &self.seen, &mut self.cluster, &self.goal).await? {
            self.chronicle.note(at, text);
        }
        // After the steps, so that what follows from them is told after them.
        if is_new {
            self.chronicle.observe(at, &self.seen);
        }
        let fresh = self.chronicle.take_fresh();
        self.output.show(&self.snapshot(at), &fresh);
        match (&self.step, self.limit) {
            _ if self.output.is_broken() => Ok(Some(End::NobodyReads)),
            (Step::Running(since), Some(limit)) if at.saturating_sub(*since) >= limit => Ok(Some(End::Over)),
            (Step::Running(_), _) => Ok(None),
            (step, _) if at >= START_PATIENCE => Err(format!(
                "the start did not succeed within {START_PATIENCE:?}; it stands at: {}; --keep keeps the logs",
                step.name()
            )),
            _ => Ok(None),
        }
    }

    /// Does what a second terminal asks.
    async fn act(&mut self, request: Request) -> Result<Answer, String> {
        let at = self.elapsed();
        let (name, told, answer) = match request {
            Request::List => return Ok(Answer::List(view::listing(&self.cluster, &self.seen))),
            Request::Kill { name } => {
                let name = self.resolve(name)?;
                self.cluster.child(&name)?.kill().await?;
                let answer = format!(
                    "{name} is killed, and stays dead until: {}",
                    self.hints.command(&format!("start {name}"))
                );
                (name, "was killed", answer)
            }
            Request::Start { name } => {
                let name = self.resolve(name)?;
                self.cluster.start_one(&name)?;
                let answer = format!("{name} is started");
                (name, "was started again", answer)
            }
            Request::Pause { name } => {
                let name = self.resolve(name)?;
                self.cluster.child(&name)?.pause().await?;
                let answer =
                    format!("{name} is paused until: {}", self.hints.command(&format!("resume {name}")));
                (name, "was paused", answer)
            }
            Request::Resume { name } => {
                let name = self.resolve(name)?;
                self.cluster.child(&name)?.resume().await?;
                let answer = format!("{name} goes on");
                (name, "goes on after it was paused", answer)
            }
        };
        let leads = self.seen.leader.as_ref().is_some_and(|leader| leader.name == name);
        let who = if leads { format!("{name}, the leader,") } else { name };
        self.chronicle.note(at, format!("{who} {told}"));
        Ok(Answer::Done(answer))
    }

    /// Names that people use.
    fn resolve(&self, name: String) -> Result<String, String> {
        match name.as_str() {
            "leader" => {
                let leader = self.seen.leader.as_ref().ok_or("nobody leads at the moment")?;
                Ok(leader.name.clone())
            }
            "etcd" => Ok("e1".to_owned()),
            _ => Ok(name),
        }
    }

    fn snapshot(&self, at: Duration) -> Snapshot {
        let nodes = self.seen.present_nodes().unwrap_or_default();
        Snapshot {
            elapsed: at,
            doing: self.step.name().to_owned(),
            leader: self.seen.leader.as_ref().map(|leader| (leader.name.clone(), leader.term)),
            heartbeats: self.chronicle.heartbeats_per_second(),
            regions: self.seen.leader.as_ref().map(|leader| (leader.writable, leader.regions)),
            replicas_up: self.cluster.up(Kind::Metasrv),
            datanodes_connected: (nodes.iter().filter(|node| node.connected).count(), self.goal.datanodes),
            rows: view::rows(&self.cluster, &self.seen),
            events: self.chronicle.last(EVENTS).cloned().collect(),
            hints: self.hints.on_screen(),
        }
    }

    /// Ends every process in good order; a second signal ends them at once.
    async fn end(&mut self, signals: &mut Signals) {
        let last = if self.cluster.of(Kind::Etcd).count() > 0 { ", then etcd" } else { "" };
        self.output.say(&format!("Ending datanodes, then metasrv{last}; Ctrl-C again kills them."));
        let told = tokio::select! {
            biased;
            _ = signals.end() => None,
            late = self.cluster.end() => Some(late),
        };
        match told {
            None => {
                self.cluster.kill().await;
                self.output.say("Killed them all.");
            }
            Some(late) if !late.is_empty() => {
                self.output.say(&format!("{} did not end in time and had to be killed.", late.join(", ")));
            }
            Some(_) => {}
        }
    }

    /// The last words, and the verdict.
    async fn conclude(&mut self, ended: Result<End, String>) -> Result<(), String> {
        let verdict = self.verdict(&ended);
        let why = match &ended {
            Ok(End::Over) => "its time is over".to_owned(),
            Ok(End::Told(signal)) => format!("told to end by {signal}"),
            Ok(End::NobodyReads) => "nobody reads its output any more".to_owned(),
            Err(_) => "it failed".to_owned(),
        };
        self.output.say(&format!("Ended after {}: {why}.", seconds(self.elapsed())));
        if verdict.is_ok() {
            let changes = match self.chronicle.leader_changes() {
                0 => "the leader never changed".to_owned(),
                1 => "the leader changed once".to_owned(),
                many => format!("the leader changed {many} times"),
            };
            self.output.say(&format!(
                "Every region was writable ({} of {}); {changes}.",
                self.goal.regions, self.goal.regions
            ));
            self.output.say("Try next:");
            for hint in self.hints.at_the_end(self.cluster.of(Kind::Metasrv).count()) {
                self.output.say(&hint);
            }
        }
        self.output.flush().await;
        verdict
    }

    fn verdict(&self, ended: &Result<End, String>) -> Result<(), String> {
        let end = ended.clone()?;
        let wanted = self.goal.regions;
        if !self.chronicle.was_writable() {
            let most = self.chronicle.most_writable();
            return Err(format!(
                "not every region was writable: {most} of {wanted} at best; it ended while {}",
                self.step.name()
            ));
        }
        if end == End::Over && !self.chronicle.is_writable() {
            let writable = self.seen.leader.as_ref().map_or("nobody leads".to_owned(), |leader| {
                format!("{} of {wanted} are, as {} sees it", leader.writable, leader.name)
            });
            return Err(format!("every region was writable, but at the end not every one is: {writable}"));
        }
        Ok(())
    }

    fn elapsed(&self) -> Duration {
        SystemClock.now().since(self.began)
    }
}
