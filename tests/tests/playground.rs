//! The playground as a user meets it: one command and a whole cluster, a second terminal to break it, and nothing
//! left behind, however it ends.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;

use metasrv_tests::binaries::binary;
use metasrv_tests::process::Process;
use metasrv_tests::wait::eventually;
use rustix::process::Signal;
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(60);

/// A PATH in which nothing is found.
const NO_PATH: &str = "PATH=/nowhere";

/// A playground in a directory of its own.
struct Playground {
    process: Process,
    place: Place,
}

/// Where playgrounds are found. Goes away with the test.
struct Place {
    dir: PathBuf,
    top: TempDir,
}

impl Place {
    fn new() -> Place {
        let top = tempfile::Builder::new().prefix("pg-").tempdir().unwrap();
        Place { dir: top.path().join("p"), top }
    }

    /// Starts a playground here. Its output goes to a log.
    fn start(&self, name: &str, environment: &[&str], arguments: &[&str]) -> Process {
        let dir = format!("METASRV_PLAYGROUND_DIR={}", self.dir.display());
        let metasrv = binary("metasrv").display().to_string();
        let words = [&[dir.as_str()], environment, &[metasrv.as_str(), "playground"], arguments].concat();
        // env becomes the program: the process id is the playground's.
        Process::start(name, Path::new("env"), words, self.top.path())
    }

    /// Types a command in a second terminal.
    fn command(&self, words: &str) -> Output {
        Command::new(binary("metasrv"))
            .env("METASRV_PLAYGROUND_DIR", &self.dir)
            .arg("playground")
            .args(words.split_whitespace())
            .output()
            .unwrap()
    }

    /// The same where it must succeed; returns what it prints.
    fn done(&self, words: &str) -> String {
        let output = self.command(words);
        assert!(output.status.success(), "{words}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// The same where it must fail; returns why it does.
    fn refused(&self, words: &str) -> String {
        let output = self.command(words);
        assert_eq!(output.status.code(), Some(1), "{words}: {}", text(&output.stdout));
        text(&output.stderr)
    }

    /// The state that `ls` shows of a process.
    fn state(&self, name: &str) -> String {
        row(&self.done("ls"), name)[3].clone()
    }

    /// The processes that work in this directory: every child of a playground does. One that has ended and waits for
    /// its parent to notice has no directory any more.
    fn processes(&self) -> Vec<String> {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter(|entry| {
                let cwd = std::fs::read_link(entry.path().join("cwd"));
                cwd.is_ok_and(|cwd| cwd.starts_with(&self.dir))
            })
            .map(|entry| {
                let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                format!("{} {}", entry.file_name().display(), text(&command).replace('\0', " "))
            })
            .collect()
    }

    /// Fails if anything is left of the playgrounds that were here.
    fn assert_nothing_is_left(&self) {
        assert_eq!(self.processes(), Vec::<String>::new(), "processes are left");
        assert!(!self.dir.exists(), "left in {}: {:?}", self.dir.display(), std::fs::read_dir(&self.dir));
    }
}

impl Playground {
    fn start(arguments: &[&str]) -> Playground {
        let place = Place::new();
        Playground { process: place.start("playground", &[], arguments), place }
    }

    /// Waits until it says something that contains all of these on one line; returns that line.
    async fn says(&self, parts: &[&str]) -> String {
        says(&self.process, parts).await
    }

    async fn ended(mut self) -> (ExitStatus, String) {
        let status = self.process.ended(LONG).await;
        self.place.assert_nothing_is_left();
        (status, self.process.log())
    }
}

async fn says(process: &Process, parts: &[&str]) -> String {
    eventually(LONG, &format!("it says {parts:?}"), async || {
        let log = process.log();
        let said = log.lines().rfind(|line| parts.iter().all(|part| line.contains(part)));
        said.map(str::to_owned).ok_or(log)
    })
    .await
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The words of one process in the table that `ls` prints.
fn row(table: &str, name: &str) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let row = table.lines().map(words).find(|words| words.first().is_some_and(|first| first == name));
    row.unwrap_or_else(|| panic!("{name} is not listed:\n{table}"))
}

/// Goal: one command shows a whole cluster with every region writable, ends by itself and leaves nothing.
/// Method: it runs for ten seconds; its exit code, what it printed, processes and directories afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_whole_cluster_by_one_command_and_nothing_is_left() {
    let playground = Playground::start(&["--for", "10s"]);
    let figures = ["leader m", "3/3 replicas up", "3/3 datanodes connected", "regions writable 12/12"];
    playground.says(&figures).await;
    assert_eq!(playground.place.processes().len(), 7, "{:#?}", playground.place.processes());
    let (status, said) = playground.ended().await;
    assert!(status.success(), "{said}");
    assert!(said.contains("Every region was writable (12 of 12)"), "{said}");
    assert!(said.contains("heartbeats/s") && said.contains("Try next:"), "{said}");
    let escape = '\u{1b}';
    assert!(!said.contains(escape), "a log is no terminal: {said}");
}

/// Goal: without etcd there is one replica on a store of its own, by wish or because etcd is missing, which is then
/// said with what to do. Method: a PATH in which nothing is found.
#[tokio::test(flavor = "multi_thread")]
async fn without_etcd_there_is_one_replica() {
    let place = Place::new();
    let mut wished = place.start("wished", &[NO_PATH], &["--embedded", "--for", "6s"]);
    let mut fallen_back = place.start("fallen-back", &[NO_PATH], &["--for", "1s"]);
    for process in [&mut fallen_back, &mut wished] {
        let status = process.ended(LONG).await;
        let said = process.log();
        assert!(status.success(), "{said}");
        assert!(
            said.contains("Every region was writable (12 of 12)") && said.contains("1/1 replicas up"),
            "{said}"
        );
    }
    assert!(fallen_back.log().contains("apt-get install etcd-server"), "{}", fallen_back.log());
    assert!(!wished.log().contains("apt-get"), "{}", wished.log());
    place.assert_nothing_is_left();
}

/// Goal: from a second terminal one sees the processes, kills the leader, and another one leads with every region
/// writable; paused and killed ones come back. Method: the commands, their answers, and what the screen says.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_terminal_breaks_things_and_mends_them() {
    let playground = Playground::start(&[]);
    playground.says(&["every region is writable (12 of 12)"]).await;
    let place = &playground.place;
    let table = place.done("ls");
    for name in ["e1", "m1", "m2", "m3", "d1", "d2", "d3"] {
        let row = row(&table, name);
        assert_eq!((row.len(), row[3].as_str()), (7, "up"), "{table}");
        assert!(Path::new(&row[6]).is_file(), "{} has no log", row[6]);
    }
    let addrs = ["m1", "m2", "m3"].map(|name| row(&table, name)[4].clone()).join(",");
    assert!(table.contains(&format!("metactl --metasrv {addrs} status")), "{table}");
    let first = table.split_once(" leads.").unwrap().0.lines().last().unwrap().to_owned();

    let answer = place.done("kill leader");
    assert!(answer.contains(&format!("{first} is killed")), "{answer}");
    assert_eq!(place.state(&first), "killed");
    let change = playground.says(&[&format!("leader changed from {first} to m")]).await;
    let second = change.split_once(" to ").unwrap().1.split(' ').next().unwrap().to_owned();
    assert_ne!(second, first);
    playground
        .says(&[&format!("leader {second} (term 2)"), "2/3 replicas up", "regions writable 12/12"])
        .await;
    assert!(place.done("ls").contains(&format!("{second} leads.")));
    assert!(place.refused(&format!("pause {first}")).contains("does not run"));
    assert!(place.done(&format!("start {first}")).contains("is started"));
    assert!(place.refused(&format!("start {first}")).contains("runs already"));
    playground.says(&[&format!("{first} was started again")]).await;

    place.done("pause d2");
    assert_eq!(place.state("d2"), "paused");
    playground.says(&["d2 was paused"]).await;
    place.done("resume d2");
    assert_eq!(place.state("d2"), "up");
    assert!(place.refused("resume d2").contains("is not paused"));
    assert!(place.refused("kill d9").contains("there are e1, m1, m2, m3, d1, d2, d3"));
    assert!(place.done(&format!("logs {first}")).contains("serving"));
    playground.process.signal(Signal::TERM);
    let (status, said) = playground.ended().await;
    assert!(status.success(), "{said}");
}

/// Goal: a child that ends without being asked to is seen, with its last words; and regions that are not writable at
/// the end are an exit code of 1. Method: a datanode is told to end behind the playground's back.
#[tokio::test(flavor = "multi_thread")]
async fn what_ends_by_itself_is_told_and_what_is_not_writable_is_no_success() {
    let playground = Playground::start(&["--embedded", "--datanodes", "1", "--regions", "4", "--for", "15s"]);
    playground.says(&["every region is writable (4 of 4)"]).await;
    let pid: i32 = row(&playground.place.done("ls"), "d1")[2].parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    playground.says(&["d1 ended by itself with exit code", "its last words: "]).await;
    assert_eq!(playground.place.state("d1"), "ended");
    // There is no other datanode that they could go to.
    playground.says(&["0 of 4 regions writable"]).await;
    let (status, said) = playground.ended().await;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("at the end not every one is: 0 of 4 are"), "{said}");
}

/// Goal: of several playgrounds the newest is spoken to unless another one is named, and each ends by SIGTERM or Ctrl-C
/// without touching the other. Method: two in one directory; commands with and without a name.
#[tokio::test(flavor = "multi_thread")]
async fn several_playgrounds_stand_side_by_side() {
    let place = Place::new();
    assert!(place.refused("ls").contains("no playground runs"), "and looking leaves nothing");
    place.assert_nothing_is_left();
    let arguments = ["--embedded", "--datanodes", "1", "--regions", "2"];
    let mut older = place.start("older", &[], &arguments);
    says(&older, &["every region is writable (2 of 2)"]).await;
    let mut newer = place.start("newer", &[], &arguments);
    says(&newer, &["every region is writable (2 of 2)"]).await;
    let output = place.command("kill d1");
    assert!(text(&output.stderr).contains(&format!("this is {}, the newest", newer.id())));
    says(&newer, &["d1 was killed"]).await;
    let named = place.done(&format!("ls --playground {}", older.id()));
    assert_eq!(row(&named, "d1")[3], "up");
    assert!(place.refused("ls --playground 1").contains("there is no playground 1"));

    newer.signal(Signal::TERM);
    assert!(newer.ended(LONG).await.success(), "{}", newer.log());
    assert_eq!(place.state("d1"), "up", "the older one is what is left");
    older.signal(Signal::INT);
    assert!(older.ended(LONG).await.success(), "{}", older.log());
    place.assert_nothing_is_left();
}

/// Goal: kill -9 of the playground leaves no process, and the next who looks removes its directory; what was kept
/// stays. Method: one that keeps its data and one that does not are killed.
#[tokio::test(flavor = "multi_thread")]
async fn no_orphan_survives_a_killed_playground() {
    let place = Place::new();
    let standing = place.start("standing", &[], &[]);
    says(&standing, &["every region is writable (12 of 12)"]).await;
    let keeping = place.start("keeping", &[], &["--embedded", "--keep"]);
    says(&keeping, &["every region is writable (12 of 12)"]).await;
    assert_eq!(place.processes().len(), 7 + 4);
    standing.kill();
    keeping.kill();
    eventually(LONG, "all children are gone", async || {
        let left = place.processes();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
    })
    .await;
    assert!(place.refused("ls").contains("no playground runs"));
    let left: Vec<_> = std::fs::read_dir(&place.dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].join("m1.log").is_file(), "{left:?}");
}

/// Goal: what is missing is said before anything is started. Method: an etcd that is none, and a metasrv without its
/// neighbour.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_said() {
    let place = Place::new();
    let said = place.refused("--etcd /nowhere/etcd");
    assert!(said.contains("/nowhere/etcd") && said.contains("apt-get install etcd-server"), "{said}");
    let alone = place.top.path().join("metasrv");
    std::fs::copy(binary("metasrv"), &alone).unwrap();
    let output = Command::new(&alone).args(["playground", "--embedded"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("there is no program") && said.contains("datanode"), "{said}");
    let said = place.refused("--etcd /bin/false");
    assert!(said.contains("the start failed: e1 ended by itself with exit code 1"), "{said}");
    place.assert_nothing_is_left();
}
