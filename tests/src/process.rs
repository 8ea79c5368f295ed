//! One process under test.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::eventually;

/// A process that is told to stop does so within this time, also on a loaded machine.
const STOPPED: Duration = Duration::from_secs(10);

/// Lines of a log that are shown when its test fails.
const LOG_TAIL: usize = 60;

/// A child process. Killed when dropped; killed by the kernel when the test's process dies in any way.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program with its output appended to `directory/NAME.log`.
    pub fn start<A: AsRef<OsStr>>(
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        directory: &Path,
    ) -> Process {
        Process::start_in(None, name, program, arguments, directory)
    }

    /// The same in a network namespace of this name.
    pub fn start_in<A: AsRef<OsStr>>(
        namespace: Option<&str>,
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
        directory: &Path,
    ) -> Process {
        let log = directory.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log).expect("the log can be written");
        // setpriv asks the kernel for the signal and then becomes the program, by way of ip where there is a namespace
        // to enter: the process id is the program's.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .args(namespace.iter().flat_map(|namespace| ["ip", "netns", "exec", namespace]))
            .arg(program)
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a file handle"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} ({}) does not start: {error}", program.display()));
        Process { name: name.to_owned(), child, log }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends it a signal. A process that is told to stop has stopped when this returns, with all of its threads: those
    /// that run on another processor go on for a moment after the signal was sent.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal)
            .unwrap_or_else(|error| panic!("{} ({pid:?}) cannot be signalled: {error}", self.name));
        let sent = std::time::SystemTime::now();
        while signal == Signal::STOP && !self.is_stopped() {
            assert!(sent.elapsed().unwrap_or_default() < STOPPED, "{} does not stop", self.name);
            std::thread::yield_now();
        }
    }

    /// Whether each of its threads is stopped, or has ended.
    fn is_stopped(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.id())).into_iter().flatten().flatten();
        let mut states = threads.filter_map(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).ok()?;
            // The state follows the name, which is in parentheses and may hold any character.
            stat.rsplit_once(") ")?.1.chars().next()
        });
        states.all(|state| matches!(state, 'T' | 't' | 'Z' | 'X'))
    }

    /// Kills the process that its main thread started, as a supervisor starts its worker.
    ///
    /// # Errors
    /// There is none now.
    pub fn kill_child(&self) -> Result<(), String> {
        let none = || format!("{} has no child now", self.name);
        let id = self.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let child = children.split_whitespace().find_map(|pid| Pid::from_raw(pid.parse().ok()?));
        kill_process(child.ok_or_else(none)?, Signal::KILL).map_err(|error| format!("{}: {error}", none()))
    }

    /// Kills it as a power failure would, and waits until it is gone.
    pub fn kill(mut self) {
        self.end();
    }

    /// Asks it to end and waits until it has; panics if it takes longer than `limit` or was killed by a signal.
    pub async fn terminate(mut self, limit: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        let status = self.ended(limit).await;
        assert!(
            status.signal().is_none(),
            "{} died of signal {:?}\n{}",
            self.name,
            status.signal(),
            self.tail()
        );
        status
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        eventually(limit, &what, async || {
            self.child.try_wait().ok().flatten().ok_or_else(|| "it runs".to_owned())
        })
        .await
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Processor time used so far, by the kernel's count.
    pub fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        // The second field is the program's name in parentheses, which may contain blanks.
        let after_name = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
        let fields: Vec<u64> = after_name.split(' ').map(|field| field.parse().unwrap_or(0)).collect();
        let ticks = fields.get(11).unwrap_or(&0) + fields.get(12).unwrap_or(&0);
        // Linux counts these in hundredths of a second on every platform that we run on.
        Duration::from_millis(ticks * 10)
    }

    /// Memory that it holds now, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// The part of it that is no file's: heap and stacks.
    pub fn anonymous_bytes(&self) -> u64 {
        self.status_bytes("RssAnon:")
    }

    fn status_bytes(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
    }

    fn end(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        let start = lines.len().saturating_sub(LOG_TAIL);
        format!("--- the last lines of {}\n{}", self.log.display(), lines[start..].join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.tail());
        }
        self.end();
    }
}
