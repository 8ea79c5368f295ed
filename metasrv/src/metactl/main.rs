//! The binary `metactl`: what an operator asks of metasrv, and changes.
//!
//! A command is one straight line: the command line is parsed, a [`Session`] is made of its global flags, the command
//! asks the replicas through `metasrv_client`, its data goes to stdout, and everything else goes to stderr. The exit
//! code says how it went, so that a script need not read.
//!
//! | file | what |
//! | --- | --- |
//! | `cli/` | every command and flag |
//! | `confirm.rs` | the question before something is destroyed |
//! | `session.rs` | one run: the client, the deadlines, waiting, Ctrl-C |
//! | `watch.rs` | `--watch` |
//! | `survey.rs` | every replica asked at once: what `status`, `member list` and `leader show` are made of |
//! | `follower.rs` | lists, where no leader answers: what followers have seen |
//! | `status.rs`, `wait.rs` | `status`; `wait` until all is well |
//! | `member.rs`, `leader.rs` | `member list`; `leader show`, `leader transfer` |
//! | `node/` | `node …`, `plan drain` |
//! | `region/` | `region …` |
//! | `route.rs` | `route …` |
//! | `procedure.rs` | `procedure …`, and waiting for the end of one |
//! | `moves.rs` | `rebalance`, and the rows of everything that moves regions |
//! | `failover.rs` | `failover …`, `maintenance` |
//! | `events.rs`, `history.rs` | `events`; `history region` |
//! | `why.rs` | `why region` |
//! | `cert.rs` | `cert dev` |
//! | `fsck.rs` | `fsck` |
//! | `output.rs` | rows as a table, as JSON, as JSON lines |
//! | `text.rs` | times, ages and random numbers as text |
//! | `exit.rs` | exit codes, and which error has which |
//!
//! The names in its output are a contract; docs/metactl.md lists them.

mod cert;
mod cli;
mod confirm;
mod events;
mod exit;
mod failover;
mod follower;
mod fsck;
mod history;
mod leader;
mod member;
mod moves;
mod node;
mod output;
mod procedure;
mod region;
mod route;
mod session;
mod status;
mod survey;
mod text;
mod wait;
mod watch;
mod why;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use clap_complete::Shell;

use cli::{
    CertCommand, Cli, Command, HistoryCommand, LeaderCommand, MemberCommand, NodeCommand, PlanCommand,
    ProcedureCommand, RegionCommand, RouteCommand, WhyCommand,
};
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
    if let Command::Completions { shell } = cli.command {
        return completions(shell);
    }
    if let Command::Cert { command: CertCommand::Dev(dev) } = &cli.command {
        return cert::dev(dev);
    }
    confirm::ask(&cli.command)?;
    let session = Session::start(&cli.global)?;
    match cli.command {
        Command::Status(watch) => watch::show(&session, watch, status::look).await,
        Command::Member { command: MemberCommand::List(watch) } => {
            watch::show(&session, watch, member::list).await
        }
        Command::Leader { command: LeaderCommand::Show } => leader::show(&session).await,
        Command::Leader { command: LeaderCommand::Transfer { to, why } } => {
            leader::transfer(&session, &to, &why.reason).await
        }
        Command::Node { command } => on_node(session, command).await,
        Command::Region { command } => on_region(&session, command).await,
        Command::Route { command: RouteCommand::List { region } } => route::list(&session, region).await,
        Command::Route { command: RouteCommand::Watch { region } } => route::watch(&session, region).await,
        Command::Failover { command } => failover::run(&session, command).await,
        Command::Maintenance { switch, why } => failover::maintenance(&session, switch, why).await,
        Command::Rebalance(rebalance) => moves::rebalance(&session, rebalance).await,
        Command::Procedure { command } => on_procedure(&session, command).await,
        Command::Events(wanted) => events::events(&session, wanted).await,
        Command::History { command: HistoryCommand::Region { region, at } } => {
            history::region(&session, region, at).await
        }
        Command::Why { command: WhyCommand::Region { region } } => why::region(&session, region).await,
        Command::Plan { command: PlanCommand::Drain { which } } => node::drain::plan(&session, which).await,
        Command::Fsck => fsck::check(&session).await,
        Command::Wait { condition } => wait::until(&session, condition).await,
        Command::Completions { shell } => completions(shell),
        Command::Cert { command: CertCommand::Dev(dev) } => cert::dev(&dev),
    }
}

async fn on_node(session: Session, command: NodeCommand) -> Result<(), Failure> {
    match command {
        NodeCommand::List(watch) => watch::show(&session, watch, node::list).await,
        NodeCommand::Show { which, watch } => {
            watch::show(&session, watch, async |session| node::show(session, which).await).await
        }
        NodeCommand::Cordon { which, why } => node::order::cordon(&session, which, true, why).await,
        NodeCommand::Uncordon { which, why } => node::order::cordon(&session, which, false, why).await,
        NodeCommand::Drain(drain) => node::drain::drain(session, drain).await,
        NodeCommand::Decommission(decommission) => node::order::decommission(&session, decommission).await,
        NodeCommand::Restarting(restarting) => node::order::restarting(&session, restarting).await,
    }
}

async fn on_region(session: &Session, command: RegionCommand) -> Result<(), Failure> {
    match command {
        RegionCommand::Create(create) => region::create(session, create).await,
        RegionCommand::List { node, watch } => {
            watch::show(session, watch, async |session| region::list(session, node).await).await
        }
        RegionCommand::Show { region, watch } => {
            watch::show(session, watch, async |session| region::show::show(session, region).await).await
        }
        RegionCommand::Migrate(migrate) => region::change::migrate(session, migrate).await,
        RegionCommand::Drop(drop) => region::change::drop(session, drop).await,
    }
}

async fn on_procedure(session: &Session, command: ProcedureCommand) -> Result<(), Failure> {
    match command {
        ProcedureCommand::List(watch) => watch::show(session, watch, procedure::list).await,
        ProcedureCommand::Show { id, watch } => {
            watch::show(session, watch, async |session| procedure::show(session, id).await).await
        }
        ProcedureCommand::Cancel { id, why } => procedure::cancel(session, id, why).await,
    }
}

/// Asks nobody, so that a shell can be set up where there is no metasrv.
fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "metactl", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}
