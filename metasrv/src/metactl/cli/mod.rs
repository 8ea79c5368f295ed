//! Every command and every flag of `metactl`. Scripts rely on these names.
//!
//! Here are the flags of every command and the first words; the second words and their flags are in `noun.rs` and `cert.rs`, and what a
//! duration or a time may be is in `value.rs`.

mod cert;
mod noun;
#[cfg(test)]
pub mod tests;
mod value;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub use cert::{CertCommand, Dev};
pub use noun::{
    Condition, Create, Decommission, Drain, Drop, Events, FailoverCommand, HistoryCommand, LeaderCommand,
    MemberCommand, Migrate, NodeCommand, PlanCommand, ProcedureCommand, Rebalance, RegionCommand, Restarting,
    RouteCommand, Switch, Watch, Which, Why, WhyCommand,
};

/// Shown below every help text, because scripts are written from it.
const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no replica reachable, 4 not found, 5 refused by a safety check,
            6 timed out waiting, 10 unhealthy (no leader, regions that nobody may write to, findings of fsck)";

/// The command line.
#[derive(Parser)]
#[command(name = "metactl", version, about = "Looks at metasrv, and changes things", after_help = EXIT_CODES)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// Flags that every command has.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command has. They may stand before or after it.
#[derive(Args)]
#[command(next_help_heading = "Flags of every command")]
pub struct Global {
    /// Replicas of metasrv, each HOST:PORT. Some are enough: the leader is found by itself
    #[arg(long, global = true, env = "METACTL_METASRV", value_name = "ADDR,…", value_delimiter = ',')]
    #[arg(default_value = "127.0.0.1:3002")]
    pub metasrv: Vec<String>,
    /// How connections are secured.
    #[command(flatten)]
    pub tls: TlsFlags,
    /// What the data on stdout looks like
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub output: Format,
    /// How long the whole command may take, waiting included: 15s where not said, and as long as it takes for
    /// `node drain --wait`
    #[arg(long, global = true, value_name = "DURATION", value_parser = value::timeout)]
    pub timeout: Option<Duration>,
}

/// How connections to metasrv are secured. Without any of these, they are plain.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Flags of every command")]
pub struct TlsFlags {
    /// Authorities of metasrv's certificates (PEM): connections are TLS then
    #[arg(long, global = true, env = "METACTL_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// An operator's certificate (PEM)
    #[arg(long, global = true, env = "METACTL_TLS_CERTIFICATE", value_name = "FILE")]
    pub tls_certificate: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, global = true, env = "METACTL_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
}

/// What the data on stdout looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Format {
    /// Columns for people
    Table,
    /// The same with more columns
    Wide,
    /// One JSON document: an array for lists
    Json,
    /// One JSON object per line
    Jsonl,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Show on one screen whether all is well: exit code 10 if not
    Status(Watch),
    /// Look at the replicas of metasrv
    Member {
        /// What to do with them.
        #[command(subcommand)]
        command: MemberCommand,
    },
    /// Look at the leader, or make it hand over
    Leader {
        /// What to do with it.
        #[command(subcommand)]
        command: LeaderCommand,
    },
    /// Look at datanodes and frontends, empty a datanode, announce its restart
    Node {
        /// What to do with them.
        #[command(subcommand)]
        command: NodeCommand,
    },
    /// Look at regions, create, move or drop them
    Region {
        /// What to do with them.
        #[command(subcommand)]
        command: RegionCommand,
    },
    /// Look at who leads each region, as frontends are told
    Route {
        /// What to do with them.
        #[command(subcommand)]
        command: RouteCommand,
    },
    /// Look at failovers, pause them, or let them go on
    Failover {
        /// What to do with them.
        #[command(subcommand)]
        command: FailoverCommand,
    },
    /// Switch maintenance mode: while it is on, nothing is moved by itself
    Maintenance {
        /// On or off
        #[arg(value_enum)]
        switch: Switch,
        /// For the record.
        #[command(flatten)]
        why: Why,
    },
    /// Move regions until loads are even
    Rebalance(Rebalance),
    /// Look at what is at work: migrations and drains; cancel one
    Procedure {
        /// What to do with them.
        #[command(subcommand)]
        command: ProcedureCommand,
    },
    /// List what was decided, in the order in which it was
    Events(Events),
    /// Show who held something, and from when until when
    History {
        /// Of what.
        #[command(subcommand)]
        command: HistoryCommand,
    },
    /// Say why something is as it is
    Why {
        /// What.
        #[command(subcommand)]
        command: WhyCommand,
    },
    /// Say what a change would do, and do nothing
    Plan {
        /// Which change.
        #[command(subcommand)]
        command: PlanCommand,
    },
    /// Check that all that is stored fits together: exit code 10 if not
    Fsck,
    /// Wait until something holds: exit code 6 if it does not within --timeout
    Wait {
        /// What to wait for
        #[arg(long = "for", value_enum, value_name = "CONDITION")]
        condition: Condition,
    },
    /// Make certificates to try TLS out with
    Cert {
        /// Which.
        #[command(subcommand)]
        command: CertCommand,
    },
    /// Print a script that completes commands and flags in a shell
    Completions {
        /// Which shell
        #[arg(value_enum)]
        shell: Shell,
    },
}
