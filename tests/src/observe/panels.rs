//! The panels of the dashboard, row by row: from whether all is well, to what each part does.

use super::dashboard::Seen::{Always, Rarely};
use super::dashboard::Shape::{Lines, Number};
use super::dashboard::{Panel, Seen, Shape};

/// Panels that belong together.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What they are about.
    pub title: &'static str,
    /// They, from left to right.
    pub panels: &'static [Panel],
}

const fn panel(
    (title, shape, unit, seen): (&'static str, Shape, &'static str, Seen),
    about: &'static str,
    queries: &'static [(&'static str, &'static str)],
) -> Panel {
    Panel { title, shape, unit, about, queries, seen }
}

/// A quantile of a histogram, over all replicas; its label, where it has one that matters, after `le`.
macro_rules! quantile {
    ($quantile:literal, $name:literal $(, $by:literal)?) => {
        concat!(
            "histogram_quantile(", $quantile, ", sum by (le", $(", ", $by,)? ") (rate(", $name, "_bucket{@}[~])))"
        )
    };
}

/// Every row, from above.
pub const ROWS: &[Row] = &[
    Row { title: "Is all well?", panels: WELL },
    Row { title: "Leadership", panels: LEADERSHIP },
    Row { title: "Heartbeats", panels: HEARTBEATS },
    Row { title: "Leases, nodes and regions", panels: REGIONS },
    Row { title: "Procedures", panels: PROCEDURES },
    Row { title: "Store", panels: STORE },
    Row { title: "Calls", panels: CALLS },
];

const WELL: &[Panel] = &[
    panel(("Leaders", Number, "none", Always), "One, but for moments.", &[("sum(metasrv_leader{@})", "")]),
    panel(
        ("Term", Number, "none", Always),
        "Rises by one with each new leader.",
        &[("max(metasrv_term{@})", "")],
    ),
    panel(
        ("Ready replicas", Number, "none", Always),
        "As many as there are. Two keep the service up, and nobody could replace a leader that hangs.",
        &[("sum(metasrv_ready{@})", "")],
    ),
    panel(
        ("Lost datanodes", Number, "none", Always),
        "Silent for longer than their lease, and still with regions.",
        &[("max(metasrv_nodes{@,health=\"lost\"})", "")],
    ),
    panel(
        ("Regions that wait", Number, "none", Always),
        "Their node is gone, and no other has them yet: nobody writes to them.",
        &[("max(metasrv_regions_waiting{@})", "")],
    ),
    panel(
        ("Failovers held", Number, "none", Always),
        "1 where the brake or an operator has stopped failovers.",
        &[("max(metasrv_failovers_held{@})", "")],
    ),
];

const LEADERSHIP: &[Panel] = &[
    panel(
        ("Who leads", Lines, "none", Always),
        "1 at the replica that leads.",
        &[("metasrv_leader{@}", "{{instance}}")],
    ),
    panel(
        ("Campaigns that ended", Lines, "none", Always),
        "In the interval, by how they ended.",
        &[("sum by (outcome) (increase(metasrv_elections_total{@}[~]))", "{{outcome}}")],
    ),
    panel(
        ("Leadership given up or taken", Lines, "none", Rarely),
        "Step-downs by their reason, depositions by their evidence.",
        &[
            ("sum by (reason) (increase(metasrv_step_downs_total{@}[~]))", "step-down: {{reason}}"),
            ("sum by (evidence) (increase(metasrv_depositions_total{@}[~]))", "deposed: {{evidence}}"),
        ],
    ),
    panel(
        ("Takeovers", Lines, "s", Rarely),
        "From the reading back of the win until the replica leads.",
        &[
            (quantile!("0.5", "metasrv_takeover_duration_seconds"), "median"),
            (quantile!("0.99", "metasrv_takeover_duration_seconds"), "99 %"),
        ],
    ),
    panel(
        ("Renewals withheld", Lines, "none", Always),
        "The leader did not answer its own probe heartbeat in time. If that goes on, another replica takes over.",
        &[("increase(metasrv_renewals_withheld_total{@}[~])", "{{instance}}")],
    ),
    panel(
        ("Age of mirrors", Lines, "s", Always),
        "What a standby knows is this old. Up to a second is usual.",
        &[("metasrv_mirror_age_seconds{@}", "{{instance}}")],
    ),
    panel(
        ("Mirrors read anew", Lines, "none", Rarely),
        "By the reason: docs/metrics.md explains each.",
        &[("sum by (reason) (increase(metasrv_mirror_restarts_total{@}[~]))", "{{reason}}")],
    ),
    panel(
        ("Takeovers by where the state came from", Lines, "none", Rarely),
        "A mirror, or a list of the store, which takes longer.",
        &[("sum by (state) (increase(metasrv_takeovers_total{@}[~]))", "{{state}}")],
    ),
    panel(
        ("Versions", Lines, "none", Always),
        "More than one during a rolling upgrade only.",
        &[("count by (version) (metasrv_build_info{@})", "{{version}}")],
    ),
];

const HEARTBEATS: &[Panel] = &[
    panel(
        ("Heartbeats", Lines, "ops", Always),
        "Answered, by the node's role and how it went.",
        &[("sum by (role, result) (rate(metasrv_heartbeats_total{@}[~]))", "{{role}}: {{result}}")],
    ),
    panel(
        ("Time for one heartbeat", Lines, "s", Always),
        "What the line of handlers takes.",
        &[
            (quantile!("0.5", "metasrv_heartbeat_duration_seconds"), "median"),
            (quantile!("0.99", "metasrv_heartbeat_duration_seconds"), "99 %"),
        ],
    ),
    panel(
        ("Heartbeats refused", Lines, "ops", Rarely),
        "Streams ended because of what the node sent.",
        &[("sum by (reason) (rate(metasrv_heartbeat_refused_total{@}[~]))", "{{reason}}")],
    ),
    panel(
        ("Streams", Lines, "none", Always),
        "Open heartbeat streams. They follow the leader.",
        &[("metasrv_streams{@}", "{{instance}}")],
    ),
    panel(
        ("Nodes that can be told something", Lines, "none", Always),
        "By their role.",
        &[("sum by (role) (metasrv_pushers{@})", "{{role}}")],
    ),
    panel(
        ("Instructions", Lines, "ops", Rarely),
        "To datanodes, by what they ask for and what became of them; and replies that nobody waited for any more.",
        &[
            ("sum by (action, outcome) (rate(metasrv_instructions_total{@}[~]))", "{{action}}: {{outcome}}"),
            ("sum by (outcome) (rate(metasrv_mailbox_messages_total{@}[~]))", "replies: {{outcome}}"),
        ],
    ),
];

const REGIONS: &[Panel] = &[
    panel(
        ("Leases of regions", Lines, "ops", Always),
        "Granted or renewed. Falls to zero while nobody leads.",
        &[("sum(rate(metasrv_region_grants_total{@}[~]))", "granted")],
    ),
    panel(
        ("Regions", Lines, "none", Always),
        "With a route; and those that wait for another node.",
        &[("max(metasrv_regions{@})", "regions"), ("max(metasrv_regions_waiting{@})", "waiting")],
    ),
    panel(
        ("Datanodes", Lines, "none", Always),
        "By their health.",
        &[("max by (health) (metasrv_nodes{@})", "{{health}}")],
    ),
    panel(
        ("Failovers", Lines, "none", Always),
        "Regions of lost nodes that were given to another one, in the interval.",
        &[("sum(increase(metasrv_region_failovers_total{@}[~]))", "regions")],
    ),
    panel(
        ("Why failovers stand still", Lines, "none", Always),
        "1 at the reason that holds.",
        &[("max by (why) (metasrv_failovers_held{@})", "{{why}}")],
    ),
    panel(
        ("Regions to be closed", Lines, "ops", Always),
        "Reported by nodes that no route gives them to.",
        &[("sum(rate(metasrv_regions_closeable_total{@}[~]))", "reported")],
    ),
];

const PROCEDURES: &[Panel] = &[
    panel(
        ("At work", Lines, "none", Always),
        "Migrations and drains.",
        &[("max by (kind) (metasrv_procedures{@})", "{{kind}}")],
    ),
    panel(
        ("Migrations that ended", Lines, "none", Rarely),
        "In the interval, by their outcome.",
        &[("sum by (outcome) (increase(metasrv_migrations_total{@}[~]))", "{{outcome}}")],
    ),
    panel(
        ("Without a writer during a migration", Lines, "s", Rarely),
        "From the decision that the old node stops to the new route.",
        &[
            (quantile!("0.5", "metasrv_migration_stopped_seconds"), "median"),
            (quantile!("0.99", "metasrv_migration_stopped_seconds"), "99 %"),
        ],
    ),
];

const STORE: &[Panel] = &[
    panel(
        ("Requests to etcd", Lines, "ops", Always),
        "By operation.",
        &[("sum by (operation) (rate(metasrv_etcd_requests_total{@}[~]))", "{{operation}}")],
    ),
    panel(
        ("Time for a request to etcd, 99 %", Lines, "s", Always),
        "By operation. Above half a second, leases of the leader are in danger.",
        &[(quantile!("0.99", "metasrv_etcd_request_duration_seconds", "operation"), "{{operation}}")],
    ),
    panel(
        ("Requests to etcd that failed", Lines, "ops", Rarely),
        "Refused, certainly not sent (unavailable), or of unknown outcome.",
        &[(
            "sum by (operation, outcome) (rate(metasrv_etcd_requests_total{@,outcome!=\"ok\"}[~]))",
            "{{operation}}: {{outcome}}",
        )],
    ),
    panel(
        ("Fenced writes", Lines, "ops", Rarely),
        "What only a leader may write, by outcome.",
        &[("sum by (outcome) (rate(metasrv_fenced_writes_total{@}[~]))", "{{outcome}}")],
    ),
    panel(
        ("Lag of the write-behind", Lines, "s", Always),
        "From a record's arrival to its commit, of the oldest in each transaction.",
        &[
            (quantile!("0.5", "metasrv_write_behind_lag_seconds"), "median"),
            (quantile!("0.99", "metasrv_write_behind_lag_seconds"), "99 %"),
        ],
    ),
    panel(
        ("Queue of the write-behind", Lines, "none", Always),
        "Keys that wait, and records that were not taken because it was full.",
        &[
            ("sum(metasrv_write_behind_keys{@})", "keys"),
            ("sum(increase(metasrv_write_behind_refused_total{@}[~]))", "refused"),
        ],
    ),
    panel(
        ("Bytes in the write-behind", Lines, "bytes", Always),
        "Of keys and values that wait.",
        &[("sum(metasrv_write_behind_bytes{@})", "bytes")],
    ),
    panel(
        ("Transactions of the write-behind", Lines, "ops", Always),
        "By outcome.",
        &[("sum by (outcome) (rate(metasrv_write_behind_transactions_total{@}[~]))", "{{outcome}}")],
    ),
    panel(
        ("Out of space", Lines, "none", Always),
        "1 where etcd refused the last write for want of space.",
        &[("metasrv_store_out_of_space{@}", "{{instance}}")],
    ),
];

const CALLS: &[Panel] = &[
    panel(
        ("Calls of operators and tools", Lines, "ops", Always),
        "Of the Admin and Operations services, by method and status.",
        &[("sum by (method, code) (rate(metasrv_admin_requests_total{@}[~]))", "{{method}}: {{code}}")],
    ),
    panel(
        ("Refused by certificates", Lines, "ops", Rarely),
        "Connections and calls, by the reason: docs/tls.md.",
        &[("sum by (reason) (rate(metasrv_tls_refused_total{@}[~]))", "{{reason}}")],
    ),
    panel(
        ("Watchers of routes", Lines, "none", Always),
        "Streams on which frontends follow the routes.",
        &[("metasrv_route_watchers{@}", "{{instance}}")],
    ),
    panel(
        ("Routes", Lines, "ops", Rarely),
        "Changes that replicas heard of; beginnings of streams, by how; times that the routes were read anew.",
        &[
            ("sum(rate(metasrv_route_changes_total{@}[~]))", "changes"),
            ("sum by (began) (rate(metasrv_route_watches_total{@}[~]))", "began: {{began}}"),
            ("sum by (reason) (rate(metasrv_route_board_restarts_total{@}[~]))", "read anew: {{reason}}"),
        ],
    ),
];
