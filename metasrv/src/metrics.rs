//! Every metric of a replica, in one list.
//!
//! The list below is the only place where a metric gets its name, its labels and its HELP. Names follow Prometheus'
//! conventions: the prefix `metasrv_`, base units, `_total` for counters. A field is the name without prefix, unit
//! and `_total`. `docs/metrics.md` repeats the list for operators, and a test compares the two.

use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

/// From a tenth of a millisecond, what a heartbeat's handlers take, to five seconds, when every caller has given up.
const DURATIONS: [f64; 15] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

/// One metric as it is announced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Family {
    /// Its whole name.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it says, in a sentence.
    pub help: &'static str,
}

/// A kind of metric that can be made from its announcement.
trait Announced: Sized {
    const KIND: &'static str;
    fn make(family: &Family) -> Result<Self, prometheus::Error>;
    /// Makes it appear in the output before it was first used.
    #[cfg(test)]
    fn touch(&self, labels: &[&str]);
}

macro_rules! announced {
    ($kind:ident, $name:literal, |$family:ident| $make:expr, |$metric:ident, $labels:ident| $touch:expr) => {
        impl Announced for $kind {
            const KIND: &'static str = $name;
            fn make($family: &Family) -> Result<$kind, prometheus::Error> {
                $make
            }
            #[cfg(test)]
            fn touch(&self, $labels: &[&str]) {
                let $metric = self;
                $touch
            }
        }
    };
}

fn histogram(family: &Family) -> HistogramOpts {
    HistogramOpts::new(family.name, family.help).buckets(DURATIONS.to_vec())
}

announced!(IntCounter, "counter", |f| IntCounter::new(f.name, f.help), |m, _labels| m.inc());
announced!(IntGauge, "gauge", |f| IntGauge::new(f.name, f.help), |m, _labels| m.inc());
announced!(Gauge, "gauge", |f| Gauge::new(f.name, f.help), |m, _labels| m.inc());
announced!(Histogram, "histogram", |f| Histogram::with_opts(histogram(f)), |m, _labels| m.observe(0.1));
announced!(
    IntCounterVec,
    "counter",
    |f| IntCounterVec::new(Opts::new(f.name, f.help), f.labels),
    |m, labels| m.with_label_values(labels).inc()
);
announced!(IntGaugeVec, "gauge", |f| IntGaugeVec::new(Opts::new(f.name, f.help), f.labels), |m, labels| m
    .with_label_values(labels)
    .inc());
announced!(HistogramVec, "histogram", |f| HistogramVec::new(histogram(f), f.labels), |m, labels| m
    .with_label_values(labels)
    .observe(0.1));

macro_rules! metrics {
    ($($field:ident: $kind:ident [$($label:literal),*] $name:literal $help:literal;)*) => {
        /// The metrics of one replica.
        pub struct Metrics {
            /// What `/metrics` renders.
            pub registry: Registry,
            $(#[doc = $help] pub $field: $kind,)*
        }

        /// Every metric, in the order of `docs/metrics.md`.
        pub const FAMILIES: &[Family] = &[
            $(Family { name: $name, kind: <$kind as Announced>::KIND, labels: &[$($label),*], help: $help },)*
        ];

        impl Metrics {
            fn build() -> Result<Metrics, prometheus::Error> {
                let registry = Registry::new();
                let mut families = FAMILIES.iter();
                $(let $field = <$kind as Announced>::make(families.next().ok_or(prometheus::Error::AlreadyReg)?)?;
                registry.register(Box::new($field.clone()))?;)*
                Ok(Metrics { registry, $($field),* })
            }

            /// Makes every family appear in the output.
            #[cfg(test)]
            fn touch(&self) {
                $(self.$field.touch(&[$($label),*]);)*
            }
        }
    };
}

metrics! {
    build_info: IntGaugeVec ["version"] "metasrv_build_info"
        "Always 1; the label says which version runs.";
    ready: IntGauge [] "metasrv_ready"
        "1 while this replica is ready, as /readyz says it, else 0.";
    region_lists_wanted: IntCounter [] "metasrv_region_lists_wanted_total"
        "Heartbeats whose digest of regions did not fit to what was known, so that the node was asked for their list.";
    streams: IntGauge [] "metasrv_streams"
        "Heartbeat streams that are open.";
    pushers: IntGaugeVec ["role"] "metasrv_pushers"
        "Nodes that instructions can be pushed to, by their role.";
    heartbeats: IntCounterVec ["role", "result"] "metasrv_heartbeats_total"
        "Heartbeats answered, by the node's role and how it went.";
    heartbeat_duration: Histogram [] "metasrv_heartbeat_duration_seconds"
        "Time that the line of handlers takes for one heartbeat.";
    heartbeat_interval: Gauge [] "metasrv_heartbeat_interval_seconds"
        "The interval that this replica tells nodes as the leader; longer than configured where the fleet is larger than that is meant for.";
    heartbeat_refused: IntCounterVec ["reason"] "metasrv_heartbeat_refused_total"
        "Heartbeat streams ended because of what the node sent, by the reason.";
    leader: IntGauge [] "metasrv_leader"
        "1 while this replica leads, else 0.";
    term: IntGauge [] "metasrv_term"
        "The last term that this replica led; 0 if it never did.";
    elections: IntCounterVec ["outcome"] "metasrv_elections_total"
        "Campaigns of this replica that came to an end, by how they ended.";
    step_downs: IntCounterVec ["reason"] "metasrv_step_downs_total"
        "Times that this replica gave leadership up, by the reason.";
    renewals_withheld: IntCounter [] "metasrv_renewals_withheld_total"
        "Renewals of the election lease that were due and not sent, because no probe heartbeat had come back.";
    depositions: IntCounterVec ["evidence"] "metasrv_depositions_total"
        "Leaders whose lease this replica revoked: their process was gone, or a majority heard nothing of them.";
    takeovers: IntCounterVec ["state"] "metasrv_takeovers_total"
        "Terms that this replica raised, by where it had the state from: its mirror, or a list.";
    takeover_duration: Histogram [] "metasrv_takeover_duration_seconds"
        "Time from the reading back of an election's win until this replica leads.";
    mirror_revision: IntGauge [] "metasrv_mirror_revision"
        "The store's revision that this replica's mirror stands at; 0 while it holds nothing.";
    mirror_age: IntGauge [] "metasrv_mirror_age_seconds"
        "Whole seconds since the mirror was last known to be what the store has.";
    mirror_restarts: IntCounterVec ["reason"] "metasrv_mirror_restarts_total"
        "Times that the mirror was read anew, by the reason.";
    route_watchers: IntGauge [] "metasrv_route_watchers"
        "Streams on which the changes of routes are watched.";
    route_watches: IntCounterVec ["began"] "metasrv_route_watches_total"
        "Beginnings on such streams: resumed, with a snapshot, with another snapshot later, or refused.";
    route_changes: IntCounter [] "metasrv_route_changes_total"
        "Changes of routes that this replica has heard of.";
    route_board_revision: IntGauge [] "metasrv_route_board_revision"
        "The store's revision that this replica tells the watchers of routes; 0 while it knows nothing.";
    route_board_restarts: IntCounterVec ["reason"] "metasrv_route_board_restarts_total"
        "Times that the routes were read anew for their watchers, by the reason.";
    nodes: IntGaugeVec ["health"] "metasrv_nodes"
        "Datanodes by their health, as the leader sees them; lost ones count while they hold regions.";
    regions: IntGauge [] "metasrv_regions"
        "Regions that have a route, as the leader knows them.";
    region_grants: IntCounter [] "metasrv_region_grants_total"
        "Region leases granted or renewed.";
    regions_closeable: IntCounter [] "metasrv_regions_closeable_total"
        "Regions reported by a node that no route gives to it, each time they were reported.";
    regions_waiting: IntGauge [] "metasrv_regions_waiting"
        "Regions of nodes that are gone, which wait for another node.";
    failovers_held: IntGaugeVec ["why"] "metasrv_failovers_held"
        "1 while automatic failovers stand still, by the reason, else 0.";
    failovers: IntCounter [] "metasrv_region_failovers_total"
        "Regions of lost nodes that were given to another one.";
    instructions: IntCounterVec ["action", "outcome"] "metasrv_instructions_total"
        "Instructions to datanodes, by what they ask for and what became of them.";
    mailbox_messages: IntCounterVec ["outcome"] "metasrv_mailbox_messages_total"
        "Replies to mailbox messages, by whether somebody waited for them.";
    fenced_writes: IntCounterVec ["outcome"] "metasrv_fenced_writes_total"
        "Transactions that only the leader may write, by their outcome.";
    write_behind_keys: IntGauge [] "metasrv_write_behind_keys"
        "Keys that wait to be written behind.";
    write_behind_bytes: IntGauge [] "metasrv_write_behind_bytes"
        "Bytes of the keys and values that wait to be written behind.";
    write_behind_transactions: IntCounterVec ["outcome"] "metasrv_write_behind_transactions_total"
        "Transactions of the write-behind, by their outcome.";
    write_behind_lag_seconds: Histogram [] "metasrv_write_behind_lag_seconds"
        "Time from a record's arrival in the write-behind to its commit, of the oldest record in each transaction.";
    write_behind_refused: IntCounter [] "metasrv_write_behind_refused_total"
        "Records that the write-behind did not take because it was full.";
    procedures: IntGaugeVec ["kind"] "metasrv_procedures"
        "Migrations and drains at work, as the leader knows them.";
    migrations: IntCounterVec ["outcome"] "metasrv_migrations_total"
        "Migrations that ended in this leader's term, by their outcome.";
    migration_stopped: Histogram [] "metasrv_migration_stopped_seconds"
        "Time from the stored decision that a region's node stops writing to the commit of its new route.";
    store_out_of_space: IntGauge [] "metasrv_store_out_of_space"
        "1 if the store refused this replica's last write for want of space, else 0.";
    etcd_requests: IntCounterVec ["operation", "outcome"] "metasrv_etcd_requests_total"
        "Requests to etcd, by operation and outcome.";
    etcd_request_duration: HistogramVec ["operation"] "metasrv_etcd_request_duration_seconds"
        "Time that requests to etcd take, by operation.";
    tls_refused: IntCounterVec ["reason"] "metasrv_tls_refused_total"
        "Connections and calls refused because of their certificate, by the reason.";
    tls_certificate_expiry: IntGauge [] "metasrv_tls_certificate_expiry_timestamp_seconds"
        "When this replica's own certificate ends, in seconds since 1970; 0 without TLS.";
    admin_requests: IntCounterVec ["method", "code"] "metasrv_admin_requests_total"
        "Calls of the Admin and Operations services, by method and gRPC status.";
}

impl Metrics {
    /// All metrics, registered, at zero.
    pub fn new() -> Metrics {
        // It could fail only over a name that is malformed or used twice in the list above; the tests make them all.
        #[allow(clippy::expect_used)]
        let metrics = Metrics::build().expect("the list of metrics is sound");
        metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        metrics
    }

    /// The text that Prometheus reads. A family without a sample is announced all the same: what there is can be read off
    /// any replica.
    ///
    /// # Errors
    /// What the encoder says.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let gathered = self.registry.gather();
        let mut text = Vec::new();
        TextEncoder::new().encode(&gathered, &mut text)?;
        for Family { name, kind, help, .. } in FAMILIES {
            if !gathered.iter().any(|family| family.name() == *name) {
                text.extend_from_slice(format!("# HELP {name} {help}\n# TYPE {name} {kind}\n").as_bytes());
            }
        }
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn rendered() -> String {
        let metrics = Metrics::new();
        metrics.touch();
        String::from_utf8(metrics.render().unwrap()).unwrap()
    }

    #[test]
    fn every_family_is_rendered_with_help_and_type_before_its_first_use_and_after() {
        let unused = String::from_utf8(Metrics::new().render().unwrap()).unwrap();
        for text in [unused, rendered()] {
            every_family_is_in(&text);
        }
    }

    fn every_family_is_in(text: &str) {
        for family in FAMILIES {
            assert!(text.contains(&format!("# HELP {} {}\n", family.name, family.help)), "{}", family.name);
            assert!(text.contains(&format!("# TYPE {} {}\n", family.name, family.kind)), "{}", family.name);
        }
        assert_eq!(text.matches("# HELP ").count(), FAMILIES.len());
    }

    #[test]
    fn names_follow_the_conventions() {
        for Family { name, kind, labels, help } in FAMILIES {
            let plain = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            assert!(name.starts_with("metasrv_") && plain(name), "{name}");
            assert_eq!(
                name.ends_with("_total"),
                *kind == "counter",
                "{name}: _total is for counters, all of them"
            );
            assert!(*kind != "histogram" || name.ends_with("_seconds"), "{name}: durations are in seconds");
            assert!(labels.iter().all(|label| plain(label) && *label != "le"), "{name}");
            assert!(help.ends_with('.') && !help.contains('\n'), "{name}: HELP is a sentence");
            for unit in ["_ms", "_millis", "_milliseconds", "_kilobytes", "_count", "_sum", "_bucket"] {
                assert!(!name.ends_with(unit), "{name}: {unit} is no base unit, or means something else");
            }
        }
        assert_eq!(FAMILIES.iter().map(|family| family.name).collect::<BTreeSet<_>>().len(), FAMILIES.len());
    }

    #[test]
    fn the_page_for_operators_lists_the_same() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        let page = std::fs::read_to_string(page).unwrap();
        let listed: Vec<&str> = page.lines().filter(|line| line.starts_with("| `metasrv_")).collect();
        let expected: Vec<String> = FAMILIES
            .iter()
            .map(|Family { name, kind, labels, help }| {
                let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
                format!("| `{name}` | {kind} | {} | {help} |", labels.join(", "))
            })
            .collect();
        assert_eq!(listed, expected, "docs/metrics.md should list:\n{}", expected.join("\n"));
    }
}
