//! The second words of each command, and their flags.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::value;

/// Regions that one call may create: the leader's limit, said before anything is sent.
const MOST_REGIONS: i64 = 10_000;

/// Events that one call may list: likewise.
const MOST_EVENTS: i64 = 10_000;

/// Every id but a cluster's begins with 1.
fn id() -> clap::builder::RangedU64ValueParser<u64> {
    clap::value_parser!(u64).range(1..)
}

/// What every change has.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
pub struct Why {
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub reason: String,
}

/// Which datanode.
#[derive(Args, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Which {
    /// The datanode's id
    #[arg(value_name = "NODE", value_parser = id())]
    pub node: u64,
    /// The namespace of its id
    #[arg(long, value_name = "CLUSTER", default_value_t = 0, hide_default_value = true)]
    pub cluster: u64,
}

/// Once, or again and again.
#[derive(Args, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watch {
    /// Show it again whenever it has changed, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
}

/// What to do with the replicas.
#[derive(Subcommand)]
pub enum MemberCommand {
    /// List the replicas, the leader first
    List(Watch),
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
        /// For the record.
        #[command(flatten)]
        why: Why,
    },
}

/// What to do with nodes.
#[derive(Subcommand)]
pub enum NodeCommand {
    /// List every node, with its lease and its regions
    List(Watch),
    /// Show one datanode
    Show {
        /// The node.
        #[command(flatten)]
        which: Which,
        /// Once or more.
        #[command(flatten)]
        watch: Watch,
    },
    /// Place no more regions on a datanode; those that it has stay
    Cordon {
        /// The node.
        #[command(flatten)]
        which: Which,
        /// For the record.
        #[command(flatten)]
        why: Why,
    },
    /// Let a datanode have regions again
    Uncordon {
        /// The node.
        #[command(flatten)]
        which: Which,
        /// For the record.
        #[command(flatten)]
        why: Why,
    },
    /// Move all regions away from a datanode
    Drain(Drain),
    /// Forget a datanode for good: it must be cordoned, without regions, and not connected
    Decommission(Decommission),
    /// Announce that a datanode will be restarted, so that its regions wait for it
    Restarting(Restarting),
}

/// Which node to empty.
#[derive(Args)]
pub struct Drain {
    /// The node.
    #[command(flatten)]
    pub which: Which,
    /// For the record.
    #[command(flatten)]
    pub why: Why,
    /// Wait until the node is empty, and say meanwhile how far it is
    #[arg(long)]
    pub wait: bool,
}

/// Which node to forget.
#[derive(Args)]
pub struct Decommission {
    /// The node.
    #[command(flatten)]
    pub which: Which,
    /// For the record.
    #[command(flatten)]
    pub why: Why,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// Which node restarts, and how long it may take.
#[derive(Args)]
#[command(group = clap::ArgGroup::new("order").required(true))]
pub struct Restarting {
    /// The node.
    #[command(flatten)]
    pub which: Which,
    /// How long its regions wait for it: 1s to 1h, from now
    #[arg(long = "for", value_name = "DURATION", value_parser = value::restart, group = "order")]
    pub time: Option<Duration>,
    /// Take the announcement back
    #[arg(long, group = "order")]
    pub cancel: bool,
    /// For the record.
    #[command(flatten)]
    pub why: Why,
}

/// What to do with regions.
#[derive(Subcommand)]
pub enum RegionCommand {
    /// Create regions and list them
    Create(Create),
    /// List regions, and who may write to them
    List {
        /// Only those of this datanode
        #[arg(long, value_name = "NODE", value_parser = id())]
        node: Option<u64>,
        /// Once or more.
        #[command(flatten)]
        watch: Watch,
    },
    /// Show one region
    Show {
        /// The region's id
        #[arg(value_name = "REGION", value_parser = id())]
        region: u64,
        /// Once or more.
        #[command(flatten)]
        watch: Watch,
    },
    /// Move a live region to another datanode
    Migrate(Migrate),
    /// Drop a region: its datanode closes it, and what it stored stays in the storage
    Drop(Drop),
}

/// Which regions to create.
#[derive(Args)]
pub struct Create {
    /// How many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST_REGIONS))]
    pub count: u32,
    /// The datanode to place them on; without it, each goes to the one with the fewest
    #[arg(long, value_name = "NODE", value_parser = id())]
    pub on: Option<u64>,
    /// The group that they belong to, a table for example: its regions are spread over zones and hosts
    #[arg(long, value_name = "LABEL", default_value = "", hide_default_value = true)]
    pub group: String,
    /// For the record.
    #[command(flatten)]
    pub why: Why,
    /// Wait until each of them is writable
    #[arg(long)]
    pub wait: bool,
}

/// Which region to move.
#[derive(Args)]
pub struct Migrate {
    /// The region's id
    #[arg(value_name = "REGION", value_parser = id())]
    pub region: u64,
    /// The datanode to move it to; without it, where placement puts it
    #[arg(long, value_name = "NODE", value_parser = id())]
    pub to: Option<u64>,
    /// For the record.
    #[command(flatten)]
    pub why: Why,
    /// Wait until it has moved
    #[arg(long)]
    pub wait: bool,
}

/// Which region to drop.
#[derive(Args)]
pub struct Drop {
    /// The region's id
    #[arg(value_name = "REGION", value_parser = id())]
    pub region: u64,
    /// For the record.
    #[command(flatten)]
    pub why: Why,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// What to do with failovers.
#[derive(Subcommand)]
pub enum FailoverCommand {
    /// Show whether failovers proceed, and why not
    Show {
        /// The namespace of the nodes
        #[arg(long, value_name = "CLUSTER", default_value_t = 0, hide_default_value = true)]
        cluster: u64,
        /// Once or more.
        #[command(flatten)]
        watch: Watch,
    },
    /// Begin no failover for a while; the pause ends by itself
    Pause {
        /// How long: 1s to 24h
        #[arg(long = "for", value_name = "DURATION", value_parser = value::failover)]
        time: Duration,
        /// For the record.
        #[command(flatten)]
        why: Why,
    },
    /// End a pause
    Resume {
        /// Let failovers go on for so long whatever the brake sees: 1s to 24h
        #[arg(long = "for", value_name = "DURATION", value_parser = value::failover)]
        time: Option<Duration>,
        /// For the record.
        #[command(flatten)]
        why: Why,
    },
}

/// On or off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Switch {
    /// Move nothing by itself
    On,
    /// Go on as usual
    Off,
}

/// Where to even out loads.
#[derive(Args)]
pub struct Rebalance {
    /// The namespace of the nodes
    #[arg(long, value_name = "CLUSTER", default_value_t = 0, hide_default_value = true)]
    pub cluster: u64,
    /// Say which regions would move, and move none
    #[arg(long)]
    pub dry_run: bool,
    /// For the record.
    #[command(flatten)]
    pub why: Why,
}

/// What to do with procedures.
#[derive(Subcommand)]
pub enum ProcedureCommand {
    /// List migrations and drains at work
    List(Watch),
    /// Show one of them
    Show {
        /// Its id
        #[arg(value_name = "PROCEDURE", value_parser = id())]
        id: u64,
        /// Once or more.
        #[command(flatten)]
        watch: Watch,
    },
    /// Cancel one of them: a migration is undone, a drain moves no further regions
    Cancel {
        /// Its id
        #[arg(value_name = "PROCEDURE", value_parser = id())]
        id: u64,
        /// For the record.
        #[command(flatten)]
        why: Why,
    },
}

/// Which events to list.
#[derive(Args)]
pub struct Events {
    /// Go on with new ones as they come, until Ctrl-C
    #[arg(long)]
    pub follow: bool,
    /// Only those of so long ago, or less
    #[arg(long, value_name = "DURATION", value_parser = value::since)]
    pub since: Option<Duration>,
    /// Only those of this region
    #[arg(long, value_name = "REGION", value_parser = id())]
    pub region: Option<u64>,
    /// Only those of this datanode
    #[arg(long, value_name = "NODE", value_parser = id())]
    pub node: Option<u64>,
    /// At most so many, the latest: 1,000 where not said, 10,000 with --since, 10 with --follow
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST_EVENTS))]
    pub limit: Option<u32>,
}

/// Whose history.
#[derive(Subcommand)]
pub enum HistoryCommand {
    /// Show which datanode held a region, and from when until when
    Region {
        /// The region's id
        #[arg(value_name = "REGION", value_parser = id())]
        region: u64,
        /// Only who held it at this time, in RFC 3339
        #[arg(long, value_name = "TIME", value_parser = value::instant)]
        at: Option<u64>,
    },
}

/// What to explain.
#[derive(Subcommand)]
pub enum WhyCommand {
    /// Say why a region is where it is, and where it would go
    Region {
        /// The region's id
        #[arg(value_name = "REGION", value_parser = id())]
        region: u64,
    },
}

/// What to plan.
#[derive(Subcommand)]
pub enum PlanCommand {
    /// Say where each region of a datanode would go, and how long it would take
    Drain {
        /// The node.
        #[command(flatten)]
        which: Which,
    },
}

/// What to wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Condition {
    /// A leader answers, and every region is writable
    Healthy,
    /// A leader answers
    Leader,
    /// No migration and no drain is at work
    Idle,
}

/// What to do with routes.
#[derive(Subcommand)]
pub enum RouteCommand {
    /// List who leads each region, from any replica
    List {
        /// Only this region
        #[arg(long, value_name = "REGION", value_parser = id())]
        region: Option<u64>,
    },
    /// Show who leads each region, then every change, until Ctrl-C; --timeout is for the beginning only
    Watch {
        /// Only this region
        #[arg(long, value_name = "REGION", value_parser = id())]
        region: Option<u64>,
    },
}
