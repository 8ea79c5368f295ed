//! One process of the playground: started, signalled, looked after, ended.
//!
//! Each child is a process group of its own, so that Ctrl-C on the terminal reaches the playground alone, which then
//! ends its children in order. Where the playground itself is killed, the tether ends them (`tether.rs`).

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::tether;

/// The kernel needs a moment to stop a process, to let it go on, or to clear it away.
const SIGNAL_PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at a process that was just signalled.
const LOOK: Duration = Duration::from_millis(10);
/// The last line of a log is looked for in so many bytes.
const TAIL_BYTES: u64 = 4_096;
/// Longer lines are cut when they become part of an event.
const LINE_CHARS: usize = 240;
/// Variables that configure the children. Those of the playground's own environment are meant for something else.
const FOREIGN: [&str; 4] = ["METASRV_", "METACTL_", "DATANODE_", "ETCD_"];

/// What a process is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// The one member of etcd.
    Etcd,
    /// A replica of metasrv.
    Metasrv,
    /// A datanode.
    Datanode,
}

impl Kind {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Etcd => "etcd",
            Kind::Metasrv => "metasrv",
            Kind::Datanode => "datanode",
        }
    }
}

/// What a process does at the moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// It was not started yet.
    Waiting,
    /// It runs.
    Up,
    /// It was stopped by SIGSTOP and does nothing.
    Paused,
    /// It ended by SIGKILL.
    Killed,
    /// It ended otherwise.
    Ended,
}

impl State {
    /// As it is shown.
    pub fn name(&self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Up => "up",
            State::Paused => "paused",
            State::Killed => "killed",
            State::Ended => "ended",
        }
    }
}

/// What became of a process since the last look.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Stopped by SIGSTOP.
    Paused,
    /// Going on after it was paused.
    Resumed,
    /// It ended.
    Ended {
        /// In words that go on after its name.
        how: String,
        /// The last line of its log.
        last_line: String,
    },
}

/// How a process is started, each time.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Where it runs.
    pub directory: PathBuf,
    /// Where its output is appended.
    pub log: PathBuf,
}

/// A process, running or not. Killed when dropped.
pub struct Child {
    /// Its name in the playground.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Where it speaks gRPC.
    pub grpc_port: u16,
    /// Where it speaks HTTP, if it does.
    pub http_port: Option<u16>,
    /// How it is started.
    pub recipe: Recipe,
    state: State,
    process: Option<tokio::process::Child>,
}

impl Child {
    /// Not started yet.
    pub fn new(name: String, kind: Kind, grpc_port: u16, http_port: Option<u16>, recipe: Recipe) -> Child {
        Child { name, kind, grpc_port, http_port, recipe, state: State::Waiting, process: None }
    }

    /// What it does, as of the last look.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().and_then(tokio::process::Child::id)
    }

    /// Whether there is a process, paused or not.
    pub fn is_alive(&self) -> bool {
        self.process.is_some()
    }

    /// Where it speaks gRPC.
    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.grpc_port)
    }

    /// Starts it, again or for the first time, through `metasrv` as the tether. Must be called on the main thread.
    ///
    /// # Errors
    /// It runs already, its log cannot be written, or the system does not start it.
    pub fn start(&mut self, metasrv: &Path) -> Result<(), String> {
        if self.is_alive() {
            return Err(format!("{} runs already ({})", self.name, self.state.name()));
        }
        let failed = |error: std::io::Error| format!("{} cannot be started: {error}", self.name);
        let log = File::options().create(true).append(true).open(&self.recipe.log).map_err(failed)?;
        let mut command = tether::command(metasrv, &self.recipe.program, &self.recipe.arguments);
        command.current_dir(&self.recipe.directory);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| FOREIGN.iter().any(|foreign| name.starts_with(foreign))) {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(failed)?).stderr(log);
        command.process_group(0).kill_on_drop(true);
        self.process = Some(command.spawn().map_err(failed)?);
        self.state = State::Up;
        Ok(())
    }

    /// Looks at the process, and says what changed. People may pause and kill it without asking the playground, so
    /// the kernel is asked.
    pub fn look(&mut self) -> Option<Change> {
        let process = self.process.as_mut()?;
        if let Ok(Some(status)) = process.try_wait() {
            self.process = None;
            self.state = if status.signal() == Some(9) { State::Killed } else { State::Ended };
            return Some(Change::Ended { how: describe(status), last_line: last_line(&self.recipe.log) });
        }
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id()?)).unwrap_or_default();
        let now = if is_stopped(&stat) { State::Paused } else { State::Up };
        let change = match (&self.state, &now) {
            (State::Up, State::Paused) => Some(Change::Paused),
            (State::Paused, State::Up) => Some(Change::Resumed),
            _ => None,
        };
        self.state = now;
        change
    }

    /// Kills it and waits until it is gone.
    ///
    /// # Errors
    /// It does not run, or is not gone in time.
    pub async fn kill(&mut self) -> Result<(), String> {
        self.signal(Signal::KILL)?;
        self.becomes(&State::Killed).await
    }

    /// Stops it in its tracks: its connections stay open, and nobody answers.
    ///
    /// # Errors
    /// It does not run, or is paused already.
    pub async fn pause(&mut self) -> Result<(), String> {
        if self.state == State::Paused {
            return Err(format!("{} is paused already", self.name));
        }
        self.signal(Signal::STOP)?;
        self.becomes(&State::Paused).await
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It is not paused.
    pub async fn resume(&mut self) -> Result<(), String> {
        if self.is_alive() && self.state != State::Paused {
            return Err(format!("{} is not paused", self.name));
        }
        self.signal(Signal::CONT)?;
        self.becomes(&State::Up).await
    }

    /// Asks it to end in good order. A paused process would not hear it, so it goes on first.
    pub fn ask_to_end(&self) {
        // What does not run has ended already.
        let _ = self.signal(Signal::CONT);
        let _ = self.signal(Signal::TERM);
    }

    /// Lets it go on, if it is paused.
    pub fn unpause(&self) {
        // What does not run cannot be paused.
        let _ = self.signal(Signal::CONT);
    }

    /// Kills it and does not wait. The next looks find it gone.
    pub fn kill_now(&self) {
        // What does not run has ended already.
        let _ = self.signal(Signal::KILL);
    }

    /// The process id is certainly its own: it is given back only after this parent has waited for it.
    fn signal(&self, signal: Signal) -> Result<(), String> {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| format!("{} does not run ({})", self.name, self.state.name()))?;
        kill_process(pid, signal).map_err(|error| format!("{} cannot be signalled: {error}", self.name))
    }

    async fn becomes(&mut self, wanted: &State) -> Result<(), String> {
        let looking = async {
            while self.state != *wanted {
                self.look();
                tokio::time::sleep(LOOK).await;
            }
        };
        let became = tokio::time::timeout(SIGNAL_PATIENCE, looking).await;
        became.map_err(|_| format!("{} did not become {} in time", self.name, wanted.name()))
    }
}

/// Whether `/proc/PID/stat` says that the process is stopped. The state comes after the program's name in parentheses,
/// which may itself contain blanks and parentheses.
fn is_stopped(stat: &str) -> bool {
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended by itself with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended by itself".to_owned(),
    }
}

/// The last line of a log that says something; empty if there is none.
pub fn last_line(log: &Path) -> String {
    let read = || {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    // What a program logged goes to a terminal: no control characters.
    line.trim().chars().filter(|character| !character.is_control()).take(LINE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_word_for_stopped_is_understood_whatever_the_program_is_called() {
        assert!(is_stopped("17 (metasrv) T 1 17 17 0"));
        assert!(is_stopped("17 (a) S (b) T 1 17 17 0"));
        for running in ["17 (metasrv) S 1 17", "17 (T T) R 1 17", "17 (x) t 1 17", "", "17 ()"] {
            assert!(!is_stopped(running), "{running}");
        }
    }

    #[test]
    fn the_last_line_that_says_something_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("m1.log");
        assert_eq!(last_line(&log), "");
        std::fs::write(&log, "first\nerror: \u{1b}[31mcannot listen\n\n  \n").unwrap();
        assert_eq!(last_line(&log), "error: [31mcannot listen");
        std::fs::write(&log, format!("{}\nlast", "x".repeat(10_000))).unwrap();
        assert_eq!(last_line(&log), "last");
    }

    #[test]
    fn what_does_not_run_cannot_be_signalled_and_says_so() {
        let recipe = Recipe {
            program: PathBuf::from("/bin/true"),
            arguments: Vec::new(),
            directory: PathBuf::from("/"),
            log: PathBuf::from("/dev/null"),
        };
        let child = Child::new("m1".to_owned(), Kind::Metasrv, 1, None, recipe);
        assert_eq!(child.signal(Signal::TERM).unwrap_err(), "m1 does not run (waiting)");
        assert_eq!(child.pid(), None);
    }
}
