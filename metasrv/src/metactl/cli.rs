//! Every command and every flag of `metactl`. Scripts rely on these names.

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Longer than any wait that somebody sits through, and far from where adding it to the present overflows.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// Regions that one call may create: the leader's limit, said before anything is sent.
const MOST_REGIONS: i64 = 10_000;

/// Shown below every help text, because scripts are written from it.
const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no replica reachable, 4 not found, 5 refused by a safety check,
            6 timed out waiting, 10 unhealthy (no leader, or regions that nobody may write to)";

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
    /// What the data on stdout looks like
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub output: Format,
    /// How long the whole command may take, waiting included
    #[arg(long, global = true, value_name = "DURATION", default_value = "15s", value_parser = timeout)]
    pub timeout: Duration,
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
    Status,
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
    /// Look at datanodes and frontends
    Node {
        /// What to do with them.
        #[command(subcommand)]
        command: NodeCommand,
    },
    /// Look at regions, or create some
    Region {
        /// What to do with them.
        #[command(subcommand)]
        command: RegionCommand,
    },
}

/// What to do with the replicas.
#[derive(Subcommand)]
pub enum MemberCommand {
    /// List the replicas, the leader first
    List,
}

/// What to do with the leader.
#[derive(Subcommand)]
pub enum LeaderCommand {
    /// Show who leads, and since which term
    Show,
    /// Make the leader hand over, wait for the next one, and show it
    Transfer {
        /// Name of the replica that shall lead next; without it, whichever is next in the queue
        #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
        to: String,
        /// Why, for the record
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        reason: String,
    },
}

/// What to do with nodes.
#[derive(Subcommand)]
pub enum NodeCommand {
    /// List every node, with its lease and its regions
    List,
}

/// What to do with regions.
#[derive(Subcommand)]
pub enum RegionCommand {
    /// Create regions and list them
    Create(Create),
    /// List regions, and who may write to them
    List {
        /// Only those of this datanode
        #[arg(long, value_name = "NODE", value_parser = clap::value_parser!(u64).range(1..))]
        node: Option<u64>,
    },
}

/// Which regions to create.
#[derive(Args)]
pub struct Create {
    /// How many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST_REGIONS))]
    pub count: u32,
    /// The datanode to place them on; without it, each goes to the one with the fewest
    #[arg(long, value_name = "NODE", value_parser = clap::value_parser!(u64).range(1..))]
    pub on: Option<u64>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub reason: String,
    /// Wait until each of them is writable
    #[arg(long)]
    pub wait: bool,
}

fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = humantime::parse_duration(text).map_err(|error| format!("{error}; write 15s or 2m"))?;
    match timeout {
        Duration::ZERO => Err("must be more than zero".to_owned()),
        timeout if timeout > LONGEST_TIMEOUT => Err("must not be longer than a day".to_owned()),
        timeout => Ok(timeout),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parsed(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_before_and_after_the_command() {
        for line in [
            "metactl --metasrv a:1,b:2 -o json --timeout 3s node list",
            "metactl node list --metasrv a:1,b:2 -o json --timeout 3s",
            "metactl --metasrv a:1,b:2 node -o json list --timeout 3s",
        ] {
            let global = parsed(line).ok().map(|cli| cli.global).expect(line);
            assert_eq!(global.metasrv, ["a:1", "b:2"], "{line}");
            assert_eq!(global.output, Format::Json, "{line}");
            assert_eq!(global.timeout, Duration::from_secs(3), "{line}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for line in [
            "metactl",
            "metactl node",
            "metactl node drain",
            "metactl region create",
            "metactl region create --count 0",
            "metactl region create --count 10001",
            "metactl region create --count 1 --on 0",
            "metactl region list --node x",
            "metactl --timeout 0s status",
            "metactl --timeout 1000years status",
            "metactl --timeout soon status",
            "metactl -o yaml status",
        ] {
            let error = parsed(line).err().expect(line);
            assert!(error.use_stderr(), "{line}");
        }
    }
}
