//! A machine with its own clock, and the process that runs on it: a tokio runtime of its own, which is driven a tick at a time.
//!
//! Time inside a runtime is virtual: it stands still while there is something to do, and then goes to the next timer, up
//! to the end of the tick. It runs at the rate of the machine's clock. So a process that is killed is a runtime that is
//! dropped, one that is stopped is a runtime that is not driven, and a slow clock is a runtime that is driven less far.
//! Processes affect one another only through the network, which delivers at the beginning of a tick.

use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metasrv_core::time::{BootTime, Clock};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::Instant;

use crate::entropy;

const MILLI: u64 = 1_000_000;
const MILLION: u64 = 1_000_000;

thread_local! {
    /// The process that is running, and where its clock began.
    static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };
}

struct Running {
    name: String,
    clock: u64,
    /// What the machine's clock showed when the runtime's began.
    began: u64,
    runtime_began: Instant,
}

/// The name of the process that is running; of none, where the simulation itself is.
pub fn running() -> String {
    RUNNING.with_borrow(|running| running.as_ref().map_or_else(|| "sim".to_owned(), |host| host.name.clone()))
}

/// A machine's clock for durations.
pub struct HostClock {
    id: u64,
    /// Parts per million of true time.
    rate_ppm: u64,
    /// What it showed when true time began, in nanoseconds.
    origin: u64,
    /// True time, in nanoseconds, as of the present tick.
    now: AtomicU64,
    /// True time that it has not counted, where a mistake is planted.
    uncounted: AtomicU64,
}

impl HostClock {
    /// A clock of this rate, in parts per million of true time.
    pub fn new(id: u64, rate_ppm: u64, origin: Duration) -> HostClock {
        let origin = u64::try_from(origin.as_nanos()).unwrap_or(0);
        HostClock { id, rate_ppm, origin, now: AtomicU64::new(0), uncounted: AtomicU64::new(0) }
    }

    /// What it shows at this instant of true time, in nanoseconds.
    pub fn at(&self, now: u64) -> u64 {
        let now = now.saturating_sub(self.uncounted.load(Ordering::Relaxed));
        self.origin + (now / MILLION) * self.rate_ppm + (now % MILLION) * self.rate_ppm / MILLION
    }
}

impl Clock for HostClock {
    fn now(&self) -> BootTime {
        let inside = RUNNING.with_borrow(|running| {
            let host = running.as_ref().filter(|host| host.clock == self.id)?;
            let elapsed = host.runtime_began.elapsed().as_nanos();
            Some(host.began + u64::try_from(elapsed).unwrap_or(u64::MAX))
        });
        BootTime::from_nanos(inside.unwrap_or_else(|| self.at(self.now.load(Ordering::Relaxed))))
    }
}

/// See the module.
pub struct Host {
    name: String,
    clock: Arc<HostClock>,
    process: Option<Process>,
}

struct Process {
    /// What its main function is spawned on; everything else goes to the runtime.
    local: LocalSet,
    runtime: Runtime,
    began: u64,
    runtime_began: Instant,
    main: JoinHandle<()>,
    stopped: bool,
    /// It was stopped and goes on: its clock jumps.
    jumps: bool,
}

impl Host {
    /// A machine without a process.
    pub fn new(name: &str, clock: HostClock) -> Host {
        Host { name: name.to_owned(), clock: Arc::new(clock), process: None }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its clock.
    pub fn clock(&self) -> Arc<HostClock> {
        Arc::clone(&self.clock)
    }

    /// Whether a process is there, running or stopped.
    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Whether its process is stopped.
    pub fn is_stopped(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.stopped)
    }

    /// Starts a process, at this instant of true time.
    ///
    /// # Errors
    /// Where the system has no runtime to give.
    pub fn start(&mut self, now: u64, main: impl Future<Output = ()> + 'static) -> std::io::Result<()> {
        self.clock.now.store(now, Ordering::Relaxed);
        let began = self.clock.at(now);
        entropy::set_time(began, now);
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let runtime_began = {
            let _inside = runtime.enter();
            Instant::now()
        };
        let local = LocalSet::new();
        let main = local.spawn_local(main);
        self.process =
            Some(Process { local, runtime, began, runtime_began, main, stopped: false, jumps: false });
        Ok(())
    }

    /// The process ends at once, without a word.
    pub fn kill(&mut self) {
        let Some(process) = self.process.take() else { return };
        self.enter(&process);
        drop(process);
        RUNNING.set(None);
    }

    /// A tick passes that the clock of a process that stands still does not count.
    pub fn lose(&self, tick: u64) {
        if self.is_stopped() {
            self.clock.uncounted.fetch_add(tick, Ordering::Relaxed);
        }
    }

    /// The process stands still, as by SIGSTOP.
    pub fn stop(&mut self) {
        if let Some(process) = &mut self.process {
            process.stopped = true;
        }
    }

    /// It goes on.
    pub fn go_on(&mut self) {
        if let Some(process) = &mut self.process {
            process.jumps |= process.stopped;
            process.stopped = false;
        }
    }

    fn enter(&self, process: &Process) {
        RUNNING.set(Some(Running {
            name: self.name.clone(),
            clock: self.clock.id,
            began: process.began,
            runtime_began: process.runtime_began,
        }));
    }

    /// Runs the process from `now` to `end`, both in true time. Says whether it has ended.
    pub fn run(&mut self, now: u64, end: u64) -> bool {
        self.clock.now.store(now, Ordering::Relaxed);
        let Some(process) = self.process.as_mut().filter(|process| !process.stopped) else { return false };
        let (began, jumps) = (process.began, std::mem::take(&mut process.jumps));
        let shown = self.clock.at(now);
        entropy::set_time(shown, now);
        let Some(process) = &self.process else { return false };
        self.enter(process);
        let since = |shown: u64| Duration::from_millis(shown.saturating_sub(began) / MILLI);
        let (here, there) = (since(shown), since(self.clock.at(end)));
        let runtime_began = process.runtime_began;
        process.local.block_on(&process.runtime, async {
            if jumps {
                let behind = (runtime_began + here).saturating_duration_since(Instant::now());
                tokio::time::advance(behind).await;
            }
            tokio::time::sleep_until(runtime_began + there).await;
        });
        let ended = process.main.is_finished();
        RUNNING.set(None);
        self.clock.now.store(end, Ordering::Relaxed);
        if ended {
            self.kill();
        }
        ended
    }
}
