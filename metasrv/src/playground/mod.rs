//! `metasrv playground`: the whole system on this machine, to look at and to break.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | the command line |
//! | `programs.rs` | which programs are started, and where they are |
//! | `ports.rs` | free ports |
//! | `cluster.rs` | what is started, in which order, and how it ends |
//! | `child.rs` | one process |
//! | `tether.rs` | why no process outlives the playground |
//! | `run.rs` | the loop: start, look, answer, end |
//! | `signals.rs` | what tells it to end |
//! | `start.rs` | from nothing to a cluster with regions, step by step |
//! | `watch.rs` | what is seen of the cluster |
//! | `chronicle.rs` | what just happened |
//! | `view.rs` | what is known of each process |
//! | `screen.rs`, `output.rs` | how that is shown, and where it goes |
//! | `hints.rs` | what to type next |
//! | `registry.rs` | where playgrounds are found |
//! | `control.rs` | how a second terminal speaks to one |
//! | `second_terminal.rs` | its commands |
//!
//! It uses metasrv as any tool does, through the client. Nothing of the server knows of it.

mod child;
mod chronicle;
mod cluster;
mod control;
mod hints;
mod output;
mod ports;
mod programs;
mod registry;
mod run;
mod screen;
mod second_terminal;
mod signals;
mod start;
mod tether;
mod view;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use cluster::Size;
use programs::Wanted;
use registry::Data;
use run::Options;

/// The environment's name for `--dir`.
pub const DIR_VARIABLE: &str = "METASRV_PLAYGROUND_DIR";

/// Run a whole cluster here, or speak to one that runs.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArguments,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    SecondTerminal(second_terminal::Command),
    /// Become a child of the playground
    #[command(hide = true, name = tether::NAME)]
    Tethered(tether::Tethered),
}

/// What is run.
#[derive(Args)]
struct RunArguments {
    /// Replicas of metasrv
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    replicas: u16,
    /// Datanodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=50))]
    datanodes: u16,
    /// Regions
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    regions: u32,
    /// No etcd: one replica, which keeps its state in a store of its own
    #[arg(long, conflicts_with = "replicas")]
    embedded: bool,
    /// End this long after the regions were created, with exit code 0 if every region was writable
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    limit: Option<Duration>,
    /// Keep logs and data
    #[arg(long)]
    keep: bool,
    /// The etcd to start [default: the one in PATH]
    #[arg(long, value_name = "PATH", env = "METASRV_ETCD", hide_env_values = true)]
    etcd: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

/// Where playgrounds are.
#[derive(Args)]
struct Place {
    /// Where playgrounds keep their data and are found
    /// [default: metasrv-playground-UID in the system's temporary directory]
    #[arg(long, value_name = "DIR", env = DIR_VARIABLE, hide_env_values = true)]
    dir: Option<PathBuf>,
}

/// Runs it.
pub fn main(arguments: Arguments) -> ExitCode {
    let command = match arguments.command {
        Some(Command::Tethered(tethered)) => return tether::become_child(&tethered),
        Some(Command::SecondTerminal(command)) => Some(command),
        None => None,
    };
    // One thread, the main one: a child lives no longer than the thread that started it (see `tether.rs`).
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("no runtime: {error}")),
    };
    let code = runtime.block_on(async {
        match command {
            Some(command) => second_terminal::run(command).await,
            None => match run::run(options(arguments.run)).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error),
            },
        }
    });
    // A text that nobody reads is not waited for.
    runtime.shutdown_background();
    code
}

fn options(run: RunArguments) -> Options {
    Options {
        size: Size { replicas: run.replicas, datanodes: run.datanodes },
        regions: run.regions,
        store: if run.embedded { Wanted::Embedded } else { Wanted::Etcd(run.etcd) },
        limit: run.limit,
        data: if run.keep { Data::Kept } else { Data::Removed },
        dir: run.place.dir,
    }
}

/// Says what failed.
fn fail(error: &str) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(line: &str) -> Result<Arguments, String> {
        let words = std::iter::once("playground").chain(line.split_whitespace());
        Cli::try_parse_from(words).map(|cli| cli.arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn without_words_it_is_three_of_each_and_twelve_regions() {
        let options = options(parse("").unwrap().run);
        assert_eq!((options.size.replicas, options.size.datanodes, options.regions), (3, 3, 12));
        assert_eq!(options.limit, None);
        assert_eq!(options.data, Data::Removed);
        let embedded = super::options(parse("--embedded --for 20s --keep").unwrap().run);
        assert_eq!(embedded.store, Wanted::Embedded);
        assert_eq!(embedded.limit, Some(Duration::from_secs(20)));
        assert_eq!(embedded.data, Data::Kept);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for wrong in
            ["--embedded --replicas 3", "--replicas 0", "--datanodes 0", "--regions 0", "--for soon", "kill"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn commands_for_a_second_terminal_take_names() {
        for right in
            ["ls", "kill m1", "start m1", "pause d2 --playground 7", "resume d2", "logs e1 --follow --dir /x"]
        {
            assert!(parse(right).unwrap().command.is_some(), "{right}");
        }
        let tethered = parse("tethered --parent 7 -- /bin/etcd --name=e1").unwrap();
        assert!(matches!(tethered.command, Some(Command::Tethered(_))));
    }
}
