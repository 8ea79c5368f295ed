//! What a client has to know before it can ask anybody anything, checked as a whole before the first connection.

use std::fmt;
use std::time::Duration;

use metasrv_proto::meta::Role;
use metasrv_tls::ClientTls;
use tonic::transport::Uri;

use crate::back_off::BackOff;
use crate::dialer::Dialer;

/// Everything a [`MetaClient`](crate::MetaClient) is made of.
#[derive(Clone, Debug)]
pub struct MetaClientConfig {
    /// Addresses of replicas, each `host:port`. Some are enough, all are better.
    pub peers: Vec<String>,
    /// What this node is.
    pub role: Role,
    /// Namespace of node ids.
    pub cluster_id: u64,
    /// Id of this node. 0 for frontends, which are given one by metasrv.
    pub member_id: u64,
    /// Identity of the installation this node belongs to, where it is known from an earlier run. 0: take the first
    /// one that is heard, and keep to it.
    pub installation: u64,
    /// How connections are secured: whose certificates are accepted, and which one is shown. `None`: they are plain.
    pub tls: Option<ClientTls>,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// When a silent connection counts as lost.
    pub keep_alive: KeepAlive,
    /// How long one replica is asked alone for the leader before the next one is asked too.
    pub stagger: Duration,
    /// Waits between attempts to find a leader.
    pub back_off: BackOff,
    /// Largest message, in bytes, in both directions. A heartbeat of a node with 100,000 regions takes some MiB.
    pub max_message_bytes: usize,
    /// How replicas are reached.
    pub dialer: Dialer,
}

impl MetaClientConfig {
    /// The defaults for a node of this role.
    pub fn new(
        peers: impl IntoIterator<Item = impl Into<String>>,
        role: Role,
        member_id: u64,
    ) -> MetaClientConfig {
        MetaClientConfig {
            peers: peers.into_iter().map(Into::into).collect(),
            role,
            cluster_id: 0,
            member_id,
            installation: 0,
            tls: None,
            timeouts: Timeouts::default(),
            keep_alive: KeepAlive::default(),
            stagger: Duration::from_millis(50),
            back_off: BackOff::default(),
            max_message_bytes: 16 << 20,
            dialer: Dialer::default(),
        }
    }

    /// Checks everything and reports every violation at once; returns the peers as `host:port`.
    pub(crate) fn validate(&self) -> Result<Vec<String>, ConfigError> {
        let mut violations = Vec::new();
        let mut peers = Vec::new();
        if self.peers.is_empty() {
            violations.push(Violation { field: "peers", rule: "at least one address is needed".to_owned() });
        }
        for peer in &self.peers {
            match parse_address(peer) {
                Ok(address) if peers.contains(&address) => {}
                Ok(address) => peers.push(address),
                Err(why) => violations.push(Violation { field: "peers", rule: format!("{peer:?} {why}") }),
            }
        }
        if self.role != Role::Frontend && self.member_id == 0 {
            violations.push(Violation { field: "member_id", rule: "0 is no id of a node".to_owned() });
        }
        let durations = [
            ("timeouts.connect", self.timeouts.connect),
            ("timeouts.ask", self.timeouts.ask),
            ("timeouts.handshake", self.timeouts.handshake),
            ("timeouts.response", self.timeouts.response),
            ("timeouts.send", self.timeouts.send),
            ("timeouts.admin", self.timeouts.admin),
            ("keep_alive.interval", self.keep_alive.interval),
            ("keep_alive.timeout", self.keep_alive.timeout),
        ];
        for (field, duration) in durations {
            if duration.is_zero() {
                violations.push(Violation { field, rule: "must be more than zero".to_owned() });
            }
        }
        if self.max_message_bytes < 1 << 16 {
            violations
                .push(Violation { field: "max_message_bytes", rule: "must be at least 65536".to_owned() });
        }
        if violations.is_empty() { Ok(peers) } else { Err(ConfigError { violations }) }
    }
}

/// Deadlines, each of one step, from its beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// Opening a TCP connection.
    pub connect: Duration,
    /// One replica's answer to `AskLeader`, connecting included.
    pub ask: Duration,
    /// From opening a stream to its first response, connecting included.
    pub handshake: Duration,
    /// From a heartbeat to its response. A leader that lets it pass is suspected: its stream stays open and still counts,
    /// and the other replicas are asked whether somebody leads in a higher term. At most half an interval counts, and it
    /// should be longer than a round trip to the farthest replica.
    pub response: Duration,
    /// Handing one request to the connection. It takes longer only where the peer does not read.
    pub send: Duration,
    /// An admin call, with all its attempts.
    pub admin: Duration,
}

impl Default for Timeouts {
    /// `response`: an answer takes a millisecond, and a quarter of a second while a thousand nodes come to a new leader at
    /// once; what is longer than both is no false alarm, and little beside an interval of a second.
    fn default() -> Timeouts {
        Timeouts {
            connect: Duration::from_secs(1),
            ask: Duration::from_secs(1),
            handshake: Duration::from_secs(2),
            response: Duration::from_millis(300),
            send: Duration::from_secs(1),
            admin: Duration::from_secs(15),
        }
    }
}

/// HTTP/2 keep-alive, on idle connections too. Without it, a peer that vanished without a reset is found by TCP after
/// a quarter of an hour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeepAlive {
    /// Time between two pings.
    pub interval: Duration,
    /// How long to wait for the answer to one.
    pub timeout: Duration,
}

impl Default for KeepAlive {
    /// A silent peer is found after 2.5 s at most: half of a region lease, so that another leader can still be found.
    fn default() -> KeepAlive {
        KeepAlive { interval: Duration::from_secs(1), timeout: Duration::from_millis(1500) }
    }
}

/// A configuration that cannot work.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}", list(.violations))]
pub struct ConfigError {
    /// Every violation that was found.
    pub violations: Vec<Violation>,
}

/// One field that breaks a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The field's name in [`MetaClientConfig`].
    pub field: &'static str,
    /// What is wrong with it.
    pub rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.rule)
    }
}

fn list(violations: &[Violation]) -> String {
    violations.iter().map(Violation::to_string).collect::<Vec<_>>().join("; ")
}

/// The `host:port` of an address, which may be written with `http://` in front. The error says what is wrong with it
/// and reads on after the address.
pub fn parse_address(address: &str) -> Result<String, String> {
    let bare = address.trim().strip_prefix("http://").unwrap_or(address.trim());
    if bare.contains("://") {
        return Err(
            "is not host:port: no scheme belongs before it; whether connections are secured, the settings of TLS say".to_owned()
        );
    }
    let uri: Uri = format!("http://{}", bare.trim_end_matches('/'))
        .parse()
        .map_err(|error| format!("is not host:port: {error}"))?;
    let authority = uri.authority().ok_or("is not host:port: there is no host")?;
    if authority.host().is_empty()
        || authority.as_str().contains('@')
        || uri.path() != "/"
        || uri.query().is_some()
    {
        return Err("is not host:port".to_owned());
    }
    match authority.port_u16() {
        None => Err("is not host:port: there is no port".to_owned()),
        Some(0) => Err("is not host:port: nobody listens on port 0".to_owned()),
        Some(_) => Ok(authority.as_str().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for (written, meant) in [
            ("127.0.0.1:3002", "127.0.0.1:3002"),
            ("http://meta-0.meta:3002/", "meta-0.meta:3002"),
            (" [::1]:3002 ", "[::1]:3002"),
        ] {
            assert_eq!(parse_address(written).as_deref(), Ok(meant));
        }
        for bad in [
            "",
            "localhost",
            "localhost:",
            ":3002",
            "a:b",
            "a:99999",
            "a:0",
            "https://a:1",
            "a:1/x",
            "u@a:1",
            "a b:1",
        ] {
            let why = parse_address(bad).expect_err(bad);
            assert!(why.starts_with("is not host:port"), "{bad}: {why}");
        }
    }

    #[test]
    fn every_violation_is_reported_at_once_and_names_its_field() {
        let mut config = MetaClientConfig::new(["a:1", "nonsense", "b"], Role::Datanode, 0);
        config.timeouts.ask = Duration::ZERO;
        let error = config.validate().expect_err("three mistakes");
        let fields: Vec<_> = error.violations.iter().map(|violation| violation.field).collect();
        assert_eq!(fields, ["peers", "peers", "member_id", "timeouts.ask"]);
        assert!(error.to_string().contains(r#"peers: "nonsense" is not host:port"#), "{error}");
        let nobody = MetaClientConfig::new(Vec::<String>::new(), Role::Frontend, 0).validate();
        assert_eq!(nobody.expect_err("no peers").violations[0].field, "peers");
    }

    #[test]
    fn a_peer_that_is_named_twice_is_asked_once() {
        let config = MetaClientConfig::new(["a:1", "http://a:1", "b:1"], Role::Frontend, 0);
        assert_eq!(config.validate().expect("valid"), ["a:1", "b:1"]);
    }

    #[test]
    fn no_text_makes_parsing_panic() {
        for a in (0_u8..=127).map(char::from) {
            for b in (0_u8..=127).map(char::from) {
                let _ = parse_address(&format!("{a}:{b}"));
                let _ = parse_address(&format!("{a}{b}:1"));
            }
        }
    }
}
