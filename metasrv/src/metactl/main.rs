//! The binary `metactl`: what an operator asks of metasrv, and changes.
//!
//! A command is one straight line: the command line is parsed, a [`Session`] is made of its global flags, the command
//! asks the replicas through `metasrv_client`, its data goes to stdout, and everything else goes to stderr. The exit
//! code says how it went, so that a script need not read.
//!
//! | file | what |
//! | --- | --- |
//! | `cli.rs` | every command and flag |
//! | `session.rs` | one run: the client, the deadline, waiting, Ctrl-C |
//! | `survey.rs` | every replica asked at once: what `status`, `member list` and `leader show` are made of |
//! | `follower.rs` | lists, where no leader answers: what followers have seen |
//! | `status.rs` | `status` |
//! | `member.rs` | `member list` |
//! | `leader.rs` | `leader show`, `leader transfer` |
//! | `node.rs` | `node list` |
//! | `region.rs` | `region create`, `region list` |
//! | `output.rs` | rows as a table, as JSON, as JSON lines |
//! | `text.rs` | times, ages and random numbers as text |
//! | `exit.rs` | exit codes, and which error has which |
//!
//! The names in its output are a contract; docs/metactl.md lists them.

mod cli;
mod exit;
mod follower;
mod leader;
mod member;
mod node;
mod output;
mod region;
mod session;
mod status;
mod survey;
mod text;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command, LeaderCommand, MemberCommand, NodeCommand, RegionCommand};
use exit::{Exit, Failure};
use session::Session;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // There is nobody left to tell if the terminal is gone.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    // One thread is enough to wait for a handful of answers.
    let result = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(cli)),
        Err(error) => Err(Failure::new(Exit::Failed, format!("no runtime to run on: {error}"))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::say(&failure.to_string());
            failure.exit.into()
        }
    }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let session = Session::start(&cli.global)?;
    match cli.command {
        Command::Status => status::show(&session).await,
        Command::Member { command: MemberCommand::List } => member::list(&session).await,
        Command::Leader { command: LeaderCommand::Show } => leader::show(&session).await,
        Command::Leader { command: LeaderCommand::Transfer { to, reason } } => {
            leader::transfer(&session, &to, &reason).await
        }
        Command::Node { command: NodeCommand::List } => node::list(&session).await,
        Command::Region { command: RegionCommand::Create(create) } => region::create(&session, create).await,
        Command::Region { command: RegionCommand::List { node } } => region::list(&session, node).await,
    }
}
