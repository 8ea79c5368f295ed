//! The commands for a second terminal: look at a playground that runs, and break it on purpose.
//!
//! A killed process stays dead until it is started again, so that one can look at what its death does for as long as
//! one likes.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use comfy_table::{Table, presets};

use super::Place;
use super::control::{self, Answer, Listing, Request};
use super::hints::Hints;
use super::registry::{Found, Registry};

/// Between two looks at a log that is followed.
const FOLLOW: Duration = Duration::from_millis(200);
/// After so many looks without news, it is asked whether the playground is still there.
const QUIET_LOOKS: u32 = 5;

/// What is done with a playground that runs.
#[derive(Subcommand)]
pub enum Command {
    /// List the processes: names, states, addresses, logs
    Ls(Which),
    /// Kill one, as kill -9 does; it stays dead until it is started
    Kill(Named),
    /// Start one that was killed or ended
    Start(Named),
    /// Stop one in its tracks (SIGSTOP): its connections stay open and nobody answers
    Pause(Named),
    /// Let a paused one go on
    Resume(Named),
    /// Print the log of one
    Logs(Logs),
}

/// Which playground.
#[derive(Args)]
pub struct Which {
    #[command(flatten)]
    place: Place,
    /// Process id of the playground, where several run [default: the newest]
    #[arg(long, value_name = "PID")]
    playground: Option<u32>,
}

/// A process by its name.
#[derive(Args)]
pub struct Named {
    /// e1, m1, m2, …, d1, d2, …, or leader: the replica that leads now
    name: String,
    #[command(flatten)]
    which: Which,
}

/// A log.
#[derive(Args)]
pub struct Logs {
    #[command(flatten)]
    named: Named,
    /// Go on printing what is added, until the playground ends
    #[arg(long, short)]
    follow: bool,
}

/// Runs the command: exit code 0 if it did what was asked, else 1 with the reason on stderr.
pub async fn run(command: Command) -> ExitCode {
    let done = match command {
        Command::Ls(which) => list(&which).await,
        Command::Kill(named) => act(&named, |name| Request::Kill { name }).await,
        Command::Start(named) => act(&named, |name| Request::Start { name }).await,
        Command::Pause(named) => act(&named, |name| Request::Pause { name }).await,
        Command::Resume(named) => act(&named, |name| Request::Resume { name }).await,
        Command::Logs(logs) => print_log(&logs).await,
    };
    match done {
        Ok(()) | Err(Stop::ReaderGone) => ExitCode::SUCCESS,
        Err(Stop::Failed(error)) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Why a command ended early.
enum Stop {
    /// Whoever read its output, such as `head`, has all it wants.
    ReaderGone,
    /// It did not work.
    Failed(String),
}

impl From<String> for Stop {
    fn from(error: String) -> Stop {
        Stop::Failed(error)
    }
}

async fn list(which: &Which) -> Result<(), Stop> {
    let found = find(which).await?;
    let listing = listing(&found).await?;
    print(&table(&listing, &Hints::new(which.place.dir.as_deref())))
}

async fn act(named: &Named, request: impl Fn(String) -> Request) -> Result<(), Stop> {
    let found = find(&named.which).await?;
    match control::ask(&found.socket, &request(named.name.clone())).await? {
        Answer::Done(text) => print(&text),
        Answer::Refused(why) => Err(Stop::Failed(why)),
        Answer::List(_) => Err(Stop::Failed("the playground answered something else".to_owned())),
    }
}

async fn listing(found: &Found) -> Result<Listing, String> {
    match control::ask(&found.socket, &Request::List).await? {
        Answer::List(listing) => Ok(listing),
        Answer::Refused(why) | Answer::Done(why) => Err(why),
    }
}

/// The playground that is meant.
async fn find(which: &Which) -> Result<Found, String> {
    let running = Registry::at(which.place.dir.as_deref())?.running().await?;
    let pids: Vec<String> = running.iter().map(|found| found.pid.to_string()).collect();
    let Some(newest) = running.first() else {
        let start = Hints::new(which.place.dir.as_deref()).playground();
        return Err(format!("no playground runs; start one by: {start}"));
    };
    match which.playground {
        Some(pid) => running
            .iter()
            .find(|found| found.pid == pid)
            .cloned()
            .ok_or_else(|| format!("there is no playground {pid}; there are: {}", pids.join(", "))),
        None => {
            if running.len() > 1 {
                let all = pids.join(", ");
                eprintln!(
                    "note: playgrounds {all} run; this is {}, the newest; --playground PID chooses",
                    newest.pid
                );
            }
            Ok(newest.clone())
        }
    }
}

fn table(listing: &Listing, hints: &Hints) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["NAME", "WHAT", "PID", "STATE", "GRPC", "HTTP", "LOG"]);
    for process in &listing.processes {
        table.add_row([
            process.name.clone(),
            process.what.clone(),
            process.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            process.state.clone(),
            process.grpc.clone(),
            process.http.clone().unwrap_or_else(|| "-".to_owned()),
            process.log.display().to_string(),
        ]);
    }
    let leader = match &listing.leader {
        Some(name) => format!("{name} leads."),
        None => "Nobody leads at the moment.".to_owned(),
    };
    format!("{}\n\n{leader} What metasrv itself says:\n{}", table.trim_fmt(), hints.metactl(&listing.metasrv))
}

async fn print_log(logs: &Logs) -> Result<(), Stop> {
    let found = find(&logs.named.which).await?;
    let listing = listing(&found).await?;
    let name = match (logs.named.name.as_str(), &listing.leader) {
        ("leader", Some(leader)) => leader,
        (name, _) => name,
    };
    let names: Vec<&str> = listing.processes.iter().map(|process| process.name.as_str()).collect();
    let process = listing.processes.iter().find(|process| process.name == name);
    let process =
        process.ok_or_else(|| format!("there is no {name} here; there are {}", names.join(", ")))?;
    let mut offset = print_from(&process.log, 0)?;
    let mut quiet = 0;
    while logs.follow && quiet < QUIET_LOOKS {
        tokio::time::sleep(FOLLOW).await;
        let now = match print_from(&process.log, offset) {
            // The log goes away with its playground.
            Err(Stop::Failed(_)) => break,
            printed => printed?,
        };
        quiet = if now == offset { quiet + 1 } else { 0 };
        offset = now;
        if quiet == QUIET_LOOKS && control::ask(&found.socket, &Request::List).await.is_ok() {
            quiet = 0;
        }
    }
    Ok(())
}

/// Prints a log from `offset`; returns where it ends now.
fn print_from(log: &Path, offset: u64) -> Result<u64, Stop> {
    let cannot = |error: std::io::Error| format!("{} cannot be read: {error}", log.display());
    let mut file = match std::fs::File::open(log) {
        // A process that was not started yet has logged nothing.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && offset == 0 => return Ok(0),
        opened => opened.map_err(cannot)?,
    };
    let mut at = file.seek(SeekFrom::Start(offset)).map_err(cannot)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = file.read(&mut buffer).map_err(cannot)?;
        if read == 0 {
            return Ok(at);
        }
        write(&buffer[..read])?;
        at += u64::try_from(read).unwrap_or_default();
    }
}

fn print(text: &str) -> Result<(), Stop> {
    write(format!("{text}\n").as_bytes())
}

fn write(bytes: &[u8]) -> Result<(), Stop> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Stop::ReaderGone,
        _ => Stop::Failed(format!("cannot write to stdout: {error}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playground::control::Listed;

    #[test]
    fn the_list_has_a_line_for_each_process_and_the_line_to_type() {
        let listed = |name: &str, pid: Option<u32>, state: &str, http: Option<&str>| Listed {
            name: name.to_owned(),
            what: "metasrv".to_owned(),
            pid,
            state: state.to_owned(),
            grpc: "127.0.0.1:61000".to_owned(),
            http: http.map(str::to_owned),
            log: "/data/m1.log".into(),
        };
        let listing = Listing {
            pid: 7,
            metasrv: vec!["127.0.0.1:61000".to_owned(), "127.0.0.1:61001".to_owned()],
            leader: Some("m1".to_owned()),
            processes: vec![
                listed("m1", Some(17), "up", Some("127.0.0.1:61009")),
                listed("m2", None, "killed", None),
            ],
        };
        let text = table(&listing, &Hints::new(None));
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["NAME", "WHAT", "PID", "STATE", "GRPC", "HTTP", "LOG"]);
        assert_eq!(
            lines[1],
            ["m1", "metasrv", "17", "up", "127.0.0.1:61000", "127.0.0.1:61009", "/data/m1.log"]
        );
        assert_eq!(lines[2], ["m2", "metasrv", "-", "killed", "127.0.0.1:61000", "-", "/data/m1.log"]);
        assert!(text.contains("m1 leads."), "{text}");
        let last = text.lines().last().unwrap();
        assert!(last.contains("metactl --metasrv 127.0.0.1:61000,127.0.0.1:61001 "), "{last}");
    }
}
